"""What `make gpu` runs, on the CPU in small, and what it says where it cannot run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.benchmarks.quick import ROOT, call, run
from tests.service.mocks import WAIT_SECONDS
from unveil.benchmarks.common.gpu_ready import NEEDED
from unveil.benchmarks.speed.gpu import NETS, QUICK_LENGTHS, as_text, slug

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


def test_every_figure_is_measured_and_the_file_is_named_after_the_device(tmp_path: Path) -> None:
    report = run("gpu", "--results", str(tmp_path))
    assert report["device"] == "cpu"
    assert json.loads((tmp_path / "gpu-cpu.json").read_text(encoding="utf-8")) == report
    models = [(row["model"], row["rule"]) for row in report["engine"]]
    assert models == [("adult", "confidence"), ("adult", "random"), ("random, small", "random")]
    assert all(row["of_limit"] > 0 and row["over_reference_one_by_one"] > 0 for row in report["engine"])
    lengths = [(row["length"], row["canvases"]) for row in report["lengths"]]
    assert lengths == [(length, num) for length in QUICK_LENGTHS for num in (1, 2)]
    assert all(row["tokens_per_second"] > 0 for row in report["lengths"])
    (trained,) = report["training"]
    assert trained["of_peak"] > 0
    assert trained["parameters"] > 0
    assert "tokens a second" in as_text(report)


def test_a_device_is_a_file_name() -> None:
    assert slug("NVIDIA GeForce RTX 4090 (24 GB)") == "nvidia-geforce-rtx-4090-24-gb"


@pytest.mark.parametrize(("name", "millions"), [("30M", 30), ("120M", 120)])
def test_random_networks_are_as_large_as_their_names_say(name: str, millions: int) -> None:
    shape = NETS[name]
    products = 4 * shape["width"] ** 2 + 2 * shape["width"] * shape["mlp_width"]
    size = shape["layers"] * products + shape["vocabulary"] * shape["width"]
    assert abs(size - millions * 1e6) < 0.03 * millions * 1e6


@WITHOUT_GPU
def test_without_a_gpu_one_line_says_so() -> None:
    refused = call("gpu")
    assert refused.returncode == 1
    assert refused.stderr == "error: this machine has no CUDA device; --quick takes every path on the CPU\n"
    made = _run("make", "-s", "gpu", f"PYTHON={sys.executable}")
    assert (made.returncode, made.stdout, made.stderr) == (0, "make gpu: no CUDA device, so nothing was run\n", "")


def test_a_python_that_lacks_packages_is_told_which() -> None:
    bare = _run(sys.executable, "-I", "-S", "benchmarks/common/gpu_ready.py")
    assert (bare.returncode, bare.stdout) == (1, "")
    (line,) = bare.stderr.splitlines()
    assert f"lacks {', '.join(NEEDED)};" in line


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)
