"""Scores in the engine: they take turns with generation, fail alone, go when cancelled, cost the same in company."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from tests.service.mocks import (
    VERSION,
    WAIT_SECONDS,
    Gate,
    MockRunner,
    Recorder,
    canvas,
    chain,
    mock_denoiser,
    toy_engine,
)
from unveil.engine.messages import (
    Cancel,
    Event,
    Failed,
    Finished,
    Generate,
    Ready,
    Score,
    Scored,
    Started,
    StepStats,
    Stop,
)
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.scoring import ScoreResult, score, score_step
from unveil.model.decoding.scoring_chain import Chain, Term

SIZES = (4, 3, 5, 2, 6)
LEFT = SamplingParams(order="left_to_right")
MARGIN = SamplingParams(order="margin")
MIXED = (LEFT, MARGIN, SamplingParams(), SamplingParams(order="uniform"), SamplingParams(order="right_to_left"))


class Lab:
    """An engine with one mock model, and a record of what it says."""

    def __init__(self, runner: MockRunner, *, max_batch: int = 64) -> None:
        self.runner = runner
        self.said = Recorder()
        self.engine = toy_engine({"toy": runner}, max_batch=max_batch)
        self.engine.start(self.said)
        self.said.until(lambda event: isinstance(event, Ready))

    def score(self, request_id: str, *chains: Chain, version: str = VERSION) -> None:
        self.engine.send(Score(request_id, "toy", version, chains))

    def until_end(self, request_id: str) -> Event:
        return self.said.until(lambda e: isinstance(e, Finished | Failed) and e.request_id == request_id)

    def terms(self, request_id: str, index: int = 0) -> list[Term]:
        found = [e for e in self.said.events if isinstance(e, Scored) and e.request_id == request_id]
        return sorted((e.term for e in found if e.index == index), key=lambda term: term.step)

    def stop(self) -> None:
        self.engine.send(Stop())
        self.engine.join(WAIT_SECONDS)
        assert not self.engine.is_alive()


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab(MockRunner(SIZES))
    yield lab
    lab.stop()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def gated(gate: Gate) -> Iterator[Lab]:
    lab = Lab(MockRunner(SIZES, on_step=gate), max_batch=2)
    yield lab
    gate.open()
    lab.stop()


def _alone(start: Chain) -> list[Term]:
    (terms,) = score(partial(score_step, mock_denoiser(SIZES)), [start], max_batch=1)
    return sorted(terms, key=lambda term: term.step)


def test_a_score_is_started_scored_position_by_position_and_finished(lab: Lab) -> None:
    lab.score("s", chain(0, 2, 3, params=MARGIN))
    lab.until_end("s")
    events = [event for event in lab.said.events if getattr(event, "request_id", None) == "s"]
    assert [type(event) for event in events] == [Started, Scored, Scored, Scored, Finished]
    assert {getattr(event, "weights_version", None) for event in events} == {VERSION}
    assert lab.terms("s") == _alone(chain(0, 2, 3, params=MARGIN))


def test_the_steps_of_an_order_known_ahead_share_one_batch_and_the_others_take_one_each(lab: Lab) -> None:
    lab.score("ahead", chain(params=LEFT))
    lab.until_end("ahead")
    assert [len(batch) for batch in lab.runner.scored] == [5]
    lab.score("after", chain(params=MARGIN))
    lab.until_end("after")
    assert [len(batch) for batch in lab.runner.scored] == [5, 1, 1, 1, 1, 1]
    assert [term.position for term in lab.terms("ahead")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_batch", [1, 2, 3, 64])
def test_every_chain_of_a_mixed_request_costs_what_it_costs_alone(max_batch: int) -> None:
    lab = Lab(MockRunner(SIZES), max_batch=max_batch)
    chains = [chain(*known, seed=seed, params=params) for seed in (1, 2) for params in MIXED for known in ((), (1, 4))]
    lab.score("s", *chains)
    lab.until_end("s")
    assert [lab.terms("s", i) for i in range(len(chains))] == [_alone(start) for start in chains]
    assert max(map(len, lab.runner.scored)) <= max_batch
    lab.stop()


def test_chains_of_different_lengths_do_not_step_together() -> None:
    lab = Lab(MockRunner((9,)))
    lab.score("s", chain(length=3), chain(length=5, params=LEFT), chain(length=3, params=LEFT))
    assert isinstance(lab.until_end("s"), Finished)
    assert all(len({c.canvas.length for c in batch}) == 1 for batch in lab.runner.scored)
    lab.stop()


def test_a_long_score_does_not_hold_generation_up_and_the_other_way_round(gated: Lab, gate: Gate) -> None:
    gated.score("long", *(chain(seed=seed) for seed in range(50)))
    gate.wait()
    gated.engine.send(Generate("short", "toy", VERSION, (canvas(seed=77),)))
    gate.allow()
    turns = []
    for _ in range(10):
        turns.append("generate" if [c.seed for c in gate.wait()] == [77] else "score")
        gate.allow()
    assert turns == ["score", "generate"] * 5
    assert isinstance(gated.until_end("short"), Finished)


def test_two_scores_share_the_batches_of_their_key(gated: Lab, gate: Gate) -> None:
    gated.score("first", *(chain(seed=seed) for seed in range(50)))
    gate.wait()
    gated.score("second", chain(seed=77))
    gate.allow()
    assert [c.seed for c in gate.wait()] == [0, 77]


def test_a_cancelled_score_is_gone_within_one_step_and_nothing_more_is_said_of_it(gated: Lab, gate: Gate) -> None:
    gated.score("goes", *(chain(seed=seed) for seed in range(50)))
    gate.wait()
    gated.score("stays", chain(seed=77))
    gated.engine.send(Cancel("goes"))
    gate.allow()
    assert [c.seed for c in gate.wait()] == [77]
    gate.open()
    gated.until_end("stays")
    assert gated.terms("stays") == _alone(chain(seed=77))
    assert not any(isinstance(e, Finished | Failed) and e.request_id == "goes" for e in gated.said.events)


def test_a_chain_that_breaks_its_batch_fails_its_own_request_only() -> None:
    gate = Gate()

    def refuse(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        if any(c.seed == 13 and c.step == 2 for c in canvases):
            raise RuntimeError("not\nthirteen")

    lab = Lab(MockRunner(SIZES, on_step=refuse))
    lab.score("a", chain(seed=1), chain(seed=2, params=LEFT))
    gate.wait()
    lab.score("bad", chain(seed=5), chain(seed=13))
    lab.engine.send(Generate("g", "toy", VERSION, (canvas(seed=3),)))
    gate.open()
    assert lab.until_end("bad") == Failed("bad", VERSION, "RuntimeError: not thirteen")
    lab.until_end("a")
    assert [lab.terms("a", 0), lab.terms("a", 1)] == [_alone(chain(seed=1)), _alone(chain(seed=2, params=LEFT))]
    lab.score("later", chain(0, seed=13))
    assert isinstance(lab.until_end("later"), Finished)
    lab.stop()


def _twice(results: list[ScoreResult]) -> list[ScoreResult]:
    return [*results, results[-1]]


def _none(results: list[ScoreResult]) -> list[ScoreResult]:
    return []


def _nan(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(chain, (replace(term, nats=float("nan")),)) for chain, (term,) in results]


def _infinite(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(chain, (replace(term, nats=float("inf")),)) for chain, (term,) in results]


def _hidden_position(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(chain, (replace(term, position=1),)) for chain, (term,) in results]


def _position_outside(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(chain, (replace(term, position=-2),)) for chain, (term,) in results]


def _still(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(replace(chain, pending=(True,) * 5), terms) for chain, terms in results]


def _another_truth(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(replace(chain, truth=(1,) * 5), terms) for chain, terms in results]


def _another_step(results: list[ScoreResult]) -> list[ScoreResult]:
    return [ScoreResult(chain, (replace(term, step=7),)) for chain, (term,) in results]


SPOILT = [_twice, _none, _nan, _infinite, _hidden_position, _position_outside, _still, _another_truth, _another_step]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("params", [MARGIN, LEFT], ids=["step by step", "known ahead"])
def test_an_answer_that_is_no_step_forward_fails_the_score_and_the_engine_goes_on(
    lab: Lab, spoil: object, params: SamplingParams
) -> None:
    lab.runner.spoil_scores = spoil  # type: ignore[assignment]
    lab.score("s", chain(0, 2, 3, params=params))
    assert isinstance(lab.until_end("s"), Failed)
    lab.runner.spoil_scores = lambda results: results
    lab.score("next", chain(0, 2, 3, params=params))
    assert isinstance(lab.until_end("next"), Finished)


def test_a_score_for_other_weights_is_failed_not_served(lab: Lab) -> None:
    lab.score("old", chain(), version="0" * 64)
    assert isinstance(lab.until_end("old"), Failed)
    assert lab.runner.scored == []


def test_what_has_nothing_pending_finishes_without_a_step(lab: Lab) -> None:
    lab.score("s", chain(4).after([4]), chain(4, params=LEFT).after([4]))
    lab.until_end("s")
    assert [type(event) for event in lab.said.events if getattr(event, "request_id", None) == "s"] == [
        Started,
        Finished,
    ]
    assert lab.runner.scored == []


def test_a_scoring_step_is_counted_and_reveals_nothing(lab: Lab) -> None:
    lab.score("s", chain(0, 1, params=MARGIN), chain(2, 3, params=MARGIN))
    lab.until_end("s")
    lab.said.until(lambda event: isinstance(event, StepStats))
    steps = [event for event in lab.said.events if isinstance(event, StepStats)]
    assert [(s.num_canvases, s.num_positions, s.num_useful_positions, s.num_revealed) for s in steps] == [
        (2, 5, 5, 0),  # alike at first
        (2, 10, 10, 0),
    ]
