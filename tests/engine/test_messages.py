"""Messages survive the trip into another process, as pickle and as JSON."""

import pickle
from typing import Any

import pytest
from pydantic import TypeAdapter

from tests.service.mocks import canvas, chain
from unveil.engine import messages
from unveil.model.decoding.canvas import Reveal, SamplingParams
from unveil.model.decoding.scoring_chain import Term

_EXPLICIT = SamplingParams(order="explicit", explicit_order=(2, 0, 1), top_k=3, top_p=0.5, temperature=0.0)
_REVEALS = (Reveal(3, 7, 0, -0.25, None, 0.125), Reveal(1, 2, 0, -1.5, -0.7, 0.5))
_ALL: list[messages.Command | messages.Event] = [
    messages.Generate("r", "adult", "v", (canvas(3, seed=2**63 - 1, params=_EXPLICIT), canvas(2, num_known=1))),
    messages.Rank("r", "adult", "v", canvas(4)),
    messages.Score("r", "adult", "v", (chain(0, 2, 1, params=_EXPLICIT), chain(0, 4).after([4]))),
    messages.Cancel("r"),
    messages.Stop(),
    messages.Loaded("adult", "v", "cpu", True),
    messages.Ready(),
    messages.Died("why"),
    messages.Heartbeat(),
    messages.Started("r", "v"),
    messages.Revealed("r", "v", 1, _REVEALS),
    messages.Unrevealed("r", "v", 1, 5, (3, 1)),
    messages.SampleDone("r", "v", 1, 14),
    messages.SampleDone("r", "v", 1, 14, "budget"),
    messages.Finished("r", "v"),
    messages.Ranked("r", "v", ((0, 0.25), (3, 0.75))),
    messages.Scored("r", "v", 3, Term(5, 1, 0.25)),
    messages.Failed("r", "v", "why"),
    messages.StepStats(0.01, 4, 60, 50, 5),
    messages.BatchRetried("adult", 15, 4, "why", None),
    messages.BatchRetried("adult", 15, 4, "why", 2),
]


def _name(message: Any) -> str:
    return type(message).__name__


def test_every_kind_of_message_is_in_the_list() -> None:
    kinds = {*messages.Command.__args__, *messages.Event.__args__}
    assert {type(message) for message in _ALL} == kinds


@pytest.mark.parametrize("message", _ALL, ids=_name)
def test_a_message_survives_pickling(message: Any) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


@pytest.mark.parametrize("message", _ALL, ids=_name)
def test_a_message_survives_json(message: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(message))
    assert adapter.validate_json(adapter.dump_json(message)) == message


@pytest.mark.parametrize("message", [m for m in _ALL if hasattr(m, "request_id")], ids=_name)
def test_every_message_about_a_request_names_its_weights(message: Any) -> None:
    assert isinstance(message, messages.Cancel) or message.weights_version == "v"
