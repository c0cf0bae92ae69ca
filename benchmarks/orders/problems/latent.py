"""Latents and observations: the best order is known, and no network is told it.

Latents are uniform over V values; an observation is a random function of three of them. With the latents first every
conditional is easy: uniform, then certain. The other way round the latents must be solved for. The entropy of a row is
`num_latents * log V` nats, and no order can go below it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from unveil.benchmarks.orders.problems.columns import made_up_dataset
from unveil.training.data.dataset import Dataset, Rows

V, PARENTS = 3, 3


@dataclass(frozen=True)
class LatentProblem:
    """8 latents and 12 observations times `scale`, in positions that the seed shuffles."""

    seed: int
    scale: int = 1

    @property
    def num_latents(self) -> int:
        return 8 * self.scale

    @property
    def num_observations(self) -> int:
        return 12 * self.scale

    @property
    def entropy(self) -> float:
        """Nats a row under the true law."""
        return self.num_latents * math.log(V)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where each variable stands, latents first: [L]."""
        return self._generator(0).permutation(self.num_latents + self.num_observations)

    @cached_property
    def parents(self) -> NDArray[np.int64]:
        """The latents that each observation depends on: [num_observations, 3]."""
        draws = self._generator(1)
        return np.stack([draws.choice(self.num_latents, PARENTS, replace=False) for _ in range(self.num_observations)])

    @cached_property
    def functions(self) -> NDArray[np.int64]:
        """Each observation's value for every setting of its parents: [num_observations, V, V, V]."""
        return self._generator(2).integers(0, V, (self.num_observations, *(V,) * PARENTS))

    @property
    def best_order(self) -> list[int]:
        """Positions, latents first: as good as any order with every observation behind its parents."""
        return [int(place) for place in self.places]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(parent, observation) positions."""
        behind = self.places[self.num_latents :]
        return [(int(self.places[p]), int(place)) for place, own in zip(behind, self.parents, strict=True) for p in own]

    def sample(self, num_rows: int, stream: int) -> Rows:
        """[N, L] ids; each stream is another sample."""
        latents = self._generator(3 + stream).integers(0, V, (num_rows, self.num_latents))
        chosen = latents[:, self.parents]  # [N, observations, 3]
        each = np.arange(self.num_observations)
        observed = self.functions[each, chosen[..., 0], chosen[..., 1], chosen[..., 2]]
        x = np.empty((num_rows, len(self.places)), dtype=np.int64)
        x[:, self.places] = np.concatenate([latents, observed], axis=1)
        return x

    def dataset(self, *, train: int, validation: int, test: int) -> Dataset:
        """Three independent samples."""
        return made_up_dataset(
            f"latent-{self.scale}-{self.seed}", [V] * len(self.places), self.sample, splits=(train, validation, test)
        )

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.scale, stream])


def kendall_tau(order: list[int], pairs: list[tuple[int, int]]) -> float:
    """1 if in every pair the first comes before the second, -1 if after."""
    place = {position: k for k, position in enumerate(order)}
    return float(np.mean([1.0 if place[a] < place[b] else -1.0 for a, b in pairs]))
