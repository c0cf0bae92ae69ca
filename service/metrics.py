"""All metrics of one server, in a registry of its own. They are updated where things happen.

Buckets start at half a millisecond, which is what a step takes. No label holds an id or a prompt.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from unveil.engine.messages import StepStats
from unveil.engine.request.errors import FAILURE_REASONS, FailureReason

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metrics:
    """Counters, histograms and gauges, named as the contract has them."""

    def __init__(self) -> None:
        # Created times are a second gauge beside every counter, and of no use here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        self.requests = Counter("unveil_requests", "Requests answered.", ["endpoint", "code"], registry=self.registry)
        self.failures = Counter("unveil_request_failures", "Requests failed.", ["reason"], registry=self.registry)
        for reason in FAILURE_REASONS:
            self.failures.labels(reason)
        self.request_seconds = self._seconds("request", "From arrival to the end of an admitted request.")
        self.queue_seconds = self._seconds("queue", "From arrival to the beginning of the first step.")
        self.first_reveal_seconds = self._seconds("first_reveal", "From arrival to the first reveal.")
        self.inter_reveal_seconds = self._seconds("inter_reveal", "Between a request's steps that revealed something.")
        self.step_seconds = self._seconds("step", "One denoising step over a batch.")
        self.step_batch_size = Histogram(
            "unveil_step_batch_size", "Canvases stepped together.", buckets=_SIZES, registry=self.registry
        )
        self.padding_ratio = Histogram(
            "unveil_padding_ratio",
            "Share of a step's positions that is padding.",
            buckets=_RATIOS,
            registry=self.registry,
        )
        self.denoising_steps = self._count("denoising_steps", "Steps of single canvases.")
        self.forwards_saved = self._count("forwards_saved", "Steps of single canvases that needed no forward.")
        self.revealed_tokens = self._count("revealed_tokens", "Positions revealed, those of a search again.")
        self.unrevealed_tokens = self._count("unrevealed_tokens", "Positions that a search took back.")
        self.forward_positions = self._count("forward_positions", "Positions computed, padding included.")
        self.batches_retried = self._count("batches_retried", "Batches that failed and were stepped one by one.")
        self.build_info = Gauge(
            "unveil_build_info", "What is running; always 1.", ["version", "device", "model"], registry=self.registry
        )

    def failed(self, reason: FailureReason) -> None:
        self.failures.labels(reason).inc()

    def count_step(self, step: StepStats) -> None:
        self.step_seconds.observe(step.seconds)
        self.step_batch_size.observe(step.num_canvases)
        if step.num_positions:
            self.padding_ratio.observe(max(0.0, 1 - step.num_useful_positions / step.num_positions))
        self.denoising_steps.inc(step.num_canvases + step.num_saved)
        self.forwards_saved.inc(step.num_saved)
        self.revealed_tokens.inc(step.num_revealed)
        self.unrevealed_tokens.inc(step.num_unrevealed)
        self.forward_positions.inc(step.num_positions)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for, so that it cannot go stale."""
        Gauge(f"unveil_{name}", text, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"unveil_{name}_seconds", f"{text} Seconds.", buckets=_SECONDS, registry=self.registry)

    def _count(self, name: str, text: str) -> Counter:
        return Counter(f"unveil_{name}", text, registry=self.registry)
