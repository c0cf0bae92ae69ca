"""Items stepped to their ends, in batches: the one decode loop of all that decodes or scores without a server.

An item is a `Canvas` that is decoded or a `Chain` that is scored. A step takes several of them and gives each back with
what the step found out: `model.decoding.sampler.step`, `model.decoding.scoring.score_step`, or a runner's. Needs no
torch.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from unveil.model.decoding.canvas import Canvas, Reveal


class Steppable(Protocol):
    """What the loop asks of an item."""

    @property
    def is_complete(self) -> bool: ...


Found = TypeVar("Found")
Item = TypeVar("Item", bound=Steppable)
Step = Callable[[Sequence[Item]], Sequence[tuple[Item, Found]]]
Group = Callable[[Item], Hashable]
Release = Callable[[Sequence[Item]], None]


class Stepped(NamedTuple, Generic[Item, Found]):
    """One step of one item: its place among those given, the item after the step, and what the step found out."""

    place: int
    item: Item
    found: Found


class Decoded(NamedTuple):
    """A canvas at its end, and all its reveals in the order in which they happened; of a search those that stand."""

    canvas: Canvas
    reveals: tuple[Reveal, ...]


def run(
    step: Step[Item, Found],
    items: Iterable[Item],
    *,
    max_batch: int | None = None,
    group: Group[Item] | None = None,
    release: Release[Item] | None = None,
) -> Iterator[list[Stepped[Item, Found]]]:
    """Steps all items to their ends and gives what each step found out. An item that is complete takes no step.

    `max_batch` items are taken at a time, None for all, and run to their ends before the next are looked at. Of these
    only the ones of equal `group` share a step; canvases of one length bucket must, for fixed shapes. `release` is told
    the items that are given up where a step fails or the caller stops asking, so that nothing is kept of them.
    """
    numbered = enumerate(items)
    while window := list(islice(numbered, max_batch)):
        for alike in _groups(window, group):
            pending = [(place, item) for place, item in alike if not item.is_complete]
            try:
                while pending:
                    results = step([item for _, item in pending])
                    stepped = [Stepped(place, *result) for (place, _), result in zip(pending, results, strict=True)]
                    pending = [(done.place, done.item) for done in stepped if not done.item.is_complete]
                    yield stepped
            finally:
                if pending and release is not None:
                    release([item for _, item in pending])


def decode(
    step: Step[Canvas, tuple[Reveal, ...]],
    canvases: Iterable[Canvas],
    *,
    max_batch: int | None = None,
    group: Group[Canvas] | None = None,
    release: Release[Canvas] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Decoded]:
    """Every canvas finished, in the order given; only `max_batch` of them are in memory, None for all.

    As `run`; `on_step` is told after each step how many positions it revealed.
    """
    waiting = iter(canvases)
    while window := list(islice(waiting, max_batch)):
        reveals: list[list[Reveal]] = [[] for _ in window]
        for stepped in run(step, tuple(window), group=group, release=release):
            for place, canvas, new in stepped:
                window[place] = canvas
                reveals[place] += new
            if on_step is not None:
                on_step(sum(len(new) for _, _, new in stepped))
        for canvas, found in zip(window, reveals, strict=True):
            yield Decoded(canvas, tuple(found) if canvas.search is None else canvas.search.path)


def _groups(window: list[tuple[int, Item]], group: Group[Item] | None) -> Iterable[list[tuple[int, Item]]]:
    if group is None:
        return [window]
    groups: dict[Hashable, list[tuple[int, Item]]] = {}
    for place, item in window:
        groups.setdefault(group(item), []).append((place, item))
    return groups.values()
