"""POST /score on a real server: what it says and what it refuses."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.model.artifacts import text_tokenizer
from tests.service.mocks import mock_denoiser, toy_model
from tests.service.servers import Running, as_prompt, post_score, run_toy, score_reply
from unveil.engine.request.schemas import ScoreReply
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.scoring import score, score_step
from unveil.model.decoding.scoring_chain import Chain, summarise
from unveil.model.decoding.seeds import derive_seed

PROMPT = {"age": 39, "income": ">50K", "rate": 0.5}
WHOLE = {"age": 39, "workclass": "[MISSING]", "income": ">50K", "hours": 3, "rate": 0.5}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy(max_num_orders=64, max_prompts=16, queue_capacity=256) as running:
        yield running


def _expected(prompt: dict[str, Any], *, seed: int, num_orders: int, **params: Any) -> tuple[float, float | None]:
    """(nelbo, standard error) of the mock network without a service."""
    model = toy_model()
    template = model.tokenizer.encode(prompt)
    chosen = SamplingParams(**params)
    chains = [
        Chain.start(template.tokens, template.hidden, seed=derive_seed(seed, 0, k), params=chosen)
        for k in range(num_orders)
    ]
    step = partial(score_step, mock_denoiser(model.manifest.architecture.vocabulary_sizes))
    found = summarise(score(step, chains, max_batch=64), is_drawn=chosen.is_order_drawn).nelbo
    return found.mean, found.standard_error


def test_a_reply_has_its_shape_and_its_terms_sum_to_the_bound(server: Running) -> None:
    reply = score_reply(server, prompt=PROMPT, seed=7)
    ScoreReply.model_validate(reply)
    assert reply["id"].startswith("score-")
    assert (reply["model"], reply["seed"], reply["num_orders"]) == ("toy", 7, 16)
    (found,) = reply["scores"]
    assert [(t["position"], t["name"], t["value"]) for t in found["terms"]] == [
        *((0, "age", 39), (2, "income", ">50K"), (4, "rate", 0.5))
    ]
    assert sum(term["nats"] for term in found["terms"]) == pytest.approx(found["nelbo"], abs=1e-12)
    assert sum(term["mean_step"] for term in found["terms"]) == pytest.approx(0 + 1 + 2)
    assert found["log_likelihood"] is None
    assert found["standard_error"] > 0
    assert reply["usage"] == {"positions": 3, "forwards": 48}
    assert set(reply["timings"]) == {"queue_seconds", "total_seconds"}
    assert 0 <= reply["timings"]["queue_seconds"] <= reply["timings"]["total_seconds"]


@pytest.mark.parametrize("order", ["learned", "uniform"])
def test_drawn_orders_give_the_bound_that_the_model_gives_without_a_service(server: Running, order: Any) -> None:
    (found,) = score_reply(server, prompt=PROMPT, order=order, num_orders=40, seed=3)["scores"]
    assert (found["nelbo"], found["standard_error"]) == _expected(PROMPT, seed=3, num_orders=40, order=order)


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"order": "left_to_right"}, {"order": "left_to_right"}),
        ({"order": "right_to_left"}, {"order": "right_to_left"}),
        ({"order": "confidence"}, {"order": "confidence"}),
        ({"order": "margin"}, {"order": "margin"}),
        ({"order": "entropy"}, {"order": "entropy"}),
        ({"order": [4, 0, 2]}, {"order": "explicit", "explicit_order": (4, 0, 2)}),
        ({"order": "learned", "order_temperature": 0}, {"order": "learned", "order_temperature": 0.0}),
    ],
    ids=str,
)
def test_an_order_that_is_not_drawn_gives_the_exact_log_likelihood(
    server: Running, fields: dict[str, Any], params: dict[str, Any]
) -> None:
    for num_orders in (None, 1):
        reply = score_reply(server, prompt=PROMPT, num_orders=num_orders, **fields)
        (found,) = reply["scores"]
        nats, _ = _expected(PROMPT, seed=0, num_orders=1, **params)
        assert found["log_likelihood"] == -nats
        assert (found["nelbo"], found["standard_error"]) == (nats, 0)
        assert sorted(term["mean_step"] for term in found["terms"]) == [0, 1, 2]
        assert (reply["seed"], reply["num_orders"], reply["usage"]["forwards"]) == (None, 1, 3)


def test_an_explicit_order_is_followed(server: Running) -> None:
    (found,) = score_reply(server, prompt=PROMPT, order=[4, 0, 2])["scores"]
    assert {term["position"]: term["mean_step"] for term in found["terms"]} == {4: 0, 0: 1, 2: 2}


def test_order_temperature_changes_the_law_and_one_is_the_default(server: Running) -> None:
    plain = score_reply(server, prompt=WHOLE, seed=1)["scores"]
    assert score_reply(server, prompt=WHOLE, seed=1, order_temperature=1)["scores"] == plain
    assert score_reply(server, prompt=WHOLE, seed=1, order_temperature=5)["scores"] != plain


def test_a_sample_scored_with_its_own_seed_costs_what_it_said_when_it_was_made(server: Running) -> None:
    for order in ("learned", "uniform", "margin", "right_to_left"):
        (sample,) = server.generate(prompt={}, seed=11, order=order).json()["samples"]
        (found,) = score_reply(server, prompt=as_prompt(sample["output"]), order=order, seed=11, num_orders=1)["scores"]
        reveals = {r["position"]: (r["step"], -r["logprob"]) for r in sample["reveals"]}
        assert {t["position"]: (t["mean_step"], t["nats"]) for t in found["terms"]} == reveals
        assert found["nelbo"] == pytest.approx(-sample["logprob"])


def test_the_same_seed_gives_the_same_alone_in_a_list_and_in_any_company(server: Running) -> None:
    prompts = [PROMPT, {"age": 20}, WHOLE, {"hours": 2, "income": "<=50K"}]
    alone = [score_reply(server, prompt=prompt, seed=5)["scores"][0] for prompt in prompts]
    listed = score_reply(server, prompt=prompts, seed=5)
    assert listed["usage"] == {"positions": 11, "forwards": 16 * 11}
    assert [found["prompt_index"] for found in listed["scores"]] == [0, 1, 2, 3]
    assert [{**found, "prompt_index": 0} for found in listed["scores"]] == alone
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(server.generate, prompt={}, num_samples=4) for _ in range(4)]
        again = list(pool.map(lambda prompt: score_reply(server, prompt=prompt, seed=5)["scores"][0], prompts * 3))
        assert all(other.result().status_code == 200 for other in others)
    assert again == alone * 3


def test_the_first_orders_of_many_are_those_of_few_and_another_seed_is_another_result(server: Running) -> None:
    one, other = (score_reply(server, prompt=PROMPT, seed=seed, num_orders=1)["scores"][0]["nelbo"] for seed in (5, 6))
    assert one != other
    two = score_reply(server, prompt=PROMPT, seed=5, num_orders=2)["scores"][0]
    second = score_reply(server, prompt=PROMPT, seed=derive_seed(5, 0, 1), num_orders=1)["scores"][0]["nelbo"]
    assert two["nelbo"] == pytest.approx((one + second) / 2)
    assert two["standard_error"] == pytest.approx(abs(one - second) / 2)


def test_a_seed_that_is_not_given_is_drawn_fits_javascript_is_echoed_and_reproduces(server: Running) -> None:
    replies = [score_reply(server, prompt=PROMPT) for _ in range(3)]
    assert len({reply["seed"] for reply in replies}) == 3
    for reply in replies:
        assert 0 <= reply["seed"] < 2**53
        assert score_reply(server, prompt=PROMPT, seed=reply["seed"])["scores"] == reply["scores"]
    assert score_reply(server, prompt=PROMPT, order="margin", seed=9)["seed"] == 9


def test_one_drawn_order_says_nothing_of_its_error(server: Running) -> None:
    (found,) = score_reply(server, prompt=PROMPT, num_orders=1)["scores"]
    assert found["standard_error"] is None
    assert {term["standard_error"] for term in found["terms"]} == {None}


def test_null_and_absent_columns_are_hidden_alike_and_cost_nothing(server: Running) -> None:
    null = score_reply(server, prompt={**PROMPT, "workclass": None, "hours": None}, seed=2)
    assert null["scores"] == score_reply(server, prompt=PROMPT, seed=2)["scores"]


def test_what_is_hidden_is_integrated_out_so_all_values_of_a_column_make_one(server: Running) -> None:
    """The chain rule by hand: p(age) = sum over income of p(age, income), income revealed last."""
    (age,) = score_reply(server, prompt={"age": 39}, order="left_to_right")["scores"]
    prompts = [{"age": 39, "income": income} for income in ("<=50K", ">50K")]
    both = score_reply(server, prompt=prompts, order="left_to_right")["scores"]
    total = math.fsum(math.exp(found["log_likelihood"]) for found in both)
    assert math.exp(age["log_likelihood"]) == pytest.approx(total)


REFUSALS: dict[str, tuple[dict[str, Any], tuple[int, str, str | None], str]] = {
    "nothing known": ({"prompt": {}}, (422, "invalid_request", "prompt"), "nothing to score: no position is known"),
    "nothing known in a list": (
        {"prompt": [PROMPT, {"age": None}]},
        (422, "invalid_request", "prompt.1"),
        "nothing to score: no position is known",
    ),
    "no prompt": ({}, (422, "invalid_request", "prompt"), "prompt is missing"),
    "no prompts": ({"prompt": []}, (422, "invalid_request", "prompt"), "prompt is an empty list"),
    "too many prompts": (
        {"prompt": [PROMPT] * 17},
        (422, "invalid_request", "prompt"),
        "17 prompts; one request takes at most 16 here",
    ),
    "unknown column": (
        {"prompt": [PROMPT, {"agee": 1}]},
        (422, "invalid_request", "prompt.1.agee"),
        'unknown column "agee"; did you mean "age"?',
    ),
    "a wrong value": (
        {"prompt": {"age": "old"}},
        (422, "invalid_request", "prompt.age"),
        'age must be an integer between 17 and 90, got "old"',
    ),
    "unknown model": (
        {"prompt": PROMPT, "model": "toi"},
        (404, "model_not_found", "model"),
        'no model "toi" is served; did you mean "toy"?',
    ),
    "unknown field": (
        {"prompt": PROMPT, "num_order": 3},
        (422, "invalid_request", "num_order"),
        'unknown field "num_order"; did you mean "num_orders"?',
    ),
    "temperature of tokens": (
        {"prompt": PROMPT, "temperature": 0.5},
        (422, "invalid_request", "temperature"),
        'unknown field "temperature"; did you mean "order_temperature"?',
    ),
    "num_orders of zero": (
        {"prompt": PROMPT, "num_orders": 0},
        (422, "invalid_request", "num_orders"),
        "num_orders must be at least 1, got 0",
    ),
    "num_orders too many": (
        {"prompt": PROMPT, "num_orders": 65},
        (422, "invalid_request", "num_orders"),
        "num_orders must be at most 64 here",
    ),
    "num_orders a fraction": (
        {"prompt": PROMPT, "num_orders": 1.5},
        (422, "invalid_request", "num_orders"),
        "num_orders must be an integer, got 1.5",
    ),
    "many orders of one order": (
        {"prompt": PROMPT, "order": "entropy", "num_orders": 2},
        (422, "invalid_request", "num_orders"),
        "num_orders must be null or 1 here: order entropy is one order",
    ),
    "many orders of a list": (
        {"prompt": PROMPT, "order": [0, 2, 4], "num_orders": 2},
        (422, "invalid_request", "num_orders"),
        "num_orders must be null or 1 here: order given as a list is one order",
    ),
    "many likeliest orders": (
        {"prompt": PROMPT, "order_temperature": 0, "num_orders": 2},
        (422, "invalid_request", "num_orders"),
        "num_orders must be null or 1 here: order learned at order_temperature 0 is one order",
    ),
    "more chains than the server holds": (
        {"prompt": [PROMPT] * 16, "num_orders": 17},
        (422, "invalid_request", "num_orders"),
        "16 prompts x 17 orders are 272 canvases; this server holds 256",
    ),
    "order temperature without learned": (
        {"prompt": PROMPT, "order": "uniform", "order_temperature": 1},
        (422, "invalid_request", "order_temperature"),
        "order_temperature is only valid with order learned",
    ),
    "order temperature too small to divide by": (
        {"prompt": PROMPT, "order_temperature": 1e-300},
        (422, "invalid_request", "order_temperature"),
        "order_temperature must be 0, or at least 1e-06",
    ),
    "unknown order": (
        {"prompt": PROMPT, "order": "sideways"},
        (422, "invalid_request", "order"),
        "order must be one of learned, uniform, left_to_right, right_to_left, confidence, margin, entropy, "
        'or a list of all known positions, got "sideways"',
    ),
    "order misses positions": (
        {"prompt": PROMPT, "order": [0, 2]},
        (422, "invalid_request", "order"),
        "order must list every known position once: for prompt 0, 2, 4",
    ),
    "order repeats a position": (
        {"prompt": PROMPT, "order": [0, 2, 2, 4]},
        (422, "invalid_request", "order"),
        "order must list every known position once: for prompt 0, 2, 4",
    ),
    "order names a hidden position": (
        {"prompt": PROMPT, "order": [0, 1, 2, 4]},
        (422, "invalid_request", "order"),
        "order must list every known position once: for prompt 0, 2, 4",
    ),
    "one order for two sets of positions": (
        {"prompt": [PROMPT, {"age": 39}], "order": [0, 2, 4]},
        (422, "invalid_request", "order"),
        "order must list every known position once: for prompt.1 0",
    ),
    "seed below zero": (
        {"prompt": PROMPT, "seed": -1},
        (422, "invalid_request", "seed"),
        "seed must be at least 0, got -1",
    ),
    "length for a table": (
        {"prompt": PROMPT, "length": 3},
        (422, "invalid_request", "length"),
        "length is not valid with a table: its rows have all their columns",
    ),
    "timeout too long": (
        {"prompt": PROMPT, "timeout_seconds": 601},
        (422, "invalid_request", "timeout_seconds"),
        "timeout_seconds must be at most 600 here",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_gets_its_one_line_and_the_service_goes_on(server: Running, case: str) -> None:
    fields, expected, message = REFUSALS[case]
    response = post_score(server, **fields)
    assert server.error(response) == expected
    assert response.json()["error"]["message"] == message
    assert post_score(server, prompt=PROMPT, order="margin").status_code == 200


def test_a_body_that_is_no_json_or_too_large_is_refused_as_elsewhere(server: Running) -> None:
    assert server.error(server.client.post("/score", content=b"{")) == (400, "invalid_json", None)
    assert server.error(server.client.post("/score", content=b" " * 2**21)) == (413, "payload_too_large", None)
    assert server.error(server.client.get("/score")) == (405, "method_not_allowed", None)


def test_a_request_of_a_thousand_terms_is_answered_whole() -> None:
    with run_toy() as server:
        reply = score_reply(server, prompt=[WHOLE] * 64, num_orders=16, seed=1)
    assert reply["usage"] == {"positions": 320, "forwards": 5120}
    assert all(found["terms"] == reply["scores"][0]["terms"] for found in reply["scores"])


def test_a_text_is_scored_as_it_stands_and_its_holes_are_integrated_out() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer())) as server:
        reply = score_reply(server, prompt="ab no", order="left_to_right")
        assert [(t["position"], t["name"], t["value"]) for t in reply["scores"][0]["terms"]] == [
            (i, None, character) for i, character in enumerate("ab no")
        ]
        assert reply["usage"] == {"positions": 5, "forwards": 5}
        holes = score_reply(server, prompt="a[MASK:2]no", order="confidence")
        assert [t["position"] for t in holes["scores"][0]["terms"]] == [0, 3, 4]
        longer = score_reply(server, prompt="ab no", order="left_to_right", length=3)
        same = score_reply(server, prompt="ab no[MASK:3]", order="left_to_right")
        assert longer["scores"] == same["scores"]
        assert score_reply(server, prompt="a" * 40, num_orders=2)["usage"] == {"positions": 40, "forwards": 80}


def test_a_text_with_nothing_known_or_unknown_characters_is_refused() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer())) as server:
        for prompt in ("", "[MASK:5]"):
            assert server.error(post_score(server, prompt=prompt)) == (422, "invalid_request", "prompt")
        assert server.error(post_score(server, prompt=["ab", "aXb"])) == (422, "invalid_request", "prompt.1")
        assert server.error(post_score(server, prompt="a[MASK]", length=4)) == (422, "invalid_request", "length")
        assert server.error(post_score(server, prompt="a", length=41)) == (422, "invalid_request", "length")
        assert server.error(post_score(server, prompt="a" * 41)) == (422, "invalid_request", "prompt")


def test_it_counts_in_the_metrics(server: Running) -> None:
    labels = {"endpoint": "/score", "code": "200"}
    before = server.metric("unveil_requests_total", labels)
    steps, positions = (server.metric(f"unveil_{n}_total") for n in ("denoising_steps", "forward_positions"))
    revealed, queued = server.metric("unveil_revealed_tokens_total"), server.metric("unveil_queue_seconds_count")
    score_reply(server, prompt=PROMPT, num_orders=4)
    server.wait_for("unveil_requests_total", before + 1, labels)
    assert server.metric("unveil_denoising_steps_total") == steps + 12
    computed = server.metric("unveil_forward_positions_total") - positions
    assert computed % 5 == 0
    assert 3 * 5 <= computed <= (1 + 4 + 4) * 5  # four orders look alike in their first step, and may later
    assert server.metric("unveil_revealed_tokens_total") == revealed
    assert server.metric("unveil_queue_seconds_count") == queued + 1
    refused = server.metric("unveil_requests_total", {"endpoint": "/score", "code": "422"})
    post_score(server, prompt={})
    server.wait_for("unveil_requests_total", refused + 1, {"endpoint": "/score", "code": "422"})
