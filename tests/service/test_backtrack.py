"""Requests with `backtrack`: what is taken back is told, and what stands is the output."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.service.mocks import toy_model
from tests.service.servers import Running, events_of, run_toy
from unveil.engine.catalog import ServedModel
from unveil.model.tokenizers.grid import GridTokenizer, is_solution

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE = "." * 12 + SOLUTION[12:30] + "." * 9 + SOLUTION[39:]
HARDER = "." * 36 + SOLUTION[36:]
FIELDS: dict[str, Any] = {"prompt": PUZZLE, "num_samples": 6, "seed": 3, "order": "uniform", "backtrack": 10_000}
ADDED = {"num_forwards", "num_unrevealed"}


@pytest.fixture(scope="module")
def grid() -> ServedModel:
    return toy_model(tokenizer=GridTokenizer())


@pytest.fixture(scope="module")
def server(grid: ServedModel) -> Iterator[Running]:
    with run_toy(model=grid) as running:
        yield running


def _events(server: Running, **fields: Any) -> list[tuple[str, Any]]:
    with server.client.stream("POST", "/generate", json={**fields, "stream": True}) as response:
        assert response.status_code == 200
        return list(events_of(response.iter_lines()))


def test_reveals_less_unreveals_put_into_the_template_give_the_output(server: Running) -> None:
    names = ("unveil_revealed_tokens_total", "unveil_unrevealed_tokens_total")
    revealed, unrevealed = map(server.metric, names)
    events = _events(server, **FIELDS)
    now = list(map(server.metric, names))
    canvases = {s["sample_index"]: list(s["canvas"]) for s in events[0][1]["samples"]}
    standing: dict[int, list[Any]] = {index: [] for index in canvases}
    taken = dict.fromkeys(canvases, 0)
    for kind, data in events:
        if kind == "reveal":
            index = data.pop("sample_index")
            assert data.pop("prompt_index") == 0
            assert canvases[index][data["position"]] is None
            canvases[index][data["position"]] = data["value"]
            standing[index].append(data)
        elif kind == "unreveal":
            assert set(data) == {"prompt_index", "sample_index", "step", "positions"}
            index = data["sample_index"]
            for position in data["positions"]:
                assert PUZZLE[position] == "."
                assert standing[index].pop()["position"] == position
                canvases[index][position] = None
            taken[index] += len(data["positions"])
    samples = [data for kind, data in events if kind == "sample"]
    for sample in samples:
        index = sample["sample_index"]
        assert is_solution(sample["output"], PUZZLE)
        assert "".join(canvases[index]) == sample["output"]
        assert sample["reveals"] == standing[index]
        assert sample["num_unrevealed"] == taken[index]
        assert sample["logprob"] == pytest.approx(sum(reveal["logprob"] for reveal in sample["reveals"]))
        assert sample["finish_reason"] == "complete"
    assert sum(taken.values()) > 0
    assert now[1] - unrevealed == sum(taken.values())
    assert now[0] - revealed == sum(map(len, standing.values())) + sum(taken.values())
    whole = server.generate(**FIELDS).json()
    assert sorted(samples, key=lambda sample: sample["sample_index"]) == whole["samples"]
    usage = whole["usage"]
    assert usage == events[-1][1]["usage"]
    assert usage["denoising_steps"] == sum(sample["num_forwards"] for sample in samples)
    assert usage["generated_tokens"] == 6 * PUZZLE.count(".") < usage["denoising_steps"]


def test_each_sample_alone_is_what_it_is_in_company(server: Running) -> None:
    for sample in server.generate(**FIELDS).json()["samples"]:
        (alone,) = server.generate(**{**FIELDS, "num_samples": 1, "seed": sample["seed"]}).json()["samples"]
        assert {**alone, "sample_index": sample["sample_index"]} == sample


def test_where_the_budget_is_used_up_the_reply_says_so_and_keeps_to_it(server: Running) -> None:
    fields = {**FIELDS, "prompt": HARDER, "backtrack": 2}
    samples = server.generate(**fields).json()["samples"]
    assert "budget" in {sample["finish_reason"] for sample in samples}
    for sample in samples:
        assert sample["num_forwards"] <= HARDER.count(".") + 2
        assert (sample["finish_reason"] == "complete") == is_solution(sample["output"], HARDER)


def test_without_it_a_reply_has_no_field_more(server: Running) -> None:
    (plain,) = server.generate(prompt=PUZZLE, seed=3).json()["samples"]
    (null,) = server.generate(prompt=PUZZLE, seed=3, backtrack=None).json()["samples"]
    (searched,) = server.generate(prompt=PUZZLE, seed=3, backtrack=10_000).json()["samples"]
    assert plain == null
    assert set(searched) - set(plain) == ADDED
    assert plain["finish_reason"] == "complete"


def test_a_model_along_its_order_refuses_it(grid: ServedModel) -> None:
    architecture = grid.manifest.architecture.model_copy(update={"query_layers": 1})
    along = replace(grid, manifest=grid.manifest.model_copy(update={"architecture": architecture}))
    with run_toy(model=along) as server:
        refused = server.generate(prompt=PUZZLE, backtrack=5)
        assert server.error(refused) == (422, "invalid_request", "backtrack")
        assert "autoregressive along its order" in refused.json()["error"]["message"]
        assert server.generate(prompt=PUZZLE).status_code == 200
