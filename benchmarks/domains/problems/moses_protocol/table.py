"""The protocol's report for a reader: a line a metric beside the published models, then a line a temperature."""

from unveil.benchmarks.common.runs import Fields, with_interval
from unveil.benchmarks.domains.problems.moses_protocol.metrics import METRICS

_SHOWN = ("CharRNN", "VAE", "AAE", "LatentGAN", "JTN-VAE", "NGram", "Combinatorial", "HMM", "Train")
_OF_CURVE = ("valid", "unique@10000", "Novelty", "FCD/Test", "SNN/Test", "Scaf/Test", "IntDiv", "Filters", "logP")
_OWN, _PUBLISHED, _NAME = 28, 14, 20


def protocol_as_text(report: Fields) -> str:
    """See `protocol.run_protocol`."""
    own = [label for label in report["table"] if label != "temperature 1"]
    lines = [
        f"{report['artifact']}, {report['parameters']:,} parameters, {report['samples']:,} samples, {_valid(report)}",
        f"intervals: {report['interval']}",
        f"published: {report['published']['source']}",
        _line("", ["temperature 1", *own], _SHOWN),
    ]
    for name in METRICS:
        values = [_interval(report["table"][label][name]) for label in report["table"]]
        lines.append(_line(name, values, [_number(report, model, name) for model in _SHOWN]))
    if report["curve"]:
        lines += ["", f"{report['curve_samples']:,} samples at each temperature"]
        lines.append(_line("", _OF_CURVE, ()))
        for label, columns in report["curve"].items():
            lines.append(_line(label, [_interval(columns[name]) for name in _OF_CURVE], ()))
    lines += [f"{metric} is left out: {reason}" for metric, reason in report["left_out"].items()]
    return "\n".join(lines)


def _valid(report: Fields) -> str:
    return " and ".join(f"{num:,}" for num in report["table"]["temperature 1"]["num_valid"]) + " valid"


def _line(name: str, own: tuple[str, ...] | list[str], published: tuple[str, ...] | list[str]) -> str:
    parts = [f"{name:<{_NAME}}", *(f"{text:>{_OWN}}" for text in own), *(f"{text:>{_PUBLISHED}}" for text in published)]
    return "".join(parts).rstrip()


def _interval(found: Fields | None) -> str:
    return "-" if found is None else with_interval(found)


def _number(report: Fields, model: str, name: str) -> str:
    value = report["published"]["models"][model].get(name)
    return "-" if value is None else f"{value:.4f}"
