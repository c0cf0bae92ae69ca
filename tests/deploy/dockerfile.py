"""The Dockerfile's last stage, which is the image, as instructions."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest), one a line, of the whole Dockerfile."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in pairs]


def image() -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    everything = instructions()
    start = max(i for i, (name, _) in enumerate(everything) if name == "FROM")
    return everything[start:]


def last(name: str) -> str:
    """What the last such instruction of the image says."""
    return [rest for instruction, rest in image() if instruction == name][-1]


def image_environment() -> dict[str, str]:
    pairs = [pair for name, rest in image() if name == "ENV" for pair in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)
