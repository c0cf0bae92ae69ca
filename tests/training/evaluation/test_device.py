"""Evaluation runs where training ran: every figure of every domain on a device that is not the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.artifacts import random_transformer
from tests.training.elsewhere import ELSEWHERE, Elsewhere
from tests.training.evaluation.test_sudoku import grid_dataset
from tests.training.molecules import molecules_dataset
from tests.training.small import small_dataset, small_recipe
from unveil.model.artifact.folder import load_artifact
from unveil.model.denoiser import device_of
from unveil.model.network.architecture import Architecture, OrderKind, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.training.data.config import TextData
from unveil.training.data.dataset import Dataset
from unveil.training.data.text.text import load_text
from unveil.training.evaluation.report import evaluate_model
from unveil.training.publishing import publish as publishing
from unveil.training.publishing.order_account import describe_order
from unveil.training.publishing.publish import publish
from unveil.training.trainer import Trained, train

TABLE = small_dataset()


def _same_there(network: Network, dataset: Dataset, *, limit: int, reference: Network | None = None) -> None:
    """The figures and the order of a network on another device are those on the CPU."""
    here = evaluate_model(network, dataset, limit=limit, reference=reference)
    order = describe_order(network, dataset.tokenizer, name="net")
    with Elsewhere() as device:
        for one in [network] if reference is None else [network, reference]:
            one.to(ELSEWHERE)
        assert device_of(network) == ELSEWHERE
        there = evaluate_model(network, dataset, limit=limit, reference=reference)
        assert describe_order(network, dataset.tokenizer, name="net").words == order.words
    assert device.num_operations > 1000
    assert list(_numbers(there)) == pytest.approx(list(_numbers(here)), rel=1e-5)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.mark.parametrize("kind", ["global", "contextual"])
def test_a_table_is_evaluated_on_another_device(kind: OrderKind) -> None:
    network, reference = (random_transformer(TABLE.tokenizer, kind=k, seed=4) for k in (kind, "uniform"))
    _same_there(network, TABLE, limit=8, reference=reference)


def test_a_text_is_evaluated_on_another_device(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("The cat sat on the mat, and the dog sat on the log. " * 40)
    dataset = load_text(TextData(files=(path,), length=12))
    _same_there(random_transformer(dataset.tokenizer, kind="contextual"), dataset, limit=4)


def test_a_grid_is_evaluated_on_another_device() -> None:
    architecture = Architecture(length=81, vocabulary_sizes=(9,), width=8, layers=1, mlp_width=12, trunk="planes")
    network = build_network(architecture, OrderSpec(kind="contextual")).eval()
    _same_there(network, grid_dataset(), limit=2)


def test_molecules_are_evaluated_on_another_device() -> None:
    pytest.importorskip("rdkit")
    dataset = molecules_dataset()
    _same_there(random_transformer(dataset.tokenizer), dataset, limit=4)


def test_tensors_of_two_devices_do_not_meet() -> None:
    with Elsewhere():
        here, there = torch.ones(3), torch.ones(3).to(ELSEWHERE)
        with pytest.raises(AssertionError, match="two devices"):
            _ = here + there
        with pytest.raises(AssertionError, match="NumPy"):
            there.numpy()
        with pytest.raises(AssertionError, match="index"):
            _ = here[there.long()]
        assert (there * torch.tensor(2.0)).cpu().tolist() == [2.0] * 3
        assert torch.zeros(2, device=ELSEWHERE).device == (there + 1).device == ELSEWHERE


def test_publishing_evaluates_on_the_device_that_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_recipe("optimizer.steps=2", "run.evaluate_rows=4")
    seen: list[torch.device] = []

    def spy(denoiser: Network, dataset: Dataset, **options: object) -> dict[str, object]:
        seen.append(device_of(denoiser))
        return evaluate_model(denoiser, dataset, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(publishing, "evaluate_model", spy)

    def then(trained: Trained) -> None:
        assert trained.device == torch.device("cpu")
        with Elsewhere():
            publish(replace(trained, device=ELSEWHERE), recipe, TABLE, out=tmp_path / "out", recipe_text="")

    assert train(recipe, TABLE, work=tmp_path / "run", then=then) is not None
    assert seen == [ELSEWHERE]
    assert load_artifact(tmp_path / "out").manifest.metrics["rows"] == 4
