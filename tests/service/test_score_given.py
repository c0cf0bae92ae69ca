"""POST /score of what is left when part of a prompt is given: conditional, exact, and refused where it disagrees."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.model.artifacts import text_tokenizer
from tests.service.mocks import toy_model
from tests.service.servers import Running, as_prompt, post_score, run_toy, score_reply
from unveil.model.tokenizers.grid import GridTokenizer

WHOLE = {"age": 39, "workclass": "[MISSING]", "income": ">50K", "hours": 3, "rate": 0.5}
GIVEN = {"age": 39, "income": ">50K"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy(max_num_orders=64, max_prompts=16, queue_capacity=256) as running:
        yield running


def test_what_is_given_is_free_and_the_rest_costs_what_it_does_once_that_is_known(server: Running) -> None:
    (whole,) = score_reply(server, prompt=WHOLE, order=[0, 2, 4, 1, 3])["scores"]
    left = score_reply(server, prompt=WHOLE, given=GIVEN, order=[4, 1, 3])
    later = {t["position"]: t["nats"] for t in whole["terms"] if t["position"] not in (0, 2)}
    (found,) = left["scores"]
    assert {t["position"]: t["nats"] for t in found["terms"]} == later
    assert [t["mean_step"] for t in found["terms"]] == [1, 2, 0]
    assert found["log_likelihood"] == pytest.approx(-math.fsum(later.values()))
    assert left["usage"] == {"positions": 3, "forwards": 3}


def test_the_values_of_a_column_given_the_others_make_one(server: Running) -> None:
    rest = {name: value for name, value in WHOLE.items() if name != "income"}
    prompts = [{**rest, "income": income} for income in ("<=50K", ">50K")]
    both = score_reply(server, prompt=prompts, given=rest, order="margin")["scores"]
    assert math.fsum(math.exp(found["log_likelihood"]) for found in both) == pytest.approx(1.0)


def test_a_sample_given_its_prompt_costs_what_its_reveals_said(server: Running) -> None:
    for order in ("learned", "uniform", "margin", "right_to_left"):
        (sample,) = server.generate(prompt=GIVEN, seed=11, order=order).json()["samples"]
        (found,) = score_reply(
            server, prompt=as_prompt(sample["output"]), given=GIVEN, order=order, seed=11, num_orders=1
        )["scores"]
        reveals = {r["position"]: (r["step"], -r["logprob"]) for r in sample["reveals"]}
        assert {t["position"]: (t["mean_step"], t["nats"]) for t in found["terms"]} == reveals


def test_one_is_given_to_all_prompts_or_to_each_its_own(server: Running) -> None:
    prompts = [WHOLE, {"age": 39, "income": ">50K", "hours": 2}]
    alone = [score_reply(server, prompt=prompt, given=GIVEN, seed=3)["scores"][0]["terms"] for prompt in prompts]
    shared = score_reply(server, prompt=prompts, given=GIVEN, seed=3)
    assert [found["terms"] for found in shared["scores"]] == alone
    assert shared["usage"] == {"positions": 3 + 1, "forwards": 16 * 4}
    own = score_reply(server, prompt=[WHOLE, WHOLE], given=[GIVEN, None], seed=3)["scores"]
    assert own[0]["terms"] == alone[0]
    assert own[1]["terms"] == score_reply(server, prompt=WHOLE, seed=3)["scores"][0]["terms"]


def test_a_text_goes_on_from_its_beginning() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer())) as server:
        (found,) = score_reply(server, prompt="ab no", given="ab", order="left_to_right")["scores"]
        assert [t["position"] for t in found["terms"]] == [2, 3, 4]
        (middle,) = score_reply(server, prompt="ab no", given="ab[MASK:2]o", order="left_to_right")["scores"]
        assert [t["position"] for t in middle["terms"]] == [2, 3]
        assert server.error(post_score(server, prompt="ab no", given="an")) == (422, "invalid_request", "given")
        refused = post_score(server, prompt="ab no", given="ab noo")
        assert refused.json()["error"]["message"] == "position 5 is given, and the prompt does not know it"
        refused = post_score(server, prompt="ab no", given="an").json()["error"]["message"]
        assert refused == 'position 1 is given as "n", and "b" in the prompt'


def test_a_grid_is_solved_from_its_clues() -> None:
    tokenizer = GridTokenizer()
    clues = tokenizer.example_prompt()
    solution = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    with run_toy(model=toy_model(tokenizer=tokenizer)) as server:
        reply = score_reply(server, prompt=solution, given=clues, order="left_to_right")
    hidden = [i for i, cell in enumerate(clues) if cell == "."]
    assert [t["position"] for t in reply["scores"][0]["terms"]] == hidden
    assert reply["usage"] == {"positions": len(hidden), "forwards": len(hidden)}


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "all is given": ({"prompt": WHOLE, "given": WHOLE}, "given", "nothing to score: all that prompt knows is given"),
    "all of one is given": (
        {"prompt": [WHOLE, GIVEN], "given": [GIVEN, GIVEN]},
        "given.1",
        "nothing to score: all that prompt.1 knows is given",
    ),
    "another value": (
        {"prompt": WHOLE, "given": {"income": "<=50K"}},
        "given.income",
        'income is given as "<=50K", and ">50K" in the prompt',
    ),
    "what the prompt hides": (
        {"prompt": GIVEN, "given": {"hours": 3}},
        "given.hours",
        "hours is given, and the prompt does not know it",
    ),
    "no such column": ({"prompt": WHOLE, "given": {"agee": 3}}, "given.agee", 'unknown column "agee"; did you'),
    "no such value": ({"prompt": [WHOLE], "given": [{"age": "old"}]}, "given.0.age", "age must be an integer"),
    "a list for one": (
        {"prompt": WHOLE, "given": [GIVEN]},
        "given",
        "given lists 1 for 1 prompt: it must be one for all, or one for each",
    ),
    "too few": (
        {"prompt": [WHOLE, WHOLE], "given": [GIVEN]},
        "given",
        "given lists 1 for 2 prompts: it must be one for all, or one for each",
    ),
    "an order of what is given, too": (
        {"prompt": WHOLE, "given": GIVEN, "order": [0, 1, 2, 3, 4]},
        "order",
        "order must list every known position that is not given once: for prompt 1, 3, 4",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_given_wrongly_gets_one_line(server: Running, case: str) -> None:
    fields, param, message = REFUSALS[case]
    response = post_score(server, **fields)
    assert server.error(response) == (422, "invalid_request", param)
    assert response.json()["error"]["message"].startswith(message)
