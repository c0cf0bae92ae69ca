"""Rows do not depend on their neighbours: proved on networks that are made to round by batch size and by row."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.denoiser import Denoiser, Prediction
from model.tokenizers.base import Tokenizer
from service.engine_models import fixed_shapes
from service.engine_shapes import FixedShapes, agreeing_sizes, batch_sizes, length_buckets, random_inputs
from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer

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


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (_exact, (1, 2, 4, 8, 16)),
        (_small_batches_differ, (4, 8, 16)),
        (_big_batches_depend_on_the_row, (1, 2, 4, 8)),
        (_all_but_single_rows_depend_on_the_row, (1,)),
        (_never_the_same_twice, ()),
    ],
)
def test_exactly_the_sizes_that_agree_bit_for_bit_are_used(rounding: Rounding, expected: tuple[int, ...]) -> None:
    inputs = random_inputs(16, 5, shortest=5, vocabulary_sizes=(V,), seed=1)
    assert agreeing_sizes(_network(rounding), inputs, (1, 2, 4, 8, 16)) == expected


@pytest.mark.parametrize("rounding", [_small_batches_differ, _all_but_single_rows_depend_on_the_row])
def test_a_row_is_the_same_alone_and_in_any_batch_on_a_network_that_rounds_by_batch(rounding: Rounding) -> None:
    network = _network(rounding)
    sizes = agreeing_sizes(network, random_inputs(16, 5, shortest=5, vocabulary_sizes=(V,), seed=1), (1, 2, 4, 8, 16))
    fixed = FixedShapes(network, sizes={5: sizes})
    tokens, hidden, lengths = _inputs()
    alone = [fixed(tokens[i : i + 1], hidden[i : i + 1], lengths[i : i + 1]) for i in range(16)]
    for rows in (torch.arange(16), torch.arange(16).flip(0), torch.tensor([3, 3, 9]), torch.arange(5, 12)):
        together = fixed(tokens[rows], hidden[rows], lengths[rows])
        for place, row in enumerate(rows.tolist()):
            assert torch.equal(together.token_logits[place], alone[row].token_logits[0])
            assert torch.equal(together.order_logits[place], alone[row].order_logits[0])


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

    fixed = FixedShapes(network, sizes={16: (4, 8), 40: (2,)})
    for rows, length in ((1, 3), (4, 16), (5, 16), (9, 11), (3, 17)):
        inputs = random_inputs(rows, length, shortest=length, vocabulary_sizes=(V,), seed=0)
        logits, order_logits = fixed(*inputs)
        assert logits.shape == (rows, length, V)
        assert order_logits.shape == (rows, length)
    assert seen == [(4, 16), (4, 16), (8, 16), (8, 16), (4, 16), (2, 40), (2, 40)]
    assert fixed.num_positions == sum(rows * length for rows, length in seen)


def test_canvases_of_two_length_buckets_are_not_run_together() -> None:
    fixed = FixedShapes(_network(_exact), sizes={16: (4,), 40: (4,)})
    tokens, hidden, _ = random_inputs(2, 30, shortest=30, vocabulary_sizes=(V,), seed=0)
    with pytest.raises(AssertionError, match="two length buckets"):
        fixed(tokens, hidden, torch.tensor([12, 30]))


def test_batch_sizes_grow_by_half_and_buckets_double_up_to_the_length() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(8) == (1, 2, 3, 4, 6, 8)
    assert batch_sizes(9) == (1, 2, 3, 4, 6, 8, 9)
    assert length_buckets(40, is_padded=True) == (16, 32, 40)
    assert length_buckets(64, is_padded=True) == (16, 32, 64)
    assert length_buckets(10, is_padded=True) == (10,)
    assert length_buckets(15, is_padded=False) == (15,)


@pytest.mark.parametrize("tokenizer", [table_tokenizer(), text_tokenizer()], ids=["table", "text"])
def test_the_real_network_runs_deterministically_here(tokenizer: Tokenizer) -> None:
    network = random_transformer(tokenizer, kind="contextual")
    fixed, is_deterministic = fixed_shapes(network, network.architecture, 16, torch.device("cpu"))
    assert is_deterministic
    assert all(fixed.sizes.values())


def test_a_network_that_never_repeats_itself_is_served_and_said_to_be_not_deterministic() -> None:
    architecture = random_transformer(table_tokenizer()).architecture
    fixed, is_deterministic = fixed_shapes(_network(_never_the_same_twice), architecture, 8, torch.device("cpu"))
    assert not is_deterministic
    assert fixed.sizes == {5: (1, 2, 3, 4, 6, 8)}
