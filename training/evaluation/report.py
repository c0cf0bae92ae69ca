"""The figures of a trained model on one split: what `unveil evaluate` prints and the model card shows.

Controls always stand beside the learned order, on the same net and the same rows: uniform orders, the reversed law,
left to right, right to left, the heuristics, and the best and the worst order of all where there are few enough. The
network of another artifact, trained under uniform orders, tells a better model from an order that suits its own net.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, device_of
from unveil.model.network.base import Network
from unveil.model.tokenizers.text import TextTokenizer
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import Rows, known_sets, split_rows
from unveil.training.evaluation.comparison_orders import (
    MAX_ENUMERABLE,
    Law,
    best_and_worst,
    choosing_rows,
    mean_order,
    mean_order_rows,
    why_not_enumerable,
)
from unveil.training.evaluation.consistency import num_consistency_forwards, order_spread
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.likelihood import (
    Advance,
    Policy,
    imputation_accuracy,
    log_likelihood,
    nelbo,
    policy_log_likelihood,
)
from unveil.training.evaluation.molecules import molecule_metrics, num_samples
from unveil.training.evaluation.sudoku import grid_metrics, num_grid_walks
from unveil.training.evaluation.tables import generated_metrics, num_generated

EVALUATION_SEED = 2_511
HEURISTICS: tuple[Policy, ...] = ("confidence", "margin")
Metrics = dict[str, Any]


@dataclass(frozen=True)
class _Scorer:
    """Costs of one denoiser on one split's rows along each control: [N] nats a row, lower is better."""

    denoise: Denoiser
    rows: Rows
    validation: Rows
    advance: Advance | None

    @property
    def _zero(self) -> Tensor:
        return torch.zeros(self.rows.x.shape[1], device=self.rows.x.device)

    def uniform(self) -> Tensor:
        return nelbo(self.denoise, self.rows, self._zero, seed=EVALUATION_SEED, advance=self.advance)

    def along(self, order: list[int]) -> Tensor:
        return -log_likelihood(self.denoise, self.rows, order, advance=self.advance)

    def by(self, policy: Policy) -> Tensor:
        return -policy_log_likelihood(self.denoise, self.rows, policy, advance=self.advance)

    def conditional(self) -> Tensor:
        """Given a random known set, under uniform orders, a hidden position."""
        known = known_sets(self.rows, seed=EVALUATION_SEED)
        return conditional_losses(self.denoise, self.rows, known, advance=self.advance)

    def extremes(self) -> dict[str, list[int]]:
        """Best and worst order, chosen on validation rows; nothing where they are not to be found."""
        if why_not_enumerable(self.rows, self.denoise) is not None:
            return {}
        best, worst = best_and_worst(self.denoise, self.validation, advance=self.advance)
        return {"best": best, "worst": worst}


