"""Which attention is fastest here: torch's fused kernel, or matmul, softmax, matmul written out?

    python -m benchmarks attention [--quick] [--json] [--threads N]

Forward and backward over short sequences, both sides in one run, alternating; the median of the rounds. Decides
`model.network.attention.attend` on a CPU. No seed: the values do not matter to the time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = {"adult (B 256, H 4, L 15, E 16)": (256, 4, 15, 16), "grid (B 128, H 6, L 81, E 24)": (128, 6, 81, 24)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1, help="accepted as everywhere; more rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = 2 if arguments.quick else 30 * arguments.seeds
    rows = [
        {"shape": shape, "dtype": dtype, **compare(SHAPES[shape], DTYPES[dtype], rounds)}
        for shape in SHAPES
        for dtype in DTYPES
    ]
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "threads": arguments.threads, "rounds": rounds, "rows": rows}))
        return
    for row in rows:
        times = f"fused {row['fused_ms']:7.2f} ms   written out {row['written_ms']:7.2f} ms"
        print(f"{row['shape']:<32} {row['dtype']:<9} {times}")


def compare(shape: tuple[int, int, int, int], dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Median milliseconds of a forward and backward pass of both sides."""
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    times: dict[str, list[float]] = {"fused_ms": [], "written_ms": []}
    for _ in range(rounds + 1):  # the first round warms up
        for name, side in (("fused_ms", F.scaled_dot_product_attention), ("written_ms", written)):
            times[name].append(_milliseconds(side, q, k, v))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `model.network.attention.attend` does it on a CPU."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    attended: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return attended


def _milliseconds(side: Callable[[Tensor, Tensor, Tensor], Tensor], *inputs: Tensor) -> float:
    begin = time.perf_counter()
    side(*inputs).sum().backward()  # type: ignore[no-untyped-call]
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    main()
