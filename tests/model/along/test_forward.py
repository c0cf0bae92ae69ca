"""However a row's past is cut into forwards, every position gets what `LateQueries.read_in_turn` says of it."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.model.along.networks import HIGH, KINDS, LENGTH, canvas, denoiser, network, now, sizes_of
from unveil.model.along.denoiser import Ask, Question
from unveil.model.along.forward import NOBODY, Along, Slots
from unveil.model.along.memory import FIRST, Memory
from unveil.model.along.rows import BEGINNING, Content
from unveil.model.decoding.canvas import Reveal, apply

SHORT = [name for name in KINDS if name != "long"]


def _past(name: str, seed: int, *, num_known: int, most: int) -> list[Content]:
    """A whole row by ranks: some positions known at the start, then up to `most` revealed at a time."""
    draws = random.Random(seed)
    positions = draws.sample(range(LENGTH), LENGTH)
    sizes, rank = sizes_of(network(name).architecture), 0
    contents = [BEGINNING, *(Content(i, draws.randrange(sizes[i]), 0) for i in positions[:num_known])]
    left = positions[num_known:]
    while left:
        rank, num = rank + 1, draws.randint(1, most)
        contents += [Content(i, draws.randrange(sizes[i]), rank) for i in sorted(left[:num])]
        left = left[num:]
    return contents


def _cuts(contents: Sequence[Content], seed: int, *, most: int) -> list[list[Content]]:
    """In forwards of up to `most` contents; what was known at the start is one, or part of one."""
    draws, num_known = random.Random(seed), sum(content.rank == 0 for content in contents)
    cuts, start = [], 0
    while start < len(contents):
        num = draws.randint(1, most) if start else draws.randint(num_known, num_known + most)
        cuts.append(list(contents[start : start + num]))
        start += num
    return cuts


def _difference(name: str, cuts: Sequence[Sequence[Content]], *, seed: int = 0, shift: int = 0, back: int = 0) -> float:
    """The largest one from `read_in_turn` where each position that was hidden is asked in some forward from the one on
    that writes what it reads. `shift`: how many ranks too far everything reads; `back`: how many contents before the
    last one of its state each query starts."""
    draws, model = random.Random(seed), network(name)
    along = Along(model)
    memory, row, written = Memory(along.size, 3), 1, 0
    asked_in: dict[int, list[Content]] = {}
    contents = [content for cut in cuts for content in cut]
    ends = np.cumsum([len(cut) for cut in cuts]).tolist()
    for content in contents:
        num_read = sum(other.rank < content.rank for other in contents)
        first = next(i for i, end in enumerate(ends) if end >= num_read)
        if content.rank:
            asked_in.setdefault(draws.randint(first, len(cuts) - 1), []).append(content)
    tokens, ranks = torch.zeros(1, LENGTH, dtype=torch.int64), torch.zeros(1, LENGTH, dtype=torch.int64)
    for position, token_id, rank in contents[1:]:
        tokens[0, position], ranks[0, position] = token_id, rank
    expected = model.in_turn(tokens, ranks, torch.tensor([LENGTH]))[0]
    largest = 0.0
    for number, cut in enumerate(cuts):
        asked = asked_in.get(number, [])
        slots = Slots(1, len(cut), len(asked))
        for s, (position, token_id, rank) in enumerate(cut):
            slots.sources[0, s], slots.places[0, s] = token_id + along.offsets[position], along.places[position]
            slots.columns[0, s], slots.ranks[0, s], slots.turns[0, s] = FIRST + written + s, rank, (rank or 1) + shift
        for s, (position, _, turn) in enumerate(asked, len(cut)):
            before = [i for i, content in enumerate(contents) if 0 < content.rank < turn]
            slots.sources[0, s] = FIRST + max([0, *before][-1] - back, 0)
            slots.columns[0, s], slots.places[0, s], slots.turns[0, s] = NOBODY, position, turn + shift
        written += len(cut)
        states = along.run(memory, row, slots, num_contents=written)[0]
        if asked:
            places = torch.tensor([content.position for content in asked])
            V = expected.shape[1]
            found = along.logits(states, places)[:, :V]
            finite = expected[places].isfinite()
            assert torch.equal(finite, found.isfinite())
            largest = max(largest, float((found - expected[places])[finite].abs().max()))
    return largest


@pytest.mark.parametrize("num_known", [0, 1, 5])
@pytest.mark.parametrize("most", [1, 3], ids=["one at a time", "several at a time"])
@pytest.mark.parametrize("name", SHORT)
def test_every_way_to_cut_the_past_is_the_definition(name: str, most: int, num_known: int) -> None:
    contents = _past(name, num_known, num_known=num_known, most=most)
    ways = {"at once": [contents], **{f"up to {n}": _cuts(contents, n, most=n) for n in (1, 2, 3, 5)}}
    for way, cuts in ways.items():
        assert _difference(name, cuts) < 1e-4, way


@pytest.mark.parametrize("name", SHORT)
def test_what_reads_its_own_rank_or_later_ones_is_another_function(name: str) -> None:
    contents = _past(name, 1, num_known=2, most=3)
    cuts = _cuts(contents, 3, most=3)
    assert _difference(name, cuts) < 1e-4
    assert _difference(name, cuts, shift=1) > 1e-2
    assert _difference(name, cuts, shift=100) > 1e-2


@pytest.mark.parametrize("name", SHORT)
def test_a_query_that_starts_as_another_content_is_another_function(name: str) -> None:
    assert _difference(name, _cuts(_past(name, 2, num_known=2, most=3), 3, most=3), back=1) > 1e-2


@pytest.mark.parametrize("name", SHORT)
def test_the_beginning_is_read_and_reads_the_prompt(name: str) -> None:
    contents = _past(name, 3, num_known=3, most=1)
    alone = [contents[:1], contents[1:4], *([content] for content in contents[4:])]
    assert _difference(name, [contents[:4], *alone[2:]]) < 1e-4
    assert _difference(name, alone) > 1e-3, "a prompt in a forward behind the beginning's"


@pytest.mark.parametrize("name", SHORT)
def test_the_order_of_the_past_matters_to_these_networks(name: str) -> None:
    """Else no test here could tell a network of ranks from one of sets."""
    start = canvas(name, seed=1, num_known=2)
    first, second, third, *_ = (i for i, is_hidden in enumerate(start.hidden) if is_hidden)
    orders = [(first, second, third), (third, second, first)]
    ends = [apply(start, [Reveal(i, 1, k, 0.0, None, 0.5) for k, i in enumerate(order)]) for order in orders]
    logits, _ = now(network(name), ends)
    at = torch.tensor(ends[0].hidden)
    finite = logits[0, at].isfinite()
    assert float((logits[0, at] - logits[1, at])[finite].abs().max()) > 1e-2


def test_any_number_of_queries_at_any_turns_is_one_forward() -> None:
    model, served = network("long"), denoiser("long")
    start = canvas("long", seed=3, num_known=4)
    served.open([start])
    (held,) = served.rows.find([start])
    positions = [i for i, is_hidden in enumerate(start.hidden) if is_hidden]
    contents = [Content(i, 1, rank) for rank, i in enumerate(positions[:9], 1)]
    turns = [1 + min(3 * k % 10, k) for k in range(len(positions))]  # in no sequence
    asked = list(map(Question, positions, turns))
    found = served.logits(served.ask([Ask(held, [*held.pending, *contents], asked)]), np.array(positions))
    tokens = torch.tensor([start.tokens])
    tokens[0, positions[:9]] = 1
    for row, (position, turn) in enumerate(asked):
        ranks = torch.full_like(tokens, HIGH)
        ranks[0, [i for i, is_hidden in enumerate(start.hidden) if not is_hidden]] = 0
        ranks[0, positions[: turn - 1]] = torch.arange(1, turn)
        ranks[0, position] = turn
        expected = model.in_turn(tokens, ranks, torch.tensor([tokens.shape[1]]))[0, position]
        assert torch.allclose(found[row, : len(expected)], expected, atol=1e-4)
