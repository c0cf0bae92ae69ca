"""Sudoku from puzzles to an artifact, in the small: clues stay, every loop is trained, the order is learned."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.data.sudoku.examples import pool
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.errors import UnveilError
from unveil.model.loss.objective import even_loss, order_form
from unveil.model.network.base import Network
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.training.config import Recipe, build_recipe
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import split_rows
from unveil.training.data.sudoku.sudoku import shuffle_puzzles
from unveil.training.evaluation.likelihood import known_sets, law_walk, policy_walk
from unveil.training.evaluation.report import evaluate_model, num_row_forwards
from unveil.training.publishing.card import write_card
from unveil.training.publishing.order_account import describe_order
from unveil.training.step.batches import draw_batch
from unveil.training.step.stepper import _with_depths
from unveil.training.step.training_model import TrainingModule
from unveil.training.trainer import Trained, train


def grid_dataset() -> Dataset:
    solutions, clues = pool()
    rows = solutions.astype("int64") - 1
    cuts = {"train": slice(0, 16), "validation": slice(16, 20), "test": slice(20, 24)}
    return Dataset(
        name="grids",
        tokenizer=GridTokenizer(),
        train=rows[cuts["train"]],
        validation=rows[cuts["validation"]],
        test=rows[cuts["test"]],
        known={name: clues[cut] for name, cut in cuts.items()},
        symmetries=shuffle_puzzles,
        summary={"source": "made"},
    )


DATASET = grid_dataset()


def grid_recipe(*overrides: str) -> Recipe:
    fields: dict[str, Any] = {
        "name": "grids",
        "data": {"kind": "sudoku"},
        "model": {"width": 8, "layers": 1, "mlp_width": 12, "dropout": 0.0},
        "order": {"method": "uniform"},
        "prompts": {"share": 0.0},
        "optimizer": {"steps": 4, "batch_size": 8},
        "run": {"precision": "32-true", "threads": 1},
        "advanced": {
            "model": {"num_loops": 2},
            "optimizer": {"warmup_steps": 1},
            "run": {"validate_every": 4, "validate_rows": 2, "checkpoint_every": 2},
        },
    }
    return build_recipe(fields, overrides=overrides, source="grids")


NEXT_COST = ("order.method=next_cost", "advanced.order.stride=9")


def _train(recipe: Recipe, work: Path) -> Trained:
    trained = train(recipe, DATASET, work=work)
    assert trained is not None
    return trained


def _assert_same_weights(a: Network, b: Network) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grids")
    trained = _train(grid_recipe(), folder / "run")
    out = folder / "denoiser"
    save_artifact(out, denoiser=trained.denoiser, tokenizer=DATASET.tokenizer, training={}, metrics={}, card="")
    return out


def test_the_clues_are_always_shown_and_a_batch_is_a_function_of_its_step() -> None:
    rows, recipe = split_rows(DATASET, "train"), grid_recipe()
    batch, again, next_one = (draw_batch(rows, recipe, step=step, symmetries=DATASET.symmetries) for step in (3, 3, 4))
    assert batch.rows.clues is not None
    assert torch.equal(batch.rows.x, again.rows.x)
    assert not torch.equal(batch.rows.x, next_one.rows.x)
    assert torch.equal(batch.draws.known, batch.rows.clues)
    assert not batch.draws.prompted.any()
    hidden = batch.draws.under(torch.zeros(81)).hidden
    assert not (hidden & batch.rows.clues).any()


def test_a_random_prompt_never_takes_all_that_is_hidden() -> None:
    rows = split_rows(DATASET, "train")
    assert rows.clues is not None
    known = known_sets(rows, seed=0)
    assert not (known & rows.clues).any()
    assert (~(known | rows.clues)).any(-1).all()


def test_steps_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = _train(grid_recipe(), tmp_path / "whole")
    _train(grid_recipe(), tmp_path / "parts")
    for newest in sorted((tmp_path / "parts" / "checkpoints").glob("step-*"))[1:]:
        for file in newest.rglob("*"):
            file.unlink()
        newest.rmdir()
    _assert_same_weights(_train(grid_recipe(), tmp_path / "parts").denoiser, whole.denoiser)


def test_longer_loops_go_on_from_an_artifact_and_are_resumed_bit_for_bit(denoiser: Path, tmp_path: Path) -> None:
    longer = (
        f"start.artifact={denoiser}",
        "advanced.model.num_loops=7",
        "advanced.optimizer.backward_loops=2",
        "advanced.order.bare=0.5",
    )
    assert load_artifact(denoiser).denoiser.architecture.num_loops == 2
    whole = _train(grid_recipe(*longer), tmp_path / "whole")
    assert whole.denoiser.architecture.num_loops == 7
    _train(grid_recipe(*longer), tmp_path / "parts")
    newest = sorted((tmp_path / "parts" / "checkpoints").glob("step-*"))[-1]
    for file in newest.rglob("*"):
        file.unlink()
    newest.rmdir()
    _assert_same_weights(_train(grid_recipe(*longer), tmp_path / "parts").denoiser, whole.denoiser)
    uncut = _train(grid_recipe(longer[0], longer[1], longer[3]), tmp_path / "uncut").denoiser
    assert any(not torch.equal(a, b) for a, b in zip(uncut.parameters(), whole.denoiser.parameters(), strict=True))


@pytest.mark.parametrize("num_loops", [1, 3])
def test_gradients_cannot_go_back_through_more_loops_than_there_are(tmp_path: Path, num_loops: int) -> None:
    recipe = grid_recipe(f"advanced.model.num_loops={num_loops}", "advanced.optimizer.backward_loops=3")
    with pytest.raises(
        UnveilError,
        match=rf"backward_loops: must be less than advanced.model.num_loops, .* which are {num_loops}",
    ):
        train(recipe, DATASET, work=tmp_path)


def test_a_frozen_denoiser_is_asked_as_it_is_served(denoiser: Path) -> None:
    network = load_artifact(denoiser).denoiser
    rows = split_rows(DATASET, "train")
    assert rows.clues is not None
    hidden = ~rows.clues[:4]
    asked = [TrainingModule(network, marginals=torch.zeros(1, 9), is_frozen=f).train() for f in (True, False)]
    frozen, trained = (module(rows.x[:4].long(), hidden, rows.lengths[:4]) for module in asked)
    assert (len(frozen.earlier), len(trained.earlier)) == (0, 1)


def test_other_loops_are_another_run(denoiser: Path, tmp_path: Path) -> None:
    """One loop is what a recipe without a [model] has too; but here it is given."""
    start = f"start.artifact={denoiser}"
    fields = grid_recipe(start).model_dump(mode="json", exclude_unset=True)
    del fields["model"], fields["advanced"]["model"]
    one_loop = {**fields, "advanced": {**fields["advanced"], "model": {"num_loops": 1}}}
    given, not_given = (build_recipe(each, source="grids") for each in (one_loop, fields))
    assert given.fingerprint() == not_given.fingerprint()
    assert _train(given, tmp_path).denoiser.architecture.num_loops == 1
    with pytest.raises(UnveilError, match="holds checkpoints of another model"):
        train(not_given, DATASET, work=tmp_path)
    frozen = grid_recipe(start, "start.freeze_denoiser=true", "order.method=global", "advanced.model.num_loops=3")
    with pytest.raises(UnveilError, match=r"model\.num_loops: 3, but start.artifact has 2; leave it out"):
        train(frozen, DATASET, work=tmp_path / "frozen")


def test_every_loop_is_trained_and_the_loss_reads_as_the_last_ones() -> None:
    rows, recipe = split_rows(DATASET, "train"), grid_recipe()
    prefixes = draw_batch(rows, recipe, step=0).draws.under(torch.zeros(81))
    early, last = (torch.rand(8, 81, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = order_form(last, prefixes, log_w=torch.zeros(81))
    torch.testing.assert_close(even_loss(last, prefixes), loss.row_nelbos)
    deep = _with_depths(loss, [early], prefixes)
    assert float(deep.total.detach()) == pytest.approx(float(loss.total.detach()))
    deep.total.backward()  # type: ignore[no-untyped-call]
    assert early.grad is not None
    assert last.grad is not None
    torch.testing.assert_close(early.grad, last.grad)
    assert (early.grad[prefixes.hidden] > 0).all()
    assert (early.grad[~prefixes.hidden] == 0).all()


def test_the_next_cost_is_learned_for_a_frozen_denoiser_and_resumed_bit_for_bit(denoiser: Path, tmp_path: Path) -> None:
    recipe = grid_recipe(*NEXT_COST, f"start.artifact={denoiser}")
    whole = _train(recipe, tmp_path / "whole")
    _train(recipe, tmp_path / "parts")
    newest = sorted((tmp_path / "parts" / "checkpoints").glob("step-*"))[-1]
    for file in newest.rglob("*"):
        file.unlink()
    newest.rmdir()
    _assert_same_weights(_train(recipe, tmp_path / "parts").denoiser, whole.denoiser)
    before, after = load_artifact(denoiser).denoiser.state_dict(), whole.denoiser.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if not name.startswith("order_head"))


@torch.inference_mode()
def test_a_walk_is_solved_if_and_only_if_every_likeliest_digit_is_right(denoiser: Path) -> None:
    network, rows = load_artifact(denoiser).denoiser, split_rows(DATASET, "test")
    walk = policy_walk(network, rows, "margin")
    assert not walk.is_solved.any(), "hardly trained"
    assert rows.clues is not None
    assert ((walk.order >= 0).sum(-1) == (~rows.clues).sum(-1)).all()
    nearly = split_rows(DATASET, "test")
    clues = torch.ones_like(rows.clues)
    clues[:, 40] = False
    single = law_walk(network, type(nearly)(nearly.x, nearly.lengths, clues), torch.zeros(81), seed=0)
    hidden = ~clues
    logits = network(nearly.x.masked_fill(hidden, 0), hidden, nearly.lengths).token_logits[:, 40]
    assert torch.equal(single.is_solved, logits.argmax(-1) == nearly.x[:, 40])


@pytest.mark.parametrize("kind", ["uniform", "contextual"])
def test_metrics_card_and_order_of_a_grid(denoiser: Path, tmp_path: Path, kind: str) -> None:
    recipe = grid_recipe()
    network = load_artifact(denoiser).denoiser
    if kind == "contextual":
        recipe = grid_recipe(*NEXT_COST, f"start.artifact={denoiser}")
        network = _train(recipe, tmp_path).denoiser
    told: list[int] = []
    metrics = evaluate_model(network, DATASET, limit=2, advance=told.append)
    assert sum(told) == num_row_forwards(network, DATASET, split="test", limit=2)
    names = {"learned"} if kind == "contextual" else set()
    assert set(metrics["solved"]) == {"confidence", "margin", "uniform"} | names
    account = describe_order(network, DATASET.tokenizer, name="grids")
    assert account.draw().startswith(b"<?xml")
    if kind == "contextual":
        assert len(account.value["order"]) == 51
        assert "step that" in account.words
    card = write_card(
        recipe,
        data=DATASET.summary,
        metrics=metrics,
        training={"steps": 4, "row_forwards": 32, "seed": 0, "torch": "2"},
        order_words=account.words,
        num_parameters=network.num_parameters,
        recipe_text="",
    )
    assert "share of puzzles solved" in card
    assert "Not a solver" in card
