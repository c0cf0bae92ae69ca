"""What every command shares: how wrong usage is told, and how JSON is printed."""

import json
from typing import Any


class UsageError(ValueError):
    """Arguments that do not go together; exit code 2."""


def print_json(value: Any) -> None:
    """JSON on stdout, as every `--json` prints it."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
