"""Nobody holds the event loop: what is large is planned and written in a thread, or in pieces with turns between."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.model.artifacts import text_tokenizer
from tests.service.mocks import toy_model
from tests.service.servers import Running, post_score, run_toy
from unveil.engine.catalog import ServedModel
from unveil.engine.messages import Finished, RequestEvent, Revealed, SampleDone
from unveil.engine.request import composers
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.parsing import parse
from unveil.engine.request.planning import num_canvases, plan_generation
from unveil.engine.request.replies import GenerateComposer
from unveil.engine.request.schemas import GenerateRequest, OrderRequest, ScoreRequest
from unveil.engine.request.score_replies import ScoreComposer
from unveil.model.decoding.canvas import Reveal
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.service import openapi, routes, streaming
from unveil.service.pending import PendingRequest
from unveil.service.settings import Settings
from unveil.service.streaming import stream_chunks
from unveil.service.transport.json_pieces import as_json, json_pieces

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


@pytest.fixture(scope="module")
def sudoku() -> Iterator[Running]:
    with run_toy(model=toy_model(tokenizer=GridTokenizer())) as server:
        yield server


def _record(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """The names of the threads that a function is called in from now on."""
    threads: list[str] = []
    original: Callable[..., Any] = getattr(owner, name)

    def recording(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, recording)
    return threads


def _is_pool(thread: str) -> bool:
    return thread.startswith("asyncio_")


@pytest.mark.parametrize(
    ("body", "is_large"),
    [
        ({"prompt": PUZZLE}, False),
        ({"prompt": [PUZZLE] * 10}, False),
        ({"prompt": [PUZZLE] * 40}, True),
        ({"prompt": [PUZZLE] * 20 + [PUZZLE[:-1]]}, True),
        ({"prompt": PUZZLE, "num_samples": 20}, True),
        ({"prompt": PUZZLE, "num_samples": 10**9}, True),
    ],
    ids=["one", "ten", "forty", "a wrong one among many", "twenty samples", "more samples than there may be"],
)
def test_where_a_request_is_planned_depends_on_its_canvases_and_their_length_not_on_its_bytes(
    sudoku: Running, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], is_large: bool
) -> None:
    assert len(json.dumps(body)) < routes.INLINE_BYTES
    threads = _record(monkeypatch, composers, "plan_generation")
    sudoku.generate(**body, tokens_per_step=81)
    assert [_is_pool(thread) for thread in threads] == [is_large]


def test_a_score_is_planned_and_composed_in_a_thread_where_its_chains_are_many(
    sudoku: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, composed = _record(monkeypatch, composers, "plan_score"), _record(monkeypatch, ScoreComposer, "reply")
    for num_orders in (2, 64):
        assert post_score(sudoku, prompt=PUZZLE[:3] + "." * 78, num_orders=num_orders).status_code == 200
    assert [_is_pool(thread) for thread in planned] == [False, True]
    assert [_is_pool(thread) for thread in composed] == [False, True]


def test_a_large_reply_is_composed_in_a_thread_however_few_of_its_positions_were_hidden(
    sudoku: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    solution = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    threads = _record(monkeypatch, GenerateComposer, "reply")
    for num_samples in (1, 64):
        reply = sudoku.generate(prompt="." + solution[1:], num_samples=num_samples)
        assert len(reply.json()["samples"]) == num_samples
    assert [_is_pool(thread) for thread in threads] == [False, True]


def test_a_large_body_is_parsed_in_a_thread(sudoku: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = _record(monkeypatch, routes, "parse")
    for size in (100, routes.INLINE_BYTES + 1):
        body = json.dumps({"prompt": PUZZLE}).encode().ljust(size)
        assert sudoku.client.post("/generate", content=body).status_code == 200
    assert [_is_pool(thread) for thread in threads] == [False, True]


def test_the_openapi_document_is_made_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = _record(monkeypatch, openapi, "get_openapi")
    with run_toy() as server:
        assert server.client.get("/openapi.json").json() == server.client.get("/openapi.json").json()
        assert server.client.head("/openapi.json").status_code == 200
    assert [_is_pool(thread) for thread in threads] == [True]


def test_canvases_are_counted_before_anything_is_looked_at() -> None:
    settings = Settings()
    assert num_canvases(GenerateRequest(prompt=[{}, 3, None], num_samples=5), settings.limits) == 15
    assert num_canvases(GenerateRequest(prompt={"a": 1}, num_samples=5), settings.limits) == 5
    assert num_canvases(ScoreRequest(prompt=["a", "b"]), settings.limits) == 32
    assert num_canvases(ScoreRequest(prompt="a", num_orders=3), settings.limits) == 3
    assert num_canvases(ScoreRequest(prompt="a", order="confidence"), settings.limits) == 1
    assert num_canvases(OrderRequest(prompt=["a"] * 9), settings.limits) == 1


class _Probe:
    """Counts how often others of the event loop have their turn."""

    def __init__(self) -> None:
        self.num_turns = 0
        self._task = asyncio.get_running_loop().create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.num_turns += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


def _finished(model: ServedModel, *, num_samples: int) -> tuple[GenerateComposer, PendingRequest, list[RequestEvent]]:
    """A request of full length whose positions were all revealed in one step, with its events."""
    request = GenerateRequest(prompt="[MASK:40]", num_samples=num_samples, seed=1)
    plan = plan_generation(request, model, Settings().limits)
    events: list[RequestEvent] = []
    for index in range(num_samples):
        reveals = tuple(Reveal(i, 0, 0, -0.5, None, 0.5) for i in range(40))
        events += [Revealed("x", "v", index, reveals), SampleDone("x", "v", index, 1)]
    pending = PendingRequest("x", num_canvases=num_samples, arrived_at=0.0, buffer_events=10)
    pending.ended_at = 1.0
    return GenerateComposer(plan, model, has_logprobs=True), pending, [*events, Finished("x", "v")]


async def _stream(
    composer: GenerateComposer, pending: PendingRequest, events: list[RequestEvent]
) -> tuple[list[bytes], int]:
    """The stream's chunks, and how many turns others had meanwhile."""
    probe = _Probe()
    await asyncio.sleep(0)
    head, errors = {"id": "x"}, list[ServiceError]()
    chunks = stream_chunks(pending, composer, events, head=head, keep_alive_seconds=1.0, on_error=errors.append)
    found = [chunk async for chunk in chunks]
    probe.stop()
    assert not errors
    return found, probe.num_turns


