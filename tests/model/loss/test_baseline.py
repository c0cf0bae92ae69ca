import pytest
import torch
from torch import Tensor

from unveil.model.loss.baseline import RunningBaseline, leave_one_out
from unveil.model.loss.objective import row_signal
from unveil.model.loss.prefixes import Prefixes, draw_prefixes

L, B = 4, 40


def draw(seed: int = 0, *, num_draws: int = 1) -> Prefixes:
    known = torch.zeros(B, L, dtype=torch.bool)
    known[:10, 1] = True
    uniform_rows = torch.arange(B) >= 30
    generator = torch.Generator().manual_seed(seed)
    log_w = torch.zeros(L)
    return draw_prefixes(log_w, known=known, uniform_rows=uniform_rows, generator=generator, num_draws=num_draws)


def values(seed: int = 0) -> Tensor:
    return torch.rand(B, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cell_mean(prefixes: Prefixes, v: Tensor, c: int, k: int) -> float:
    rows = (prefixes.num_known == c) & (prefixes.num_revealed == k) & prefixes.follows_law
    assert rows.any()
    return v[rows].mean().item()


def test_nothing_is_read_before_the_first_update() -> None:
    assert RunningBaseline(L).read(draw()).isnan().all()


def test_rows_read_the_mean_of_the_law_rows_with_as_many_known_and_as_many_revealed() -> None:
    running, prefixes, v = RunningBaseline(L), draw(), values()
    running.update(*running.statistics(prefixes, v))
    read = running.read(prefixes)
    for row in range(30):
        c, k = int(prefixes.num_known[row]), int(prefixes.num_revealed[row])
        assert read[row].item() == pytest.approx(cell_mean(prefixes, v, c, k))


def test_a_reading_does_not_change_with_the_update_after_it() -> None:
    running, prefixes = RunningBaseline(L), draw()
    running.update(*running.statistics(prefixes, values()))
    read = running.read(prefixes)
    before = read.clone()
    running.update(*running.statistics(prefixes, values() + 100))
    assert torch.equal(read, before)
    assert not torch.equal(running.read(prefixes), before)


def test_an_unvisited_cell_falls_back_to_the_mean_a_position_over_everything_seen() -> None:
    running, prefixes, v = RunningBaseline(L), draw(), values()
    running.update(*running.statistics(prefixes, v))
    law = prefixes.follows_law
    rate = (v[law] / prefixes.num_free[law]).mean().item()
    known = torch.tensor([[True, True, True, False]])
    unseen = draw_prefixes(torch.zeros(L), known=known, generator=torch.Generator().manual_seed(0))
    assert running.read(unseen).item() == pytest.approx(rate)


def test_statistics_of_two_processes_add_up_to_those_of_one() -> None:
    running, prefixes, v = RunningBaseline(L), draw(), values()
    whole = running.statistics(prefixes, v)
    halves = [
        running.statistics(Prefixes(*(part[half] for part in prefixes)), v[half])
        for half in (slice(0, 20), slice(20, 40))
    ]
    for together, left, right in zip(whole, *halves, strict=True):
        assert torch.allclose(together, left + right)


def test_weights_choose_the_rows_that_count() -> None:
    running, prefixes, v = RunningBaseline(L), draw(), values()
    sums, counts = running.statistics(prefixes, v, torch.arange(B) < 5)
    assert sums.sum().item() == pytest.approx(v[:5].sum().item())
    assert counts.sum().item() == 5


def test_it_is_a_plain_mean_within_its_window_and_follows_a_falling_loss_beyond_it() -> None:
    running = RunningBaseline(1, window=100)
    one = torch.ones(2, 1, dtype=torch.float64)
    for value in (3.0, 5.0, 10.0):
        running.update(10 * value * one, 10 * one)
    assert running.mean[0, 0].item() == pytest.approx(6.0)
    for _ in range(100):
        running.update(10 * one, 10 * one)
    assert running.mean[0, 0].item() == pytest.approx(1.0, abs=0.01)
    assert running.visits.max() <= 100


def test_its_state_resumes_bit_for_bit() -> None:
    running, resumed, prefixes = RunningBaseline(L), RunningBaseline(L), draw()
    for seed in range(3):
        running.update(*running.statistics(prefixes, values(seed)))
    resumed.load_state_dict(running.state_dict())
    for one in (running, resumed):
        one.update(*one.statistics(prefixes, values(9)))
    assert torch.equal(running.read(prefixes), resumed.read(prefixes))


def test_leave_one_out_is_the_mean_of_the_other_draws_of_the_same_row() -> None:
    prefixes = draw(num_draws=3)
    log_w = torch.randn(L, generator=torch.Generator().manual_seed(1))
    ce = torch.rand(3 * B, L, dtype=torch.float64)
    v = row_signal(ce, prefixes, log_w=log_w).view(3, B)
    baseline = leave_one_out(ce, prefixes, log_w=log_w, num_draws=3).view(3, B)
    assert torch.allclose(baseline[0], (v[1] + v[2]) / 2)
    assert torch.allclose(baseline[2], (v[0] + v[1]) / 2)
