"""Rows do not depend on their neighbours: proved on networks that are made to round by batch size and by row."""

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer
from unveil.model.denoiser import Begun, Denoiser, Prediction, Whole
from unveil.model.network.architecture import Architecture
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import (
    AgreeingSizes,
    FixedShapes,
    batch_sizes,
    fixed_shapes,
    length_buckets,
    random_inputs,
    unchecked_shapes,
)
from unveil.model.network.inference import Prepared
from unveil.model.network.transformer import Block
from unveil.model.tokenizers.base import Tokenizer

V = 7
Rounding = Callable[[int, Tensor], Tensor]  # batch size, row numbers -> what is added to each row's logits


def _network(rounding: Rounding) -> Denoiser:
    def denoise(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        B, L = tokens.shape
        row = (tokens * torch.arange(1, L + 1)).sum(-1) + 100.0 * hidden.sum(-1) + 0.5 * lengths
        row = row.double() + rounding(B, torch.arange(B))
        logits = (row[:, None, None] + torch.arange(L)[:, None] + torch.arange(V)).sin()
        return Prediction(logits, logits[..., 0])

    return denoise


def _inputs(rows: int = 16, bucket: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    return random_inputs(rows, bucket, shortest=bucket, vocabulary_sizes=(V,), seed=1)


def _exact(batch: int, rows: Tensor) -> Tensor:
    return torch.zeros(len(rows))


def _small_batches_differ(batch: int, rows: Tensor) -> Tensor:
    return torch.full((len(rows),), 1e-12 if batch < 4 else 0.0)


def _big_batches_depend_on_the_row(batch: int, rows: Tensor) -> Tensor:
    return 1e-12 * rows if batch > 8 else torch.zeros(len(rows))


def _all_but_single_rows_depend_on_the_row(batch: int, rows: Tensor) -> Tensor:
    return 1e-12 * rows


_noise = torch.Generator().manual_seed(0)


def _never_the_same_twice(batch: int, rows: Tensor) -> Tensor:
    return 1e-12 * torch.rand(len(rows), generator=_noise)


def _agreeing(rounding: Rounding) -> AgreeingSizes:
    inputs, network = random_inputs(16, 5, shortest=5, vocabulary_sizes=(V,), seed=1), _network(rounding)
    return AgreeingSizes(lambda index: network(*inputs.rows(index)).token_logits, 16, (1, 2, 4, 8, 16))


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (_exact, (1, 2, 4, 8, 16)),
        (_small_batches_differ, (4, 8, 16)),
        (_big_batches_depend_on_the_row, (1, 2, 4, 8)),
        (_all_but_single_rows_depend_on_the_row, (1,)),
    ],
)
def test_exactly_the_sizes_that_agree_bit_for_bit_are_used(rounding: Rounding, expected: tuple[int, ...]) -> None:
    agreeing = _agreeing(rounding)
    assert agreeing.all() == expected
    assert agreeing.largest == expected[-1]
    assert not agreeing.is_empty


def test_where_no_size_agrees_all_are_used_and_it_is_said() -> None:
    agreeing = _agreeing(_never_the_same_twice)
    assert agreeing.is_empty
    assert agreeing.all() == (1, 2, 4, 8, 16)
    assert agreeing.largest == 16


@pytest.mark.parametrize(
    ("rounding", "reference", "of_three", "of_one"),
    [
        (_exact, {16}, {4}, {1}),
        (_small_batches_differ, {16}, {4}, {1, 2}),
        (_big_batches_depend_on_the_row, {16, 8}, {4}, {1}),
    ],
)
def test_a_size_is_checked_when_it_is_first_asked_for_and_once(
    rounding: Rounding, reference: set[int], of_three: set[int], of_one: set[int]
) -> None:
    seen = set[int]()

    def watched(batch: int, rows: Tensor) -> Tensor:
        seen.add(batch)
        return rounding(batch, rows)

    def asked(ask: Callable[[], int], found: int) -> set[int]:
        seen.clear()
        assert ask() == found
        return set(seen)

    agreeing, known = _agreeing(watched), _agreeing(rounding).all()
    assert asked(lambda: agreeing.largest, known[-1]) == reference
    assert asked(lambda: agreeing.fitting(3), 4) == of_three
    assert asked(lambda: agreeing.fitting(1), known[0]) == of_one
    assert asked(lambda: agreeing.fitting(3) + agreeing.fitting(1), 4 + known[0]) == set()
    assert agreeing.all() == known


