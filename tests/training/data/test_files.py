"""CSV and Parquet files as they come, and the line to blame when they cannot be read."""

from pathlib import Path

import polars as pl
import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.files import read_table


def refusal(path: Path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnveilError) as caught:
        read_table(path, delimiter=",")
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv is empty"),
        (" \n\n", "t.csv is empty"),
        ("\ufeff", "t.csv is empty"),
        ("\ufeff\r\n", "t.csv is empty"),
        ("a,b\n", "t.csv has a header but no rows"),
        ("a,b,a\n1,2,3\n", 't.csv line 1: two columns are named "a"'),
        ("a,b\n1,2\n3\n", "t.csv line 3 has 1 cell, the header 2"),
        ('a,b\n"1\n1",2\n\n3,4,5\n', "t.csv line 5 has 3 cells, the header 2"),
        ('a,b\n1,"2\n', "t.csv line 2: unexpected end of data"),
        (b"a,b\n1,2\n\xe9,4\n", "t.csv line 3 is not UTF-8 text"),
        ("a\x07,b\n1,2\n", "t.csv line 1: the name of column 1 is empty or has control characters"),
        ("a;b\n1;2\n", "t.csv: one column only; is ';' the delimiter? (--delimiter; data.delimiter)"),
        ("a\tb\n1\t2\n", "t.csv: one column only; is '\\t' the delimiter? (--delimiter; data.delimiter)"),
        (b"PAR1 and then nothing", "t.csv is not a readable Parquet file: "),
    ],
)
def test_a_file_that_cannot_be_a_table_is_refused_in_one_line(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    said = refusal(tmp_path / "t.csv", content)
    assert said == message or (message.endswith(": ") and said.startswith(message) and "\n" not in said)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match=r"absent.csv cannot be read: No such file or directory"):
        read_table(tmp_path / "absent.csv", delimiter=",")
    with pytest.raises(UnveilError, match="cannot be read: Is a directory"):
        read_table(tmp_path, delimiter=",")


def test_a_csv_is_read_as_text_with_the_line_of_each_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa, b \r\n1,"x\r\ny"\r\n\r\n2,z'.encode())
    raw = read_table(path, delimiter=",")
    assert raw.frame.to_dict(as_series=False) == {"a": ["1", "2"], "b": ["x\r\ny", "z"]}
    assert raw.place(0) == f"{path} line 2"
    assert raw.place(1) == f"{path} line 5"


def test_a_blank_line_is_skipped_but_is_a_cell_without_a_value_where_there_is_one_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\na,b\n1,2\n\n3,4\n", encoding="utf-8")
    assert read_table(path, delimiter=",").lines == (3, 5)
    path.write_text("a\n1\n\n3\n", encoding="utf-8")
    raw = read_table(path, delimiter=",")
    assert raw.frame["a"].to_list() == ["1", "", "3"]
    assert raw.lines == (2, 3, 4)


def test_a_column_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",b\n0,2\n")
    assert read_table(path, delimiter=",").frame.columns == ["column 1", "b"]


def test_parquet_is_known_by_its_content_and_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "t.data"
    pl.DataFrame({"a": [1, None], "b": [True, False]}).write_parquet(path)
    raw = read_table(path, delimiter=",")
    assert raw.frame.schema == {"a": pl.Int64, "b": pl.Boolean}
    assert raw.place(1) == f"{path} row 2"
    with pytest.raises(UnveilError, match=r"a delimiter is given, and this is Parquet, which has none"):
        read_table(path, delimiter=";")


def test_a_parquet_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": []}).write_parquet(path)
    with pytest.raises(UnveilError, match=r"t.parquet has no rows"):
        read_table(path, delimiter=",")
    pl.DataFrame().write_parquet(path)
    with pytest.raises(UnveilError, match=r"t.parquet: no columns"):
        read_table(path, delimiter=",")


def test_a_parquet_with_two_columns_of_a_name_is_refused_for_that(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"one": [1], "two": [2]}).write_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"two", b"one"))
    with pytest.raises(UnveilError, match=r"t.parquet: column with name 'one' has more than one occurrence"):
        read_table(path, delimiter=",")
