"""Identical requests in flight: one is computed, all are told. Knows no scheduler, no network and no clock.

A request's canvases hold everything its future depends on, so two requests with the same ones get the same answer. The
later one is told at once what has been said so far, and from then on everything in the step in which it happens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from model.canvas import Canvas
from service.messages import Event, Failed, Finished, Generate, Ranked, Revealed, SampleDone, Scored, Started

_Key = tuple[str, str, tuple[Canvas, ...]]
_OF_A_REQUEST = (Started, Revealed, SampleDone, Finished, Failed, Ranked, Scored)


@dataclass
class _Group:
    """`ids`: who is told. `said`: everything so far, for whoever comes later."""

    key: _Key
    ids: list[str]
    said: list[Event]


class Twins:
    """What is computed goes by the id of the request that came first, also when that one has left."""

    def __init__(self) -> None:
        self._first_of: dict[_Key, str] = {}
        self._groups: dict[str, _Group] = {}
        self._follows: dict[str, str] = {}

    def join(self, command: Generate) -> list[Event] | None:
        """What has been said to an identical request, for this one; None if there is none, and this is the first."""
        key = (command.model, command.weights_version, command.canvases)
        first = self._first_of.setdefault(key, command.request_id)
        if first == command.request_id:
            self._groups[first] = _Group(key, [first], [])
            return None
        group = self._groups[first]
        group.ids.append(command.request_id)
        self._follows[command.request_id] = first
        return [_to(command.request_id, event) for event in group.said]

    def leave(self, request_id: str) -> str | None:
        """This request is told nothing more. The id under which nobody is left to compute for, if that is so."""
        first = self._follows.pop(request_id, request_id)
        group = self._groups.get(first)
        if group is None:
            return request_id
        if request_id in group.ids:
            group.ids.remove(request_id)
        if group.ids:
            return None
        self._forget(first)
        return first

    def told(self, events: Iterable[Event]) -> list[Event]:
        """The same events, each to all whom it concerns."""
        heard: list[Event] = []
        for event in events:
            group = self._groups.get(event.request_id) if isinstance(event, _OF_A_REQUEST) else None
            if group is None:
                heard.append(event)
                continue
            group.said.append(event)
            heard += [_to(request_id, event) for request_id in group.ids]
            if isinstance(event, Finished | Failed):
                self._forget(self._first_of[group.key])
        return heard

    def _forget(self, first: str) -> None:
        group = self._groups.pop(first)
        del self._first_of[group.key]
        for request_id in group.ids:
            self._follows.pop(request_id, None)


def _to(request_id: str, event: Event) -> Event:
    assert isinstance(event, _OF_A_REQUEST)
    return event if event.request_id == request_id else replace(event, request_id=request_id)
