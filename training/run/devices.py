"""Processes, devices and precision of a training run, through Lightning Fabric."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from unveil.model.errors import UnveilError
from unveil.model.network.late import QueryBlock
from unveil.model.network.transformer import Block
from unveil.training.config import RunConfig
from unveil.training.run.parent import end_with_parent

_LONGEST_EVALUATION = timedelta(days=30)


def make_fabric(config: RunConfig) -> Fabric:
    """One process, or under `torchrun` as many as it started. Raises UnveilError for what this machine lacks."""
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UnveilError("run.accelerator: cuda is asked for, and this machine has no CUDA device")
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun ends its processes, unless it is killed itself
        end_with_parent()
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    num_nodes = max(num_processes // int(os.environ.get("LOCAL_WORLD_SIZE", num_processes)), 1)
    if config.strategy == "fsdp" and num_processes == 1:
        raise UnveilError("advanced.run.strategy: fsdp needs several processes: start it with torchrun")
    strategy: str | Strategy = "auto"
    if config.strategy == "fsdp":
        # It warns of views because one might be written to in place; nothing here is.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        strategy = ModelParallelStrategy(
            parallelize_fn=_shard, data_parallel_size=num_processes, tensor_parallel_size=1
        )
    elif num_processes > 1:
        strategy = DDPStrategy(broadcast_buffers=False)
    return _launched(config, strategy, num_processes // num_nodes, num_nodes)


def pick_precision(config: RunConfig) -> Literal["32-true", "bf16-mixed"]:
    """What `auto` comes to on this machine."""
    if config.precision != "auto":
        return config.precision
    on_cuda = config.accelerator != "cpu" and torch.cuda.is_available()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_cuda else _cpu_has_bf16()
    return "bf16-mixed" if has_bf16 else "32-true"


def _cpu_has_bf16() -> bool:
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def others_waiting() -> Iterator[None]:
    """What one process does in here is waited for by all that come to the end of it: a collective. No work is shared:
    the noise of a figure goes by the number of its row, so that figures do not depend on how many processes there are.

    Waiting is Gloo's, whatever trains: it holds no device, it ends at once when a process dies, and its time is not
    that of the collectives in training, where minutes mean that something hangs.
    """
    if not torch.distributed.is_initialized():
        yield
        return
    waiting = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_EVALUATION)
    try:
        yield
    finally:
        torch.distributed.barrier(group=waiting)


def end_process_group() -> None:
    """Ends the processes' connection. Left to the interpreter's exit, Gloo's threads may outlive what they work for and
    abort the process (Fabric ends the connection by itself for NCCL only)."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _launched(config: RunConfig, strategy: str | Strategy, devices: int, num_nodes: int) -> Fabric:
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=pick_precision(config),
    )
    fabric.launch()
    return fabric


def _shard(whole: nn.Module, mesh: DeviceMesh) -> nn.Module:
    for module in whole.modules():
        if isinstance(module, Block | QueryBlock):
            fully_shard(module, mesh=mesh["data_parallel"])
    fully_shard(whole, mesh=mesh["data_parallel"])
    return whole
