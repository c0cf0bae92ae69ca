"""A data set of a made-up problem: categorical columns x0, x1, ... and three samples."""

from collections.abc import Callable, Sequence

from unveil.model.tokenizers.table.columns import CategoricalColumn
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.dataset import Dataset, Rows


def made_up_dataset(
    name: str, sizes: Sequence[int], sample: Callable[[int, int], Rows], *, splits: tuple[int, int, int]
) -> Dataset:
    """Columns of so many levels each; `sample(rows, stream)` gives [rows, L] ids, another sample a stream."""
    columns = [
        CategoricalColumn(name=f"x{i}", levels=tuple(f"v{v}" for v in range(size))) for i, size in enumerate(sizes)
    ]
    train, validation, test = (sample(num_rows, stream) for stream, num_rows in enumerate(splits))
    tokenizer = TableTokenizer(columns, example={"x0": "v0"})
    return Dataset(name=name, tokenizer=tokenizer, train=train, validation=validation, test=test)
