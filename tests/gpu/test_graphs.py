"""Recordings of forwards: the bytes of direct calls, dropped with the memory they wrote to, given up in one line.

The recorder here notes operations on the CPU (`tests.gpu.recorder`); on CUDA the same is asked of CUDA graphs.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.gpu.places import CUDA, MAX_ROWS, NETWORKS, canvas, network, recorders, served
from tests.gpu.recorder import Recorder, refusing
from unveil.engine import runner
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import NOBODY, Along, Slots
from unveil.model.along.graphs import Graphs, Record
from unveil.model.along.memory import FIRST, Memory
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding.batch import log_probabilities
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.draw import draw
from unveil.model.decoding.loop import Decoded, decode
from unveil.model.decoding.noise import reveal_noise

SHAPES = ((0, 2, 2, 2), (1, 2, 2, 2), (0, 2, 4, 3), (0, 3, 4, 0), (0, 2, 0, 4))  # first row, rows, contents, queries
NUM_ROWS = 4


def slots_of(along: Along, number: int, shape: tuple[int, int, int, int], *, start: int) -> Slots:
    """A content each behind `start` others, then slots without work; queries of changing positions."""
    _, B, C, A = shape
    slots, draws = Slots(B, C, A), np.random.default_rng(number)
    for b in range(B):
        positions = draws.permutation(along.architecture.length)
        if C:
            slots.sources[b, 0], slots.places[b, 0] = draws.integers(0, 3), positions[0]
            slots.columns[b, 0], slots.turns[b, 0], slots.ranks[b, 0] = FIRST + start, 1 + number, 1 + number
        for k in range(C, C + A):
            slots.sources[b, k], slots.columns[b, k] = FIRST + draws.integers(start + 1), NOBODY
            slots.turns[b, k], slots.places[b, k] = 2 + number, positions[1 + k - C]
    return slots


@pytest.mark.parametrize("place", ["cpu as cuda", CUDA])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_replayed_has_the_bytes_of_what_is_computed(name: str, place: str) -> None:
    device = torch.device("cuda" if place == "cuda" else "cpu")
    along = Along(deepcopy(network(name)).to(device))
    graphs = Graphs(along, new_recorder=recorders(place, device), report=pytest.fail)
    direct, replayed = Memory(along.size, NUM_ROWS), Memory(along.size, NUM_ROWS)
    kept: list[tuple[Tensor, Tensor]] = []
    for number in range(10):
        for shape in SHAPES:
            slots = slots_of(along, number, shape, start=number)
            expected = along.run(direct, shape[0], slots, num_contents=12)
            kept.append((graphs.run(replayed, shape[0], slots, num_contents=12), expected))
    assert len(graphs) == len(SHAPES)
    assert all(torch.equal(found, expected) for found, expected in kept)  # nothing is written over later either
    assert torch.equal(replayed.contents, direct.contents)
    assert torch.equal(replayed.states, direct.states)
    assert torch.equal(replayed.table, direct.table)


def test_a_replay_reads_no_argument_that_was_not_copied_to_its_memory() -> None:
    """Of the recorder of these tests: what is not an input stays as it was."""
    inputs, outside = torch.zeros(3), torch.zeros(3)
    recording = Recorder()(lambda: inputs.add(1).mul_(2) + outside.clone())
    inputs.fill_(1.0)
    outside = torch.ones(3)
    recording.replay()
    assert recording.output.tolist() == [4.0, 4.0, 4.0]


def starts() -> list[Canvas]:
    return [canvas("relative bias", number, SamplingParams()) for number in range(MAX_ROWS)]


def finished(denoiser: AlongDenoiser, canvases: list[Canvas]) -> list[Decoded]:
    """By the engine's step."""
    return list(decode(partial(ahead.step, denoiser), canvases))


def test_recordings_go_with_the_memory_that_they_wrote_to() -> None:
    place = served("relative bias", "cpu as cuda", is_fused=False)
    assert place.graphs is not None
    found = [finished(place.denoiser, starts()) for _ in range(2)]
    assert len(place.graphs) > 1
    place.denoiser.rows.release_all()
    place.denoiser.rows.memory = place.denoiser.rows.memory.grown(place.denoiser.rows.memory.num_rows)
    assert finished(place.denoiser, starts()) == found[0] == found[1]


def test_where_recording_fails_a_line_says_so_and_the_same_is_computed() -> None:
    plain, said = served("relative bias", "cpu").denoiser, list[str]()
    graphs = Graphs(plain.network, new_recorder=lambda: refusing, report=said.append)
    denoiser = AlongDenoiser(plain.network, plain.shapes, max_rows=MAX_ROWS, run=graphs.run)
    assert finished(denoiser, starts()) == finished(plain, starts())
    assert said == ["no more CUDA graphs are recorded, CUDA out of memory. Tried to record."]
    assert len(graphs) == 0


def test_the_engine_logs_that_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def recorder(device: torch.device) -> Record:
        return refusing

    monkeypatch.setattr(runner, "CudaRecorder", recorder)
    along = served("relative bias", "cpu").denoiser.network
    graphs, memory = runner.recorded(along), Memory(along.size, NUM_ROWS)
    for number in range(3):
        graphs.run(memory, 0, slots_of(along, number, SHAPES[0], start=number), num_contents=12)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("WARNING", "unveil.engine.runner")
    assert "CUDA out of memory" in record.message


def on_nothing(name: str) -> AlongDenoiser:
    """A denoiser on torch's device without memory, where reading any value on the host is an error."""
    there = deepcopy(network(name)).to("meta")
    along = Along(there)
    along.log_w = network(name).order_head.global_log_w()
    return AlongDenoiser(along, shapes_of(Along(network(name)), MAX_ROWS), max_rows=MAX_ROWS)


@pytest.mark.parametrize("name", ["relative bias", "pair bias"])
def test_a_step_reads_nothing_on_the_host_before_its_draws(name: str) -> None:
    """So it waits for the device at one place, where ids and log-probabilities are copied back."""
    denoiser = on_nothing(name)
    params = [
        SamplingParams(),
        SamplingParams(temperature=0.5, top_k=2),
        SamplingParams(temperature=0),
        SamplingParams(top_p=0.5),
    ]
    drawn = _drawn(denoiser, [canvas(name, number, own) for number, own in enumerate(params)])
    ids, logprobs = drawn()
    assert (ids.device.type, ids.shape, logprobs.shape) == ("meta", (4,), (4,))
    with pytest.raises(NotImplementedError, match="meta tensor"):
        ids.tolist()


@torch.inference_mode()
def _drawn(denoiser: AlongDenoiser, canvases: list[Canvas]) -> Callable[[], tuple[Tensor, Tensor]]:
    opened = denoiser.open(canvases)
    positions = np.array([own.hidden.index(True) for own in canvases])
    log_p = log_probabilities(opened.logits(np.arange(len(canvases)), positions))
    noise = reveal_noise([own.seed for own in canvases], positions.tolist())
    return lambda: draw(log_p, noise.states, [own.params for own in canvases])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["relative bias", "pair bias"])  # a contextual order is looked at on the host
def test_a_step_never_waits_for_a_gpu_before_its_draws(name: str) -> None:
    denoiser = served(name, "cuda").denoiser
    canvases = [canvas(name, number, SamplingParams(top_k=2)) for number in range(MAX_ROWS)]
    for _ in range(4):  # what is done once may wait: allocations, a recording
        _drawn(denoiser, canvases)()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _drawn(denoiser, canvases)()
    finally:
        torch.cuda.set_sync_debug_mode("default")
