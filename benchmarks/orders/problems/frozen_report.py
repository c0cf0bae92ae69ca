"""What `benchmarks/orders/estimators.py` found, as Markdown tables and as a picture. Knows how it looks, not how it
came."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib import colormaps

from unveil.benchmarks.common.runs import Fields
from unveil.training.publishing.picture import new_figure, png


def as_text(report: Fields) -> str:
    """The same for a reader: Markdown tables."""
    parts = [_problem_text(name, problem) for name, problem in report["problems"].items()]
    return "\n\n".join(parts)


def _problem_text(name: str, problem: Fields) -> str:
    room = ", ".join(f"{value:.2f}" for value in problem["headroom"])
    return "\n\n".join(
        [
            f"**{name}**: {problem['rows']} rows; from uniform orders to V* {room} nats.",
            *(_law_text(law, arms) for law, arms in problem["laws"].items()),
            *(_learning_text(rate, arms) for rate, arms in problem["learning"].items()),
            *(_tails_text(law, forms) for law, forms in problem["tails"].items()),
        ]
    )


def _law_text(law: str, arms: Mapping[str, Fields]) -> str:
    norm = next(iter(arms.values()))["gradient_norm"]
    lines = [
        f"| law {law}, exact gradient {norm:.3f} | NELBO: bias | spread | gradient: variance | share of the finite"
        " gauge's | squared error | bias (by chance) |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, f in arms.items():
        lines.append(
            f"| {arm} | {f['bias']:+.3f} ± {f['bias_standard_error']:.3f} | {f['standard_deviation']:.3f} |"
            f" {f['gradient_variance']:.3g} | {_interval(f['variance_share'], '.3g')} |"
            f" {f['gradient_squared_error']:.3g} |"
            f" {f['gradient_bias']:.3f} ({f['gradient_bias_by_chance']:.3f}) |"
        )
    return "\n".join(lines)


def _learning_text(rate: str, arms: Mapping[str, Fields]) -> str:
    levels = " | ".join(f"to {float(level):.0%}" for level in next(iter(arms.values()))["levels"])
    lines = [
        f"| rate {rate}: thousands of forwards (seeds that got there) | {levels} | closed at the end | worst seed |",
        "|---|---|---|---|---|---|",
    ]
    for arm, f in arms.items():
        cells = " | ".join(_level_text(value) for value in f["levels"].values())
        closed = _interval(f["closed_at_end"], ".3f")
        lines.append(f"| {arm} | {cells} | {closed} | {f['closed_at_end_min']:.3f} |")
    return "\n".join(lines)


def _level_text(level: Fields) -> str:
    """The median over all seeds, and how many got there."""
    seeds = len(level["each"])
    middle = "never" if level["median"] is None else f"{level['median'] / 1000:.0f}"
    return f"{middle} ({seeds - level['failed']} of {seeds})"


def _tails_text(law: str, forms: Mapping[str, Sequence[Fields]]) -> str:
    draws = " | ".join(f"{point['draws']:,} draws" for point in next(iter(forms.values())))
    lines = [f"| law {law}: variance of one draw's value | {draws} |", "|---" * (1 + draws.count("|") + 1) + "|"]
    for form, points in forms.items():
        cells = " | ".join(f"{p['median']:.3g} ({p['smallest']:.3g} to {p['largest']:.3g})" for p in points)
        lines.append(f"| {form} | {cells} |")
    return "\n".join(lines)


def _interval(value: Fields, form: str) -> str:
    if value["low"] is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def picture(report: Fields) -> bytes:
    """For each problem a row: learning curves at each rate, and the gradient's variance under each law."""
    figure = new_figure(19, 4.4 * len(report["problems"]))
    columns = 1 + max(len(problem["learning"]) for problem in report["problems"].values())
    axes = figure.subplots(len(report["problems"]), columns, squeeze=False)
    for (*lefts, right), (name, problem) in zip(axes, report["problems"].items(), strict=True):
        for left, (rate, arms) in zip(lefts, problem["learning"].items(), strict=True):
            for arm, f in arms.items():
                forwards = [(k + 1) * report["forwards_a_point"] / 1000 for k in range(len(f["curve"]))]
                left.plot(forwards, f["curve"], **_style(arm, arms))
            left.set(title=f"{name}: order learned for a frozen denoiser, rate {rate}", ylim=(-0.5, 1.02))
            left.set(xlabel="thousands of forwards", ylabel="way from uniform orders to V*")
        for arm in next(iter(problem["laws"].values())):
            variances = [arms[arm]["gradient_variance"] for arms in problem["laws"].values()]
            right.plot(list(problem["laws"]), variances, marker="o", label=arm, **_style(arm, arms))
        right.set(title=f"{name}: noise of a batch's gradient", yscale="log", ylabel="variance")
        right.yaxis.set_major_formatter("{x:g}")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(figure)


def _style(arm: str, arms: Iterable[str]) -> Fields:
    """Its own colour; dashed for eq. 8."""
    number = list(arms).index(arm)
    return {"color": colormaps["tab20"](number), "linestyle": "--" if arm.startswith("eq. 8") else "-"}
