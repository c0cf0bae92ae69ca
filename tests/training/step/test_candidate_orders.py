"""Candidate orders, which anybody would try, against the law at the end of the warm-up and of training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.small import small_dataset, small_recipe
from unveil.model.denoiser import Prediction
from unveil.model.errors import UnveilError
from unveil.model.order.plackett_luce import deterministic_order, next_log_probs
from unveil.training.data.rows import Rows
from unveil.training.order_config import reading_order
from unveil.training.step.candidate_orders import (
    GAP,
    LAST_GAP,
    LAW,
    OWN,
    Comparison,
    candidate_orders,
    compare,
    order_log_w,
)
from unveil.training.trainer import Trained, train

L = 4
DATASET = small_dataset()
CANDIDATES = 'order.candidates=["left_to_right", "right_to_left"]'


def rows(count: int = 64) -> Rows:
    x = torch.zeros(count, L, dtype=torch.int64)
    return Rows(x, torch.full((count,), L))


def follows(step: int) -> "type[Chain]":
    """A denoiser that knows a position only if its neighbour, `step` away, is visible or off the canvas."""

    class Following(Chain):
        neighbour = step

    return Following


class Chain:
    neighbour = 0

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        places = torch.arange(L) + self.neighbour
        is_there = (places >= 0) & (places < L)
        known = ~hidden[:, places.clamp(0, L - 1)] | ~is_there
        sure = torch.where(known, 5.0, 0.0)
        return Prediction(torch.stack([sure, torch.zeros_like(sure)], -1), torch.zeros_like(sure))


@pytest.mark.parametrize(("step", "best"), [(-1, "left_to_right"), (1, "right_to_left")])
def test_the_order_in_which_every_position_is_known_from_its_neighbour_wins(step: int, best: str) -> None:
    orders = candidate_orders(torch.zeros(L), ("left_to_right", "right_to_left"), has_own=False)
    verdict = compare(follows(step)(), rows(), log_w=torch.zeros(L), orders=orders, seed=0)
    assert verdict.best == best
    sure = float(torch.tensor(-5.0).exp().log1p())
    assert verdict.nats[best] == pytest.approx(L * sure, abs=1e-5)
    assert verdict.nats[LAW] > 2 * verdict.nats[best]
    assert deterministic_order(order_log_w(orders[best])).tolist() == orders[best]
    assert not verdict.is_close


def test_a_law_that_is_as_good_goes_on() -> None:
    law = order_log_w(reading_order("left_to_right", L)) * 20
    verdict = compare(
        follows(-1)(), rows(), log_w=law, orders={"right_to_left": reading_order("right_to_left", L)}, seed=0
    )
    assert verdict.best == LAW


def test_a_law_that_is_a_candidates_order_is_that_candidate_before_training_goes_on() -> None:
    law = order_log_w(reading_order("left_to_right", L), gap=LAST_GAP) * 20
    orders = candidate_orders(law, ("left_to_right", "right_to_left"), has_own=False)
    verdict = compare(follows(-1)(), rows(), log_w=law, orders=orders, seed=0)
    assert verdict.best == "left_to_right"
    assert verdict.nats[LAW] <= verdict.nats["left_to_right"] + 1e-6


def test_a_law_that_prefers_no_order_and_is_cheapest_goes_on() -> None:
    """As after a warm-up, where ties would make it left to right, on a net that wants what is two places on first."""
    net = follows(2)()
    law = torch.zeros(L)
    orders = candidate_orders(law, ("left_to_right",), has_own=False)
    verdict = compare(net, rows(), log_w=law, orders=orders, seed=0)
    assert verdict.nats[LAW] < verdict.nats["left_to_right"]
    assert deterministic_order(law).tolist() == orders["left_to_right"]
    assert verdict.best == LAW


def test_orders_that_a_net_cannot_tell_apart_are_close() -> None:
    class Learned(Chain):
        """Knows no position from any other; what a row costs is chance."""

        def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
            sure = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(int(hidden.sum())))
            return Prediction(torch.stack([sure, -sure], -1), torch.zeros_like(sure))

    orders = candidate_orders(torch.zeros(L), ("left_to_right", "right_to_left"), has_own=False)
    assert compare(Learned(), rows(), log_w=torch.zeros(L), orders=orders, seed=0).is_close
    assert compare(follows(-1)(), rows(1), log_w=torch.zeros(L), orders=orders, seed=0).is_close
    decided = order_log_w([1, 0, 2, 3])  # as an earlier run may leave it: nothing that a warm-up could tell
    assert not compare(Learned(), rows(), log_w=decided, orders=orders, seed=0).is_close


@pytest.mark.parametrize("is_close", [False, True])
def test_after_the_warm_up_it_is_said_that_orders_are_too_close_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_close: bool
) -> None:
    verdict = Comparison({LAW: 1.0, "left_to_right": 1.0, "right_to_left": 1.1}, LAW, is_close)
    monkeypatch.setattr("unveil.training.trainer.compare", lambda *_, **__: verdict)
    _train(tmp_path, CANDIDATES, "advanced.order.warmup=0.3", "advanced.order.anneal=0.3")
    said = capsys.readouterr()
    assert (said.out + said.err).count(
        "the learned one stays, too close to tell: a longer warm-up (advanced.order.warmup)"
    ) == is_close
    assert (said.out + said.err).count("the learned one stays") == 2


def test_a_law_does_not_lose_to_a_candidate_only_because_it_is_drawn() -> None:
    """On a net that knows left to right, the law is left to right but for chance: its own order wins, and ties."""
    law = order_log_w(reading_order("left_to_right", L), gap=GAP)
    orders = candidate_orders(law, ("left_to_right", "right_to_left"), has_own=True)
    verdict = compare(follows(-1)(), rows(), log_w=law, orders=orders, seed=0)
    assert verdict.best == OWN
    assert verdict.nats[OWN] == verdict.nats["left_to_right"] < verdict.nats[LAW]


def _train(work: Path, *overrides: str) -> Trained:
    trained = train(small_recipe(*overrides), DATASET, work=work)
    assert trained is not None
    return trained


def test_the_law_begins_as_the_candidate_rests_through_the_anneal_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unveil.training.trainer.compare", _right_to_left_wins)
    order = (
        CANDIDATES,
        "advanced.order.warmup=0.3",
        "advanced.order.anneal=0.3",
        "advanced.optimizer.ema_decay=0.0",
        "advanced.run.keep_checkpoints=3",
    )
    whole = _train(tmp_path / "whole", *order)
    spans = [line["log_w_span"] for line in _log(tmp_path / "whole")]
    start = order_log_w(reading_order("right_to_left", L))
    span = float(start.max() - start.min())
    assert spans[:4] == [0.0] * 4  # the warm-up: 0.3 of 12 steps, rounded up
    assert spans[4:8] == pytest.approx([span] * 4)
    assert spans[-1] != pytest.approx(span, abs=1e-4)
    assert deterministic_order(whole.denoiser.order_head.global_log_w().detach()).tolist() == [3, 2, 1, 0]
    _train(tmp_path / "parts", *order)
    for step in (8, 12):  # as if killed between the candidate's start, step 4, and step 8
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:08}")
    resumed = _train(tmp_path / "parts", *order)
    for name, tensor in whole.denoiser.state_dict().items():
        assert torch.equal(tensor, resumed.denoiser.state_dict()[name]), name


def test_at_the_end_the_candidate_is_kept_decided_if_it_is_cheaper_than_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Comparison({LAW: 2.0, "left_to_right": 1.0}, "left_to_right", is_close=False)
    verdicts = iter([Comparison({LAW: 1.0}, LAW, is_close=True), last])
    monkeypatch.setattr("unveil.training.trainer.compare", lambda *_, **__: next(verdicts))
    order = (CANDIDATES, "advanced.order.warmup=0.3", "advanced.order.anneal=0.3")
    kept = _train(tmp_path, *order).denoiser.order_head.global_log_w().detach()
    torch.testing.assert_close(kept, order_log_w(reading_order("left_to_right", L), gap=LAST_GAP))
    assert next(verdicts, None) is None
    assert float(next_log_probs(kept, torch.ones(1, L, dtype=torch.bool))[0, 0].exp()) > 0.99
    again = _train(tmp_path, *order).denoiser.order_head.global_log_w().detach()  # nothing left to do, nothing tried
    assert torch.equal(again, kept)


def _right_to_left_wins(*_: object, **__: object) -> Comparison:
    return Comparison({LAW: 2.0, "left_to_right": 3.0, "right_to_left": 1.0}, "right_to_left", is_close=False)


def _log(work: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def test_candidate_orders_are_for_global_orders() -> None:
    with pytest.raises(UnveilError, match=r'order\.candidates: unknown key with method = "uniform"'):
        small_recipe(CANDIDATES, "order.method=uniform")
    with pytest.raises(UnveilError, match=r"order\.candidates"):
        small_recipe('order.candidates=["inside_out"]')
