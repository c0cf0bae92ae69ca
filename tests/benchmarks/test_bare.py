"""The engine's forwards are recorded as they are, run again alone, and their products counted."""

import pytest
import torch

from tests.model.artifacts import text_tokenizer, write_artifact
from unveil.benchmarks.speed.bare import RecordedAlong, RecordedStages, operations, recorded, shares
from unveil.benchmarks.speed.engine import random_subject
from unveil.benchmarks.speed.in_process import Subject, engine_decode, load_subject, mixed_canvases
from unveil.engine.catalog import Source
from unveil.model.along.forward import Slots
from unveil.model.along.memory import Memory
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import prepare
from unveil.model.network.late import LateQueries

B, L, R, M, V, N = 2, 256, 3, 64, 50, 2
WIDTHS = pytest.mark.parametrize("width", [32, 256])  # in MKL, in oneDNN


def _shape(width: int) -> dict[str, object]:
    return {"length": L, "vocabulary_sizes": (V,), "width": width, "layers": N, "heads": 1, "mlp_width": M}


@WIDTHS
def test_the_operations_of_whole_canvases_are_those_of_their_products(width: int) -> None:
    W = width
    stages = RecordedStages(prepare(random_subject(_shape(width)).denoise))
    begun = stages.begin(torch.zeros(B, L, dtype=torch.int64), torch.ones(B, L, dtype=torch.bool), torch.full((B,), L))
    stages.finish(begun.states[0, :R], torch.arange(R))
    found = operations(stages.forwards)
    block, attention, head = 4 * W * W + 2 * W * M, 2 * L * W, W * V  # a position's multiplications
    inner, last = (N - 1) * (block + attention), attention + 2 * W * W  # of the last block all need keys and values
    least = 2 * (B * L * inner + B * L * 2 * W * W + R * head)
    whole = 2 * (B * L * (inner + block + attention) + R * head)
    assert least < found <= 1.01 * whole
    assert found - 2 * B * L * inner < 2 * B * L * (last + block) + 2 * R * head
    assert operations(stages.forwards * 2) == 2 * found


@WIDTHS
def test_the_operations_along_the_order_are_those_of_the_slots_and_of_what_they_read(width: int) -> None:
    W, C, asked, num_contents = width, 8, 4, 30
    architecture = Architecture.model_validate({**_shape(width), "query_layers": 1})
    network = RecordedAlong(LateQueries(architecture, OrderSpec(kind="uniform")).eval())
    states = network.run(Memory(network.size, B), 0, Slots(B, C, asked), num_contents=num_contents)
    network.logits(states[0], torch.arange(asked))
    rest, read = W * W + 2 * W * M, 2 * network.width(num_contents) * W  # of a slot behind its query, key and value
    contents = B * C * (N * (3 * W * W + rest + read) + 2 * W * W)  # and the keys and values that queries read
    queries = B * asked * (W * W + rest + read)
    assert operations(network.forwards) == 2 * (contents + queries + asked * W * V)


@pytest.fixture(scope="module", params=[0, 1])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("bare") / "small"
    write_artifact(folder, tokenizer=text_tokenizer(), query_layers=request.param)
    return load_subject(Source("small", folder), max_batch=4)


@pytest.mark.parametrize("rule", ["confidence", "random"])
def test_what_is_recorded_computes_as_much_as_what_is_served(subject: Subject, rule: str) -> None:
    canvases = mixed_canvases(subject, num=4, rule=rule)  # type: ignore[arg-type]
    again, forwards = recorded(subject)
    before = subject.runner.counts()
    assert engine_decode(subject, canvases) == engine_decode(again, canvases)
    after, found = subject.runner.counts(), again.runner.counts()
    assert forwards
    if rule == "confidence":  # by random the number of positions a step follows the clock
        assert found.num_positions == after.num_positions - before.num_positions
    first = [forward.shape for forward in forwards if forward.shape[0] in ("begin", "slots")]
    assert sum(int(rows) * int(slots) for _, rows, slots, *_ in first) == found.num_positions


def test_shares_are_of_the_limit_and_of_the_peak(subject: Subject) -> None:
    canvases = mixed_canvases(subject, num=3, rule="random")
    found = shares(subject, canvases, rounds=1, peak=1e9)
    assert found["of_limit"] > 0
    assert found["of_peak"] > 0
