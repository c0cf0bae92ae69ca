import pytest
import torch
from torch import Tensor

from unveil.model.loss.prefixes import Prefixes, draw_prefixes, prefix_draws

L = 5
LOG_W = torch.tensor([0.0, 256.0, 64.0, 192.0, 128.0])  # certain order: 1, 3, 4, 2, 0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def known_rows(*rows: list[int]) -> Tensor:
    known = torch.zeros(len(rows), L, dtype=torch.bool)
    for row, positions in enumerate(rows):
        known[row, positions] = True
    return known


def draw(known: Tensor, **options: Tensor | int) -> Prefixes:
    return draw_prefixes(LOG_W, known=known, generator=generator(), **options)  # type: ignore[arg-type]


def test_the_known_set_comes_first_and_the_law_orders_the_rest_by_descending_weight() -> None:
    prefixes = draw(known_rows([], [0, 3], [4]))
    assert prefixes.sigma.tolist() == [[1, 3, 4, 2, 0], [0, 3, 1, 4, 2], [4, 1, 3, 2, 0]]
    assert prefixes.num_known.tolist() == [0, 2, 1]
    assert prefixes.num_free.tolist() == [5, 3, 4]


def test_what_is_hidden_is_the_order_after_the_known_set_and_k_more() -> None:
    known = known_rows([], [0, 3], [0, 1, 2, 3]).repeat(50, 1)
    prefixes = draw(known)
    for sigma, c, k, hidden in zip(
        prefixes.sigma, prefixes.num_known, prefixes.num_revealed, prefixes.hidden, strict=True
    ):
        assert 0 <= k < L - c
        assert sorted(hidden.nonzero()[:, 0].tolist()) == sorted(sigma[c + k :].tolist())
    assert not (prefixes.hidden & known).any()
    assert prefixes.hidden.any(-1).all()


def test_k_is_stratified_over_all_values_for_the_reported_rows_and_for_the_others() -> None:
    uniform_rows = torch.arange(100) % 2 == 0
    prefixes = draw(known_rows([]).repeat(100, 1), uniform_rows=uniform_rows)
    for rows in (uniform_rows, ~uniform_rows):
        assert prefixes.num_revealed[rows].bincount(minlength=L).tolist() == [10] * L


def test_each_row_draws_every_k_equally_often() -> None:
    known = known_rows([], [], [2], [0, 3])
    g = generator()
    counts = torch.stack([draw_prefixes(LOG_W, known=known, generator=g).num_revealed for _ in range(6000)])
    for row, n in enumerate((5, 5, 4, 3)):
        share = counts[:, row].bincount(minlength=n).double() / 6000
        assert len(share) == n
        assert (share - 1 / n).abs().max() < 4 * (1 / n / 6000) ** 0.5


def test_uniform_rows_do_not_follow_the_law() -> None:
    uniform_rows = torch.arange(4000) >= 2000
    prefixes = draw(known_rows([]).repeat(4000, 1), uniform_rows=uniform_rows)
    assert torch.equal(prefixes.follows_law, ~uniform_rows)
    assert (prefixes.sigma[:2000, 0] == 1).all()
    first = prefixes.sigma[2000:, 0].bincount(minlength=L)
    assert (first - 400).abs().max() < 4 * 20


def test_padding_is_known_without_being_a_prompt() -> None:
    known = known_rows([4], [4], [])
    assert draw(known).prompted.tolist() == [True, True, False]
    assert draw(known, prompted=torch.tensor([True, False, False])).prompted.tolist() == [True, False, False]


def test_several_draws_of_a_row_share_its_k_and_not_its_order() -> None:
    known = known_rows([], [2], []).repeat(20, 1)
    prefixes = draw_prefixes(torch.zeros(L), known=known, generator=generator(), num_draws=3)
    assert prefixes.sigma.shape == (180, L)
    for name in ("num_known", "num_revealed", "prompted", "follows_law"):
        draws = getattr(prefixes, name).view(3, 60)
        assert (draws == draws[0]).all()
    draws = prefixes.sigma.view(3, 60, L)
    assert (draws[0] != draws[1]).any(-1).double().mean() > 0.9


def test_each_row_may_have_weights_of_its_own() -> None:
    log_w = torch.stack([LOG_W, -LOG_W])
    prefixes = draw_prefixes(log_w, known=known_rows([], []), generator=generator())
    assert prefixes.sigma.tolist() == [[1, 3, 4, 2, 0], [0, 2, 4, 3, 1]]


def test_the_same_generator_state_gives_the_same_prefixes_and_rows_can_be_taken_out() -> None:
    known = known_rows([], [1], [2], [])
    first, again = (prefix_draws(known, generator=generator(4)) for _ in range(2))
    prefixes = first.under(torch.zeros(L))
    assert torch.equal(prefixes.sigma, again.under(torch.zeros(L)).sigma)
    half = first.cut(slice(2, 4)).under(torch.zeros(L))
    assert torch.equal(half.sigma, prefixes.sigma[2:])
    assert torch.equal(half.hidden, prefixes.hidden[2:])


def test_a_law_of_each_rows_own_orders_each_row_by_its_own_weights() -> None:
    own = torch.stack([LOG_W, -LOG_W])
    prefixes = prefix_draws(known_rows([], []), generator=generator(), num_draws=2).under(own)
    assert prefixes.sigma.tolist() == [[1, 3, 4, 2, 0], [0, 2, 4, 3, 1]] * 2


def test_a_row_with_everything_known_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to generate"):
        draw(known_rows([], [0, 1, 2, 3, 4]))
