"""Muon: what an update is, which weights are its own, and what a checkpoint of it holds."""

from pathlib import Path

import pytest
import torch

from tests.model.foreign import TOKENS, write_folder
from tests.training.small import small_dataset, small_recipe
from unveil.importers.convert import Wishes, convert
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.training.run.devices import make_fabric
from unveil.training.step.muon import Muon, orthogonal
from unveil.training.step.training_model import TrainingModule
from unveil.training.trainer import Run

DATASET = small_dataset()


@pytest.mark.parametrize(("N", "M"), [(8, 8), (24, 6), (5, 20)], ids=["square", "tall", "wide"])
def test_an_orthogonal_matrix_keeps_its_directions_and_all_of_them_count_alike(N: int, M: int) -> None:
    x = torch.randn(7, N, M, generator=torch.Generator().manual_seed(0))
    found = orthogonal(x)
    U, S, Vh = torch.linalg.svd(x, full_matrices=False)
    inside = U.mT @ found @ Vh.mT  # diagonal where the singular vectors are the same
    diagonal = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), rtol=0, atol=2e-4)
    sure = 0.02 * S[:, :1] < S  # five steps do not lift what is all but zero
    assert sure.float().mean() > 0.9
    assert diagonal[sure].min() > 0.6
    assert diagonal.max() < 1.3
    torch.testing.assert_close(orthogonal(x[:1])[0], found[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(orthogonal(x * 100), found, rtol=1e-3, atol=1e-3)


def test_two_updates_are_those_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    start, first, second = torch.randn((3, 6, 3), generator=generator)
    weight = torch.nn.Parameter(start.clone())
    idle = torch.nn.Parameter(torch.ones(6, 3))
    muon = Muon([{"params": [weight, idle]}], lr=0.1, momentum=0.9, weight_decay=0.5)
    expected, momentum = start, torch.zeros(6, 3)
    for gradient in (first, second):
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        update = orthogonal((0.1 * gradient + 0.9 * momentum)[None])[0]
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 2**0.5 * update
    torch.testing.assert_close(weight.detach(), expected)
    assert torch.equal(idle.detach(), torch.ones(6, 3)), "nothing moves without a gradient, nor decays"


def _groups(module: TrainingModule, *, matrix_rate: float) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = module.parameter_groups(
        learning_rate=1e-3, matrix_rate=matrix_rate, order_rate=0.1, critic_rate=1e-3, weight_decay=0.1
    )
    return {str(g["name"]): {names[id(p)] for p in g["params"]} for g in groups}  # type: ignore[attr-defined]


@pytest.mark.parametrize("fields", [{"query_layers": 2}, {}, {"relative_bias": True}], ids=["late", "masked", "bias"])
def test_the_matrices_of_blocks_are_muons_and_nothing_else_is(fields: dict[str, int]) -> None:
    shape = {"length": 4, "vocabulary_sizes": (5,), "width": 16, "layers": 2, "heads": 2, "mlp_width": 32}
    network = build_network(Architecture.model_validate({**shape, **fields}), OrderSpec(kind="global"))
    module = TrainingModule(network, marginals=torch.zeros(1, 5))
    with_muon, without = (_groups(module, matrix_rate=rate) for rate in (0.02, 0.0))
    assert "blocks" not in without
    own, sizes = with_muon["blocks"], {n: p.ndim for n, p in module.named_parameters()}
    is_matrix = {n for n, size in sizes.items() if size == 2 and n.endswith("weight") and "average" not in n}
    assert own == {n for n in is_matrix if n.startswith(("denoiser.blocks.", "denoiser.query_blocks."))}
    assert any("query_blocks" in name for name in own) == ("query_layers" in fields)
    assert own <= without["matrices"]
    assert with_muon["order"] == without["order"] == {"denoiser.order_head.log_w"}


def test_nothing_of_an_imported_network_is_muons(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert")
    module = TrainingModule(convert(tmp_path, Wishes()).denoiser, marginals=torch.zeros(1, len(TOKENS)))
    assert _groups(module, matrix_rate=0.02) == _groups(module, matrix_rate=0.0)


def test_a_run_has_two_optimizers_and_one_where_matrices_have_no_rate_of_their_own() -> None:
    fabric = make_fabric(small_recipe().run)
    both, one = (
        Run(fabric, small_recipe(f"advanced.optimizer.matrix_rate={rate}"), DATASET, Path("unused")).optimizers
        for rate in (0.01, 0.0)
    )
    assert (list(both), list(one)) == (["optimizer", "muon"], ["optimizer"])
    assert [group["peak"] for group in both["muon"].param_groups] == [0.01]
    moved = {id(p) for optimizer in both.values() for group in optimizer.param_groups for p in group["params"]}
    assert len(moved) == sum(len(group["params"]) for group in one["optimizer"].param_groups)
