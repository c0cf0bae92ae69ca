"""Starting from an artifact: its network, its tokenizer, and with a frozen denoiser its very weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.small import small_dataset, small_recipe
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.network.architecture import Architecture
from unveil.model.network.base import Network
from unveil.model.network.order_heads import Reading
from unveil.model.network.transformer import Transformer
from unveil.training.config import build_recipe
from unveil.training.run.warm_start import load_start, make_denoiser
from unveil.training.trainer import row_forwards, train

DATASET = small_dataset()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    trained = train(small_recipe("order.method=uniform"), DATASET, work=folder / "run")
    assert trained is not None
    out = folder / "uniform"
    save_artifact(out, denoiser=trained.denoiser, tokenizer=DATASET.tokenizer, training={}, metrics={}, card="")
    return out


NEXT_COST = ("order.method=next_cost",)


@pytest.mark.parametrize("method", ["global", "next_cost"])
def test_a_frozen_denoiser_stays_as_it_is_and_gets_an_order(artifact: Path, tmp_path: Path, method: str) -> None:
    recipe = small_recipe(f"order.method={method}", f"start.artifact={artifact}", "start.freeze_denoiser=true")
    shares = [recipe.order.uniform_share(progress) for progress in (0.0, 1.0)]
    assert shares == pytest.approx([1.0, 0.1] if method == "global" else [0.0, 0.0])  # a critic needs uniform orders
    trained = train(recipe, DATASET, work=tmp_path)
    assert trained is not None
    before, after = load_artifact(artifact).denoiser.state_dict(), trained.denoiser.state_dict()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert method == "next_cost" or trained.denoiser.order_head.log_w.abs().sum() > 0


def test_all_of_it_trains_on_unless_it_is_frozen(artifact: Path, tmp_path: Path) -> None:
    trained = train(small_recipe(f"start.artifact={artifact}"), DATASET, work=tmp_path)
    assert trained is not None
    before = load_artifact(artifact).denoiser.state_dict()
    assert any(not torch.equal(trained.denoiser.state_dict()[name], tensor) for name, tensor in before.items())


def test_an_order_that_is_walked_freezes_the_denoiser_and_explores_as_the_recipe_says(artifact: Path) -> None:
    recipe = small_recipe(f"start.artifact={artifact}", *NEXT_COST, "advanced.order.exploration=0.2")
    assert recipe.is_frozen
    assert recipe.order.uniform_share(0.0) == pytest.approx(0.2)


def test_another_network_or_another_table_is_refused_by_name(artifact: Path) -> None:
    with pytest.raises(UnveilError, match=r"model.width: 32, but start.artifact has 16; leave it out"):
        load_start(small_recipe(f"start.artifact={artifact}", "model.width=32"), DATASET)
    with pytest.raises(ArtifactError, match="its tokenizer is not that of small"):
        load_start(small_recipe(f"start.artifact={artifact}"), small_dataset(60))
    with pytest.raises(ArtifactError, match="no such artifact folder"):
        load_start(small_recipe(f"start.artifact={artifact}-not"), DATASET)


FORCED = "optimizer.teacher_forcing=true"


def test_whole_orders_are_not_taught_to_a_network_that_attends_to_all(artifact: Path) -> None:
    with pytest.raises(UnveilError, match=r'needs a network that attends to "visible" or "earlier"; start\.artifact d'):
        load_start(small_recipe(f"start.artifact={artifact}", FORCED), DATASET)


@pytest.fixture(scope="module")
def visible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("visible"), "order.method=uniform", "advanced.model.attends=visible")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("earlier"), FORCED)


def _trained(folder: Path, *overrides: str) -> Path:
    trained = train(small_recipe(*overrides), DATASET, work=folder / "run")
    assert trained is not None
    out = folder / "artifact"
    save_artifact(out, denoiser=trained.denoiser, tokenizer=DATASET.tokenizer, training={}, metrics={}, card="")
    return out


def _attends(denoiser: Network) -> str:
    assert isinstance(denoiser.architecture, Architecture)
    return denoiser.architecture.attends


@pytest.mark.parametrize("start", ["visible", "earlier"])
@pytest.mark.parametrize("given", [(), ("advanced.model.attends=earlier",)], ids=["left out", "given"])
def test_whole_orders_are_taught_to_the_weights_of_what_attends_to_the_visible_or_to_the_earlier(
    request: pytest.FixtureRequest, tmp_path: Path, start: str, given: tuple[str, ...]
) -> None:
    folder: Path = request.getfixturevalue(start)
    recipe = small_recipe(f"start.artifact={folder}", FORCED, *given)
    loaded = load_start(recipe, DATASET)
    begun = make_denoiser(recipe, DATASET, loaded)
    assert (_attends(load_artifact(folder).denoiser), _attends(begun)) == (start, "earlier")
    for name, weights in load_artifact(folder).denoiser.state_dict().items():
        if not name.startswith("order_head."):
            assert torch.equal(begun.state_dict()[name], weights), name
    trained = train(recipe, DATASET, work=tmp_path)
    assert trained is not None
    assert _attends(trained.denoiser) == "earlier"
    again = train(recipe, DATASET, work=tmp_path)  # resumed at its last step
    assert again is not None
    torch.testing.assert_close(again.denoiser.state_dict(), trained.denoiser.state_dict(), rtol=0, atol=0)


def test_what_attends_to_the_earlier_is_trained_on_by_whole_orders_alone(earlier: Path, visible: Path) -> None:
    with pytest.raises(UnveilError, match=r"^optimizer\.teacher_forcing: must be true with a start\.artifact that att"):
        load_start(small_recipe(f"start.artifact={earlier}"), DATASET)
    with pytest.raises(UnveilError, match=r'^order\.method: "cost_to_go" is not valid with a start\.artifact that att'):
        load_start(small_recipe(f"start.artifact={earlier}", "order.method=cost_to_go"), DATASET)
    assert load_start(small_recipe(f"start.artifact={visible}", "order.method=cost_to_go"), DATASET) is not None
    kept = small_recipe(f"start.artifact={visible}", "start.freeze_denoiser=true", "advanced.model.attends=earlier")
    with pytest.raises(
        UnveilError, match=r"^advanced\.model\.attends: earlier, but start\.artifact has visible; leave"
    ):
        load_start(kept, DATASET)


@pytest.mark.parametrize("method", ["global", "next_cost"])
def test_a_frozen_denoiser_that_attends_to_the_earlier_gets_an_order(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    highest: list[int] = []
    read = Transformer.read_in_turn

    def watched(network: Transformer, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Reading:
        if not torch.is_inference_mode_enabled():  # training, not the validation
            highest.append(int(ranks.max()))
        return read(network, tokens, ranks, lengths)

    monkeypatch.setattr(Transformer, "read_in_turn", watched)
    recipe = small_recipe(f"order.method={method}", f"start.artifact={earlier}", "start.freeze_denoiser=true")
    trained = train(recipe, DATASET, work=tmp_path)
    assert trained is not None
    assert _attends(trained.denoiser) == "earlier"
    before, after = load_artifact(earlier).denoiser.state_dict(), trained.denoiser.state_dict()
    assert all(torch.equal(after[name], w) for name, w in before.items() if not name.startswith("order_head."))
    head = trained.denoiser.order_head
    fresh = make_denoiser(recipe, DATASET, load_start(recipe, DATASET)).order_head
    pairs = zip(head.parameters(), fresh.parameters(), strict=True)
    assert any(not torch.equal(learned, begun) for learned, begun in pairs)
    assert len(highest) >= 12
    assert max(highest) == DATASET.train.shape[1], "the last position is asked after all others, in their order"


def test_what_attends_to_the_visible_but_loops_is_refused_for_that(tmp_path: Path) -> None:
    recipe = small_recipe("order.method=uniform", "advanced.model.attends=visible", "advanced.model.num_loops=2")
    trained = train(recipe, DATASET, work=tmp_path)
    assert trained is not None
    out = tmp_path / "num_loops"
    save_artifact(out, denoiser=trained.denoiser, tokenizer=DATASET.tokenizer, training={}, metrics={}, card="")
    fields = {
        "name": "on",
        "data": {"kind": "table", "path": "small.csv"},
        "start": {"artifact": str(out)},
        "optimizer": {"teacher_forcing": True},
    }
    with pytest.raises(UnveilError, match=r"needs a network of one loop; start\.artifact has 2"):
        load_start(build_recipe(dict(fields), source="on"), DATASET)
    assert (
        load_start(build_recipe({**fields, "advanced": {"model": {"num_loops": 1}}}, source="on"), DATASET) is not None
    )


def test_two_streams_count_as_two_forwards() -> None:
    assert row_forwards(small_recipe(), 3) == 3 * 32
    assert row_forwards(small_recipe("optimizer.teacher_forcing=true"), 3) == 6 * 32


def test_a_frozen_denoiser_needs_an_artifact_and_an_order_to_learn(artifact: Path) -> None:
    with pytest.raises(
        UnveilError, match=r"start\.artifact: an order alone is learned for the denoiser of an artifact"
    ):
        small_recipe("start.freeze_denoiser=true")
    with pytest.raises(UnveilError, match=r'start\.freeze_denoiser: is not valid with order\.method = "uniform"'):
        small_recipe(f"start.artifact={artifact}", "start.freeze_denoiser=true", "order.method=uniform")


@pytest.mark.parametrize("fixed", ["[1,2,3,4]", "[0]", "[0,0,1,2]"])
def test_an_order_that_is_none_of_the_positions_is_refused(fixed: str, tmp_path: Path) -> None:
    length = DATASET.train.shape[1]
    recipe = small_recipe("order.method=fixed", f"order.positions={fixed}")
    with pytest.raises(UnveilError, match=f"order.positions: must list every position once, each of 0 to {length - 1}"):
        train(recipe, DATASET, work=tmp_path)
