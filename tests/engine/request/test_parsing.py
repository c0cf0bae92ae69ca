"""Bodies that are JSON and hard to read all the same."""

import json

import pytest

from unveil.engine.request.errors import ServiceError
from unveil.engine.request.parsing import parse_json


@pytest.mark.parametrize("escape", ["a", "\\u0061"])
def test_however_deep_it_is_a_body_is_read_or_refused(escape: str) -> None:
    told = set()
    for depth in range(100, 3000):
        body = f'{{"model": "{escape}", "prompt": {"[" * depth}{"]" * depth}}}'.encode()
        try:
            parse_json(body)
        except ServiceError as error:
            told.add((error.kind, error.message))
    assert told == {("invalid_json", "the body is nested too deeply")}


def test_a_name_that_occurs_twice_among_very_many_is_found() -> None:
    fields = ",".join(f'"{i:x}":0' for i in range(100_000))
    with pytest.raises(ServiceError, match='the name "7" occurs twice in an object'):
        parse_json(f'{{{fields},"7":0}}'.encode())


def test_half_a_character_is_refused_and_a_whole_one_is_not() -> None:
    with pytest.raises(ServiceError, match="half a surrogate pair"):
        parse_json(b'{"prompt": "\\ud83d"}')
    assert parse_json(json.dumps({"prompt": "😀"}).encode()) == {"prompt": "😀"}
