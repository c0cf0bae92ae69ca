"""What a benchmark samples of a split is spread over all of it: files are sorted, and splits keep their order."""

import ast
from pathlib import Path

from unveil import benchmarks

FOLDER = Path(benchmarks.__file__ or "").parent
SPLITS = {"train", "validation", "test"}
INDEPENDENT = {"orders/parallel.py"}  # rows that the benchmark draws itself, independently, are in no order


def test_no_benchmark_takes_the_head_of_a_split() -> None:
    heads = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*.py")
        if any(map(_is_head, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert heads == INDEPENDENT


def test_a_head_is_told_from_other_slices() -> None:
    cases = {"d.test[:5]": True, "d.train[: n]": True, "d.test[::2]": False, "d.test[:, 1]": False, "d.test[x]": False}
    found = {code: _is_head(ast.parse(code, mode="eval").body) for code in cases}
    assert found == cases


def _is_head(node: ast.AST) -> bool:
    """`dataset.test[:n]` and the like."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr in SPLITS
        and isinstance(node.slice, ast.Slice)
        and node.slice.lower is None
        and node.slice.upper is not None
    )
