"""A run that gets worse on rows that it has not seen ends early, with its best weights; resumed, with the same ones."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.run.test_stopping import _at_step, _weights
from tests.training.small import small_dataset, small_recipe, write_csv
from unveil.model.errors import UnveilError
from unveil.training.config import settle, table_recipe
from unveil.training.run.best import Best
from unveil.training.run.stopping import StoppedError
from unveil.training.trainer import Trained, train

FEW = replace(small_dataset(), train=small_dataset().train[:12])  # learned by heart within some steps
LONG = (
    "optimizer.steps=150",
    "optimizer.batch_size=8",
    "advanced.optimizer.patience=2",
    "advanced.run.log_every=100",
    "advanced.run.checkpoint_every=15",
    "advanced.run.checkpoint_seconds=1000.0",
)


def _trained(work: Path, *overrides: str) -> Trained:
    trained = train(small_recipe(*LONG, *overrides), FEW, work=work)
    assert trained is not None
    return trained


def test_it_ends_after_so_many_worse_validations_and_takes_the_best_weights(tmp_path: Path) -> None:
    trained = _trained(tmp_path)
    steps, best = trained.summary["steps"], trained.summary["best_step"]
    assert steps == best + 30 < 150
    costs = Best.at(tmp_path / "best", step=steps).costs
    assert min(costs, key=lambda step: costs[step]) == best
    until = train(small_recipe(*LONG, "advanced.optimizer.patience=0"), FEW, work=tmp_path / "all")
    assert until is not None
    assert until.summary["steps"] == 150
    assert "best_step" not in until.summary
    kept, last = (found.denoiser.state_dict() for found in (trained, until))
    assert any(not torch.equal(kept[name], last[name]) for name in kept)
    own = Best.at(tmp_path / "best", step=steps).weights()
    assert all(torch.equal(kept[name], own[name]) for name in own if not name.startswith("order_head."))


def test_stopped_anywhere_it_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the best step, between it and the end, and when all is done but the artifact."""
    undisturbed = _trained(tmp_path / "undisturbed")
    best, steps = undisturbed.summary["best_step"], undisturbed.summary["steps"]
    for step in (best - 4, best + 4, steps - 1):
        work = tmp_path / f"at-{step}"
        with monkeypatch.context() as patched:
            _at_step(patched, step, signal.SIGTERM)
            if step < steps - 1:
                with pytest.raises(StoppedError):
                    _trained(work)
            else:
                _trained(work)
        again = _trained(work)
        assert again.summary["best_step"] == best
        assert again.summary["steps"] == steps
        for name, weights in _weights(undisturbed).items():
            assert torch.equal(weights, _weights(again)[name]), name


def test_weights_that_were_kept_after_the_checkpoint_are_not_taken_for_those_of_before(tmp_path: Path) -> None:
    """As after a kill: the run comes to the same step again, and finds the same."""
    costs, weights = {10: 5.0, 20: 4.0, 30: 3.0}, {"w": torch.ones(2)}
    best = Best(tmp_path, {})
    for step, cost in costs.items():
        best = best.and_one(step, cost, lambda: weights, writes=True)
    back = Best.at(tmp_path, step=25)
    assert (back.costs, back.step, back.num_worse) == ({10: 5.0, 20: 4.0}, 20, 0)
    back = back.and_one(30, 3.0, lambda: {"w": torch.zeros(2)}, writes=True)
    assert (back.step, back.weights()["w"].tolist()) == (30, [0.0, 0.0])
    worse = back.and_one(40, 3.0, lambda: weights, writes=True)
    assert (worse.step, worse.num_worse, worse.weights()["w"].tolist()) == (30, 1, [0.0, 0.0])


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text("[1")
    with pytest.raises(UnveilError, match=r"costs\.json: damaged; remove"):
        Best.at(tmp_path, step=3)
    best = Best(tmp_path, {1: 2.0})
    for content in (None, b"no tensors"):
        if content is not None:
            (tmp_path / "best.safetensors").write_bytes(content)
        with pytest.raises(UnveilError, match=r"best\.safetensors: missing or damaged; remove"):
            best.weights()


def test_a_table_by_default_settings_is_patient_and_named_steps_are_taken(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "mine.csv")
    by_default = settle(table_recipe(path, name="x"), num_rows=480)
    assert (by_default.optimizer.patience, by_default.validate_every) == (3, 50)
    named = settle(table_recipe(path, name="x", overrides=["optimizer.steps=70"]), num_rows=480)
    assert (named.optimizer.patience, named.validate_every) == (None, 1000)
    with pytest.raises(UnveilError, match="not valid with fsdp"):
        small_recipe("advanced.optimizer.patience=2", "advanced.run.strategy=fsdp")
