"""Texts in figures: bits a character, on the card and beside nats."""

import math
from pathlib import Path

import pytest
import torch

from unveil.training.config import build_recipe
from unveil.training.data.config import TextData
from unveil.training.data.rows import Rows, split_rows
from unveil.training.data.text.text import load_text
from unveil.training.evaluation.report import mean_characters
from unveil.training.publishing.metric_tables import bits_rows, notes
from unveil.training.publishing.publish import publish
from unveil.training.trainer import train

STORY = "The cat sat on the mat, and the dog sat on the log. " * 40
SMALL = {
    "model": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32},
    "prompts": {"share": 0.5},
    "optimizer": {"steps": 2, "batch_size": 8},
    "run": {"precision": "32-true", "threads": 1, "evaluate_rows": 3},
    "advanced": {
        "model": {"relative_bias": True},
        "prompts": {"spans": 0.5},
        "run": {"accelerator": "cpu", "validate_rows": 2},
    },
}


def test_bits_a_character_are_nats_a_row_by_its_characters() -> None:
    metrics = {
        "order_kind": "global",
        "characters": 10.0,
        "nelbo": {"learned": {"mean": 20 * math.log(2), "standard_error": math.log(2)}},
        "log_likelihood": {"left_to_right": {"mean": -5 * math.log(2), "standard_error": math.log(2)}},
    }
    assert list(bits_rows(metrics, digits=2)) == [
        ("learned", "2.00 ± 0.10", ""),
        ("left to right", "", "0.50 ± 0.10"),
    ]
    assert list(bits_rows({"nelbo": {}, "log_likelihood": {}}, digits=2)) == []
    assert "A row has 10.0 characters on average." in notes(metrics, digits=2)


def test_characters_are_counted_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    dataset = load_text(TextData(files=(path,), tokenizer="bpe", vocab_size=40, length=8))
    rows = split_rows(dataset, "test")
    texts = ["".join(dataset.tokenizer.token(0, int(i)) for i in row) for row in rows.x]
    assert mean_characters(dataset.tokenizer, rows) == pytest.approx(sum(map(len, texts)) / len(texts))  # type: ignore[arg-type]
    half = Rows(rows.x, torch.full((len(rows),), 4))
    assert mean_characters(dataset.tokenizer, half) < mean_characters(dataset.tokenizer, rows)  # type: ignore[arg-type]


def test_the_card_of_a_text_says_bits_a_character_for_every_order(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    fields = {"name": "story", "data": {"kind": "text", "files": [str(path)], "length": 12}, **SMALL}
    recipe = build_recipe(fields, source="story")
    dataset = load_text(recipe.data)  # type: ignore[arg-type]
    trained = train(recipe, dataset, work=tmp_path / "work")
    assert trained is not None
    publish(trained, recipe, dataset, out=tmp_path / "out", recipe_text="")
    card = (tmp_path / "out" / "README.md").read_text()
    table = card[card.index("| bits a character |") :].split("\n\n")[0].splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| learned",
        "| uniform (random)",
        "| learned, reversed",
        "| left to right",
        "| right to left",
        "| surest first (confidence)",
        "| surest first (margin)",
    ]
    assert "A row has 12.0 characters on average." in card
