"""Starting from an artifact: its network, its tokenizer, and with a frozen denoiser its very weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.molecules import molecules_dataset
from tests.training.small import small_dataset, small_recipe
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.network.late import Contents, LateQueries
from unveil.training.data.dataset import Dataset
from unveil.training.run.warm_start import fresh_architecture, load_start, make_denoiser
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
    assert shares == pytest.approx([1.0, 0.25] if method == "global" else [0.0, 0.0])  # a critic needs uniform orders
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


def _trained(folder: Path, *overrides: str) -> Path:
    trained = train(small_recipe(*overrides), DATASET, work=folder / "run")
    assert trained is not None
    out = folder / "artifact"
    save_artifact(out, denoiser=trained.denoiser, tokenizer=DATASET.tokenizer, training={}, metrics={}, card="")
    return out


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("masked"), "order.method=uniform", "advanced.model.query_layers=0")


def test_an_artifact_says_itself_whether_it_is_asked_late(artifact: Path, masked: Path) -> None:
    for folder, own, other in ((artifact, 2, 0), (masked, 0, 1), (artifact, 2, 1)):
        start = f"start.artifact={folder}"
        for recipe in (small_recipe(start), small_recipe(start, f"advanced.model.query_layers={own}")):
            begun = make_denoiser(recipe, DATASET, load_start(recipe, DATASET))
            assert begun.reads_ranks == (own > 0)
            for name, weights in load_artifact(folder).denoiser.state_dict().items():
                assert torch.equal(begun.state_dict()[name], weights), name
        line = f"advanced.model.query_layers: {other}, but start.artifact has {own}; leave it out"
        with pytest.raises(UnveilError, match=f"^{line}$"):
            load_start(small_recipe(start, f"advanced.model.query_layers={other}"), DATASET)


def test_attention_knows_distances_in_sequences_and_columns_in_tables_unless_told() -> None:
    def biases(dataset: Dataset, *overrides: str) -> tuple[bool, bool]:
        fresh = fresh_architecture(small_recipe(*overrides), dataset)
        return fresh.relative_bias, fresh.pair_bias

    sequences = molecules_dataset()
    tokenizer = SimpleNamespace(vocabulary_sizes=(2,) * 65, domain="table")
    wide = cast(Dataset, SimpleNamespace(train=np.zeros((1, 65), np.int64), tokenizer=tokenizer))
    assert (biases(sequences), biases(DATASET), biases(wide)) == ((True, False), (False, True), (False, False))
    for dataset in (sequences, DATASET):
        assert biases(dataset, "advanced.model.query_layers=0") == (False, False)
        assert biases(dataset, "advanced.model.pair_bias=false") == (False, False)
        assert biases(dataset, "advanced.model.relative_bias=true") == (True, False)
        assert biases(dataset, "advanced.model.pair_bias=true") == (False, True)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ("order.method=cost_to_go",),
            r'order\.method: "cost_to_go" is not valid with late queries in start\.artifact',
        ),
        (
            ("advanced.model.num_loops=2",),
            r"advanced\.model\.num_loops: must be 1 with late queries in start\.artifact",
        ),
        (
            ("order.method=uniform", "advanced.order.bare=0.5"),
            r"advanced\.order\.bare: is not valid with late queries in start\.artifact",
        ),
    ],
)
def test_what_late_queries_cannot_do_is_refused_and_a_masked_network_does_it(
    artifact: Path, masked: Path, overrides: tuple[str, ...], line: str
) -> None:
    with pytest.raises(UnveilError, match=f"^{line}"):
        load_start(small_recipe(f"start.artifact={artifact}", *overrides), DATASET)
    assert load_start(small_recipe(f"start.artifact={masked}", *overrides), DATASET) is not None


@pytest.mark.parametrize("method", ["global", "next_cost"])
def test_a_frozen_denoiser_of_late_queries_is_asked_in_turn_for_its_order(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    highest: list[int] = []
    contents = LateQueries.contents

    def watched(network: LateQueries, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Contents:
        if not torch.is_inference_mode_enabled():  # training, not the validation
            highest.append(int(ranks.max()))
        return contents(network, tokens, ranks, lengths)

    monkeypatch.setattr(LateQueries, "contents", watched)
    recipe = small_recipe(f"order.method={method}", f"start.artifact={artifact}", "start.freeze_denoiser=true")
    trained = train(recipe, DATASET, work=tmp_path)
    assert trained is not None
    before, after = load_artifact(artifact).denoiser.state_dict(), trained.denoiser.state_dict()
    assert all(torch.equal(after[name], w) for name, w in before.items() if not name.startswith("order_head."))
    assert len(highest) >= 12
    assert max(highest) == DATASET.train.shape[1], "the last position is asked after all others, in their order"


def test_a_row_is_one_forward() -> None:
    assert row_forwards(small_recipe(), 3) == 3 * 32


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