@pytest.mark.parametrize("rounding", [_small_batches_differ, _all_but_single_rows_depend_on_the_row])
def test_a_row_is_the_same_alone_and_in_any_batch_on_a_network_that_rounds_by_batch(rounding: Rounding) -> None:
    fixed = FixedShapes(Whole(_network(rounding)), sizes={5: _agreeing(rounding).all()}, finish_sizes=(1,))
    tokens, hidden, lengths = _inputs()
    alone = [fixed.begin(tokens[i : i + 1], hidden[i : i + 1], lengths[i : i + 1]) for i in range(16)]
    for rows in (torch.arange(16), torch.arange(16).flip(0), torch.tensor([3, 3, 9]), torch.arange(5, 12)):
        together = fixed.begin(tokens[rows], hidden[rows], lengths[rows])
        for place, row in enumerate(rows.tolist()):
            assert torch.equal(together.states[place], alone[row].states[0])
            assert torch.equal(together.order_logits[place], alone[row].order_logits[0])


class Rowwise:
    """A second stage that rounds by how many positions it is asked for."""

    def __init__(self, rounding: Rounding) -> None:
        self.rounding = rounding
        self.seen: list[int] = []

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        return Begun(tokens.double(), torch.stack([tokens.double(), hidden.double()], -1))

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        self.seen.append(len(positions))
        row = states.sum(-1) + positions + self.rounding(len(positions), torch.arange(len(positions)))
        return (row[:, None] + torch.arange(V)).sin()

    def rounded(self, num: int) -> int:
        return num


def test_positions_are_finished_in_the_sizes_that_agree_and_so_alike_in_any_company() -> None:
    stages = Rowwise(_small_batches_differ)
    architecture = random_transformer(table_tokenizer()).architecture
    measured, is_deterministic = fixed_shapes(stages, architecture, 4, torch.device("cpu"))
    assert is_deterministic
    assert measured.finish_sizes == (4, 5, 6, 7, 8, 10, 12, 14, 16, 20)
    fixed = FixedShapes(stages, sizes={5: (1,)}, finish_sizes=measured.finish_sizes)
    generator = torch.Generator().manual_seed(3)
    states, positions = torch.rand(50, 2, generator=generator), torch.randint(5, (50,), generator=generator)
    alone = torch.cat([fixed.finish(states[i : i + 1], positions[i : i + 1]) for i in range(50)])
    stages.seen.clear()
    assert torch.equal(fixed.finish(states, positions), alone)
    assert torch.equal(fixed.finish(states[40:49], positions[40:49]), alone[40:49])
    assert stages.seen == [20, 20, 10, 10]
    assert [fixed.rounded(num) for num in (1, 4, 9, 19, 20, 21)] == [4, 4, 10, 20, 20, 21]


def test_the_check_would_not_pass_without_the_fixed_shapes() -> None:
    network = _network(_small_batches_differ)
    tokens, hidden, lengths = _inputs()
    assert not torch.equal(
        network(tokens, hidden, lengths).token_logits[0], network(tokens[:1], hidden[:1], lengths[:1]).token_logits[0]
    )


