"""A request's events on their way to its reader: a stream is told at once, a collector when all is there."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.service.mocks import WAIT_SECONDS
from unveil.engine.messages import Finished, Ranked, RequestEvent, Revealed
from unveil.engine.request.errors import ServiceError
from unveil.model.decoding.canvas import Reveal
from unveil.service.pending import PendingRequest

REVEALED = Revealed("r", "w", 0, (Reveal(0, 0, 0, 0.0, None, 0.5),))
FINISHED = Finished("r", "w")


async def _request(*, buffer_events: int | None) -> PendingRequest:
    return PendingRequest("r", num_canvases=1, arrived_at=0.0, buffer_events=buffer_events)


async def _waiting(pending: PendingRequest) -> "asyncio.Task[list[RequestEvent]]":
    """A reader that already waits."""
    task = asyncio.create_task(pending.take())
    await _others()
    return task


async def _others() -> None:
    """Lets all others go on until each waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_stream_is_told_of_every_event_and_a_collector_of_the_last() -> None:
    async def steps(buffer_events: int | None) -> list[Sequence[RequestEvent]]:
        pending = await _request(buffer_events=buffer_events)
        seen: list[Sequence[RequestEvent]] = []
        reader = await _waiting(pending)
        for event in (REVEALED, REVEALED, FINISHED):
            pending.put(event)
            await _others()
            if reader.done():
                seen.append(reader.result())
                reader = await _waiting(pending)
        reader.cancel()
        return seen

    assert asyncio.run(steps(8)) == [[REVEALED], [REVEALED], [FINISHED]]
    assert asyncio.run(steps(None)) == [[REVEALED, REVEALED, FINISHED]]


@pytest.mark.parametrize("buffer_events", [None, 8])
@pytest.mark.parametrize("last", [FINISHED, Ranked("r", "w", ())])
def test_what_was_there_before_its_reader_came_is_not_waited_for(
    buffer_events: int | None, last: Finished | Ranked
) -> None:
    async def late() -> list[RequestEvent]:
        pending = await _request(buffer_events=buffer_events)
        pending.put(REVEALED)
        pending.put(last)
        return await pending.take(timeout_seconds=WAIT_SECONDS)

    assert asyncio.run(late()) == [REVEALED, last]


@pytest.mark.parametrize("buffer_events", [None, 8])
def test_a_failure_comes_after_what_was_there_and_stays(buffer_events: int | None) -> None:
    async def failed() -> list[RequestEvent]:
        pending = await _request(buffer_events=buffer_events)
        pending.put(REVEALED)
        pending.fail(ServiceError("timeout", "too late"))
        taken = await pending.take()
        for _ in range(2):
            with pytest.raises(ServiceError, match="too late"):
                await pending.take()
        return taken

    assert asyncio.run(failed()) == [REVEALED]


def test_only_a_client_that_holds_its_reader_up_is_ever_behind() -> None:
    async def behind() -> list[bool]:
        pending = await _request(buffer_events=1)
        for _ in range(3):
            pending.put(REVEALED)
        found = [pending.is_overfull]  # this process has not come to take them
        pending.is_writing = True
        found.append(pending.is_overfull)
        await pending.take()
        return [*found, pending.is_overfull]

    assert asyncio.run(behind()) == [False, True, False]


def test_nothing_is_taken_when_the_time_is_up_and_the_next_take_goes_on() -> None:
    async def slow() -> tuple[list[RequestEvent], list[RequestEvent]]:
        pending = await _request(buffer_events=8)
        early = await pending.take(timeout_seconds=0)
        reader = await _waiting(pending)
        pending.put(REVEALED)
        return early, await reader

    assert asyncio.run(slow()) == ([], [REVEALED])