def test_a_stream_gives_others_a_turn_whenever_its_own_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time of its own, that is after every piece: a sample of `start`, a reveal, a part of a sample."""
    model = toy_model(tokenizer=text_tokenizer())
    whole, _ = asyncio.run(_stream(*_finished(model, num_samples=8)))
    monkeypatch.setattr(streaming, "_TURN_SECONDS", 0.0)
    chunks, num_turns = asyncio.run(_stream(*_finished(model, num_samples=8)))
    assert b"".join(chunks) == b"".join(whole)
    assert num_turns >= 8 + 8 * 40 + 8
    assert max(len(chunk) for chunk in chunks) < len(b"".join(whole)) / 8


def test_a_stream_gives_others_a_turn_whenever_it_has_written_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_TURN_SECONDS", 1e9)
    monkeypatch.setattr(streaming, "_WRITE_BYTES", 2000)
    chunks, num_turns = asyncio.run(_stream(*_finished(toy_model(tokenizer=text_tokenizer()), num_samples=8)))
    assert num_turns >= len(chunks) - 2 >= sum(map(len, chunks)) / 10_000


def test_samples_of_one_prompt_share_what_start_says_of_them() -> None:
    composer, _, _ = _finished(toy_model(tokenizer=text_tokenizer()), num_samples=3)
    first, second, third = composer.start()["samples"]
    assert first["canvas"] is second["canvas"] is third["canvas"]
    assert len({start["seed"] for start in (first, second, third)}) == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON | st.lists(JSON, min_size=300, max_size=301), max_size=4))
def test_pieces_are_the_same_json(value: dict[str, Any]) -> None:
    assert b"".join(json_pieces(value.items())) == as_json(value)
    assert b"".join(json_pieces([("a", iter([value, value]))])) == as_json({"a": [value, value]})


def test_no_piece_holds_more_than_a_slice_of_a_list_or_an_entry_of_an_iterator() -> None:
    reveals = [{"position": i} for i in range(10_000)]
    samples = [{"reveals": reveals}, {"reveals": reveals}, {"reveals": []}]
    pieces = list(json_pieces([("samples", iter(samples)), ("names", list(range(1000)))]))
    assert b"".join(pieces) == as_json({"samples": samples, "names": list(range(1000))})
    assert max(map(len, pieces)) < 256 * len(b'{"position":9999},')
    assert list(json_pieces([])) == [b"{", b"}"]


def test_the_first_of_very_many_wrong_positions_ends_the_check() -> None:
    with pytest.raises(ValidationError) as refused:
        GenerateRequest.model_validate({"prompt": 1, "order": [0, *[-1] * 50_000]}, strict=True)
    assert refused.value.error_count() == 2  # no name of an order, and one wrong position


def test_the_first_of_very_many_unknown_fields_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GenerateRequest, "model_validate", lambda *_, **__: pytest.fail("all of it was checked"))
    with pytest.raises(ServiceError, match='unknown field "x0"'):
        parse(json.dumps({f"x{i}": 1 for i in range(50_000)}).encode(), GenerateRequest)