def evaluate_model(
    denoiser: Network,
    dataset: Dataset,
    *,
    split: str = "test",
    limit: int | None = None,
    reference: Network | None = None,
    advance: Advance | None = None,
) -> Metrics:
    """All figures of `limit` evenly spaced rows of a split, as JSON: nats a row, each with its standard error.

    Computed on the device of the denoiser, on which `reference` must be, too.

    `reference` is a network of the same data, trained under uniform orders; it is scored on the same rows, and what the
    model costs less or more is paired, row by row.
    """
    if dataset.tokenizer.domain == "grid":
        assert reference is None, "grids have no such figures"
        return _evaluate_grids(denoiser, _rows(dataset, split, limit).to(device_of(denoiser)), split, advance)
    scorer = _scorer(denoiser, dataset, split, limit, advance)
    law, rows = Law(denoiser), scorer.rows
    learned = law.nelbo(denoiser, rows, seed=EVALUATION_SEED, advance=advance)
    reversed_law = law.reversed_nelbo(denoiser, rows, seed=EVALUATION_SEED, advance=advance)
    bounds = {"learned": learned, "uniform": scorer.uniform(), "reversed": reversed_law}
    orders = _explicit_orders(scorer, law)
    greedy = law.greedy(denoiser, rows, advance=advance)
    exact: dict[str, Tensor] = {
        "learned": greedy,
        "reversed": law.reversed_greedy(denoiser, rows, advance=advance),
        **{name: scorer.along(order) for name, order in orders.items()},
        **{policy: scorer.by(policy) for policy in HEURISTICS},
    }
    conditional = scorer.conditional()
    metrics: Metrics = {
        "split": split,
        "rows": len(rows),
        "seed": EVALUATION_SEED,
        "order_kind": denoiser.order.kind,
        "nelbo": {name: _estimate(cost) for name, cost in bounds.items()},
        "log_likelihood": {name: _estimate(-cost) for name, cost in exact.items()},
        "orders": orders if law.is_contextual else {"learned": law.order(), **orders},
        "left_out": _left_out(rows, denoiser),
        "conditional": _estimate(conditional),
        "consistency": order_spread(denoiser, rows, seed=EVALUATION_SEED, advance=advance),
        **_of_domain(denoiser, dataset, rows, limit, advance),
    }
    if reference is not None:
        own = {"bound": learned, "greedy": greedy, "conditional": conditional}
        metrics["reference"] = _against(_scorer(reference, dataset, split, limit, advance), law, own)
    return metrics


def _evaluate_grids(denoiser: Network, rows: Rows, split: str, advance: Advance | None) -> Metrics:
    return {
        "split": split,
        "rows": len(rows),
        "seed": EVALUATION_SEED,
        "order_kind": denoiser.order.kind,
        **grid_metrics(denoiser, rows, advance=advance),
        "consistency": order_spread(denoiser, rows, seed=EVALUATION_SEED, advance=advance),
    }


def conditional_losses(denoise: Denoiser, rows: Rows, known: Tensor, *, advance: Advance | None = None) -> Tensor:
    """Each row's NELBO of the rest given what is known, under uniform orders, in nats a hidden position: [N]."""
    zero = torch.zeros(rows.x.shape[1], device=rows.x.device)
    values = nelbo(denoise, rows, zero, seed=EVALUATION_SEED, known=known, advance=advance)
    return values / (~(rows.given | known)).sum(-1)


def num_row_forwards(
    denoiser: Network, dataset: Dataset, *, split: str, limit: int | None, reference: Network | None = None
) -> int:
    """What `advance` will be told in all by `evaluate_model` of the same arguments."""
    kind = denoiser.order.kind
    rows, validation = _rows(dataset, split, limit), _rows(dataset, "validation", None)
    L = rows.x.shape[1]
    if dataset.tokenizer.domain == "grid":
        return num_grid_walks(kind) * len(rows) * L + num_consistency_forwards(rows)
    choice = len(choosing_rows(validation)) * 2**L if L <= MAX_ENUMERABLE else 0
    is_enumerable = why_not_enumerable(rows, denoiser) is None
    # Learned, reversed, uniform; deployed, reversed, both directions; random prompts.
    chains = 3 + 4 + 1 + len(HEURISTICS) + (2 if is_enumerable else 0)
    generated = num_samples(dataset, limit) + num_generated(dataset, limit=limit)
    total = chains * len(rows) * L + choice * is_enumerable + generated * L + num_consistency_forwards(rows)
    if kind == "contextual":
        total += (len(rows) + len(mean_order_rows(validation))) * L
    if reference is not None:  # two orders of the model, random ones, the margin's, random prompts, and its own best
        is_enumerable = why_not_enumerable(rows, reference) is None
        total += (5 + is_enumerable) * len(rows) * L + choice * is_enumerable
    return total


