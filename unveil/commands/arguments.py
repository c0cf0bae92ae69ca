"""What the commands that take a prompt share: arguments as a request has them, and refusals as wrong usage."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from unveil.commands.output import UsageError
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.parsing import parse_json
from unveil.model.tokenizers.base import Domain


@contextmanager
def refused_as_usage() -> Iterator[None]:
    """Raises UsageError for a request that is refused."""
    try:
        yield
    except ServiceError as error:
        raise UsageError(str(error)) from None


def order_argument(text: str) -> str | list[int]:
    """`--order` as a request has it: `3,0,1` is a list of positions, whatever else is checked as a policy's name."""
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() and len(part) < 10 for part in parts) else text


def prompt_argument(text: str | None, domain: Domain, *, what: str = "prompt") -> Any:
    """PROMPT as a request has it. Raises UsageError where a table's is not JSON."""
    if domain != "table":
        return text or ""
    return {} if text is None else _json(text, what=what, example='{"age": 39, "income": null}')


def where_argument(text: str | None) -> dict[str, Any] | None:
    """`--where` as a request has it. Raises UsageError for what is no JSON object."""
    example = '{"age": {"min": 30}}'
    found = None if text is None else _json(text, what="--where", example=example)
    if found is not None and not isinstance(found, dict):
        raise UsageError(f"--where: must be a JSON object, as in '{example}'")
    return found


def _json(text: str, *, what: str, example: str) -> Any:
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except ServiceError as error:
        reason = error.message.removeprefix("the body is not JSON: ").replace("the body", "it")
        raise UsageError(f"{what}: must be JSON, as in '{example}': {reason}") from None


def shares_argument(texts: Sequence[str]) -> dict[str, dict[str, float]] | None:
    """`--share COLUMN=VALUE:SHARE,...` as `Model.sample` takes them. Raises UsageError."""
    found: dict[str, dict[str, float]] = {}
    for text in texts:
        name, sign, rest = text.partition("=")
        pairs = [part.rpartition(":") for part in rest.split(",")]
        try:
            shares = {value.strip(): float(share) for value, colon, share in pairs if colon}
        except ValueError:
            shares = {}
        if not sign or len(shares) < len(pairs):
            raise UsageError(f"--share {text}: must be COLUMN=VALUE:SHARE,..., as in sex=Female:0.5,Male:0.5")
        if name in found:
            raise UsageError(f"--share {text}: is the second one for {name}")
        found[name] = shares
    return found or None
