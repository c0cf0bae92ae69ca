"""The judges' figures as one HTML file, which asks nothing of the network: inline style, inline SVG, no script."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unveil.training.evaluation.judging.figures import FIGURES, Figure, Judged, generated_value

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d7dde5; --paper: #fff; --real: #9aa7b8;
  --made: #2f6db3; --good: #2c7a4b; --fair: #9a6700; --poor: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ecf3; --soft: #9fabbb; --line: #333d4a; --paper: #14181e;
  --real: #66758a; --made: #6fb0f5; --good: #6fcf97; --fair: #f2c14e; --poor: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; } p { margin: .4rem 0; }
.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .45rem .6rem; vertical-align: top;
  border-bottom: 1px solid var(--line); } th { font-weight: 600; } td.number { font-variant-numeric: tabular-nums;
  white-space: nowrap; text-align: right; } .meaning { color: var(--soft); font-size: .9rem; font-weight: 400; }
.good { color: var(--good); } .fair { color: var(--fair); } .poor { color: var(--poor); }
.wide { overflow-x: auto; } .columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: 1rem; } figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; }
figcaption { display: flex; justify-content: space-between; gap: .5rem; font-size: .95rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: 7rem; margin-top: .4rem; } .real { fill: var(--real); }
.made { fill: var(--made); } .ends { display: flex; justify-content: space-between; gap: 1rem; font-size: .8rem;
  color: var(--soft); overflow-wrap: anywhere; } ol { columns: 16rem; padding-left: 1.6rem; margin: 0; }
.key span { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin: 0 .3rem 0 1rem; }
"""
_RANKS = ("good", "fair", "poor")


def html_page(judged: Judged, *, name: str, order: Sequence[str] | None) -> str:
    """A whole document. `order`: columns in the learned order, None where it is not a single one."""
    learned = (
        "" if order is None else f"<h2>Learned order</h2><ol>{''.join(f'<li>{escape(x)}</li>' for x in order)}</ol>"
    )
    rows = "".join(_row(figure, judged) for figure in FIGURES.values())
    columns = "".join(_column(column) for column in judged["columns"])
    title = f"{escape(name)}: how good are generated rows?"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p class="soft">{_against(judged)}</p>
<h2>Figures</h2><div class="wide"><table><thead><tr><th scope="col">What is asked</th><th scope="col">Generated</th>
<th scope="col">Real rows</th><th scope="col">Verdict</th></tr></thead><tbody>{rows}</tbody></table></div>
{_learning(judged)}
{learned}
<h2>Columns</h2><p class="key soft"><span class="real" style="background:var(--real)"></span>real rows
<span class="made" style="background:var(--made)"></span>generated rows</p><div class="columns">{columns}</div>
</body></html>
"""


def _against(judged: Judged) -> str:
    return (
        f"{judged['rows']:,} generated rows against as many training rows, seed {judged['seed']}. Under “Real rows” "
        "test rows stand in their place: that is what was to be had."
    )


def _row(figure: Figure, judged: Judged) -> str:
    value, found = generated_value(judged, figure.name), judged.get(figure.name)
    real = found.get("test_rows") if isinstance(found, Mapping) else {"usefulness": 1.0}.get(figure.name)
    words, rank = ("not known", "fair") if value is None else (figure.words(value), rank_of(figure, value))
    error = judged.get(f"{figure.name}_standard_error")
    shown = "" if value is None else f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")
    return (
        f'<tr><th scope="row">{escape(figure.title)}<div class="meaning">{escape(figure.meaning)}</div></th>'
        f'<td class="number">{shown}</td><td class="number">{"" if real is None else f"{real:.3f}"}</td>'
        f'<td class="{rank}">{escape(words)}</td></tr>'
    )


def rank_of(figure: Figure, value: float) -> str:
    """good, fair or poor: which of its verdicts holds."""
    words = figure.words(value)
    return _RANKS[next(i for i, verdict in enumerate(figure.verdicts) if verdict.words == words)]


def _learning(judged: Judged) -> str:
    learned = judged["learned"]
    if "measure" not in learned:
        return ""
    own, real = learned["generated"], learned["training_rows"]
    return (
        f'<p class="soft">XGBoost predicts {escape(judged["target"])} of test rows: {escape(learned["measure"])} '
        f"{own:.4f} where it was trained on generated rows, {real:.4f} where it was trained on real ones.</p>"
    )


def _column(column: Mapping[str, Any]) -> str:
    shape = "" if column["shape"] is None else f"{column['shape']:.3f}"
    own = column["histogram"]
    first, last = own["labels"][0], own["labels"][-1] if len(own["labels"]) > 1 else ""
    return (
        f'<figure><figcaption><strong>{escape(column["name"])}</strong><span class="soft">Shape {shape}</span>'
        f"</figcaption>{_bars(own, column['name'])}"
        f'<div class="ends"><span>{escape(first)}</span><span>{escape(last)}</span></div></figure>'
    )


def _bars(histogram: Mapping[str, Any], name: str) -> str:
    """Real and generated shares side by side, in a box of 100 by 40."""
    most = max([*histogram["real"], *histogram["generated"], 1e-12])
    width = 100 / len(histogram["labels"])
    bars = []
    for i, label in enumerate(histogram["labels"]):
        for k, side in enumerate(("real", "generated")):
            share = histogram[side][i]
            x, height = (i + 0.08 + 0.42 * k) * width, 40 * share / most
            place = f'x="{x:.2f}" y="{40 - height:.2f}" width="{0.42 * width:.2f}" height="{height:.2f}"'
            title = f"<title>{escape(label)}: {share:.1%} {side}</title>"
            bars.append(f'<rect class="{"made" if k else "real"}" {place}>{title}</rect>')
    label = escape(f"Shares of {name}, real and generated", quote=True)
    return f'<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(bars)}</svg>'