def _explicit_orders(scorer: _Scorer, law: Law) -> dict[str, list[int]]:
    """The orders of the controls, each a list of all positions; what is chosen is chosen on validation rows."""
    left_to_right = list(range(scorer.rows.x.shape[1]))
    orders = {"left_to_right": left_to_right, "right_to_left": left_to_right[::-1], **scorer.extremes()}
    if law.is_contextual:
        orders["mean_order"] = mean_order(scorer.denoise, scorer.validation, advance=scorer.advance)
    return orders


def _against(reference: _Scorer, law: Law, own: dict[str, Tensor]) -> Metrics:
    """The model's costs `own` beside those of the reference, paired: a negative difference is for the model."""
    denoise, rows, advance = reference.denoise, reference.rows, reference.advance
    pairs = {
        "learned_orders": (own["bound"], law.nelbo(denoise, rows, seed=EVALUATION_SEED, advance=advance)),
        "random_orders": (own["greedy"], reference.uniform()),
        "learned_order": (own["greedy"], law.greedy(denoise, rows, advance=advance)),
        "margin": (own["greedy"], reference.by("margin")),
        "conditional": (own["conditional"], reference.conditional()),
    }
    orders = reference.extremes()
    if orders:
        pairs["own_best_order"] = (own["greedy"], reference.along(orders["best"]))
    return {
        "pairs": {
            name: {"model": _estimate(a), "reference": _estimate(b), "difference": _estimate(a - b)}
            for name, (a, b) in pairs.items()
        },
        "orders": {"own_best_order": orders["best"]} if orders else {},
        "left_out": _left_out(rows, denoise),
    }


def _left_out(rows: Rows, denoise: Denoiser) -> dict[str, str]:
    reason = why_not_enumerable(rows, denoise)
    return {} if reason is None else {"best_and_worst": reason}


def _scorer(denoiser: Network, dataset: Dataset, split: str, limit: int | None, advance: Advance | None) -> _Scorer:
    rows, validation = _rows(dataset, split, limit), _rows(dataset, "validation", None)
    device = device_of(denoiser)
    return _Scorer(denoiser, rows.to(device), validation.to(device), advance)


def _rows(dataset: Dataset, split: str, limit: int | None) -> Rows:
    return split_rows(dataset, split, limit=limit)


def _estimate(values: Tensor) -> dict[str, float]:
    return asdict(Estimate.of(values))


def _of_domain(denoise: Denoiser, dataset: Dataset, rows: Rows, limit: int | None, advance: Advance | None) -> Metrics:
    """What goes with tables alone, with molecules or with texts."""
    if dataset.tokenizer.domain == "table":
        generated = generated_metrics(denoise, dataset, limit=limit, seed=EVALUATION_SEED, advance=advance)
        return {**_imputation(denoise, dataset, rows), **generated}
    if dataset.tokenizer.domain == "smiles":
        return {"molecules": molecule_metrics(denoise, dataset, limit=limit, advance=advance)}
    if isinstance(dataset.tokenizer, TextTokenizer):
        return {"characters": mean_characters(dataset.tokenizer, rows)}
    return {}


def mean_characters(tokenizer: TextTokenizer, rows: Rows) -> float:
    """Of a row, padding left out."""
    sizes = torch.tensor([len(tokenizer.token(0, i)) for i in range(tokenizer.vocabulary_sizes[0])])
    return float(sizes.to(rows.x.device)[rows.x].masked_fill(rows.padding, 0).sum(1).double().mean())


def _imputation(denoise: Denoiser, dataset: Dataset, rows: Rows) -> Metrics:
    accuracy = imputation_accuracy(denoise, rows).tolist()
    commonest = [int(np.bincount(column).argmax()) for column in dataset.train.T]
    by_mode = (rows.x == torch.tensor(commonest, device=rows.x.device)).double().mean(0).tolist()
    columns = zip(dataset.names, accuracy, by_mode, strict=True)
    return {"imputation": {name: {"accuracy": a, "commonest_level": m} for name, a, m in columns}}
