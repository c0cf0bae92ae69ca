"""Distances to the closest training row: known ones by hand, and a generator that repeats its training rows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.small import small_columns
from unveil.model.denoiser import Prediction
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.privacy import compare
from unveil.training.evaluation.tables import generate_rows, generated_metrics, num_generated
from unveil.training.publishing.metric_tables import privacy_notes, privacy_rows

L, LEVELS = 8, 6


def _dataset(num_train: int = 300, num_test: int = 100) -> Dataset:
    """Independent columns of six levels: two rows are hardly ever alike."""
    rows = np.random.default_rng(0).integers(0, LEVELS, (num_train + 2 * num_test, L))
    columns = {f"x{i}": np.array([f"v{v}" for v in rows[:, i]], dtype=object) for i in range(L)}
    train, validation, test = np.split(rows, [num_train, num_train + num_test])
    return Dataset(name="random", tokenizer=TableTokenizer.fit(columns), train=train, validation=validation, test=test)


class Memory:
    """A denoiser that knows the rows by heart: the law of those that agree with what is seen."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        agrees = ((tokens[:, None] == self._rows) | hidden[:, None]).all(-1).double()  # [B, N]
        counts = torch.einsum("bn,nlv->blv", agrees, torch.nn.functional.one_hot(self._rows, LEVELS).double())
        return Prediction(counts.log().float(), torch.zeros(tokens.shape))


def _even(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
    """The truth of this data."""
    return Prediction(torch.zeros(*tokens.shape, LEVELS), torch.zeros(tokens.shape))


def test_a_generator_that_repeats_its_training_rows_is_caught() -> None:
    dataset = _dataset()
    found = generated_metrics(Memory(torch.from_numpy(dataset.train)), dataset, limit=None, seed=1)["privacy"]
    closest = found["closest_training_row"]
    assert closest["generated"] == {"median": 0.0, "fifth_percentile": 0.0, "same": 1.0}
    assert closest["held_out"]["median"] >= 0.25
    assert closest["held_out"]["same"] == 0.0
    share = found["closer_to_training"]
    assert share["mean"] > 0.5 + 5 * share["standard_error"]


def test_a_generator_of_the_truth_is_as_far_from_training_rows_as_held_out_rows_are() -> None:
    found = generated_metrics(_even, _dataset(), limit=None, seed=1)["privacy"]
    closest = found["closest_training_row"]
    assert closest["generated"]["median"] == pytest.approx(closest["held_out"]["median"], abs=1 / L)
    share = found["closer_to_training"]
    assert abs(share["mean"] - 0.5) < 3 * share["standard_error"]


def test_half_copies_lie_between() -> None:
    dataset = _dataset()
    copies, fresh = torch.from_numpy(dataset.train[:50]), torch.from_numpy(dataset.validation[:50])
    found = compare(torch.cat([copies, fresh]), dataset, seed=0)["closest_training_row"]["generated"]
    assert found["same"] == 0.5


def test_distances_are_those_of_the_definition() -> None:
    columns = {
        "level": np.array(["a", "b", "a", "b"], dtype=object),
        "number": np.array([1.0, 2.0, 3.0, np.nan]),
    }
    tokenizer = TableTokenizer.fit(columns)
    train = tokenizer.encode_rows(columns).tokens[[0, 3]]  # (a, 1), (b, missing)
    dataset = Dataset(name="t", tokenizer=tokenizer, train=np.repeat(train, [3, 1], 0), validation=train, test=train)
    # All three numbers are 1, so nothing lies between 3 and the middle of 1's bin but half of it.
    found = compare(torch.tensor([[1, 2]]), dataset, seed=0)["closest_training_row"]["generated"]
    assert found["median"] == pytest.approx(0.5)  # to (b, missing): the number is at distance 1
    found = compare(torch.tensor([[0, 2]]), dataset, seed=0)["closest_training_row"]["generated"]
    assert found["median"] == pytest.approx(0.25)  # to (a, 1): half of the values lie between


def test_rows_are_drawn_as_many_as_wanted_and_told() -> None:
    told: list[int] = []
    rows = generate_rows(_even, L, number=300, seed=0, advance=told.append)
    assert rows.shape == (300, L)
    assert sum(told) == 300 * L
    assert torch.equal(rows, generate_rows(_even, L, number=300, seed=0))
    assert (rows.float().mean(0) - 2.5).abs().max() < 0.5


def test_nothing_is_said_where_there_is_nothing_to_compare_with() -> None:
    assert num_generated(_dataset(num_test=1), limit=None) == 0
    assert generated_metrics(_even, _dataset(num_test=1), limit=None, seed=0) == {}
    assert num_generated(_dataset(), limit=30) == 30


def test_the_metrics_become_sentences_with_their_definition() -> None:
    metrics = generated_metrics(_even, _dataset(), limit=50, seed=1)
    assert [row[0] for row in privacy_rows(metrics)] == ["generated rows", "held-out real rows"]
    first, second = privacy_notes(metrics)
    assert first.startswith("Closer to a training row than to a held-out one, of 100 each: ")
    assert "of 50 generated rows, 300 training rows; 50 % if neither is preferred." in first
    assert second.startswith("Distance of two rows")
    assert list(privacy_rows({})) == []


def test_numbers_count_by_rank() -> None:
    columns = small_columns(200)
    tokenizer = TableTokenizer.fit(columns, max_bins=8)
    ids = tokenizer.encode_rows(columns).tokens
    dataset = Dataset(name="s", tokenizer=tokenizer, train=ids[:100], validation=ids[100:], test=ids[100:])
    moved = torch.from_numpy(ids[:1].copy())
    moved[0, 3] = (moved[0, 3] + 1) % 8
    closest = compare(moved, dataset, seed=0)["closest_training_row"]["generated"]["median"]
    assert closest < 0.25
