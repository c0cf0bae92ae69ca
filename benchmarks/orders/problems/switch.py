"""A mixture in which one column decides which order is good. Small enough for its whole law to be written out.

If the selector is 0, group A is free (uniform) and each member of group B is a random function of three of A's; if it
is 1, the other way round. With the selector known, the free group first is easy; no single order suits both halves.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unveil.benchmarks.orders.problems.columns import made_up_dataset
from unveil.training.data.dataset import Dataset, Rows

V, PARENTS = 3, 3


@dataclass(frozen=True)
class SelectorProblem:
    """A selector of two values and two groups, of five ternary columns each by default, in positions that the seed
    shuffles."""

    seed: int
    group: int = 5

    @property
    def length(self) -> int:
        """How many columns there are."""
        return 1 + 2 * self.group

    @property
    def entropy(self) -> float:
        """Nats a row under the true law, which is uniform over its support."""
        return math.log(2) + self.group * math.log(V)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where the selector, group A and group B stand: [11]."""
        return np.random.default_rng([self.seed, 0]).permutation(self.length)

    @cached_property
    def support(self) -> Rows:
        """Every possible row, equally likely: [486, 11] ids."""
        draws = np.random.default_rng([self.seed, 1])
        free = np.array(list(itertools.product(range(V), repeat=self.group)))  # [243, 5]
        halves = []
        for selector in (0, 1):
            parents = np.stack([draws.choice(self.group, PARENTS, replace=False) for _ in range(self.group)])
            functions = draws.integers(0, V, (self.group, *(V,) * PARENTS))
            chosen = free[:, parents]  # [243, 5, 3]
            bound = functions[np.arange(self.group), chosen[..., 0], chosen[..., 1], chosen[..., 2]]
            groups = [free, bound] if selector == 0 else [bound, free]
            halves.append(np.concatenate([np.full((len(free), 1), selector), *groups], axis=1))
        x = np.empty((2 * len(free), self.length), dtype=np.int64)
        x[:, self.places] = np.concatenate(halves)
        return x

    @property
    def halves(self) -> tuple[slice, slice]:
        """The rows of `support` where the selector is 0, and where it is 1."""
        middle = len(self.support) // 2
        return slice(0, middle), slice(middle, None)

    def sample(self, num_rows: int, stream: int) -> Rows:
        """[N, 11] ids."""
        draws = np.random.default_rng([self.seed, 2 + stream])
        rows: Rows = self.support[draws.integers(0, len(self.support), num_rows)]
        return rows

    def dataset(self, *, train: int, validation: int, test: int) -> Dataset:
        """Three independent samples."""
        sizes = [V] * (self.length)
        sizes[int(self.places[0])] = 2
        return made_up_dataset(f"selector-{self.seed}", sizes, self.sample, splits=(train, validation, test))
