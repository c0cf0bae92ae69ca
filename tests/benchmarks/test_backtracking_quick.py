"""Sudokus with backtracking: the quick variant counts forwards, with the search and without it."""

from pathlib import Path

from tests.benchmarks.quick import run_one_seed
from unveil.benchmarks.domains.backtracking import ORDERS, as_text

HARD = "000300004420500001008000050000000000009080610005160900060030000001000080903004002"
EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79".replace(".", "0")


def test_the_quick_variant_counts_what_the_search_costs_and_wastes_no_more_than_it_may(tmp_path: Path) -> None:
    puzzles = tmp_path / "puzzles.txt"
    puzzles.write_text(f"{HARD}\n{EASY}\n")
    report = run_one_seed("backtracking", tmp_path / "work", "--hard", str(puzzles))
    assert (report["puzzles"], report["budget"]) == (2, 3)
    hidden = [puzzle.count("0") for puzzle in (HARD, EASY)]
    for order in ORDERS:
        alone, searched = report["orders"][order]["alone"], report["orders"][order]["with search"]
        assert alone["forwards"]["mean"] == sum(hidden) / 2
        assert alone["searched"] == 0
        assert alone["forwards"]["most"] <= searched["forwards"]["most"] <= max(hidden) + 3
        assert searched["solved"]["solved"] >= alone["solved"]["solved"]
    assert "with search, learned less uniform" in as_text(report)
