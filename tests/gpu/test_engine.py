"""The bundled models through the engine's thread on a device: the same bytes in any company, the CPU's choices."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.gpu.places import DEVICES, TOLERANCE
from tests.service.mocks import Recorder
from unveil.engine.catalog import Source
from unveil.engine.messages import Event, Failed, Finished, Generate, Loaded, Ready, Revealed, Stop
from unveil.engine.runner import load_models
from unveil.engine.thread import Engine
from unveil.model.artifact.manifest import read_manifest
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
HOLES = {"adult": 9, "moses": 12, "text": 12, "sudoku": 2}
# Log-probabilities of two devices; convolutions of CUDA may run in TF32, and sudoku's network has 64 loops of them.
TOLERANCES = {"sudoku": 0.05}
MAX_BATCH = 4
PARAMS = (SamplingParams(), SamplingParams(order="confidence", temperature=0.5), SamplingParams(order="uniform"))
Reveals = tuple[Reveal, ...]


class Served:
    """An engine's thread with one bundled model."""

    def __init__(self, model: str, device: str) -> None:
        source = Source(model, CHECKPOINTS / model)
        self._said = Recorder()
        self._engine = Engine(lambda: load_models([source], max_batch=MAX_BATCH, device=device), max_batch=MAX_BATCH)
        self._engine.start(self._said)
        loaded = self._said.until(lambda event: isinstance(event, Loaded))
        assert isinstance(loaded, Loaded)
        self.loaded = loaded
        self._said.until(lambda event: isinstance(event, Ready))

    def answers(self, batches: Sequence[Sequence[Canvas]]) -> list[Reveals]:
        """Every batch one request after the other."""
        found: list[Reveals] = []
        for number, batch in enumerate(batches):
            request, seen = str(number), len(self._said.events)
            self._engine.send(Generate(request, self.loaded.model, self.loaded.weights_version, tuple(batch)))
            last = self._said.until(lambda event: isinstance(event, Finished | Failed))
            assert isinstance(last, Finished), last
            found += _reveals(self._said.events[seen:], len(batch))
        return found

    def stop(self) -> None:
        self._engine.send(Stop())
        self._engine.join(60)
        assert not self._engine.is_alive()


def _reveals(events: Sequence[Event], num: int) -> list[Reveals]:
    found: list[Reveals] = [() for _ in range(num)]
    for event in events:
        if isinstance(event, Revealed):
            found[event.index] += event.reveals
    return found


def canvases(model: str) -> list[Canvas]:
    """Two of each order, with so many holes."""
    architecture = read_manifest(CHECKPOINTS / model).architecture
    sizes = architecture.vocabulary_sizes
    every = sizes if len(sizes) > 1 else sizes * architecture.length
    made = []
    for number in range(2 * len(PARAMS)):
        draws = torch.Generator().manual_seed(number)
        holes = torch.randperm(len(every), generator=draws)[: HOLES[model]].tolist()
        tokens = tuple(int(torch.randint(min(size, 4), (), generator=draws)) for size in every)
        hidden = tuple(i in holes for i in range(len(every)))
        made.append(Canvas.start(tokens, hidden, seed=number, params=PARAMS[number // 2]))
    return made


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", HOLES)
def test_the_same_bytes_in_any_company_and_the_first_choices_of_the_cpu(model: str, device: str) -> None:
    served, wanted = Served(model, device), canvases(model)
    assert (served.loaded.is_deterministic, served.loaded.device) == (True, device)
    alone = served.answers([[own] for own in wanted])
    assert served.answers([wanted]) == alone
    assert served.answers([wanted[::-1]])[::-1] == alone
    served.stop()
    on_cpu = Served(model, "cpu")
    expected = on_cpu.answers([wanted])
    on_cpu.stop()
    for own, other in zip(alone, expected, strict=True):
        assert len(own) == len(other) == HOLES[model]
        assert (own[0].position, own[0].token_id) == (other[0].position, other[0].token_id)
        assert own[0].logprob == pytest.approx(other[0].logprob, abs=TOLERANCES.get(model, TOLERANCE))
