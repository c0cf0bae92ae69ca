"""CSV files record by record, as they are written."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil import raw_csv
from unveil.model.errors import UnveilError
from unveil.raw_csv import RawCsv, RawRecord, csv_line


def read(path: Path, content: bytes) -> tuple[RawCsv, list[RawRecord]]:
    path.write_bytes(content)
    table = RawCsv.open(path, delimiter=",")
    return table, list(table.records())


def test_cells_keep_their_quotes_and_lines_their_ends(tmp_path: Path) -> None:
    content = '\ufeff"a", b \r\n"1""x",  2\n\n"new\r\nline,", \r\n3,5" pipe'.encode()
    table, records = read(tmp_path / "t.csv", content)
    assert table.names == ["a", "b"]
    assert [record.line for record in records] == [2, 3, 4, 6]
    assert [record.cells for record in records] == [['"1""x"', "  2"], [], ['"new\r\nline,"', " "], ["3", '5" pipe']]
    assert [records[0].text(0), records[2].text(0), records[2].text(1)] == ['1"x', "new\r\nline,", ""]
    again = table.header + "".join(table.joined(record, record.cells) for record in records)
    assert again.encode() == content
    assert sum(record.num_bytes for record in records) + len(table.header.encode()) == table.num_bytes


@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=2, max_size=2), min_size=1, max_size=5
    )
)
def test_whatever_is_written_is_read_again(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        table, records = read(Path(folder) / "t.csv", file.getvalue().encode())
        assert [[r.text(0), r.text(1)] for r in records] == [[cell.strip() for cell in row] for row in rows]
        again = table.header + "".join(table.joined(record, record.cells) for record in records)
        assert again == file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"\na,b\n", "t.csv line 1 is blank: the header is needed"),
        (b"a,a\n1,2\n", 't.csv line 1: two columns are named "a"'),
        (b"a;b\n1;2\n", "t.csv: one column only; is ';' the delimiter? (--delimiter; data.delimiter)"),
        (b"a\tb\n1\t2\n", "t.csv: one column only; is '\\t' the delimiter? (--delimiter; data.delimiter)"),
        (b"a,b\n1,2\n\n3\n", "t.csv line 4 has 1 cell, the header 2"),
        (b'a,b\n1,"2\n3,4\n', "t.csv line 2: a quote is not closed"),
        (b'a,b\n1,"2"x\n', "t.csv line 2: something follows a closing quote in cell 2"),
        (b"a,b\n1,2\n\xe9,4\n", "t.csv line 3 is not UTF-8 text"),
        (b"a,b\n1,2\r3,4\n", "t.csv line 2: a carriage return stands inside the line"),
        (
            b"PAR1....",
            "t.csv: must be a CSV file, and this is Parquet; python -c 'import polars; "
            'polars.read_parquet("t.csv").write_csv("t.text.csv", datetime_format="%FT%T", time_format="%T")\' '
            "makes one of it",
        ),
    ],
)
def test_what_is_no_such_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UnveilError) as caught:
        read(tmp_path / "t.csv", content)
    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_new_cells_are_quoted_where_they_must_be(tmp_path: Path) -> None:
    table, _ = read(tmp_path / "t.csv", b"a,b\n1,2\n")
    assert [table.written(cell) for cell in (3, 2.5, "x", "x,y", 'say "x"')] == [
        "3",
        "2.5",
        "x",
        '"x,y"',
        '"say ""x"""',
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=2, max_size=2))
def test_whatever_a_new_cell_holds_is_read_again(cells: list[str]) -> None:
    """Line ends of every kind too."""
    with tempfile.TemporaryDirectory() as folder:
        table, records = read(Path(folder) / "t.csv", f"a,b\n{csv_line(cells)}\n".encode())
        assert [[r.text(0), r.text(1)] for r in records] == [[cell.strip() for cell in cells]]
        line = ",".join(table.written(cell) for cell in cells)
        (again,) = read(Path(folder) / "t.csv", f"a,b\n{line}\n".encode())[1]
        assert [again.text(0), again.text(1)] == [records[0].text(0), records[0].text(1)]


def test_a_quote_that_is_never_closed_is_looked_for_where_it_may_close_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every line would be read again with all before it."""
    calls = 0
    split = raw_csv._split

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return split(*arguments)

    monkeypatch.setattr(raw_csv, "_split", counted)
    with pytest.raises(UnveilError, match="line 2: a quote is not closed"):
        read(tmp_path / "t.csv", b'a,b\n"1,2\n' + b"3,4\n" * 1000)
    assert calls < 10
