"""What each step trains on: rows, prompts and orders, as a function of (seed, step) alone.

Nothing here has a state, so a resumed run continues exactly, and every process of a distributed run can draw the same
global batch and take its own rows of it.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unveil.model.loss.critic import Trials
from unveil.model.loss.prefixes import PrefixDraws, prefix_draws
from unveil.model.order.plackett_luce import gumbel_noise
from unveil.model.search.pricing import TrialRows
from unveil.training.config import Recipe
from unveil.training.data.dataset import Symmetries
from unveil.training.data.rows import Rows, known_sets, known_spans
from unveil.training.order_config import UniformOrder

_STEP_STRIDE = 1_000_003  # keeps the streams of neighbouring seeds and steps apart
_EPOCH_STREAM, _ORDER_STREAM = 2**40, 2**41
_SYMMETRY_STREAM = 3
_BLOCK_ROWS = 65_536
_QUESTIONS = 16  # at most, beside a row's own turns, and as many as half of its positions
_MOST_ORDERS, _MOST_PREFIXES = 128, 2**13  # that a critic is asked about in one step


@dataclass(frozen=True)
class Batch:
    """Clean rows and all the chance in what they show: `rows` of B canvases, `draws` for the same B. `is_whole`: all
    steps of their orders are trained; `chance` [2, B, M] then draws what else is asked."""

    rows: Rows
    draws: PrefixDraws
    is_whole: bool = False
    chance: Tensor | None = None

    def cut(self, index: slice, device: torch.device) -> "Batch":
        """Some of the rows, on a device."""
        chance = None if self.chance is None else self.chance[:, index].to(device)
        return Batch(self.rows.at(index).to(device), self.draws.cut(index, device), self.is_whole, chance)


def step_generator(recipe_seed: int, step: int) -> torch.Generator:
    """The source of all of a step's draws."""
    return torch.Generator().manual_seed(recipe_seed * _STEP_STRIDE + step)


def row_indices(num_rows: int, *, step: int, batch_size: int, seed: int) -> Tensor:
    """The rows of a step: the stream of epochs, each a fresh shuffle, cut into batches: [B] int64."""
    first = step * batch_size
    parts, taken = [], 0
    while taken < batch_size:
        epoch, offset = divmod(first + taken, num_rows)
        part = _shuffle(num_rows, epoch, seed)[offset : offset + batch_size - taken]
        parts.append(part)
        taken += len(part)
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _shuffle(num_rows: int, epoch: int, seed: int) -> Tensor:
    """An epoch's rows; kept, because drawing them anew for each step is slow for a large table."""
    return torch.randperm(num_rows, generator=step_generator(seed, _EPOCH_STREAM + epoch))


def draw_batch(
    rows: Rows, recipe: Recipe, *, step: int, is_whole: bool = False, symmetries: Symmetries | None = None
) -> Batch:
    """The global batch of a step, on the CPU. `is_whole`: for a network that trains all steps of a row's order."""
    optimizer, order = recipe.optimizer, recipe.order
    index = row_indices(len(rows), step=step, batch_size=optimizer.batch_size, seed=recipe.seed)
    batch = rows.at(index).widened()
    if symmetries is not None:
        batch = _changed(batch, symmetries, np.random.default_rng([_SYMMETRY_STREAM, recipe.seed, step]))
    generator = step_generator(recipe.seed, step)
    draws, progress = torch.rand((2, len(batch)), generator=generator), step / optimizer.num_steps
    is_prompted = draws[0] < recipe.prompts.share_at(progress)
    other_share = order.uniform_share(progress)
    is_reading = draws[1] < other_share * order.reading_share
    is_uniform = (draws[1] < other_share) & ~is_reading
    seed = int(torch.randint(2**62, (), generator=generator))
    known = _prompts(batch, spans=recipe.prompts.spans, seed=seed) & is_prompted[:, None]
    prompted = known.any(-1)
    shown = prefix_draws(
        known | batch.given,
        prompted=prompted,
        uniform_rows=is_uniform,
        reading_rows=is_reading,
        generator=generator,
    )
    if is_whole:
        return Batch(batch, shown.whole(), is_whole=True, chance=_chance(batch.x, generator))
    return Batch(batch, _bared(shown, order.bare, seed=seed) if isinstance(order, UniformOrder) else shown)


