"""Figures in words: the rows of the tables that `unveil evaluate` prints and the model card holds."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

ORDERS = {
    "learned": "learned",
    "mean_order": "learned, its mean order",
    "uniform": "uniform (random)",
    "reversed": "learned, reversed",
    "left_to_right": "left to right",
    "right_to_left": "right to left",
    "confidence": "surest first (confidence)",
    "margin": "surest first (margin)",
    "best": "best (found on validation)",
    "worst": "worst (found on validation)",
}
PAIRS = {  # what the uniform model is scored along; this model, its likeliest order but for the first and the last
    "learned_orders": "learned orders, drawn (NELBO)",
    "learned_order": "learned order",
    "random_orders": "random orders",
    "own_best_order": "its own best order",
    "margin": "margin",
    "conditional": "random prompts",
}
ORDER_HEADER = ("order", "NELBO", "exact log-likelihood")
BITS_HEADER = ("bits a character", "NELBO", "along this one order")
SOLVED_HEADER = ("order", "share of puzzles solved")
SOLVED_NOTE = "One position a step, always the likeliest digit; the learned order without chance."
PRIVACY_HEADER = ("distance to the closest training row", "median", "5th percentile", "at distance 0")
PRIVACY_NOTE = (
    "Distance of two rows, mean over columns: 1 for different levels, for numbers and dates the share of training "
    "values between their bins. Distance 0: no column differs at the resolution of the bins. No proof of privacy."
)
FIDELITY_HEADER = ("beside the test rows", "rows", "Shape", "Trend")
FIDELITY_NOTE = (
    "Likeness in [0, 1], 1 being alike, as sdmetrics defines it: Shape is the mean over columns, Trend over pairs of "
    "columns. Numbers and dates are the middles of their bins. Training rows show what so many real rows reach."
)
PAIR_HEADER = ("uniform model along", "this model", "uniform model", "difference")
PAIR_NOTE = (
    "Costs on the same rows; a negative difference is for this model, which takes its greedy order, but drawn "
    "orders in the first line. With random prompts both take random orders: nats a hidden position."
)


def order_rows(metrics: Mapping[str, Any], *, digits: int) -> Iterator[tuple[str, str, str]]:
    """Label, NELBO and exact log-likelihood of each order that the figures have; "" where there is none."""
    for name, label in ORDERS.items():
        cells = [metrics[kind].get(name) for kind in ("nelbo", "log_likelihood")]
        if any(cell is not None for cell in cells):
            bound, exact = (estimate(cell, digits=digits) for cell in cells)
            yield label, bound, exact


def bits_rows(metrics: Mapping[str, Any], *, digits: int) -> Iterator[tuple[str, str, str]]:
    """Label and cost of each order in bits a character, its drawn law's and its one order's; nothing but for texts."""
    if "characters" not in metrics:
        return
    unit = metrics["characters"] * math.log(2)
    for name, label in ORDERS.items():
        bound, exact = metrics["nelbo"].get(name), metrics["log_likelihood"].get(name)
        if bound is not None or exact is not None:
            yield label, _in_units(bound, unit, digits=digits), _in_units(exact, -unit, digits=digits)


def pair_rows(metrics: Mapping[str, Any], *, digits: int) -> Iterator[tuple[str, str, str, str]]:
    """Label, the model's cost, the reference's and their paired difference: what `--reference` adds."""
    pairs = metrics["reference"]["pairs"]
    for name, label in PAIRS.items():
        if name in pairs:
            model, other = (estimate(pairs[name][side], digits=digits) for side in ("model", "reference"))
            yield label, model, other, estimate(pairs[name]["difference"], digits=digits, is_signed=True)


def molecule_lines(metrics: Mapping[str, Any], *, digits: int) -> list[str]:
    """What the judge says of generated molecules, or that there is none."""
    found = metrics["molecules"]
    if "left_out" in found:
        return [f"Validity, uniqueness and novelty of molecules are left out: {found['left_out']}."]
    unique, novel = ("none" if found[k] is None else f"{found[k]:.{digits}f}" for k in ("unique", "novel"))
    valid = estimate(found["valid"], digits=digits)
    return [
        f"Of {found['samples']:,} molecules generated in learned orders, as RDKit sees them: valid {valid}, "
        f"unique among the valid {unique}, novel among the unique {novel} "
        f"(beside {found['training_molecules']:,} training and validation molecules)."
    ]


def solved_rows(metrics: Mapping[str, Any], *, digits: int) -> Iterator[tuple[str, str]]:
    """Label and share of puzzles solved along each order that was tried."""
    for name, label in ORDERS.items():
        if name in metrics["solved"]:
            yield label, estimate(metrics["solved"][name], digits=digits)


def fidelity_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Generated rows and training rows, each beside the test rows; nothing for figures that have none."""
    for name, label in (("generated", "generated rows"), ("training", "training rows")):
        if (found := metrics.get("fidelity", {}).get(name)) is not None:
            shape, trend = ("none" if found[k] is None else f"{found[k]:.4f}" for k in ("shape", "trend"))
            yield label, f"{found['rows']:,}", shape, trend


