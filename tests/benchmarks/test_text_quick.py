"""Text: the quick variant sets every way beside the others, and the n-gram judge is a probability."""

import math
from pathlib import Path

import pytest

from benchmarks.problems.arms import KINDS
from benchmarks.problems.text import Judge, NGram, prompt_masks, words
from benchmarks.text import MADE, OF_ONE, RIVALS, WAYS
from tests.benchmarks.quick import call, run, run_one_seed

STORY = "The cat sat on the mat, and the dog sat on the log. "


def test_the_n_gram_model_gives_each_next_character_probabilities_that_sum_to_one() -> None:
    model = NGram([STORY * 3, STORY.lower()], order=3)
    for context in ("", "T", "th", "zz", " c"):
        total = sum(model._probability(context + character) for character in set(STORY + STORY.lower()))
        total += model._probability(context + "\0")
        assert total == pytest.approx(1.0)
    assert model.bits(STORY) < model.bits(STORY[::-1])
    assert NGram(["ab"], order=1).bits("a") == pytest.approx(-math.log2((1 + 2 / 2) / (2 + 2)))


def test_a_judge_knows_the_words_of_its_text_and_not_what_a_border_cut() -> None:
    assert words("he cat's mat, an") == ["cat's", "mat"]
    judged = Judge([STORY])(["x the cat meows y. z"])
    assert judged["known_words"] == pytest.approx(2 / 4)
    assert judged["different_words"] == 1.0


def test_prompts_know_half_of_a_canvas() -> None:
    masks = prompt_masks(128)
    assert list(masks) == ["prefix", "suffix", "holes"]
    assert all(int(mask.sum()) == 64 for mask in masks.values())
    assert int((masks["holes"][1:] != masks["holes"][:-1]).sum()) == 7


@pytest.mark.parametrize("given", [(), ("--next-step",)])
def test_the_quick_variant_scores_every_way_at_equal_forwards(given: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY * 100)
    report = run_one_seed("text", tmp_path / "work", "--file", str(path), *given)
    (seed,) = report["seeds"]
    assert len(set(seed["row_forwards"].values())) == 1
    assert list(report["ways"]) == list(WAYS)
    for rival in RIVALS:
        difference = seed["ways"]["learned"]["bits"] - seed["ways"][rival]["bits"]
        assert report["learned_minus"][rival]["mean"] == pytest.approx(difference, abs=1e-9)
    assert all(set(arms) == set(KINDS) for arms in report["prompts"].values())
    assert set(report["made"]) == set(MADE)
    assert report["published"] == {}


def test_one_model_is_asked_the_same() -> None:
    bundled = str(Path("checkpoints/text").resolve())
    report = run("text", "--artifact", bundled, "--rows", "2", "--samples", "1")
    assert list(report["ways"]) == list(OF_ONE)
    assert all(0.5 < found["bits"] < 4 for found in [*report["ways"].values(), report["n_gram"]])
    assert set(report["prompts"]) == {"prefix", "suffix", "holes"}
    assert report["rows"] == 2
    assert set(report["made"]) == {"learned", "confidence", "uniform"}


@pytest.mark.parametrize("other", [("--next-step",), ("--file", "x.txt"), ("--set", "seed=1"), ("--seeds", "3")])
def test_what_one_model_would_ignore_is_refused(other: tuple[str, ...]) -> None:
    refused = call("text", "--quick", "--artifact", "checkpoints/text", *other)
    assert refused.returncode == 2
    assert f"{other[0]}: goes without --artifact" in refused.stderr