def test_the_network_only_ever_sees_its_sizes_and_lengths_and_the_caller_its_own() -> None:
    seen: list[tuple[int, ...]] = []

    def network(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        seen.append(tuple(tokens.shape))
        return _network(_exact)(tokens, hidden, lengths)

    fixed = FixedShapes(Whole(network), sizes={16: (4, 8), 40: (2,)}, finish_sizes=(1,))
    for rows, length in ((1, 3), (4, 16), (5, 16), (9, 11), (3, 17)):
        inputs = random_inputs(rows, length, shortest=length, vocabulary_sizes=(V,), seed=0)
        begun = fixed.begin(*inputs)
        assert begun.states.shape == (rows, length, V)
        assert begun.order_logits.shape == (rows, length)
    assert seen == [(4, 16), (4, 16), (8, 16), (8, 16), (4, 16), (2, 40), (2, 40)]
    assert fixed.counts.num_positions == sum(rows * length for rows, length in seen)


def test_canvases_of_two_length_buckets_are_not_run_together() -> None:
    fixed = FixedShapes(Whole(_network(_exact)), sizes={16: (4,), 40: (4,)}, finish_sizes=(1,))
    tokens, hidden, _ = random_inputs(2, 30, shortest=30, vocabulary_sizes=(V,), seed=0)
    with pytest.raises(AssertionError, match="two length buckets"):
        fixed.begin(tokens, hidden, torch.tensor([12, 30]))


def test_batch_sizes_leave_a_fifth_to_padding_and_buckets_double_up_to_the_length() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(8) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert batch_sizes(9) == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    for largest in range(1, 200):
        sizes = batch_sizes(largest)
        assert sizes[-1] == largest
        assert all(small < large <= (small + 1) * 5 / 4 for small, large in pairwise(sizes)), largest
    assert length_buckets(40, is_padded=True) == (16, 32, 40)
    assert length_buckets(64, is_padded=True) == (16, 32, 64)
    assert length_buckets(10, is_padded=True) == (10,)
    assert length_buckets(15, is_padded=False) == (15,)


@pytest.mark.parametrize("tokenizer", [table_tokenizer(), text_tokenizer()], ids=["table", "text"])
def test_the_real_network_runs_deterministically_here(tokenizer: Tokenizer) -> None:
    network = random_transformer(tokenizer, kind="contextual")
    fixed, is_deterministic = fixed_shapes(prepare(network), network.architecture, 16, torch.device("cpu"))
    assert is_deterministic
    assert all(fixed.sizes.values())


def test_a_network_that_never_repeats_itself_is_served_and_said_to_be_not_deterministic() -> None:
    architecture = random_transformer(table_tokenizer()).architecture
    fixed, is_deterministic = fixed_shapes(_network(_never_the_same_twice), architecture, 8, torch.device("cpu"))
    assert not is_deterministic
    assert fixed.sizes == {5: batch_sizes(8)}


def _rounding_in(layer: int) -> Prepared:
    """Four layers, the second of another shape, and one that rounds a canvas alone otherwise than with company."""
    network = random_transformer(text_tokenizer(), layers=4)
    assert isinstance(network.architecture, Architecture)
    D, M = network.architecture.width, network.architecture.mlp_width
    cast(Block, network.blocks[1]).mlp = nn.Sequential(nn.Linear(D, M + 8), nn.GELU(), nn.Linear(M + 8, D))
    stages = prepare(network)
    assert isinstance(stages, Prepared)
    narrow = stages.layers[layer].narrow
    stages.layers[layer] = stages.layers[layer]._replace(narrow=lambda x: narrow(x) + (1e-3 if len(x) == 1 else 0.0))
    return stages


ARCHITECTURE = random_transformer(text_tokenizer()).architecture


@pytest.mark.parametrize("layer", [0, 1])  # the first of its shape, the only one of its shape
def test_a_layer_that_disagrees_with_itself_is_found_though_layers_of_one_shape_are_checked_once(layer: int) -> None:
    fixed, is_deterministic = fixed_shapes(_rounding_in(layer), ARCHITECTURE, 8, torch.device("cpu"))
    assert is_deterministic
    assert {sizes[0] for sizes in fixed.sizes.values()} == {2}


def test_a_layer_that_rounds_otherwise_than_its_twin_makes_the_whole_network_not_deterministic() -> None:
    _, is_deterministic = fixed_shapes(_rounding_in(2), ARCHITECTURE, 8, torch.device("cpu"))
    assert not is_deterministic


def test_a_sketch_runs_each_shape_once_and_the_last_layer() -> None:
    sketch = _rounding_in(0).sketch()
    assert [layer.shapes[-2][1] for layer in sketch.layers] == [64, 72, 64]


@pytest.mark.parametrize("tokenizer", [table_tokenizer(), text_tokenizer()], ids=["table", "text"])
def test_shapes_that_are_checked_when_they_are_needed_are_those_of_the_warm_up(tokenizer: Tokenizer) -> None:
    network = random_transformer(tokenizer)
    architecture, device = network.architecture, torch.device("cpu")
    warm, _ = fixed_shapes(prepare(network), architecture, 16, device)
    lazy = unchecked_shapes(prepare(network), architecture, 16, device)
    for rows, length in ((1, 5), (3, 5), (17, 5)):
        inputs = random_inputs(rows, length, shortest=length, vocabulary_sizes=architecture.vocabulary_sizes, seed=rows)
        (order, states), expected = lazy.begin(*inputs), warm.begin(*inputs)
        assert torch.equal(order, expected.order_logits)
        assert torch.equal(states, expected.states)
        asked = states.flatten(0, 1)[: 2 * rows], torch.arange(2 * rows) % length
        assert torch.equal(lazy.finish(*asked), warm.finish(*asked))
    assert lazy.counts == warm.counts
    assert (lazy.sizes, lazy.finish_sizes) == (warm.sizes, warm.finish_sizes)