def privacy_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Generated rows beside held-out real ones; nothing for figures that have none."""
    for name, found in metrics.get("privacy", {}).get("closest_training_row", {}).items():
        label = {"generated": "generated rows", "held_out": "held-out real rows"}[name]
        yield label, f"{found['median']:.4f}", f"{found['fifth_percentile']:.4f}", f"{found['same']:.1%}"


def privacy_notes(metrics: Mapping[str, Any]) -> list[str]:
    """What stands under the table: the share, with what it should be, and the definition."""
    found = metrics["privacy"]
    share = found["closer_to_training"]
    rows = f"{found['generated_rows']:,} generated rows, {found['training_rows']:,} training rows"
    return [
        f"Closer to a training row than to a held-out one, of {found['held_out_rows']:,} each: "
        f"{share['mean']:.1%} ± {share['standard_error']:.1%} of {rows}; 50 % if neither is preferred.",
        PRIVACY_NOTE,
    ]


def consistency_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """How far probabilities depend on the order; of tables their marginals, too."""
    found = metrics["consistency"]
    yield (
        f"log p of a random part of a row ({found['positions']:.1f} positions on average, the rest hidden) has a "
        f"standard deviation of {estimate(found['spread'], digits=3)} nats over {found['orders']} random orders, "
        f"beside {found['nats']:.2f} nats of cost ({found['rows']:,} rows). Conditionals that agree have 0."
    )
    if (found := metrics.get("marginals")) is not None:
        worst = found["largest"]
        yield (
            f"Each column alone, as scored with nothing known and as generated ({found['rows']:,} rows): total"
            f" variation {found['total_variation']:.4f} on average, {found['expected']:.4f} by chance alone. Largest"
            f" gap: {worst['column']} {worst['value']}, scored {worst['scored']:.4f}, generated"
            f" {worst['generated']:.4f} ± {worst['standard_error']:.4f}."
        )


def notes(metrics: Mapping[str, Any], *, digits: int) -> list[str]:
    """Sentences that go with the table: what is exact, what was chosen where, what is left out, random prompts."""
    said = ["The exact log-likelihood is that of the one order named; of drawn orders, the greedy one."]
    if metrics["order_kind"] == "contextual":
        said.append(
            "The learned order may depend on what is revealed: each row has its own, and the mean order is one for all."
            if "solved" not in metrics
            else "The learned order depends on what is revealed: each puzzle has its own."
        )
    if "best" in metrics.get("orders", {}) and metrics["split"] == "validation":
        said.append("Best and worst order were chosen on these very rows.")
    if "characters" in metrics:
        said.append(f"A row has {metrics['characters']:.1f} characters on average.")
    if (reason := metrics.get("left_out", {}).get("best_and_worst")) is not None:
        said.append(f"Best and worst order are left out: {reason}.")
    if (conditional := metrics.get("conditional")) is not None:  # grids have clues instead
        said.append(
            f"With a random part of the row known: {estimate(conditional, digits=digits)} nats a hidden position."
        )
    if (reason := metrics.get("left_out", {}).get("global_orders")) is not None:
        said.append(f"Left out: {reason}.")
    return said


def _in_units(value: Mapping[str, float] | None, unit: float, *, digits: int) -> str:
    if value is None:
        return ""
    scaled = {"mean": value["mean"] / unit, "standard_error": value["standard_error"] / abs(unit)}
    return estimate(scaled, digits=digits)


def estimate(value: Mapping[str, float] | None, *, digits: int, is_signed: bool = False) -> str:
    """`mean ± standard error`, or nothing."""
    if value is None:
        return ""
    sign = "+" if is_signed else ""
    return f"{value['mean']:{sign}.{digits}f} ± {value['standard_error']:.{digits}f}"
