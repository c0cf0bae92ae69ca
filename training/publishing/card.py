"""The model card: an artifact's README.md. Knows figures and words, no network and no file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unveil.model.artifact.manifest import ORDER_PICTURE
from unveil.training.config import Recipe
from unveil.training.publishing.metric_tables import (
    BITS_HEADER,
    FIDELITY_HEADER,
    FIDELITY_NOTE,
    ORDER_HEADER,
    PRIVACY_HEADER,
    SOLVED_HEADER,
    SOLVED_NOTE,
    bits_rows,
    consistency_lines,
    fidelity_rows,
    molecule_lines,
    notes,
    order_rows,
    privacy_notes,
    privacy_rows,
    solved_rows,
)


def write_card(
    recipe: Recipe,
    *,
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    order_words: str,
    num_parameters: int,
    recipe_text: str,
) -> str:
    """Markdown: what it is, data, figures, learned order, recipe, limits, license."""
    parts = [
        f"# {recipe.name}",
        recipe.description or f"Trained by Unveil on `{data.get('source', 'a table')}`.",
        f"A masked diffusion model of {num_parameters:,} parameters whose decoding order is *{recipe.order.kind}*.",
        _section("Data", _data_lines(data)),
        _section("Figures", _figure_lines(metrics)),
        _section("Learned order", [f"![The learned order]({ORDER_PICTURE})", "", "```", order_words, "```"]),
        _section("Recipe", ["```toml", recipe_text.strip(), "```", "", *_training_lines(training)]),
        _section("Limits", _limits(recipe)),
        _section(
            "License", [recipe.license or "Not stated by the recipe; the data's own license applies to the data."]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    return [
        f"- {key.replace('_', ' ')}: {_readable(value)}" for key, value in data.items() if value not in (None, {}, [])
    ]


def _readable(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k.replace('_', ' ')} {_readable(v)}" for k, v in value.items() if v not in (0, {}, []))
    if isinstance(value, list | tuple):
        return "; ".join(map(_readable, value))
    return str(value)


def _figure_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Both sides of every comparison, with standard errors."""
    lines = [
        f"On {metrics['rows']:,} rows of the {metrics['split']} split, in nats a row (± one standard error).",
        "",
        *_table(ORDER_HEADER, order_rows(metrics, digits=3)),
        "",
        *notes(metrics, digits=3),
    ]
    if "characters" in metrics:
        lines += ["", *_table(BITS_HEADER, bits_rows(metrics, digits=3))]
    if "molecules" in metrics:
        lines += ["", *molecule_lines(metrics, digits=3)]
    if "solved" in metrics:
        lines += ["", f"{SOLVED_NOTE} On average {metrics['clues']:.1f} clues a puzzle.", ""]
        lines += _table(SOLVED_HEADER, solved_rows(metrics, digits=3))
    if "imputation" in metrics:
        lines += ["", "Share of cells guessed right when one column is hidden:", ""]
        found = [
            (name, f"{row['accuracy']:.3f}", f"{row['commonest_level']:.3f}")
            for name, row in metrics["imputation"].items()
        ]
        lines += _table(("column", "likeliest value", "commonest value"), found)
    if "fidelity" in metrics:
        lines += ["", f"How like the {metrics['fidelity']['test_rows']:,} test rows are the generated ones?", ""]
        lines += [*_table(FIDELITY_HEADER, fidelity_rows(metrics)), "", FIDELITY_NOTE]
    lines += ["", "How far do its probabilities depend on the order?", "", *consistency_lines(metrics)]
    if "privacy" in metrics:
        lines += ["", "Does it repeat its training rows?", "", *_table(PRIVACY_HEADER, privacy_rows(metrics))]
        lines += ["", *privacy_notes(metrics)]
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def _training_lines(training: Mapping[str, Any]) -> list[str]:
    """A line for this run and one for each before it, the latest first."""
    lines = [_training_line(training)]
    while start := training.get("start"):
        weights, training = str(start["weights_sha256"]), start["training"]
        is_known = {"steps", "row_forwards", "seed", "torch"} <= training.keys()
        how = _training_line(training) if is_known else "trained elsewhere."
        lines += [
            "",
            f"Went on from weights {weights[:12]}, {training.get('recipe', {}).get('name', 'imported')}: {how}",
        ]
    return lines


def _training_line(training: Mapping[str, Any]) -> str:
    steps, forwards = training["steps"], training["row_forwards"]
    return f"{steps:,} steps, {forwards:,} row-forwards, seed {training['seed']}, torch {training['torch']}."


def _limits(recipe: Recipe) -> list[str]:
    lines = [
        "- Numbers are generated bin by bin; inside a bin they are drawn from the training rows' quantiles.",
        "- Not anonymous: the tokenizer holds levels, the ends of bins and up to 24 values a bin as the data has them.",
        "- Rows are samples, not people: do not use them for decisions about anyone, and expect the data's own biases.",
    ]
    if recipe.data.kind == "sudoku":
        return [
            "- Not a solver: a digit once revealed stays, so a single wrong one loses the puzzle.",
            "- Made for puzzles with one solution. One with several gets a grid that need not be any of them, and one",
            "  with none gets a grid all the same, unless a rule is broken at once: clues that exclude each other,",
            "  a cell without a digit left for it, a digit without a cell.",
            "- The 9 x 9 grid alone.",
        ]
    if recipe.data.kind in ("text", "kjv", "datasets"):
        return ["- A small model of one text: it writes in its manner, and knows nothing."]
    if recipe.data.kind in ("moses", "smiles"):
        return [
            "- Nothing is known of what a molecule does, whether it can be made or whether it is safe.",
            "- Not every output is a molecule: see the figures, and check with RDKit.",
            "- A hole inside a prompt is filled by exactly its number of tokens.",
        ]
    if recipe.data.kind == "adult":
        lines.append("- A census of one country in 1994, with its categories of that time.")
    return lines
