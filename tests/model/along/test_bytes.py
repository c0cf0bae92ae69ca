"""The same canvas, the same bytes: alone, in any company, after eviction, from its value, with memory for few rows,
one position a step or several at a time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from tests.model.along.networks import END, canvas, denoiser, network, sizes_of
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.pace import WINDOWS, Pace
from unveil.model.along.shapes import CPU_SLOTS
from unveil.model.decoding.batch import AnyDenoiser
from unveil.model.decoding.canvas import ORDER_POLICIES, Canvas, Condition, Part, Reveal, SamplingParams
from unveil.model.decoding.sampler import StepResult, decode, step
from unveil.model.denoiser import Barring

ORDERS: tuple[SamplingParams, ...] = (
    SamplingParams(),
    SamplingParams(order_temperature=0),
    SamplingParams(order_temperature=2.5, temperature=0.7, top_k=3),
    SamplingParams(order="uniform", temperature=0),
    SamplingParams(order="left_to_right", top_p=0.6, top_logprobs=3),
    SamplingParams(order="right_to_left", tokens_per_step=3),
    SamplingParams(order="confidence", temperature=1.5, top_logprobs=1),
    SamplingParams(order="margin", tokens_per_step=2),
    SamplingParams(order="entropy", top_k=2, top_p=0.9),
    SamplingParams(threshold=0.4),
    SamplingParams(order="uniform", threshold=0.3, temperature=0.5),
    SamplingParams(steps=5),
    SamplingParams(order="uniform", steps=4),
    SamplingParams(tokens_per_step=4, order_temperature=0.5),
)
NAMES = ("relative bias", "pair bias", "no bias", "contextual", "next cost", "wide", "two layers", "ends", "long")
Reveals = tuple[Reveal, ...]


@lru_cache
def _canvases(name: str) -> tuple[Canvas, ...]:
    """Every way to decode, from nothing and from prompts, of two lengths where that may be."""
    length = network(name).architecture.length
    short = length - 3 if len(network(name).architecture.vocabulary_sizes) == 1 else length
    made = []
    for number, params in enumerate(ORDERS):
        num_known, L = number % 4 * 2, (length, short)[number % 2]
        made.append(canvas(name, seed=number, num_known=num_known, length=L, params=params))
    start = canvas(name, seed=90, num_known=3)
    hidden = [i for i, is_hidden in enumerate(start.hidden) if is_hidden]
    explicit = SamplingParams(order="explicit", explicit_order=tuple(random.Random(1).sample(hidden, len(hidden))))
    made.append(replace(start, params=explicit))
    for number, order in enumerate(("learned", "uniform", "confidence")):
        some = hidden[number::3][:3]
        condition = Condition({i: (Part(0), Part(1, 0.2, 0.9)) for i in some}, attempts=6)
        params = SamplingParams(order=order, condition=condition)  # type: ignore[arg-type]
        made.append(Canvas.start(start.tokens, start.hidden, seed=70 + number, params=params))
    return tuple(made)


def _finish(denoise: AnyDenoiser, canvases: Sequence[Canvas]) -> list[Reveals]:
    return [decoded.reveals for decoded in decode(denoise, canvases)]


@lru_cache
def _alone(name: str) -> tuple[Reveals, ...]:
    """Each canvas by a denoiser that has seen no other one."""
    return tuple(_finish(denoiser(name), [start])[0] for start in _canvases(name))


class _Fixed(Pace):
    """Tries so many positions ahead, whatever it takes."""

    def __init__(self, window: int) -> None:
        super().__init__(most=1000, clock=None)
        self.fixed = window

    def window(self, num_canvases: int) -> int:
        return self.fixed


def _step(served: AlongDenoiser, canvases: Sequence[Canvas], window: int | None) -> list[StepResult]:
    """One position a step, or as many as turn out certain of `window`."""
    if window is None:
        return step(served, canvases)
    served.pace = _Fixed(window)
    return ahead.step(served, canvases)


def _walk(
    served: AlongDenoiser,
    starts: Sequence[Canvas],
    *,
    most: int,
    seed: int,
    meanwhile: Callable[[random.Random, list[Canvas]], None] = lambda draws, canvases: None,
) -> list[Reveals]:
    """All to their ends in random company: up to `most` at a time, in any sequence. `meanwhile` may do what it likes to
    the memory and the canvases that wait before each step. Some steps are taken several positions at a time."""
    draws, canvases = random.Random(seed), list(starts)
    reveals: list[Reveals] = [() for _ in starts]
    while waiting := [i for i, own in enumerate(canvases) if not own.is_complete]:
        meanwhile(draws, canvases)
        chosen = draws.sample(waiting, min(draws.randint(1, most), len(waiting)))
        window = draws.choice([None, *WINDOWS])
        for i, result in zip(chosen, _step(served, [canvases[i] for i in chosen], window), strict=True):
            canvases[i] = result.canvas
            reveals[i] += result.reveals
    return reveals


@pytest.mark.parametrize("name", NAMES)
def test_in_random_batches_it_is_as_alone_and_nothing_stays(name: str) -> None:
    served = denoiser(name)
    assert _walk(served, _canvases(name), most=8, seed=1) == list(_alone(name))
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", NAMES)
def test_all_in_step_it_is_as_alone(name: str) -> None:
    served = denoiser(name, max_rows=24)
    assert _finish(served, _canvases(name)) == list(_alone(name))
    assert len(served.rows) == 0


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", NAMES)
def test_several_positions_at_a_time_are_as_one_by_one(name: str, window: int) -> None:
    """In one batch, and each canvas alone."""
    starts = _canvases(name)
    for batch in (starts, *([start] for start in starts[::3])):
        served, canvases = denoiser(name, max_rows=24), list(batch)
        reveals: list[Reveals] = [() for _ in batch]
        num_steps = 0
        while waiting := [i for i, own in enumerate(canvases) if not own.is_complete]:
            for i, result in zip(waiting, _step(served, [canvases[i] for i in waiting], window), strict=True):
                canvases[i] = result.canvas
                reveals[i] += result.reveals
            num_steps += len(waiting)
        assert reveals == [_alone(name)[starts.index(start)] for start in batch]
        assert len(served.rows) == 0
        forwards = sum(own.num_forwards + (own.trials.num_forwards if own.trials else 0) for own in canvases)
        assert served.counts.num_saved == forwards - num_steps >= 0
        assert window > 1 or served.counts.num_saved == 0
    assert window == 1 or name in ("contextual", "next cost") or _saves(name, window)


def _saves(name: str, window: int) -> bool:
    """Whether drafts of cold canvases, which are easy to foresee, are ever right."""
    params = SamplingParams(order="left_to_right", temperature=0)
    served, canvases = denoiser(name), [canvas(name, seed=seed, params=params) for seed in range(8)]
    while canvases:
        after = [result.canvas for result in _step(served, canvases, window)]
        canvases = [own for own in after if not own.is_complete]
    return served.counts.num_saved > 0


@pytest.mark.parametrize("max_rows", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_with_memory_for_few_rows_and_many_canvases_in_turns_it_is_as_alone(name: str, max_rows: int) -> None:
    served = denoiser(name, max_rows=max_rows)
    assert _walk(served, _canvases(name), most=max_rows, seed=max_rows) == list(_alone(name))
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", NAMES)
def test_after_eviction_release_and_from_values_it_is_as_alone(name: str) -> None:
    """As in another process: canvases are equal and not the same, and their rows are gone, or are there by chance."""
    served = denoiser(name)

    def meanwhile(draws: random.Random, canvases: list[Canvas]) -> None:
        served.release(own for own in canvases if draws.random() < 0.2)
        for i, own in enumerate(canvases):
            if draws.random() < 0.4:
                canvases[i] = replace(own)
        if draws.random() < 0.2:
            served.rows.release_all()

    assert _walk(served, _canvases(name), most=8, seed=3, meanwhile=meanwhile) == list(_alone(name))


@pytest.mark.parametrize("name", NAMES)
def test_at_whichever_step_everything_is_forgotten_it_is_as_alone(name: str) -> None:
    starts = _canvases(name)[:8]
    num_steps = max(len({reveal.step for reveal in own}) for own in _alone(name)[:8])
    for forgotten in range(1, num_steps, max(num_steps // 6, 1)):
        served, canvases, number = denoiser(name), list(starts), 0
        reveals: list[Reveals] = [() for _ in starts]
        while waiting := [i for i, own in enumerate(canvases) if not own.is_complete]:
            if number == forgotten:
                served = denoiser(name)  # another process
            for i, result in zip(waiting, step(served, [canvases[i] for i in waiting]), strict=True):
                canvases[i] = result.canvas
                reveals[i] += result.reveals
            number += 1
        assert reveals == list(_alone(name)[:8]), forgotten


def test_a_batch_that_is_filled_up_past_the_rows_of_all_canvases_finds_memory_there() -> None:
    """Those that look take shapes of a power of two rows: 37 behind 27 others are filled up to row 91 of 64."""
    served, name = denoiser("relative bias", max_rows=64), "relative bias"
    orders = [SamplingParams(order="confidence" if seed > 26 else "left_to_right") for seed in range(64)]
    starts = [canvas(name, seed=seed, params=params) for seed, params in enumerate(orders)]
    found = _finish(served, starts)
    for i in (0, 26, 27, 63):
        assert found[i] == _finish(denoiser(name, max_rows=64), [starts[i]])[0]
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", NAMES)
def test_canvases_of_one_prompt_share_it_and_are_as_alone(name: str) -> None:
    served, prompt = denoiser(name), canvas(name, seed=5, num_known=6)
    starts = [replace(prompt, seed=seed, params=ORDERS[seed]) for seed in range(8)]
    expected = [_finish(denoiser(name), [start])[0] for start in starts]
    assert len(set(expected)) > 1
    assert _finish(served, starts) == expected
    assert _walk(served, starts, most=8, seed=2) == expected
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_canvas_given_twice_is_two_canvases(name: str) -> None:
    served, starts = denoiser(name), _canvases(name)
    for i in (0, 6, 9):
        assert _finish(served, [starts[i], starts[1], starts[i]]) == [_alone(name)[j] for j in (i, 1, i)]
    assert len(served.rows) == 0


def test_behind_an_end_stand_only_ends_and_before_a_token_none() -> None:
    num_absorbed = 0
    for start, own in zip(_canvases("ends"), _alone("ends"), strict=True):
        tokens = list(start.tokens)
        for reveal in own:
            tokens[reveal.position] = reveal.token_id
        ended = tokens.index(END) if END in tokens else len(tokens)
        assert all(token_id == END for token_id in tokens[ended:])
        num_absorbed += sum(reveal.is_absorbed for reveal in own)
    assert num_absorbed > 0


def test_a_finished_or_released_canvas_may_come_again() -> None:
    served, starts = denoiser("relative bias"), _canvases("relative bias")
    for _ in range(2):
        assert _finish(served, starts[:3]) == list(_alone("relative bias")[:3])
    (once,) = step(served, [starts[0]])
    served.release([once.canvas])
    assert len(served.rows) == 0
    assert step(served, [starts[0]])[0] == once
    assert step(served, [once.canvas])[0].reveals == _alone("relative bias")[0][1:2]


@pytest.mark.parametrize("name", ["relative bias", "pair bias", "next cost"])
def test_what_is_barred_is_never_drawn_and_nothing_depends_on_the_company(name: str) -> None:
    starts = _canvases(name)
    drawn = {(reveal.position, reveal.token_id) for own in _alone(name) for reveal in own}
    barred = {position: token_id for position, token_id in sorted(drawn) if position in (2, 5, 8)}
    assert len(barred) == 3
    expected = [_finish(Barring(denoiser(name), barred), [start])[0] for start in starts]
    served = denoiser(name, max_rows=24)
    assert _finish(Barring(served, barred), starts) == expected
    assert not any((reveal.position, reveal.token_id) in barred.items() for own in expected for reveal in own)
    assert len(served.rows) == 0


@pytest.mark.parametrize("seed", range(6))
def test_random_canvases_in_random_company(seed: int) -> None:
    """Prompts, lengths, orders, parameters and what happens to the memory by chance."""
    draws, name = random.Random(seed), NAMES[seed % 4]
    L = network(name).architecture.length
    starts = []
    for number in range(10):
        length = draws.randint(2, L) if len(network(name).architecture.vocabulary_sizes) == 1 else L
        pace: Any = draws.choice([{}, {"tokens_per_step": draws.randint(1, 5)}, {"steps": draws.randint(1, 9)}])
        tokens: Any = {"temperature": draws.choice([0.0, 0.7, 1.3]), "top_k": draws.choice([None, 2])}
        order = draws.choice([own for own in ORDER_POLICIES if own != "explicit"])
        if "steps" in pace and order not in ("learned", "uniform"):
            pace = {"threshold": 0.5}
        params = SamplingParams(order=order, **pace, **tokens)
        num_known = draws.randint(0, length - 1)
        starts.append(canvas(name, seed=100 * seed + number, num_known=num_known, length=length, params=params))

    def meanwhile(chance: random.Random, canvases: list[Canvas]) -> None:
        served.release(own for own in canvases if chance.random() < 0.1)

    expected = [_finish(denoiser(name), [start])[0] for start in starts]
    for most in (3, 8):
        served = denoiser(name, max_rows=most)
        assert _walk(served, starts, most=most, seed=seed, meanwhile=meanwhile) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_hidden_position_is_revealed_once_with_a_token_that_it_has(name: str) -> None:
    sizes = sizes_of(network(name).architecture)
    for start, own in zip(_canvases(name), _alone(name), strict=True):
        positions = [reveal.position for reveal in own]
        assert sorted(positions) == [i for i, is_hidden in enumerate(start.hidden) if is_hidden]
        assert all(0 <= reveal.token_id < sizes[reveal.position] for reveal in own)


def test_a_row_of_the_same_value_is_taken_over_without_what_its_seed_had_planned() -> None:
    """Two canvases stand where their tokens agree; what is drawn next is the seed's and the parameters' own."""
    made = canvas("relative bias", seed=1, num_known=3, params=SamplingParams(order="uniform"))
    paused, mine = replace(made, seed=1), replace(made, seed=2)
    expected = ahead.step(denoiser("relative bias"), [mine])
    assert expected != ahead.step(denoiser("relative bias"), [paused])
    shared = denoiser("relative bias")
    (held,) = shared.hold([paused])
    ahead._plan(shared, [held], 4)
    held.drafts = {next_.position: 0 for next_ in held.plan}
    assert ahead.step(shared, [mine]) == expected
    assert len(shared.rows) == 1, "it was taken over"


@pytest.mark.parametrize("num_hidden", [1, 2, 3])
def test_many_canvases_that_look_are_asked_for_the_few_that_they_hide(num_hidden: int) -> None:
    """More rows than a forward takes of as many slots as all questions of a canvas need."""
    length = network("relative bias").architecture.length
    many = [
        canvas("relative bias", seed=i, num_known=length - num_hidden, params=SamplingParams(order="confidence"))
        for i in range(520)
    ]
    served = denoiser("relative bias", max_rows=520)
    assert [len(result.reveals) for result in step(served, many)] == [1] * 520


def test_no_more_rows_are_taken_than_a_forward_has_slots_for() -> None:
    assert denoiser("relative bias", max_rows=4096).most == CPU_SLOTS
