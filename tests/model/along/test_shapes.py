"""Shapes: whatever is asked for fits one, the ones that agree are kept, and where rounding differs it is said."""

import pytest
import torch
from torch import Tensor

from tests.model.along.networks import KINDS, make, network
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import LEAST_ROWS, Along
from unveil.model.along.memory import Stored
from unveil.model.along.shapes import CPU_SLOTS, Shapes, shapes_of
from unveil.model.network.fixed_shapes import AgreeingSizes
from unveil.model.network.folded import Layer, QueryLayer

ROWS = (1, 2, 3, 8, 20, 64)


def agreeing_shapes(along: Along, max_rows: int) -> tuple[Shapes, bool]:
    shapes = shapes_of(along, max_rows)
    return shapes, shapes.check()


def _shapes(counts: list[int], pairs: list[tuple[int, int]], *, vocabulary: int) -> Shapes:
    """Of which all agree."""
    agreeing = AgreeingSizes(lambda index: index[:, None].float(), max(counts), counts)
    return Shapes(agreeing, counts, pairs, lambda rows, slots: rows * slots > 0, vocabulary=vocabulary)


@pytest.mark.parametrize("max_rows", ROWS)
@pytest.mark.parametrize("name", ["relative bias", "long"])
def test_whatever_a_step_asks_for_fits(name: str, max_rows: int) -> None:
    """Any contents and queries; as many rows as are said to fit these, and each row's own share in it."""
    along = Along(network(name))
    shapes, length = shapes_of(along, max_rows), along.architecture.length
    assert shapes.most_rows == max_rows
    for contents in range(length + 2):
        for asked in range(length + 1):
            if not contents + asked:
                continue
            largest = shapes.rows_of(max(contents, asked))
            assert largest >= 1
            for rows in {1, largest // 2 or 1, largest}:
                B, C, A = shapes.fit(rows, contents, asked)
                assert rows <= B
                for num, slots in ((contents, C), (asked, A)):
                    assert (B, slots) in shapes.pairs or num == slots == 0
                    assert num <= slots
                    assert B * slots >= LEAST_ROWS or not slots
                    assert B * slots <= max(CPU_SLOTS, slots)


def test_what_fits_nothing_is_refused_with_its_numbers() -> None:
    shapes = _shapes([4, 8, 16], [(1, 4), (1, 8), (2, 8)], vocabulary=7)
    assert shapes.fit(1, 3, 5) == (1, 4, 8)
    assert shapes.fit(1, 3, 0) == (1, 4, 0)
    assert shapes.fit(2, 3, 4) == (2, 8, 8)
    with pytest.raises(ValueError, match="no shape for 3 rows of 1 contents and 1 queries"):
        shapes.fit(3, 1, 1)
    with pytest.raises(ValueError, match="no shape for 1 rows of 9 contents and 4 queries"):
        shapes.fit(1, 9, 4)


@pytest.mark.parametrize("num_states", [1, 3, 4, 63, 64, 65, 127, 128, 129, 1000])
def test_states_are_filled_up_to_a_count_or_a_multiple_of_the_largest(num_states: int) -> None:
    shapes = _shapes([4, 8, 64], [(1, 8)], vocabulary=7)
    filled = shapes.filled(num_states)
    assert filled >= num_states
    assert filled in (4, 8) or filled % 64 == 0
    assert shapes.at_once(num_states) == min(filled, 64)


def test_logits_of_a_large_vocabulary_are_computed_few_at_a_time() -> None:
    shapes = _shapes([4, 8, 64], [(1, 8)], vocabulary=1_000_000)
    assert shapes.at_once(64) == 8


@pytest.mark.parametrize("name", KINDS)
def test_real_networks_agree_in_one_row_of_any_number_of_slots(name: str) -> None:
    shapes, is_deterministic = agreeing_shapes(Along(network(name)), 4)
    assert is_deterministic
    assert {pair for pair in shapes.pairs if pair[0] == 1} <= set(shapes.used()) <= set(shapes.pairs)


def test_a_shape_is_checked_when_it_is_first_needed_and_then_the_same_one_is_taken() -> None:
    at_once, when_needed = (shapes_of(Along(network("relative bias")), 8) for _ in range(2))
    at_once.check()
    for asked in ((1, 1, 1), (3, 2, 2), (8, 0, 5), (5, 9, 0), (2, 1, 12)):
        assert when_needed.fit(*asked) == at_once.fit(*asked)
    assert when_needed.used() == at_once.used()


class _RoundsByRows(Along):
    """A network whose products after attention round by how many slots are computed at once, from some number on."""

    least = 0

    def finished(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        found = super().finished(layer, x, attended)
        num = found.numel() // found.shape[-1]
        return found * (1.0 + 1e-6 * num) if num >= self.least else found


class _RoundsAnswers(Along):
    """A network in which what follows a query's attention rounds by how many slots are computed at once."""

    def answered(self, layer: QueryLayer, x: Tensor, attended: Tensor, norms: Tensor) -> Tensor:
        return super().answered(layer, x, attended, norms) * (1.0 + 1e-6 * len(x))


class _RoundsBySlots(Along):
    """A network whose attention rounds by how many rows are computed at once, from two on."""

    def attended(self, q: Tensor, stored: Stored, bias: Tensor) -> Tensor:
        found = super().attended(q, stored, bias)
        return found if len(q) == 1 else found * (1.0 + 1e-6 * len(q))


class _RoundsByWidth(Along):
    """A network whose attention rounds by how many columns are read: otherwise at one width than at all others."""

    odd = 0

    def attended(self, q: Tensor, stored: Stored, bias: Tensor) -> Tensor:
        found = super().attended(q, stored, bias)
        return found * (1.0 + 1e-6) if stored.keys.shape[-1] == self.odd else found


@pytest.mark.parametrize("rounding", [_RoundsByRows, _RoundsAnswers])
def test_products_that_round_by_their_rows_are_found_and_said(rounding: type[Along]) -> None:
    along = rounding(make())
    shapes, is_deterministic = agreeing_shapes(along, 4)
    assert not is_deterministic
    served = AlongDenoiser(along, shapes, max_rows=4)
    assert served.most == 4, "it is served all the same"


def test_attention_that_rounds_by_its_rows_leaves_no_shape_of_several_rows() -> None:
    shapes, is_deterministic = agreeing_shapes(_RoundsBySlots(make()), 4)
    assert is_deterministic, "one row at a time"
    assert {rows for rows, _ in shapes.used()} == {1}
    assert shapes.rows_of(4) == 1


@pytest.mark.parametrize("num_contents", [0, 17, 40])
def test_attention_that_rounds_by_its_width_is_found_and_said(num_contents: int) -> None:
    along = _RoundsByWidth(make(length=40))
    along.odd = along.width(num_contents)
    _, is_deterministic = agreeing_shapes(along, 4)
    assert not is_deterministic


def test_what_is_not_a_number_never_agrees() -> None:
    broken = make()
    with torch.no_grad():
        broken.get_parameter("blocks.0.attention.qkv.weight")[0] = torch.nan
    _, is_deterministic = agreeing_shapes(Along(broken), 4)
    assert not is_deterministic
