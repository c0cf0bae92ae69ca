"""The `[data]` part of a recipe. Knows how it is written, not how it is read."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.numbers import marks_of
from unveil.model.tokenizers.table.table import DEFAULT_MAX_BINS
from unveil.training.levels import Advanced

EXAMPLE_FORMATS = "YYYY-MM-DD, DD.MM.YYYY, MM/DD/YYYY, YYYY-MM-DD hh:mm, YYYY-MM-DDThh:mm:ssZ or hh:mm"
Share = Annotated[float, Field(gt=0, le=0.4)]
MaxBins = Annotated[int, Field(ge=1, le=1024)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdultData(_Part):
    """The UCI Adult census table. Its own test file is the test split."""

    kind: Literal["adult"] = "adult"
    max_bins: MaxBins = DEFAULT_MAX_BINS
    validation_share: Advanced[Share] = 0.1
    seed: Advanced[int] = Field(default=0, ge=0)


class ColumnChoice(_Part):
    """What a user knows better than the inference does. `format` is how dates are written, as DD.MM.YYYY hh:mm, or a
    number that shows what separates in numbers, as 1.234,56. It is found by itself where only one fits; `max_bins` goes
    with numbers and dates."""

    kind: Literal["numeric", "categorical", "date"] | None = None
    max_bins: MaxBins | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format is not None and self.kind not in ("date", "numeric"):
            raise ValueError('format goes with kind = "date" and "numeric"')
        if self.format is not None and self.kind == "date" and self.format not in FORMATS:
            raise ValueError(f"format must be as in {EXAMPLE_FORMATS}, got {self.format}")
        if self.format is not None and self.kind == "numeric" and marks_of(self.format) is None:
            raise ValueError(f"format must be a number as 1,234.56 or 1.234,56, got {self.format}")
        if self.max_bins is not None and self.kind == "categorical":
            raise ValueError("max_bins is only valid with numbers and dates, not with kind categorical")
        return self


class TableData(_Part):
    """Any CSV or Parquet file; a relative `path` counts from the working directory.

    `missing` lists the cells that mean "no value" (compared after stripping spaces; an empty cell always does).
    A column named in `columns` is never dropped by the inference. `rules` are between columns, as in
    `signup <= last_login`; generated rows keep them.
    """

    kind: Literal["table"] = "table"
    path: Path
    drop: tuple[str, ...] = ()
    columns: dict[str, ColumnChoice] = Field(default_factory=dict)
    missing: tuple[str, ...] = ("?", "NA", "N/A", "NaN", "nan", "null", "NULL")
    delimiter: Literal[",", ";", "\t", "|"] = ","
    header: bool = True
    max_bins: MaxBins = DEFAULT_MAX_BINS
    rules: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    validation_share: Advanced[Share] = 0.1
    test_share: Advanced[Share] = 0.1
    seed: Advanced[int] = Field(default=0, ge=0)


class _Canvases(_Part):
    """How a text becomes canvases of `length` tokens. `vocab_size` goes with `tokenizer = "bpe"` (default 1024)."""

    tokenizer: Literal["characters", "bpe"] = "characters"
    vocab_size: Annotated[int, Field(ge=2, le=100_000)] | None = None
    length: Annotated[int, Field(ge=2, le=8192)] = 128
    default_length: Advanced[Annotated[int, Field(ge=1)] | None] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise ValueError('vocab_size goes with tokenizer = "bpe"')
        if self.default_length is not None and self.default_length > self.length:
            raise ValueError("default_length cannot exceed length")
        return self


class TextData(_Canvases):
    """Text files, each cut into contiguous parts."""

    kind: Literal["text"] = "text"
    files: Annotated[tuple[Path, ...], Field(min_length=1)]
    validation_share: Advanced[Share] = 0.05
    test_share: Advanced[Share] = 0.05


class KjvData(_Canvases):
    """The King James Version. Whole books are drawn for validation and test, related ones together; the shares are of
    its characters, and at most so many are drawn.

    `stride`: training canvases begin at every so many tokens of a chapter (default: `length`, so that they do not
    overlap); those of the other splits never overlap.
    """

    kind: Literal["kjv"] = "kjv"
    stride: Advanced[Annotated[int, Field(ge=1)] | None] = None
    validation_share: Advanced[Share] = 0.05
    test_share: Advanced[Share] = 0.05
    seed: Advanced[int] = Field(default=0, ge=0)


class HubData(_Canvases):
    """Documents through the `datasets` library: the name of a data set on its hub, or a folder of one's own.

    `column` holds the text. Where `validation` or `test` names no split of the data set, its documents are the first of
    the train split. `documents` limits the training ones; the first `tokenizer_documents` of them make the vocabulary.
    Documents are joined, `separator` after each, and cut into canvases without a gap.
    """

    kind: Literal["datasets"] = "datasets"
    path: Annotated[str, Field(min_length=1)]
    subset: Advanced[str | None] = None
    revision: Advanced[str | None] = None
    column: str = "text"
    train: Advanced[str] = "train"
    validation: Advanced[str | None] = None
    test: Advanced[str | None] = None
    validation_documents: Advanced[Annotated[int, Field(ge=1)]] = 1_000
    test_documents: Advanced[Annotated[int, Field(ge=1)]] = 1_000
    documents: Advanced[Annotated[int, Field(ge=1)] | None] = None
    tokenizer_documents: Advanced[Annotated[int, Field(ge=1)]] = 20_000
    separator: Advanced[str] = "\n"


class LinesData(_Part):
    """One text a line of UTF-8 files, in the pieces of the artifact that training starts from; blank lines are skipped.

    `length` is that of the canvases, and of the model that comes out: at most the artifact's, which is the default.
    """

    kind: Literal["lines"] = "lines"
    files: Annotated[tuple[Path, ...], Field(min_length=1)]
    length: Annotated[int, Field(ge=2, le=8192)] | None = None
    validation_share: Advanced[Share] = 0.05
    test_share: Advanced[Share] = 0.05
    seed: Advanced[int] = Field(default=0, ge=0)


MoleculeLength = Annotated[int, Field(ge=2, le=1024)] | None


class MosesData(_Part):
    """The MOSES molecules. `test` says which of its two test files is the test split.

    `length` in tokens, as long as the longest training row where it is left out.
    """

    kind: Literal["moses"] = "moses"
    length: MoleculeLength = None
    test: Advanced[Literal["test", "test_scaffolds"]] = "test"
    validation_rows: Advanced[Annotated[int, Field(ge=1, le=100_000)]] = 10_000
    seed: Advanced[int] = Field(default=0, ge=0)


class SmilesData(_Part):
    """A file of SMILES: one a line, or a `column` of a CSV or Parquet file. `length` as for MOSES."""

    kind: Literal["smiles"] = "smiles"
    path: Path
    column: str | None = None
    delimiter: Literal[",", ";", "\t", "|"] = ","
    length: MoleculeLength = None
    validation_share: Advanced[Share] = 0.1
    test_share: Advanced[Share] = 0.1
    seed: Advanced[int] = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        if self.column is None and self.delimiter != ",":
            raise ValueError("delimiter: is only valid with a column; without one, each line is a SMILES")
        return self


class SudokuData(_Part):
    """Sudoku puzzles with one solution each, made by this project; `seed` draws all of them.

    A puzzle is dug until no clue can be spared, and is there in `versions` versions: as it is, and with up to
    `extra_clues` clues more.
    """

    kind: Literal["sudoku"] = "sudoku"
    puzzles: Advanced[Annotated[int, Field(ge=1, le=10_000_000)]] = 12_288
    validation_puzzles: Advanced[Annotated[int, Field(ge=1, le=1_000_000)]] = 1_024
    test_puzzles: Advanced[Annotated[int, Field(ge=1, le=1_000_000)]] = 2_048
    versions: Advanced[Annotated[int, Field(ge=1, le=64)]] = 4
    extra_clues: Advanced[Annotated[int, Field(ge=0, le=40)]] = 16
    seed: Advanced[int] = Field(default=0, ge=0)


DataConfig = Annotated[
    AdultData | TableData | TextData | KjvData | HubData | LinesData | MosesData | SmilesData | SudokuData,
    Field(discriminator="kind"),
]
