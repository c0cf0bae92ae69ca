"""The engine's benchmark takes every path and reports the keys that are promised."""

import pytest
import torch

from tests.benchmarks.quick import run
from unveil.benchmarks.speed.engine import LARGE_HOLES, LARGE_REQUESTS, _operations, random_subject
from unveil.benchmarks.speed.in_process import RATIOS
from unveil.model.network.build import prepare


def test_the_engine_is_timed_on_every_bundled_model_and_on_a_large_one() -> None:
    report = run("engine")
    default = [row for row in report["rows"] if row["rule"] == "confidence"]
    assert "adult" in {row["model"] for row in default}
    for key in RATIOS:
        assert report[key] == min(row[key] for row in default) > 0
    assert {row["rule"] for row in report["large"]} == {"confidence", "random"}
    for row in report["large"]:
        assert row["tokens"] == LARGE_REQUESTS * LARGE_HOLES
        assert row["of_limit"] > 0
        assert row["of_peak"] > 0
    assert report["peak_gflops"] > 0


@pytest.mark.parametrize("width", [32, 256])  # in MKL, in oneDNN
def test_the_operations_of_a_forward_are_those_of_its_products(width: int) -> None:
    B, L, R, W, M, V, N = 2, 256, 3, width, 64, 50, 2
    shape = {"length": L, "vocabulary_sizes": (V,), "width": W, "layers": N, "heads": 1, "mlp_width": M}
    stages = prepare(random_subject(shape).denoise)
    inputs = (torch.zeros(B, L, dtype=torch.int64), torch.ones(B, L, dtype=torch.bool), torch.full((B,), L))
    asked = (inputs, torch.zeros(R, dtype=torch.int64), torch.arange(R))
    found = _operations(stages, [asked])
    block, attention, head = 4 * W * W + 2 * W * M, 2 * L * W, W * V  # a position's multiplications
    inner, last = (N - 1) * (block + attention), attention + 2 * W * W  # of the last block all need keys and values
    least = 2 * (B * L * inner + B * L * 2 * W * W + R * head)
    whole = 2 * (B * L * (inner + block + attention) + R * head)
    assert least < found <= 1.01 * whole
    assert found - 2 * B * L * inner < 2 * B * L * (last + block) + 2 * R * head
    assert _operations(stages, [asked, asked]) == 2 * found
