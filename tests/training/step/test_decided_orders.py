"""Orders decided by search: found on the critic, taken by real forwards of other rows, and settled at the end."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.small import small_dataset, small_recipe
from unveil.model.denoiser import Prediction
from unveil.model.loss.critic import Critic
from unveil.model.order.plackett_luce import deterministic_order, next_log_probs
from unveil.training.data.rows import Rows
from unveil.training.order_config import reading_order
from unveil.training.step.decided_orders import (
    GAP,
    LAW,
    LEFT_TO_RIGHT,
    OWN_ORDER,
    PRICED_ROWS,
    RIGHT_TO_LEFT,
    SCORED_ROWS,
    Decision,
    decide,
    described,
    found_orders,
    order_log_w,
    scored_rows,
)
from unveil.training.trainer import Trained, train

L = 4
DATASET = small_dataset()
FORWARDS, BACKWARDS = reading_order("left_to_right", L), reading_order("right_to_left", L)
ORDER = (
    "advanced.order={warmup = 0.3, anneal = 0.3, searches = [0.75]}",  # searched for at steps 4 and 9 of 12
    "advanced.optimizer.ema_decay=0.0",
    "advanced.run.keep_checkpoints=3",
)


class Chain:
    """Knows a position only if its neighbour, `step` away, is visible or off the canvas."""

    def __init__(self, step: int) -> None:
        self._step = step

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        places = torch.arange(L) + self._step
        is_there = (places >= 0) & (places < L)
        known = ~hidden[:, places.clamp(0, L - 1)] | ~is_there
        sure = torch.where(known, 5.0, 0.0)
        return Prediction(torch.stack([sure, torch.zeros_like(sure)], -1), torch.zeros_like(sure))


def _rows(count: int = 64) -> Rows:
    return Rows(torch.zeros(count, L, dtype=torch.int64), torch.full((count,), L))


@pytest.mark.parametrize(("step", "best"), [(-1, LEFT_TO_RIGHT), (1, RIGHT_TO_LEFT)])
def test_the_order_in_which_every_position_is_known_from_its_neighbour_wins(step: int, best: str) -> None:
    orders = {LEFT_TO_RIGHT: FORWARDS, RIGHT_TO_LEFT: BACKWARDS}
    found = decide(Chain(step), _rows(), log_w=torch.zeros(L), orders=orders, seed=0)
    assert found.best == best
    assert found.nats[best] == pytest.approx(L * float(torch.tensor(-5.0).exp().log1p()), abs=1e-5)
    assert found.nats[LAW] > 2 * found.nats[best]


def test_a_law_that_costs_the_same_stays_and_a_dearer_order_never_wins() -> None:
    law = 7 * order_log_w(FORWARDS)  # so far apart that nothing of it is chance
    found = decide(Chain(-1), _rows(), log_w=law, orders={"same": FORWARDS, "dearer": BACKWARDS}, seed=0)
    assert found.nats[LAW] == found.nats["same"] < found.nats["dearer"]
    assert found.best == LAW


@pytest.mark.parametrize(("gain", "best"), [(0.15, LAW), (0.35, "other")])  # two standard errors are 0.25
def test_an_order_becomes_the_law_only_where_it_is_cheaper_for_certain(
    gain: float, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.tensor([1.0, -1.0]).double().repeat(32)
    room = "unveil.training.step.decided_orders"
    monkeypatch.setattr(f"{room}.nelbo", lambda *_, **__: 10.0 + noise)
    monkeypatch.setattr(
        f"{room}.log_likelihood", lambda _, __, order: -(10.0 - gain * (order == BACKWARDS) + 0 * noise)
    )
    decided = order_log_w(FORWARDS)
    found = decide(Chain(1), _rows(), log_w=decided, orders={"other": BACKWARDS}, seed=0)
    assert found.best == best
    own = decide(Chain(1), _rows(), log_w=decided, orders={OWN_ORDER: BACKWARDS, "same": BACKWARDS}, seed=0)
    assert own.best == OWN_ORDER  # what the law mostly draws anyway need not be certain


def test_a_uniform_law_does_not_stay_though_every_order_is_dearer_at_first() -> None:
    """What deciding is worth comes with the training along it."""
    orders = {"dear": [0, 2, 1, 3], "less dear": BACKWARDS}
    found = decide(Chain(1), _rows(), log_w=torch.zeros(L), orders={"dear": FORWARDS}, seed=0)
    assert found.nats["dear"] > found.nats[LAW]
    assert found.best == "dear"
    both = decide(Chain(1), _rows(), log_w=torch.zeros(L), orders=orders, seed=0)
    assert both.best == min(orders, key=both.nats.__getitem__)


def test_a_law_around_an_order_has_that_order_and_its_gap() -> None:
    order = [2, 0, 3, 1]
    law = order_log_w(order)
    assert deterministic_order(law).tolist() == order
    torch.testing.assert_close(-law[order].diff(), torch.full((3,), GAP))
    assert float(law.sum()) == pytest.approx(0.0, abs=1e-5)
    last = order_log_w(list(range(1024)))
    first = next_log_probs(last, torch.ones(1, 1024, dtype=torch.bool))[0, 0].exp()
    assert float(first) > 399 / 400


def _critic_for(order: list[int]) -> Critic:
    """One that expects a position to be cheap where all before it in the order are visible."""
    critic = Critic(L)
    with torch.no_grad():
        for place, position in enumerate(order):
            critic.linear.weight[position, order[:place]] = -1.0
            critic.linear.weight[position, order[place + 1 :]] = 1.0
    return critic


def test_what_the_critic_thinks_best_is_found_and_real_forwards_decide_otherwise() -> None:
    inside_out = [1, 2, 0, 3]
    marginals = torch.full((1, 2), 0.5).log().double()
    orders = found_orders(_critic_for(inside_out), _rows(), log_w=torch.zeros(L), marginals=marginals, seed=0, step=3)
    assert list(orders)[:3] == [LEFT_TO_RIGHT, RIGHT_TO_LEFT, "found 1"]
    assert orders["found 1"] == inside_out
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    again = found_orders(_critic_for(inside_out), _rows(), log_w=torch.zeros(L), marginals=marginals, seed=0, step=3)
    assert orders == again
    found = decide(Chain(1), _rows(), log_w=torch.zeros(L), orders=orders, seed=0)
    assert found.best == RIGHT_TO_LEFT
    assert found.nats[RIGHT_TO_LEFT] < found.nats["found 1"]


def test_rows_that_are_scored_are_others_than_those_that_are_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(torch.arange(1000)[:, None].expand(-1, L), torch.full((1000,), L))
    priced: list[int] = []

    def seen(chosen: Rows, _: Tensor) -> None:
        priced.extend(chosen.x[:, 0].tolist())
        raise StopIteration

    monkeypatch.setattr("unveil.training.step.decided_orders.order_rows", seen)
    with pytest.raises(StopIteration):
        found_orders(Critic(L), rows, log_w=torch.zeros(L), marginals=torch.zeros(1, 1000), seed=5, step=7)
    scored = scored_rows(rows, seed=5, step=7).x[:, 0].tolist()
    assert (len(set(priced)), len(set(scored))) == (PRICED_ROWS, SCORED_ROWS)
    assert not set(priced) & set(scored)
    assert scored != scored_rows(rows, seed=5, step=8).x[:, 0].tolist()
    few = Rows(rows.x[:100], rows.lengths[:100])
    assert len(scored_rows(few, seed=5, step=7)) == 100, "of few rows all"


def test_an_order_is_said_by_its_name_or_its_beginning() -> None:
    assert [described(order) for order in (FORWARDS, BACKWARDS, [1, 0, 2])] == [LEFT_TO_RIGHT, RIGHT_TO_LEFT, "1, 0, 2"]
    assert described([1, 0, *range(2, 40)]).endswith("14, 15, ...")


def _train(work: Path, *overrides: str) -> Trained:
    trained = train(small_recipe(*ORDER, *overrides), DATASET, work=work)
    assert trained is not None
    return trained


def _right_to_left_wins(*_: object, **__: object) -> Decision:
    return Decision({LAW: 2.0, LEFT_TO_RIGHT: 3.0, RIGHT_TO_LEFT: 1.0}, RIGHT_TO_LEFT)


def _the_law_wins(*_: object, **__: object) -> Decision:
    return Decision({LAW: 1.0}, LAW)


def _spans(work: Path) -> list[float]:
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return [line["log_w_span"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("query_layers", [0, 1])
def test_the_law_begins_as_the_best_order_rests_through_the_anneal_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query_layers: int
) -> None:
    decisions = [_right_to_left_wins, _right_to_left_wins, _the_law_wins]
    calls: list[int] = []

    def decides(*_: object, **__: object) -> Decision:
        calls.append(1)
        return decisions[(len(calls) - 1) % 3]()

    monkeypatch.setattr("unveil.training.trainer.decide", decides)
    network = f"advanced.model.query_layers={query_layers}"
    whole = _train(tmp_path / "whole", network)
    assert len(calls) == 3
    spans, start = _spans(tmp_path / "whole"), order_log_w(BACKWARDS)
    span = float(start.max() - start.min())
    assert spans[:4] == [0.0] * 4  # the warm-up: 0.3 of 12 steps, rounded up
    assert spans[4:8] == pytest.approx([span] * 4)
    assert spans[8] != pytest.approx(span, abs=1e-4)
    assert spans[9] == pytest.approx(span, abs=0.5), "back to the order, and a step on"
    _train(tmp_path / "parts", network)
    for step in (8, 12):  # as if killed after the first search, before step 8
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:08}")
    calls.clear()
    resumed = _train(tmp_path / "parts", network)
    for name, tensor in whole.denoiser.state_dict().items():
        assert torch.equal(tensor, resumed.denoiser.state_dict()[name]), name


def test_a_search_of_its_own_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole")
    _train(tmp_path / "parts")
    for step in (8, 12):
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{step:08}")
    resumed = _train(tmp_path / "parts")
    for name, tensor in whole.denoiser.state_dict().items():
        assert torch.equal(tensor, resumed.denoiser.state_dict()[name]), name


@pytest.mark.parametrize(("best", "order"), [("its likeliest order", BACKWARDS), (LEFT_TO_RIGHT, FORWARDS)])
def test_at_the_end_the_law_is_decided_on_its_likeliest_or_a_cheaper_reading_order_and_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: str, order: list[int]
) -> None:
    tried: list[dict[str, list[int]]] = []

    def decides(*_: object, orders: dict[str, list[int]], **__: object) -> Decision:
        tried.append(orders)
        chosen = best if "its likeliest order" in orders else RIGHT_TO_LEFT
        return Decision({LAW: 2.0, chosen: 1.0}, chosen)

    monkeypatch.setattr("unveil.training.trainer.decide", decides)
    kept = _train(tmp_path).denoiser.order_head.global_log_w().detach()
    assert len(tried) == 3
    assert tried[-1] == {"its likeliest order": BACKWARDS, LEFT_TO_RIGHT: FORWARDS, RIGHT_TO_LEFT: BACKWARDS}
    torch.testing.assert_close(kept, order_log_w(order))
    again = _train(tmp_path).denoiser.order_head.global_log_w().detach()  # nothing left to do, nothing tried
    assert torch.equal(again, kept)
    assert len(tried) == 3
