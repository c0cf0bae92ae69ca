"""Metrics exist under their names, move when something happens, and parse."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.mocks import Gate, toy_model, toy_runner
from tests.service.servers import Running, run_toy
from unveil.engine.request.errors import FAILURE_REASONS
from unveil.model.decoding.canvas import Canvas

COUNTERS = (
    "unveil_requests_total",
    "unveil_request_failures_total",
    "unveil_denoising_steps_total",
    "unveil_forwards_saved_total",
    "unveil_revealed_tokens_total",
    "unveil_unrevealed_tokens_total",
    "unveil_forward_positions_total",
    "unveil_batches_retried_total",
)
HISTOGRAMS = (
    "unveil_request_seconds",
    "unveil_queue_seconds",
    "unveil_first_reveal_seconds",
    "unveil_inter_reveal_seconds",
    "unveil_step_seconds",
    "unveil_step_batch_size",
    "unveil_padding_ratio",
)
GAUGES = (
    "unveil_requests_running",
    "unveil_requests_waiting",
    "unveil_ready",
    "unveil_draining",
    "unveil_queue_capacity",
    "unveil_build_info",
)


@pytest.fixture
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


def _text(server: Running) -> str:
    return server.client.get("/metrics").text


def test_every_metric_of_the_contract_is_there_with_its_type(server: Running) -> None:
    server.generate(prompt={})
    families = {family.name: family.type for family in text_string_to_metric_families(_text(server))}
    ours = {name: kind for name, kind in families.items() if name.startswith("unveil_")}
    expected = {name.removesuffix("_total"): "counter" for name in COUNTERS}
    expected |= dict.fromkeys(HISTOGRAMS, "histogram") | dict.fromkeys(GAUGES, "gauge")
    assert ours == expected


def test_one_request_of_two_samples_moves_everything_it_should(server: Running) -> None:
    server.generate(prompt=[{"age": 39}, {"income": ">50K"}])  # two that never look alike
    server.wait_for("unveil_requests_total", 1, {"endpoint": "/generate", "code": "200"})
    assert server.metric("unveil_denoising_steps_total") == 8
    assert server.metric("unveil_revealed_tokens_total") == 8
    assert server.metric("unveil_forward_positions_total") == 40
    assert server.metric("unveil_step_seconds_count") == 4
    assert server.metric("unveil_step_batch_size_sum") == 8
    assert server.metric("unveil_padding_ratio_sum") == 0
    for name in ("request", "queue", "first_reveal"):
        assert server.metric(f"unveil_{name}_seconds_count") == 1
        assert server.metric(f"unveil_{name}_seconds_sum") > 0
    assert server.metric("unveil_inter_reveal_seconds_count") == 3


def test_running_and_waiting_follow_the_requests() -> None:
    gate = Gate()
    with run_toy(gate=gate, max_batch=1) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.generate, prompt={})
        gate.wait()
        server.wait_for("unveil_requests_running", 1)
        second = pool.submit(server.generate, prompt={})
        server.wait_for("unveil_requests_waiting", 1)
        gate.open()
        assert first.result().status_code == second.result().status_code == 200
        assert server.metric("unveil_requests_running") == server.metric("unveil_requests_waiting") == 0


def test_buckets_start_at_half_a_millisecond(server: Running) -> None:
    families = text_string_to_metric_families(_text(server))
    (family,) = [family for family in families if family.name == "unveil_step_seconds"]
    bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
    assert min(bounds) == 0.0005
    assert max(bounds) == float("inf")


def test_labels_hold_no_path_id_or_prompt(server: Running) -> None:
    for path in ("/secret-path-1", "/generate/secret-2", "/web/secret-3"):
        server.client.get(path)
    server.generate(prompt={"secret-4": 1})
    server.wait_for("unveil_requests_total", 3, {"endpoint": "other", "code": "404"})
    assert "secret" not in _text(server)
    assert {reason: server.metric("unveil_request_failures_total", {"reason": reason}) for reason in FAILURE_REASONS}


def test_what_is_served_is_said_in_build_info_and_capacity(server: Running) -> None:
    assert server.metric("unveil_queue_capacity") == 1024
    assert 'unveil_build_info{device="cpu",model="toy",version="' in _text(server)


def test_a_batch_that_failed_and_was_stepped_one_by_one_is_counted() -> None:
    def refuse(canvases: Sequence[Canvas]) -> None:
        if len(canvases) > 1:
            raise RuntimeError("too many")

    model = toy_model()
    with run_toy(model=model, runner=toy_runner(model, refuse)) as server:
        assert server.generate(prompt={"age": 39}, num_samples=3).status_code == 200
        server.wait_for("unveil_batches_retried_total", 4)
        assert server.generate(prompt={"age": 39}).status_code == 200
        assert server.metric("unveil_batches_retried_total") == 4
        assert server.metric("unveil_request_failures_total", {"reason": "internal"}) == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(server: Running) -> None:
    server.generate(prompt={})
    check = subprocess.run(["promtool", "check", "metrics"], input=_text(server), capture_output=True, text=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_an_order_that_is_asked_for_is_a_forward_like_any_other(server: Running) -> None:
    assert server.client.post("/order", json={"prompt": {"age": 39}}).status_code == 200
    server.wait_for("unveil_step_seconds_count", 1)
    assert server.metric("unveil_forward_positions_total") == 5
    assert server.metric("unveil_step_batch_size_sum") == 1
    assert server.metric("unveil_padding_ratio_sum") == 0
    assert server.metric("unveil_revealed_tokens_total") == 0
