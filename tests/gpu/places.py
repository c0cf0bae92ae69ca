"""Where the tests of this folder run, and small networks there.

Answers of two devices agree within TOLERANCE nats: sums of float32 run in other orders. On one device a canvas's bytes
are the same in any company.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import torch

from tests.gpu.recorder import Recorder
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.graphs import CudaRecorder, Graphs, Record
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.network.late import LateQueries

TOLERANCE = 2e-3
LENGTH, MAX_ROWS = 12, 4
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)
DEVICES = ["cpu", CUDA]
# The second one takes the road of CUDA on the CPU: attention in one kernel, forwards recorded and replayed.
PLACES = ["cpu", "cpu as cuda", CUDA]
NETWORKS: dict[str, dict[str, Any]] = {
    "relative bias": {"vocabulary_sizes": (7,), "relative_bias": True},
    "pair bias": {"vocabulary_sizes": (3, 5, 2, 7, 4, 6, 3, 5, 9, 2, 4, 3), "pair_bias": True},
    "two layers": {"vocabulary_sizes": (7,), "query_layers": 2},
    "contextual": {"vocabulary_sizes": (7,), "relative_bias": True, "order": OrderSpec(kind="contextual")},
}


def network(name: str) -> LateQueries:
    """On the CPU, with weights that make much of what is read."""
    made = built(name, NETWORKS[name].get("query_layers", 1))
    assert isinstance(made, LateQueries)
    return made


@lru_cache
def built(name: str, query_layers: int) -> Network:
    """The same; without layers of queries, of a network whose positions read each other both ways."""
    fields = {**NETWORKS[name], "query_layers": query_layers}
    order = fields.pop("order", OrderSpec(kind="global"))
    torch.manual_seed(0)
    shape = {"length": LENGTH, "width": 32, "layers": 3, "heads": 2, "mlp_width": 64}
    made = build_network(Architecture(**shape, **fields), order).eval().requires_grad_(False)
    for own, parameter in made.named_parameters():
        torch.nn.init.normal_(parameter, std=1.0 if "log_w" in own else 0.4)
    return made


class Place(NamedTuple):
    """A network served somewhere; `graphs` where its forwards are recorded."""

    denoiser: AlongDenoiser
    graphs: Graphs | None
    is_deterministic: bool


def recorders(place: str, device: torch.device) -> Callable[[], Record]:
    """What makes recorders there."""
    return Recorder if place == "cpu as cuda" else lambda: CudaRecorder(device)


def served(name: str, place: str, *, is_fused: bool | None = None, max_rows: int = MAX_ROWS) -> Place:
    """A fresh denoiser of this network at this place. A recording that fails fails the test."""
    device = torch.device("cuda" if place == "cuda" else "cpu")
    along = Along(deepcopy(network(name)).to(device))
    along.is_fused = (place != "cpu") if is_fused is None else is_fused
    shapes = shapes_of(along, max_rows)
    is_deterministic = shapes.check()
    graphs = None
    if place != "cpu":
        graphs = Graphs(along, new_recorder=recorders(place, device), report=pytest.fail)
    run = None if graphs is None else graphs.run
    return Place(AlongDenoiser(along, shapes, max_rows=max_rows, run=run), graphs, is_deterministic)


def canvas(name: str, number: int, params: SamplingParams) -> Canvas:
    """A canvas of which as many positions are known as its number says, up to a third."""
    sizes = network(name).architecture.vocabulary_sizes
    draws = torch.Generator().manual_seed(number)
    known = torch.randperm(LENGTH, generator=draws)[: number % (LENGTH // 3)].tolist()
    every = sizes if len(sizes) > 1 else sizes * LENGTH
    tokens = tuple(int(torch.randint(size, (), generator=draws)) for size in every)
    return Canvas.start(tokens, tuple(i not in known for i in range(LENGTH)), seed=number, params=params)
