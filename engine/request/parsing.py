"""JSON bytes to a valid request: parsed strictly, checked against a schema.

JSON is accepted as RFC 8259 defines it and nothing more: UTF-8, no NaN, no infinity, no name twice in an object (one of
the two values would be silently ignored), no half of a surrogate pair.
"""

import json
import math
from collections import Counter
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unveil.engine.request.errors import ServiceError
from unveil.engine.request.schemas import OrderName, ScoreRequest

Schema = TypeVar("Schema", bound=BaseModel)

# In terms of JSON, not of Python.
_WANTED_BY_PROBLEM = {
    "bool_type": "true or false",
    "float_type": "a number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "less_than_equal": "at most {le}",
    "string_type": "a string",
}

_ORDERS = ", ".join(get_args(OrderName))

_WANTED = {"order": f"one of {_ORDERS}, or a list of all hidden positions"}

_WANTED_TO_SCORE = {"order": f"one of {_ORDERS}, or a list of all known positions"}


def parse(body: bytes, schema: type[Schema]) -> Schema:
    """JSON bytes -> a valid `schema`. Raises ServiceError (400, 422)."""
    return validate(parse_json(body), schema)


def parse_json(body: bytes) -> Any:
    """Raises ServiceError (400) for anything but exactly one JSON value in UTF-8."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates)
        if "\\u" in text:  # an escape may be half a surrogate pair, which cannot be encoded
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise ServiceError("invalid_json", "the body is not UTF-8") from None
    except UnicodeEncodeError:
        raise ServiceError("invalid_json", "the body has half a surrogate pair, which is no character") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ServiceError("invalid_json", f"the body is not JSON: {error.msg} ({place})") from None
    except ValueError as error:
        raise ServiceError("invalid_json", f"the body is not JSON: {_short(str(error))}") from None
    except RecursionError:
        raise ServiceError("invalid_json", "the body is nested too deeply") from None
    return value


def validate(value: Any, schema: type[Schema]) -> Schema:
    """A parsed value as a valid `schema`. Raises ServiceError (422) naming the first field to blame."""
    if not isinstance(value, dict):
        raise ServiceError("invalid_request", f"the body must be a JSON object, got {json_type(value)}")
    # Looked for first: a misspelt field is the cause of a missing one. And one error is enough of very many.
    for name in value:
        if name not in schema.model_fields:
            raise _unknown_field(_short(name), schema)
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0], schema) from None


def _unknown_field(name: str, schema: type[BaseModel]) -> ServiceError:
    close = get_close_matches(name, schema.model_fields, n=1, cutoff=0.65)  # "order" is no "model"
    hint = f'did you mean "{close[0]}"?' if close else f"known are {', '.join(schema.model_fields)}"
    return ServiceError("invalid_request", f'unknown field "{name}"; {hint}', param=name)


def _refusal(problem: ErrorDetails, schema: type[BaseModel]) -> ServiceError:
    name = str(problem["loc"][0]) if problem["loc"] else None
    if problem["type"] == "missing":
        return ServiceError("invalid_request", f"{name} is missing", param=name)
    if problem["type"] == "value_error":
        cause = problem["ctx"]["error"]
        return ServiceError("invalid_request", str(cause), param=getattr(cause, "param", name))
    known = _WANTED_TO_SCORE if schema is ScoreRequest else _WANTED
    if name in known:
        wanted = known[name]
    else:
        template = _WANTED_BY_PROBLEM.get(problem["type"], problem["msg"].removeprefix("Input should be "))
        wanted = template.format(**problem.get("ctx", {}))
    return ServiceError("invalid_request", f"{name} must be {wanted}, got {json_type(problem['input'])}", param=name)


def json_type(value: object) -> str:
    """A JSON value in a few words, for messages: never all of a long one."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return _short(json.dumps(value))
    if isinstance(value, str):
        return _short(json.dumps(value, ensure_ascii=False))
    return "a list" if isinstance(value, list) else "an object"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {_short(digits)} is out of range")
    return number


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f'the name "{_short(name)}" occurs twice in an object')
    return fields
