"""The loop in one process: it learns, resumes bit for bit, stops before a bad update and keeps its logs straight."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.small import small_dataset, small_recipe
from unveil.model.denoiser import cross_entropy
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.network.late import LateQueries
from unveil.training import trainer
from unveil.training.config import Recipe
from unveil.training.evaluation.likelihood import as_rows, log_likelihood
from unveil.training.run.checkpoint import find_checkpoint
from unveil.training.run.devices import make_fabric
from unveil.training.step.training_model import TrainingModule
from unveil.training.trainer import Trained, train

DATASET = small_dataset()


def _train(recipe: Recipe, work: Path) -> Trained:
    trained = train(recipe, DATASET, work=work)
    assert trained is not None
    return trained


def _log(work: Path) -> list[dict[str, float | str]]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def _assert_same_weights(a: Network, b: Network) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_training_learns_what_the_columns_have_to_do_with_each_other(tmp_path: Path) -> None:
    recipe = small_recipe(
        "optimizer.steps=300", "optimizer.learning_rate=0.01", "model.dropout=0.0", "advanced.run.validate_every=300"
    )
    trained = _train(recipe, tmp_path)
    rows = as_rows(DATASET.test)
    reached = -float(log_likelihood(trained.denoiser, rows, [0, 1, 2, 3]).mean())
    marginals = sum(
        float(-torch.bincount(column).double().div(len(rows)).clamp(min=1e-9).log()[column].mean())
        for column in rows.x.T
    )
    # a has 2 bits, b and c follow from it but for a tenth of b, and d is a's decade plus noise in at most 8 bins.
    assert reached < 0.75 * marginals
    assert trained.summary["row_forwards"] == 300 * 32


@pytest.mark.parametrize("query_layers", [0, 1])
def test_n_steps_are_k_steps_and_a_resume_bit_for_bit(tmp_path: Path, query_layers: int) -> None:
    order = (
        "order.method=global",
        "advanced.order.warmup=0.2",
        "advanced.order.anneal=0.2",
        "advanced.order.searches=[0.75]",  # at step 9
        "advanced.optimizer.accumulate=2",
        f"advanced.model.query_layers={query_layers}",
    )
    whole = _train(small_recipe(*order), tmp_path / "whole")
    _train(small_recipe(*order), tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "step-00000012")  # as if killed between step 8 and 12
    resumed = _train(small_recipe(*order), tmp_path / "parts")
    _assert_same_weights(whole.denoiser, resumed.denoiser)
    states = [
        torch.load(tmp_path / d / "checkpoints/step-00000012/state", weights_only=True) for d in ("whole", "parts")
    ]
    assert states[0].keys() == states[1].keys() == {"module", "optimizer", "muon"}
    for name, tensor in states[0]["module"].items():
        assert torch.equal(tensor, states[1]["module"][name]), name
    for name in ("optimizer", "muon"):
        for a, b in zip(states[0][name]["state"].values(), states[1][name]["state"].values(), strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a)
    losses = [[line["loss"] for line in _log(tmp_path / d) if line["kind"] == "train"] for d in ("whole", "parts")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_checkpoints_are_pruned_and_torn_ones_are_never_found(tmp_path: Path) -> None:
    _train(small_recipe("advanced.run.keep_checkpoints=2"), tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000008", "step-00000012"]
    (folder / ".writing-00000016").mkdir()
    found = find_checkpoint(folder)
    assert found is not None
    assert found.step == 12
    (folder / "step-00000012" / "meta.json").unlink()
    with pytest.raises(UnveilError, match="step-00000012: damaged; remove it"):
        find_checkpoint(folder)


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda _: b"", lambda _: b"<html>"])
def test_a_damaged_state_gets_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    _train(small_recipe(), tmp_path)
    state = tmp_path / "checkpoints" / "step-00000012" / "state"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(UnveilError, match="step-00000012: damaged; remove it"):
        train(small_recipe(), DATASET, work=tmp_path)


def test_checkpoints_of_another_recipe_are_refused_and_kept(tmp_path: Path) -> None:
    _train(small_recipe(), tmp_path)
    with pytest.raises(UnveilError, match="holds checkpoints of another recipe"):
        train(small_recipe("optimizer.steps=13"), DATASET, work=tmp_path)
    with pytest.raises(UnveilError, match="holds checkpoints of another data"):
        train(small_recipe(), small_dataset(480), work=tmp_path)
    assert find_checkpoint(tmp_path / "checkpoints") is not None
    _train(small_recipe("advanced.run.log_every=5"), tmp_path)  # how it runs may change


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe("order.method=uniform")  # asks nothing but each position in its turn
    answers, calls = LateQueries.in_turn, []

    def breaks_at_the_tenth_step(self: LateQueries, *args: torch.Tensor) -> torch.Tensor:
        if self.training:
            calls.append(1)
        return answers(self, *args) * (torch.nan if len(calls) == 10 else 1.0)

    monkeypatch.setattr(LateQueries, "in_turn", breaks_at_the_tenth_step)
    with pytest.raises(UnveilError, match="the loss is not finite at step 9; the update was not made"):
        train(recipe, DATASET, work=tmp_path)
    monkeypatch.undo()
    clean = _train(recipe, tmp_path / "clean")
    _assert_same_weights(_train(recipe, tmp_path).denoiser, clean.denoiser)


def test_accumulated_parts_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    settings = ("model.dropout=0.0", "optimizer.steps=4")
    losses = []
    for parts in (1, 4):
        _train(small_recipe(*settings, f"advanced.optimizer.accumulate={parts}"), tmp_path / str(parts))
        losses.append([line["loss"] for line in _log(tmp_path / str(parts)) if line["kind"] == "train"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_log_has_what_order_learning_must_be_watched_by(tmp_path: Path) -> None:
    _train(small_recipe("advanced.order.warmup=0.0"), tmp_path)
    lines = _log(tmp_path)
    train_lines = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train_lines] == list(range(1, 13))
    for name in ("loss", "order_entropy", "log_w_span", "uniform_share", "gradient_norm", "effective_orders_log10"):
        assert all(isinstance(line[name], float) for line in train_lines), name
    assert train_lines[-1]["log_w_span"] > 0  # type: ignore[operator]
    assert train_lines[-1]["order_gradient_noise"] > 0  # type: ignore[operator]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [6, 12]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_the_orders_weights_rest_during_the_warm_up(tmp_path: Path) -> None:
    _train(small_recipe("advanced.order.warmup=0.5", "advanced.order.anneal=0.0"), tmp_path)
    spans = [line["log_w_span"] for line in _log(tmp_path) if line["kind"] == "train"]
    assert spans[:6] == [0.0] * 6
    assert all(span > 0 for span in spans[6:])  # type: ignore[operator]


@pytest.mark.parametrize("method", ["uniform", "fixed", "global"])
def test_every_arm_trains(tmp_path: Path, method: str) -> None:
    positions = ("order.positions=[3,1,0,2]",) if method == "fixed" else ()
    trained = _train(small_recipe(f"order.method={method}", *positions), tmp_path)
    log_w = trained.denoiser.order_head.global_log_w()
    if method == "fixed":
        assert log_w.argsort(descending=True).tolist() == [3, 1, 0, 2]
    if method == "uniform":
        assert not log_w.any()


@pytest.mark.parametrize("query_layers", [0, 1])
@pytest.mark.parametrize("kind", ["uniform", "fixed", "global"])
def test_every_arm_learns_from_prefixes_and_from_whole_orders(tmp_path: Path, kind: str, query_layers: int) -> None:
    fixed = ("order.positions=[3,1,0,2]",) if kind == "fixed" else ()
    network = ("model.dropout=0.0", f"advanced.model.query_layers={query_layers}")
    steps = ("optimizer.steps=150", "optimizer.learning_rate=0.01")
    trained = _train(small_recipe(f"order.method={kind}", *fixed, *network, *steps), tmp_path)
    nats = [float(line["nelbo"]) for line in _log(tmp_path) if line["kind"] == "validation"]
    assert nats[-1] < nats[0] - 0.5, nats
    taught = [line for line in _log(tmp_path) if line["kind"] == "train"]
    assert ("critic_error" in taught[-1]) == (kind == "global")
    assert trained.denoiser.reads_ranks == (query_layers > 0)
    if kind == "global":
        assert bool(trained.denoiser.order_head.global_log_w().any())


def test_what_is_validated_while_whole_orders_are_trained_is_what_is_served_along_them(tmp_path: Path) -> None:
    order = ("order.method=fixed", "order.positions=[3, 1, 0, 2]")
    trained = _train(small_recipe(*order, "optimizer.steps=60", "optimizer.learning_rate=0.03"), tmp_path)
    found = [float(line["negative_log_likelihood"]) for line in _log(tmp_path) if line["kind"] == "validation"][-1]
    rows, nats = as_rows(DATASET.validation), 0.0
    hidden, ranks = torch.ones_like(rows.x, dtype=torch.bool), torch.zeros_like(rows.x)
    with torch.inference_mode():
        for turn, position in enumerate([3, 1, 0, 2], start=1):  # as it is served: a position a forward
            now = ranks.masked_fill(hidden, turn)
            logits = trained.denoiser.predict_now(rows.x, hidden, rows.lengths, now).token_logits
            nats += float(cross_entropy(logits, rows.x)[:, position].double().mean())
            hidden[:, position], ranks[:, position] = False, turn
    assert found == pytest.approx(nats, abs=1e-5)


def test_bf16_trains_too(tmp_path: Path) -> None:
    _train(small_recipe("run.precision=bf16-mixed"), tmp_path)
    losses = [line["loss"] for line in _log(tmp_path) if line["kind"] == "train"]
    assert all(0 < loss < 100 for loss in losses)  # type: ignore[operator]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="compiling needs a C compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own doings
def test_compiled_blocks_give_the_same_losses(tmp_path: Path) -> None:
    losses = []
    for choice in ("false", "true"):
        _train(
            small_recipe(f"advanced.run.compile={choice}", "model.dropout=0.0", "optimizer.steps=4"), tmp_path / choice
        )
        losses.append([line["loss"] for line in _log(tmp_path / choice) if line["kind"] == "train"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_averaged_weights_follow_the_trained_ones() -> None:
    recipe = small_recipe()
    fabric = make_fabric(recipe.run)
    run = trainer.Run(fabric, recipe, DATASET, Path("unused"))
    module: TrainingModule = run.unwrapped
    before = [p.clone() for p in module.average.parameters()]
    with torch.no_grad():
        for p in module.denoiser.parameters():
            p.add_(1.0)
    module.update_ema(0.75)
    for old, new in zip(before, module.average.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_rows_too_long_for_a_critic_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "MAX_LENGTH", 3)
    with pytest.raises(UnveilError, match=r"order.method: global orders are learned for at most 3 positions, not 4"):
        train(small_recipe(), DATASET, work=tmp_path)
    assert train(small_recipe("order.method=uniform"), DATASET, work=tmp_path) is not None


def test_what_this_machine_does_not_have_is_refused(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UnveilError, match="this machine has no CUDA device"):
            train(small_recipe("advanced.run.accelerator=cuda"), DATASET, work=tmp_path)
    with pytest.raises(UnveilError, match="fsdp needs several processes"):
        train(small_recipe("advanced.run.strategy=fsdp"), DATASET, work=tmp_path)
