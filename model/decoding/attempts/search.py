"""Decoding with backtracking: at a contradiction reveals are taken back, and the likeliest alternative is tried.

Every decision keeps what it passed over: the other ids of its position, each with its log-probability, in the order in
which they would be drawn from what is left, renormalised (`model.decoding.draw.draws`). A path is a sequence of
reveals, and its log-likelihood is their exact sum. At a contradiction the path goes on from the open alternative of the
largest log-likelihood, wherever it was passed over (best-first search). An alternative needs no forward of its own: the
one that its decision rested on has priced it. Paths of different alternatives differ at a position, so none is tried
twice.

A path that rests on d of F forwards has wasted F - d of them, and an alternative may be taken as long as that is at
most `SamplingParams.backtrack`. So one position a step takes at most so many forwards more than without a search. Where
no alternative is left, or none may be taken, the path is finished as it is, and `Search.outcome` says so.

What a contradiction is comes from outside. Knows no torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from unveil.model.decoding.canvas import HIDDEN, Canvas, Passed, Reveal, Search

Contradiction = Callable[[Sequence[int], Sequence[bool]], str | None]
Path = tuple[Reveal, ...]
Decision = tuple[Reveal, Path]  # and what its position could have had instead, in the order in which it would be drawn


def advance(canvas: Canvas, decisions: Sequence[Decision], contradiction: Contradiction) -> tuple[Canvas, Path]:
    """A canvas after the decisions of one forward, with what became known: its `unrevealed` positions come first."""
    before = canvas.search
    assert before is not None
    step, num_forwards = canvas.step, canvas.num_forwards + 1
    after = replace(before, path=(*before.path, *(reveal for reveal, _ in decisions)), depth=before.depth + 1)
    if before.outcome == "complete":
        after = _checked(canvas, decisions, contradiction, after)
    shared = num_shared(before.path, after.path)
    news = tuple(replace(reveal, step=step) for reveal in after.path[shared:])
    path = (*after.path[:shared], *news)
    num_unrevealed = before.num_unrevealed + len(before.path) - shared
    after = replace(after, path=path, num_unrevealed=num_unrevealed)
    tokens, hidden, ranks = _revealed(canvas, path)
    own = canvas.seed, canvas.params, canvas.num_at_start
    return Canvas(tokens, hidden, *own, ranks, step + 1, num_forwards, after), news


def unrevealed(before: Canvas, after: Canvas) -> tuple[int, ...]:
    """The positions that were taken back between two states of a canvas, the last revealed first."""
    if before.search is None or after.search is None:
        return ()
    old = before.search.path
    return tuple(reveal.position for reveal in reversed(old[num_shared(old, after.search.path) :]))


def num_shared(path: Path, other: Path) -> int:
    """How many reveals two paths begin with alike."""
    num = min(len(path), len(other))
    return next((i for i in range(num) if _choice(path[i]) != _choice(other[i])), num)


def _choice(reveal: Reveal) -> tuple[int, int]:
    return reveal.position, reveal.token_id


def _checked(canvas: Canvas, decisions: Sequence[Decision], contradiction: Contradiction, whole: Search) -> Search:
    """The search after the decisions up to the first contradiction, and where it goes on from there. `whole`: after all
    of them, which stand where nothing can be tried instead."""
    assert canvas.search is not None
    path, passed = canvas.search.path, list(canvas.search.passed)
    for reveal, others in decisions:
        if others:
            passed.append(Passed(path, others, whole.depth))
        path = (*path, reveal)
        if contradiction(*_revealed(canvas, path)[:2]) is not None:
            return _alternative(canvas, passed, contradiction, whole)
    return replace(whole, passed=tuple(passed))


def _alternative(canvas: Canvas, passed: list[Passed], contradiction: Contradiction, whole: Search) -> Search:
    """The likeliest alternative that may be taken and is no contradiction itself."""
    assert canvas.params.backtrack is not None
    least = canvas.num_forwards + 1 - canvas.params.backtrack  # forwards that a path must rest on
    while open_ := [i for i, own in enumerate(passed) if own.depth >= least]:
        at = max(open_, key=lambda i: logprob(passed[i]))
        best = passed[at]
        passed[at : at + 1] = [replace(best, others=best.others[1:])] if len(best.others) > 1 else []
        path = (*best.path, best.others[0])
        if contradiction(*_revealed(canvas, path)[:2]) is None:
            return Search(path, tuple(passed), best.depth)
    return replace(whole, passed=(), outcome="budget" if passed else "contradiction")


def logprob(passed: Passed) -> float:
    """The log-likelihood of the path that takes the next alternative."""
    return math.fsum(reveal.logprob for reveal in passed.path) + passed.others[0].logprob


def _revealed(canvas: Canvas, path: Path) -> tuple[tuple[int, ...], tuple[bool, ...], tuple[int, ...]]:
    """Tokens, what is hidden, and ranks, where of what was not known at the start exactly this path is revealed."""
    ranks = [0 if rank == 0 else HIDDEN for rank in canvas.ranks]
    tokens = [token_id if rank == 0 else 0 for token_id, rank in zip(canvas.tokens, ranks, strict=True)]
    rank, at = 0, -1
    for reveal in path:
        if reveal.step != at:
            rank, at = rank + 1, reveal.step
        assert ranks[reveal.position] == HIDDEN
        tokens[reveal.position], ranks[reveal.position] = reveal.token_id, rank
    return tuple(tokens), tuple(rank == HIDDEN for rank in ranks), tuple(ranks)
