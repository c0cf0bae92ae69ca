"""Says in one line what `make gpu` lacks here, for a Python of which nothing is known: a script, of this file alone.

Exits with 0 where the tests and the benchmark can run, with 3 where there is no CUDA device, with 1 where a package is
missing or too old. Nothing is installed.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

NEEDED = (
    *("torch", "numpy", "safetensors", "tokenizers", "lightning_fabric", "pydantic", "pydantic_settings", "rich"),
    *("structlog", "tensorboard", "pytest", "hypothesis"),
)
OLDEST_PYTHON, OLDEST_TORCH = (3, 11), (2, 9)
NO_GPU = 3


def main() -> None:
    lacking = lacks()
    if lacking is not None:
        print(f"error: make gpu: {sys.executable}: {lacking}; PYTHON=/path/to/python names another", file=sys.stderr)
        raise SystemExit(1)
    cuda = import_module("torch").cuda
    if not cuda.is_available():
        print("make gpu: no CUDA device, so nothing was run")
        raise SystemExit(NO_GPU)
    print(f"make gpu: {cuda.get_device_name()}, torch {import_module('torch').__version__}")


def lacks() -> str | None:
    """What is missing or too old; None if nothing is."""
    if sys.version_info < OLDEST_PYTHON:
        return "needs Python 3.11 or newer"
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return f"lacks {', '.join(missing)}"
    version = str(import_module("torch").__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        return f"needs torch 2.9 or newer, not {version}"
    return None


if __name__ == "__main__":
    main()
