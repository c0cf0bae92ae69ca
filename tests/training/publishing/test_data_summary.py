"""What is shown of a table before it is trained on."""

from pathlib import Path

from tests.training.small import small_dataset
from unveil.training.data.config import TableData
from unveil.training.data.table.table import load_table
from unveil.training.publishing.data_summary import describe_data


def test_what_was_read_is_described_column_by_column() -> None:
    lines = describe_data(small_dataset()).splitlines()
    assert lines[0] == "small: 400 train, 100 validation, 100 test rows of 4 positions"
    assert lines[1] == "  a: 4 levels (a0, a1, a2, a3)"
    assert lines[4].startswith("  d: whole numbers from 0 to 34 in ")


def test_dates_missing_values_and_what_is_dropped_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"2024-01-{i % 28 + 1:02},{'' if i % 4 else 'x'},{i / 8},code {i},same" for i in range(100)]
    path.write_text("\n".join(["day,seen,share,code,one", *rows]) + "\n")
    lines = describe_data(load_table(TableData(path=path))).splitlines()
    assert lines[1] == "  day: dates as YYYY-MM-DD from 2024-01-01 to 2024-01-28 in 28 bins"
    assert lines[2].startswith("  seen: 1 level (x), 7")
    assert lines[2].endswith("% missing")
    assert lines[3].startswith("  share: numbers with 3 decimals from 0.0 to ")
    assert lines[4] == "  one: 1 level (same)"
    assert lines[5:] == [
        '  note: column "seen" has one value, or none',
        '  note: column "code" has a different text in every row: dropped (--categorical "code" keeps it)',
        '  note: column "one" has the same value in every row',
    ]


def test_a_level_with_control_characters_cannot_write_on_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "".join(f"{'x' if i % 2 else chr(27)}[31m\n" for i in range(20)))
    described = describe_data(load_table(TableData(path=path)))
    assert "\x1b" not in described
    assert r"\u001b[31m" in described