def _chance(x: Tensor, generator: torch.Generator) -> Tensor:
    """What draws questions about whole rows, [2, B, M]."""
    B, L = x.shape
    return torch.rand((2, B, max(min(_QUESTIONS, L // 2), 1)), generator=generator)


def _bared(draws: PrefixDraws, share: float, *, seed: int) -> PrefixDraws:
    """This share of the rows with nothing revealed."""
    if not share:
        return draws
    is_bare = torch.rand(len(draws.known), generator=torch.Generator().manual_seed(seed + 3)) < share
    fraction = draws.fraction.masked_fill(is_bare, 0.0)
    return replace(draws, fraction=fraction, prompted=draws.prompted | is_bare)


def _prompts(batch: Rows, *, spans: float, seed: int) -> Tensor:
    """A known set for each row: this share of them in stretches."""
    known = known_sets(batch, seed=seed)
    if not spans:
        return known
    has_spans = torch.rand((len(batch), 1), generator=torch.Generator().manual_seed(seed + 1)) < spans
    return torch.where(has_spans, known_spans(batch, seed=seed + 2), known)


def _changed(batch: Rows, symmetries: Symmetries, generator: np.random.Generator) -> Rows:
    assert batch.clues is not None
    x, clues = symmetries(batch.x.numpy(), batch.clues.numpy(), generator)
    return replace(batch, x=torch.from_numpy(x), clues=torch.from_numpy(clues))


def trials_over(rows: Rows, recipe: Recipe, *, step: int, marginals: Tensor) -> Trials | None:
    """Orders for a critic to try the law on, the longer the fewer; None without a critic. `marginals`: see
    `marginal_logprobs`.

    They are over rows of the global batch as they are without a prompt, so that every process tries the same.
    """
    if not recipe.order.has_critic:
        return None
    L = rows.x.shape[1]
    num_orders = min(max(_MOST_PREFIXES // L, 4), _MOST_ORDERS)
    noise = gumbel_noise((num_orders, L), step_generator(recipe.seed, _ORDER_STREAM + step))  # [M, L]
    return Trials(noise, *order_rows(rows.at(torch.arange(num_orders) % len(rows)), marginals))


def order_rows(rows: Rows, marginals: Tensor) -> TrialRows:
    """What the price of an order depends on in rows as they are without a prompt."""
    known, absent = rows.given & ~rows.padding, rows.padding
    if rows.end_id is None:
        return TrialRows(known, absent)
    return TrialRows(known, absent, (rows.x == rows.end_id) & ~absent, control_of(rows.x.long(), marginals.cpu()))


def control_of(x: Tensor, marginals: Tensor) -> Tensor:
    """What clean rows [B, L] cost by `marginals` [L or 1, V], the control variate of `model.loss.objective.order_form`:
    -log p(x_i), [B, L] float64."""
    return -marginals.expand(x.shape[1], -1).gather(1, x.T).T


def marginal_logprobs(rows: Rows, vocabulary_sizes: tuple[int, ...]) -> Tensor:
    """log p(x_i) under the rows' own marginals, half a count added to each id: [L, V], or [1, V] if shared; float64."""
    V = max(vocabulary_sizes)
    counts = torch.zeros(1 if len(vocabulary_sizes) == 1 else rows.x.shape[1], V, dtype=torch.float64)
    for block, _ in rows.batches(size=_BLOCK_ROWS):  # rows may be more than memory holds
        columns = [block.x[~block.padding]] if len(counts) == 1 else list(block.x.T)
        counts += torch.stack([torch.bincount(column.long(), minlength=V) for column in columns])
    counts += 0.5
    return (counts / counts.sum(-1, keepdim=True)).log()
