import torch

from unveil.model.order.uniforms import open_uniforms, stratified_uniforms


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_open_uniforms_are_reproducible_float64_inside_the_open_interval() -> None:
    u = open_uniforms((1000, 100), generator())
    assert u.dtype == torch.float64
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert torch.equal(u, open_uniforms((1000, 100), generator()))


def test_each_group_of_a_stratified_draw_covers_the_interval_evenly() -> None:
    groups = torch.arange(60) % 3 == 0
    u = stratified_uniforms(groups, generator())
    for group in (groups, ~groups):
        gaps = u[group].sort().values.diff()
        assert torch.allclose(gaps, torch.full_like(gaps, 1 / int(group.sum())))


def test_every_row_of_a_stratified_draw_is_uniform_by_itself() -> None:
    groups = torch.tensor([True, True, False, True, False])
    g = generator()
    draws = torch.stack([stratified_uniforms(groups, g) for _ in range(4000)])
    for moment in (1, 2, 3):
        z = ((draws**moment).mean(0) - 1 / (moment + 1)) / ((draws**moment).std(0) / 4000**0.5)
        assert z.abs().max() < 4


def test_one_row_alone_and_an_empty_group_are_fine() -> None:
    u = stratified_uniforms(torch.tensor([True]), generator())
    assert 0 < u.item() < 1
