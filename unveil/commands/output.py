"""What every command shares: how wrong usage is told, and how JSON is printed."""

import json
import math
from typing import Any

from unveil.model.errors import UnveilError


class UsageError(UnveilError):
    """Arguments that do not go together; exit code 2."""


def check_delimiter(sign: str) -> None:
    """Raises UsageError for what separates no cells of a CSV file."""
    if sign not in (",", ";", "\t", "|"):
        raise UsageError("--delimiter: must be , ; | or a tab")


def print_json(value: Any) -> None:
    """JSON on stdout, as every `--json` prints it; null for what is not a number, which JSON has no word for."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
