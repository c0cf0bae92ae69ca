"""What a text benchmark found, over seeds and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from unveil.benchmarks.common.runs import Fields, interval, with_interval


def summary(results: Sequence[Fields]) -> Fields:
    """Means over seeds with intervals, of each way and of the learned order minus each rival."""

    def over(value: Any, *path: str) -> Any:
        """Intervals of all numbers below `value`, the first seed's part at `path`."""
        if isinstance(value, Mapping):
            return {name: over(below, *path, name) for name, below in value.items()}
        return interval([_at(result, path) for result in results])

    def bits(part: str) -> Fields:
        return {label: over(found["bits"], part, label, "bits") for label, found in first[part].items()}

    first = results[0]
    return {
        "seeds": list(results),
        "orders": [result["order"] for result in results],
        "ways": bits("ways"),
        "learned_minus": bits("learned_minus"),
        "prompts": {
            kind: {arm: over(found["bits"], "prompts", kind, arm, "bits") for arm, found in arms.items()}
            for kind, arms in first["prompts"].items()
        },
        "made": over(first["made"], "made"),
        "real": first["real"],
        "rank_correlation": over(first["rank_correlation"], "rank_correlation"),
        "cpu_seconds": over(first["cpu_seconds"], "cpu_seconds"),
    }


def _at(result: Fields, path: Sequence[str]) -> float:
    found: Any = result
    for part in path:
        found = found[part]
    return float(found)


def as_text(report: Fields) -> str:
    """The same for a reader."""
    first = report["seeds"][0]
    seconds = ", ".join(f"{kind} {with_interval(found, '.1f')}" for kind, found in report["cpu_seconds"].items())
    lines = [
        f"{first['parameters']['uniform']:,} parameters, {first['row_forwards']['uniform']:,} row-forwards an arm",
        f"CPU seconds of training: {seconds}",
        told_order(report["orders"]),
        f"  Spearman with the place in the text: {with_interval(report['rank_correlation'], '.3f')}",
        "",
        f"bits per character, {_canvases(first)}",
    ]
    lines += [f"  {label:<32}{with_interval(value, '.3f')}" for label, value in report["ways"].items()]
    lines += ["", "learned minus; paired standard errors over the rows of each seed"]
    for rival, value in report["learned_minus"].items():
        errors = ", ".join(f"{seed['learned_minus'][rival]['standard_error']:.3f}" for seed in report["seeds"])
        lines.append(f"  {rival:<32}{with_interval(value, '.3f')} ± {errors}")
    lines += ["", "how the rivals were made", *(f"  {told_causal(seed)}" for seed in report["seeds"])]
    lines += _chosen(first)
    lines += ["", "bits a hidden character, own law"]
    for kind, arms in report["prompts"].items():
        found = ", ".join(f"{arm} {with_interval(value, '.3f')}" for arm, value in arms.items())
        lines.append(f"  {kind + ' known':<16}{found}")
    made = {
        label: {stride: {name: v["mean"] for name, v in values.items()} for stride, values in found.items()}
        for label, found in report["made"].items()
    }
    return "\n".join([*lines, "", *_written(report["real"], made)])


def artifact_as_text(report: Fields) -> str:
    """The same of one model."""
    costs = {**report["ways"], **report["rivals"]}
    costs |= {f"own law minus {label}": found for label, found in report["own_law_minus"].items()}
    costs |= {f"hidden, {kind} known": found for kind, found in report["prompts"].items()}
    lines = [
        f"{report['parameters']:,} parameters, {_canvases(report)}",
        told_order([report["order"]]),
        "",
        "bits per character, standard error over rows",
        *(f"  {label:<38}{found['bits']:.3f} ± {found['standard_error']:.3f}" for label, found in costs.items()),
        *_chosen(report),
        "",
    ]
    return "\n".join([*lines, *_written(report["real"], report["made"])])


def told_order(taken: Sequence[str]) -> str:
    """Which order training took, one name for each seed."""
    return "training took: " + (taken[0] if len(set(taken)) == 1 else "by seed " + ", ".join(taken))


def told_causal(seed: Fields) -> str:
    """How one seed's causal transformer was trained."""
    about = seed["causal"]
    return (
        f"causal transformer, seed {seed['seed']}: {about['parameters']:,} parameters,"
        f" {about['steps']:,} steps of {about['batch_size']} canvases in {about['cpu_seconds']:.1f} CPU seconds,"
        f" learning rate {about['learning_rate']}"
    )


def _chosen(report: Fields) -> list[str]:
    return [f"  {label}: {about['chosen']}" for label, about in report["n_grams"].items()]


def _canvases(report: Fields) -> str:
    return (
        f"{report['rows']} of {report['test_rows']} test canvases of {report['length']} tokens, evenly spaced"
        f" ({report['repeated_share']:.2%} of their stretches of 40 characters are in the training text)"
    )


def _written(real: Fields, made: Mapping[str, Mapping[str, Fields]]) -> list[str]:
    lines = ["written: positions a step, n-gram bits, known words, different words"]
    lines.append(f"  {'test canvases':<30}" + _judged(real))
    for label, found in made.items():
        lines += [f"  {label:<26}{stride:>4}" + _judged(values) for stride, values in found.items()]
    return lines


def _judged(values: Fields) -> str:
    return f"{values['bits']:10.3f}{values['known_words']:10.3f}{values['different_words']:10.3f}"
