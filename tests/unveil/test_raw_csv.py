"""CSV files record by record, as they are written, and that training reads the same in them."""

import bz2
import csv
import gzip
import io
import lzma
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.commands import raw_csv
from unveil.commands.raw_csv import RawCsv, RawRecord, csv_line
from unveil.model.errors import UnveilError
from unveil.training.data.files import read_table

SHEET = "save the sheet as CSV (in Excel: Save As, CSV UTF-8)"
TEXT = 'a,b\n1,"x\ny"\n\n2,ü\n'
PACKED = {
    "a byte order mark": ("\ufeff" + TEXT).encode(),
    "line feeds": TEXT.encode(),
    "carriage returns alone": TEXT.replace("\n", "\r").encode(),
    "both": TEXT.replace("\n", "\r\n").encode(),
    "blank lines first": ("\r\n\n" + TEXT).encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16, big end first": ("\ufeff" + TEXT).encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "gz": gzip.compress(TEXT.encode()),
    "bz2": bz2.compress(TEXT.encode()),
    "xz of UTF-16": lzma.compress(TEXT.encode("utf-16")),
    "Excel's first line": b"sep=;\r\n" + TEXT.replace(",", ";").encode(),
    "Excel's first line, marked": ("\ufeffsep=;\n" + TEXT.replace(",", ";")).encode("utf-16-le"),
}


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
    again = table.preamble + "".join(table.joined(record, record.cells) for record in records)
    assert again.encode() == content
    assert sum(record.num_bytes for record in records) <= table.num_bytes == len(content)


@pytest.mark.parametrize("name", PACKED)
def test_training_and_impute_read_the_same_however_a_file_is_packed(tmp_path: Path, name: str) -> None:
    table, records = read(tmp_path / "t.csv", PACKED[name])
    raw = read_table(tmp_path / "t.csv", delimiter=",")
    assert raw.frame.columns == table.names == ["a", "b"]
    end = "\r" if name == "carriage returns alone" else "\r\n" if name == "both" else "\n"
    assert raw.frame.rows() == [("1", f"x{end}y"), ("2", "ü")]
    assert raw.frame.rows() == [tuple(map(record.text, (0, 1))) for record in records if record.cells]
    assert list(raw.lines) == [record.line for record in records if record.cells]
    again = (table.preamble + "".join(table.joined(record, record.cells) for record in records)).encode(table.encoding)
    assert again in (PACKED[name], TEXT.encode(), TEXT.encode("utf-16"))
    assert raw.notices == (("line 1 names the delimiter, ';', as Excel does",) if "Excel" in name else ())


def test_a_byte_order_mark_is_one_at_the_start_of_a_file_alone(tmp_path: Path) -> None:
    table, (record,) = read(tmp_path / "t.csv", "\ufeffa,b\n\ufeff1,\ufeff\n".encode())
    assert table.names == ["a", "b"]
    assert [record.text(0), record.text(1)] == ["\ufeff1", "\ufeff"]
    assert read_table(tmp_path / "t.csv", delimiter=",").frame.rows() == [("\ufeff1", "\ufeff")]
    bare = RawCsv.open(tmp_path / "t.csv", delimiter=",", header=False)
    assert (bare.preamble, next(bare.records()).cells) == ("\ufeff", ["a", "b"])


def test_without_a_header_the_first_line_is_a_row_and_columns_have_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\n1,2\n3,4\n")
    raw = read_table(path, delimiter=",", header=False)
    assert raw.frame.to_dict(as_series=False) == {"column 1": ["1", "3"], "column 2": ["2", "4"]}
    assert raw.lines == (2, 3)
    table = RawCsv.open(path, delimiter=",", header=False)
    assert (table.names, table.preamble) == (["column 1", "column 2"], "\n")
    assert [record.cells for record in table.records()] == [["1", "2"], ["3", "4"]]


def test_a_cell_may_be_longer_than_the_library_takes_by_itself(tmp_path: Path) -> None:
    path, cell = tmp_path / "t.csv", "x" * 140_000
    before = csv.field_size_limit()
    assert before < len(cell)
    _, (record,) = read(path, f"a,b\n{cell},1\n".encode())
    raw = read_table(path, delimiter=",")
    assert raw.frame.rows() == [(record.text(0), record.text(1))] == [(cell, "1")]
    assert csv.field_size_limit() == before


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
        again = table.preamble + "".join(table.joined(record, record.cells) for record in records)
        assert again == file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n", "t.csv is empty"),
        (b"a,a\n1,2\n", 't.csv line 1: two columns are named "a"'),
        (b"a;b\n1;2\n", "t.csv: one column only; is ';' the delimiter? (--delimiter; data.delimiter)"),
        (b"a\tb\n1\t2\n", "t.csv: one column only; is '\\t' the delimiter? (--delimiter; data.delimiter)"),
        (b"a,b\n1,2\n\n3\n", "t.csv line 4 has 1 cell, the header 2"),
        (b'a,b\n1,"2\n3,4\n', "t.csv line 2: a quote is not closed"),
        (b'a,b\n1,"2"x\n', "t.csv line 2: something follows a closing quote in cell 2"),
        (b"a,b\n1,2\n\xe9,4\n", "t.csv line 3 is not UTF-8 text"),
        (b"a,b\r1,2\r3\r", "t.csv line 3 has 1 cell, the header 2"),
        (b"sep=x\naxb\n", "t.csv line 1: the delimiter must be , ; | or a tab, got 'x'"),
        (b"PK\x03\x04....", f"t.csv is an Excel workbook or a zip archive, which is not read; {SHEET}, or unpack it"),
        (b"\xd0\xcf\x11\xe0....", f"t.csv is an Excel workbook, which is not read; {SHEET}"),
        (b"\x28\xb5\x2f\xfd....", "t.csv is compressed by zstd, which is not read; unpack it (zstd -d)"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "t.csv is compressed, and damaged or cut short"),
        (b"PAR1....", "t.csv is Parquet"),
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
