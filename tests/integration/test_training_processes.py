"""Training as users run it: the command killed with -9 and started again, and spread over processes by torchrun."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.service.mocks import WAIT_SECONDS
from tests.training.ended import see_ended, until
from tests.training.small import write_csv

FAST = [
    "model.width=16",
    "model.layers=1",
    "model.heads=2",
    "model.mlp_width=32",
    "optimizer.batch_size=32",
    "run.precision=32-true",
    "advanced.run.accelerator=cpu",
    "advanced.run.log_every=1",
    "run.threads=1",
]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}


def _command(table: Path, out: Path, *overrides: str, processes: int = 1) -> list[str]:
    module = ["-m", "unveil.cli", "train", "--table", str(table), "--out", str(out)]
    launcher = [sys.executable]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    settings = [part for override in (*FAST, *overrides) for part in ("--set", override)]
    return [*launcher, *module, *settings]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )


def _losses(out: Path) -> list[float]:
    lines = (out.with_name(out.name + ".run") / "log.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if line["kind"] == "train"]


def _weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / "model.safetensors")


def test_killed_with_minus_nine_and_started_again_it_ends_in_the_same_weights(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "small.csv")
    overrides = ("optimizer.steps=160", "advanced.run.checkpoint_every=20", "advanced.run.validate_every=160")
    whole = _run(_command(table, tmp_path / "a" / "small", *overrides))
    assert whole.returncode == 0, whole.stderr
    command = _command(table, tmp_path / "b" / "small", *overrides)
    killed = _run([part.replace("unveil.cli", "tests.integration.killed_training") for part in command])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(_losses(tmp_path / "b" / "small")) == 27, "seven steps more than its checkpoint has"
    assert not (tmp_path / "b" / "small").exists(), "it was killed in the middle, so there is no artifact yet"
    again = _run(command)
    assert again.returncode == 0, again.stderr
    assert "resuming at step 20 of 160" in again.stderr
    assert _losses(tmp_path / "a" / "small") == _losses(tmp_path / "b" / "small")
    a, b = _weights(tmp_path / "a" / "small"), _weights(tmp_path / "b" / "small")
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("query_layers", [0, 1])
def test_two_processes_see_the_loss_that_one_sees_on_the_same_global_batch(
    tmp_path: Path, strategy: str, query_layers: int
) -> None:
    table = write_csv(tmp_path / "small.csv")
    schedule = (
        "optimizer.steps=8",
        "advanced.order={warmup = 0.25, anneal = 0.25, searches = [0.75], spread = 0.2}",
        "advanced.run.checkpoint_every=4",
    )
    # Dropout's masks are drawn a process.
    network = ("model.dropout=0.0", "advanced.model.relative_bias=true", f"advanced.model.query_layers={query_layers}")
    overrides = (*schedule, "order.method=global", *network)
    one = _run(_command(table, tmp_path / "one", *overrides))
    assert one.returncode == 0, one.stderr
    two = _run(_command(table, tmp_path / "two", *overrides, f"advanced.run.strategy={strategy}", processes=2))
    assert two.returncode == 0, two.stderr
    assert len(_losses(tmp_path / "two")) == 8
    said = [[line for line in run.stderr.splitlines() if "nats a training row" in line] for run in (one, two)]
    assert len(said[0]) == 3, "two searches and the end"
    assert [line.split("; ")[-1] for line in said[0]] == [line.split("; ")[-1] for line in said[1]]
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-5)
    for name, tensor in _weights(tmp_path / "one").items():
        torch.testing.assert_close(_weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["next_cost", "cost_to_go"])
def test_two_processes_learn_an_order_for_a_frozen_denoiser_as_one_does(tmp_path: Path, method: str) -> None:
    table = write_csv(tmp_path / "small.csv")
    masked = ("advanced.model.query_layers=0",) if method == "cost_to_go" else ()
    start = _run(_command(table, tmp_path / "start", "optimizer.steps=4", "order.method=uniform", *masked))
    assert start.returncode == 0, start.stderr
    order = (f"order.method={method}", "advanced.order.exploration=0.2")
    frozen = (f"start.artifact={tmp_path / 'start'}",)
    overrides = ("optimizer.steps=6", *order, *frozen, "prompts.share=0.5")
    one = _run(_command(table, tmp_path / "one", *overrides))
    assert one.returncode == 0, one.stderr
    two = _run(_command(table, tmp_path / "two", *overrides, "advanced.optimizer.accumulate=2", processes=2))
    assert two.returncode == 0, two.stderr
    assert len(_losses(tmp_path / "two")) == 6
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-5)
    for name, tensor in _weights(tmp_path / "one").items():
        torch.testing.assert_close(_weights(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-5)
    refused = _run(_command(table, tmp_path / "shards", *overrides, "advanced.run.strategy=fsdp", processes=2))
    assert refused.returncode != 0
    assert "contextual orders are learned in one process or with ddp, not with fsdp" in refused.stderr


def test_the_other_processes_stay_while_the_main_one_evaluates(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = _run([*launcher, "-m", "tests.integration.waiting", str(tmp_path)])
    assert run.returncode == 0, run.stderr
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert "evaluated" not in other
    assert other["left"] >= main["evaluated"]  # one clock for all processes of a machine


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_processes_of_torchrun_end_when_it_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "small"
    command = _command(write_csv(tmp_path / "small.csv"), out, "optimizer.steps=1000000", processes=2)
    launcher = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (out.with_name("small.run") / "log.jsonl").exists() or launcher.poll() is not None)
    workers = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
    assert len(workers) == 2
    launcher.kill()
    launcher.wait()
    see_ended(workers)


def test_a_sharded_run_resumes_from_its_shards(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "small.csv")
    overrides = (
        "optimizer.steps=8",
        "advanced.run.strategy=fsdp",
        "advanced.run.checkpoint_every=4",
        "advanced.run.keep_checkpoints=9",
    )
    whole = _run(_command(table, tmp_path / "small", *overrides, processes=2))
    assert whole.returncode == 0, whole.stderr
    first = _weights(tmp_path / "small")
    last = tmp_path / "small.run" / "checkpoints" / "step-00000008"
    assert last.is_dir()
    last.rename(tmp_path / "aside")
    again = _run(_command(table, tmp_path / "small", *overrides, processes=2))
    assert again.returncode == 0, again.stderr
    assert "resuming at step 4" in again.stderr
    for name, tensor in _weights(tmp_path / "small").items():
        torch.testing.assert_close(tensor, first[name], rtol=1e-6, atol=1e-7)


def test_an_order_is_learned_for_a_denoiser_of_late_queries_without_a_recipe(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "small.csv")
    taught = _run(_command(table, tmp_path / "taught", "optimizer.steps=4", "order.method=uniform"))
    assert taught.returncode == 0, taught.stderr
    arguments = ["train", "--freeze-denoiser", str(tmp_path / "taught"), "--out", str(tmp_path / "ordered")]
    settings = ["--set", "order.method=next_cost"]
    ordered = _run([sys.executable, "-m", "unveil.cli", *arguments, *settings])
    assert ordered.returncode == 0, ordered.stderr
    before, after = _weights(tmp_path / "taught"), _weights(tmp_path / "ordered")
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert len(after) > len(before)
