"""Clients of a server on this machine: connections that are kept, closed and open loops.

Written for measuring: one core must load the other, so replies are cut up by length and nothing of them is read but
their status and where reveals begin.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Body = Callable[[int], dict[str, Any]]  # number of the request -> what is posted to /generate
_REVEAL, _DONE = b"event: reveal", b"event: done"
FAILED = 0  # the status of a stream that began well and did not end so
_LIMIT = 2**24


class Answer(NamedTuple):
    """Seconds since the request was due: the first reveal (None in whole replies), gaps between reveals, the end."""

    status: int
    first: float | None
    gaps: tuple[float, ...]
    total: float


class Connection:
    """One connection of HTTP/1.1, opened when it is first needed and kept for what is asked next."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: dict[str, Any], *, due: float | None = None) -> Answer:
        """Posts one request and reads its reply to the end. Raises OSError or EOFError where the server hangs up.

        `due` is when it should have left, on the clock of `time.perf_counter`: now, if nothing is said.

        A server closes what has been idle for long, maybe while the next request is on its way: then it is asked once
        more, on a new connection, as every client does.
        """
        content = json.dumps(body).encode()
        sent = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content)
        was_open, begin = self._streams is not None, time.perf_counter() if due is None else due
        try:
            reader, status, length = await self._send(sent)
        except (ConnectionError, asyncio.IncompleteReadError):
            if not was_open:
                raise
            self.close()
            reader, status, length = await self._send(sent)
        times, is_done = list[float](), False
        if length is not None:
            await reader.readexactly(length)
        else:
            while chunk := await _chunk(reader):
                times += [time.perf_counter() - begin] * chunk.count(_REVEAL)
                is_done = is_done or _DONE in chunk
            status = status if is_done else FAILED
        gaps = tuple(later - earlier for earlier, later in pairwise(times))
        return Answer(status, times[0] if times else None, gaps, time.perf_counter() - begin)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _send(self, content: bytes) -> tuple[asyncio.StreamReader, int, int | None]:
        """The reader, after the reply's head; its status and length."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        reader, writer = self._streams
        writer.write(content)
        return reader, *await _head(reader)


async def _head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
    """The status, and the length of the reply; None where it comes in chunks."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)
    return int(lines[0].split()[1]), length


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:size]


class Window(NamedTuple):
    """A stretch of a closed loop: its answers, how many requests' worth of work it holds, and a meter's advance.

    A request that was under way at an edge counts by the share of its time that lies within.
    """

    answers: list[Answer]
    num: float
    seconds: float
    metered: float


async def closed_loop(
    port: int,
    body: Body,
    *,
    seconds: float,
    num: int,
    is_kept: bool = True,
    meter: Callable[[], float] = lambda: 0.0,
) -> Window:
    """`num` connections, each asking again as soon as it is answered; or a new connection for every request.

    What counts lies between two answers of the first connection, its own first one and one at least `seconds` later:
    all are busy from end to end.
    """
    answered: list[tuple[float, float, Answer]] = []  # when it was sent, when it was answered
    marks: list[tuple[float, float]] = []

    def mark(now: float) -> None:
        if not marks or (len(marks) == 1 and now >= marks[0][0] + seconds):
            marks.append((now, meter()))

    async def ask_again(number: int) -> None:
        connection, count = Connection(port), 0
        while len(marks) < 2:
            sent = time.perf_counter()
            answer = await connection.ask(body(number + num * count))
            count += 1
            answered.append((sent, time.perf_counter(), answer))
            if not is_kept:
                connection.close()
            if number == 0:
                mark(answered[-1][1])
        connection.close()

    await asyncio.gather(*map(ask_again, range(num)))
    (begin, first), (end, last) = marks
    answers = [answer for _, at, answer in answered if begin < at <= end]
    worth = within([(sent, at) for sent, at, _ in answered], begin, end)
    return Window(answers, worth, end - begin, last - first)


def within(spans: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """How many of these spans of time lie between `begin` and `end`, one that does in part by that share of it."""
    return sum(max(min(last, end) - max(first, begin), 0.0) / (last - first) for first, last in spans)


async def open_loop(port: int, body: Body, *, rate: float, seconds: float) -> list[Answer]:
    """Arrivals of a Poisson process, `rate` a second, whatever is answered; on idle connections where there are any.
    Answers are timed from when they were due: a client that falls behind hides nothing."""
    draws = random.Random(0)
    idle: list[Connection] = []

    async def ask(number: int, due: float) -> Answer:
        connection = idle.pop() if idle else Connection(port)
        answer = await connection.ask(body(number), due=due)
        idle.append(connection)
        return answer

    tasks: list[asyncio.Task[Answer]] = []
    begin = at = time.perf_counter()
    while not tasks or at < begin + seconds:
        await asyncio.sleep(at - time.perf_counter())
        tasks.append(asyncio.create_task(ask(len(tasks), at)))
        at += draws.expovariate(rate)
    answers = await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return answers


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99; empty where there are no values."""
    ranked = sorted(values)
    return {f"p{p}": ranked[min(len(ranked) * p // 100, len(ranked) - 1)] for p in (50, 95, 99)} if ranked else {}
