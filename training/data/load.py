"""A recipe's `[data]` part to a `Dataset`: which reader reads what."""

from pathlib import Path

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.pieces import PieceTokenizer
from unveil.model.tokenizers.text import TextTokenizer
from unveil.training.data.config import (
    AdultData,
    DataConfig,
    HubData,
    KjvData,
    LinesData,
    MosesData,
    SmilesData,
    SudokuData,
    TableData,
)
from unveil.training.data.dataset import Dataset
from unveil.training.data.molecules.molecules import load_moses, load_smiles
from unveil.training.data.sudoku.sudoku import load_sudoku
from unveil.training.data.table.adult import load_adult
from unveil.training.data.table.table import load_table
from unveil.training.data.text.hub import load_hub
from unveil.training.data.text.kjv import load_kjv
from unveil.training.data.text.lines import load_lines
from unveil.training.data.text.text import load_text


def load_dataset(config: DataConfig, *, cache: Path, tokenizer: Tokenizer | None = None) -> Dataset:
    """`cache` keeps fetched packages; `tokenizer` is that of the artifact to start from, for kinds that borrow it.

    Raises UnveilError.
    """
    if isinstance(config, LinesData):
        if not isinstance(tokenizer, TextTokenizer | PieceTokenizer):
            raise UnveilError("data.kind lines: needs the tokenizer of a text model; name one in start.artifact")
        return load_lines(config, tokenizer)
    if isinstance(config, AdultData):
        return load_adult(config, cache=cache)
    if isinstance(config, KjvData):
        return load_kjv(config, cache=cache)
    if isinstance(config, HubData):
        return load_hub(config, cache=cache)
    if isinstance(config, MosesData):
        return load_moses(config, cache=cache)
    if isinstance(config, SmilesData):
        return load_smiles(config)
    if isinstance(config, SudokuData):
        return load_sudoku(config, cache=cache)
    return load_table(config) if isinstance(config, TableData) else load_text(config)
