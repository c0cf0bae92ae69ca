"""Subsets of a split stand for the whole of it, however its file is sorted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.small import small_recipe
from unveil.training.data.config import TableData
from unveil.training.data.rows import as_rows, evenly_spaced, split_rows
from unveil.training.data.table.table import load_table
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.report import evaluate_model
from unveil.training.trainer import train


@given(num_rows=st.integers(1, 3000), limit=st.integers(1, 4000))
def test_a_subset_is_spread_evenly_over_all_rows(num_rows: int, limit: int) -> None:
    chosen = evenly_spaced(num_rows, limit)
    assert len(chosen) == min(num_rows, limit)
    middles = (np.arange(len(chosen)) + 0.5) * num_rows / len(chosen)
    assert (np.abs(chosen + 0.5 - middles) <= 0.5 + 1e-9).all(), "the middle of each of so many equal stretches"
    assert len(set(chosen.tolist())) == len(chosen)
    mirrored = num_rows - 1 - chosen[::-1]
    assert np.abs(mirrored - chosen).max() <= 1, "no end is favoured"


def test_no_limit_takes_every_row() -> None:
    assert evenly_spaced(5, None).tolist() == [0, 1, 2, 3, 4]
    assert as_rows(np.arange(20).reshape(10, 2), limit=3).x[:, 0].tolist() == [2, 10, 16]


def test_lengths_and_clues_stay_with_their_rows() -> None:
    ids, lengths = np.arange(40).reshape(10, 4), np.arange(10) % 4 + 1
    clues = ids % 3 == 0
    rows = as_rows(ids, lengths, clues=clues, limit=4)
    assert rows.clues is not None
    picked = rows.x[:, 0] // 4
    assert torch.equal(rows.lengths, torch.from_numpy(lengths)[picked])
    assert torch.equal(rows.clues, torch.from_numpy(clues)[picked])
    again = as_rows(ids, lengths, clues=clues).subset(4)
    assert torch.equal(again.x, rows.x)
    assert torch.equal(again.lengths, rows.lengths)


def test_a_sorted_file_gives_the_same_metrics_as_a_shuffled_one_within_noise(tmp_path: Path) -> None:
    """Of a sorted file the first rows are all of the commonest, cheapest kind."""
    generator, number = np.random.default_rng(3), 4_000
    a = np.sort(generator.choice(6, number, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02]))
    lines = np.array([f"a{v},b{(v + generator.integers(0, 2)) % 6}" for v in a])
    metrics, head = {}, {}
    for name, places in (("sorted", np.arange(number)), ("shuffled", generator.permutation(number))):
        path = tmp_path / f"{name}.csv"
        path.write_text("a,b\n" + "\n".join(lines[places]) + "\n")
        dataset = load_table(TableData(path=path))
        recipe = small_recipe("optimizer.steps=60", "optimizer.learning_rate=0.02", "order.method=uniform")
        trained = train(recipe, dataset, work=tmp_path / name)
        assert trained is not None
        metrics[name] = evaluate_model(trained.denoiser, dataset, limit=100)
        rows = split_rows(dataset, "test")
        with torch.inference_mode():
            logits = trained.denoiser(rows.x, torch.ones_like(rows.padding), rows.lengths).token_logits
        head[name] = Estimate.of(torch.nn.functional.cross_entropy(logits[:, 0], rows.x[:, 0], reduction="none")[:100])
    for kind, order in (("nelbo", "uniform"), ("log_likelihood", "left_to_right"), ("log_likelihood", "confidence")):
        ours, others = (metrics[name][kind][order] for name in ("sorted", "shuffled"))
        noise = np.hypot(ours["standard_error"], others["standard_error"])
        assert abs(ours["mean"] - others["mean"]) < 3 * noise
    assert head["shuffled"].mean - head["sorted"].mean > 3 * head["shuffled"].standard_error, "the head would have told"


@pytest.mark.parametrize("split", ["validation", "test"])
def test_whatever_takes_a_limit_takes_it_from_the_whole_split(split: str, tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("n,m\n" + "\n".join(f"{n},{n % 7}" for n in range(2_000)) + "\n")
    dataset = load_table(TableData(path=path, max_bins=10))
    few, whole = (split_rows(dataset, split, limit=limit).x[:, 0].double().mean() for limit in (20, None))
    assert abs(float(few - whole)) < 0.3, "bins 0 to 9, ascending in the file"
