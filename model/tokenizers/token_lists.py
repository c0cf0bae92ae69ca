"""Conditions on sequences: the tokens that may be drawn, or those that may not."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Share
from unveil.model.tokenizers.wording import quoted, shown


def token_shares(where: Any, ids: Mapping[str, int], *, end_id: int | None) -> tuple[Share, ...]:
    """Of `{"allow": [...]}` or `{"ban": [...]}`, which list tokens by name: the ids that may be drawn; the end of a
    sequence always may. Raises PromptError, with `param` "allow" or "ban"."""
    if not isinstance(where, Mapping) or len(where) != 1 or not set(where) <= {"allow", "ban"}:
        raise PromptError(f'a condition on tokens is {{"allow": [...]}} or {{"ban": [...]}}, got {quoted(where)}')
    ((kind, names),) = where.items()
    if not isinstance(names, list) or not names:
        raise PromptError(f"{kind} must be a list of tokens, got {quoted(names)}", param=kind)
    listed = {_id(name, ids, kind) for name in names}
    found = [i for i in ids.values() if i == end_id or (i in listed) == (kind == "allow")]
    if not found or found == [end_id]:
        raise PromptError(f"{kind} leaves no token", param=kind)
    return tuple(map(Share, sorted(found)))


def _id(name: object, ids: Mapping[str, int], kind: str) -> int:
    if isinstance(name, str) and name in ids:
        return ids[name]
    close = get_close_matches(name, ids, n=1) if isinstance(name, str) and len(name) <= 100 else []
    hint = f"; did you mean {shown(close[0])}?" if close else ""
    raise PromptError(f"{quoted(name)} is no token of this model{hint}", param=kind)
