"""Text: the quick variant sets every way and rival beside the others, on canvases of the whole test split."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.quick import call, run, run_one_seed
from tests.model.artifacts import random_transformer, text_tokenizer
from unveil.benchmarks.common.arms import KINDS
from unveil.benchmarks.domains.problems.text.judge import Judge, prompt_masks, repeated_share, stretches, words
from unveil.benchmarks.domains.problems.text.report import told_order
from unveil.benchmarks.domains.problems.text.rivals import CAUSAL, CHARACTERS, TOKENS
from unveil.benchmarks.domains.text import MADE, OF_ONE, RIVALS, WAYS, scored, taken
from unveil.training.data.rows import as_rows
from unveil.training.evaluation.likelihood import log_likelihood

STORY = "The cat sat on the mat, and the dog sat on the log. "


def test_a_judge_knows_the_words_of_its_text_and_not_what_a_border_cut() -> None:
    assert words("he cat's mat, an") == ["cat's", "mat"]
    judge = Judge([STORY], [STORY], orders=[1, 2])
    judged = judge(["t the cat goes at. d"])
    assert judged["known_words"] == pytest.approx(2 / 4)
    assert judged["different_words"] == 1.0
    assert judge([STORY])["bits"] < judge([STORY[::-1]])["bits"]


def test_overlapping_canvases_give_each_text_back_once() -> None:
    texts = [torch.arange(start, start + length).numpy() for start, length in ((0, 20), (100, 8), (200, 13))]
    canvases = torch.cat([torch.from_numpy(text).unfold(0, 8, 3) for text in texts]).numpy()
    found = stretches(canvases, stride=3)
    assert [text.tolist() for text in found] == [[*range(20)], [*range(100, 108)], [*range(200, 211)]], "ends are cut"
    apart = stretches(canvases, stride=8)
    assert [text.tolist() for text in apart] == canvases.tolist()


def test_what_is_repeated_is_counted_by_stretches() -> None:
    assert repeated_share(["abcdxyz"], of=["__abcd__", "xyz"], length=3) == pytest.approx(3 / 5)
    assert repeated_share(["ab"], of=["ab"], length=3) == 0.0, "no stretch is that long"


def test_prompts_know_half_of_a_canvas() -> None:
    masks = prompt_masks(128)
    assert list(masks) == ["prefix", "suffix", "holes"]
    assert all(int(mask.sum()) == 64 for mask in masks.values())
    assert int((masks["holes"][1:] != masks["holes"][:-1]).sum()) == 7


def test_an_order_is_called_what_it_is_and_the_report_names_each_seed_that_differs() -> None:
    assert [taken(order) for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2])] == [
        "left to right",
        "right to left",
        "an order of its own",
    ]
    assert told_order(["left to right"] * 3) == "training took: left to right"
    assert told_order(["left to right", "right to left"]) == "training took: by seed left to right, right to left"


def test_an_order_with_two_names_is_scored_alike_under_both() -> None:
    net = random_transformer(text_tokenizer(length=6, default_length=6))
    rows = as_rows(torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0)).numpy())
    ways = {"likeliest": ("net", "likeliest"), "left to right": ("net", "left to right")}
    same = scored({"net": net}, ways, rows, list(range(6)))
    assert torch.equal(same["likeliest"], same["left to right"])
    other = scored({"net": net}, ways, rows, [5, 4, 3, 2, 1, 0])
    torch.testing.assert_close(other["likeliest"], -log_likelihood(net, rows, [5, 4, 3, 2, 1, 0]))
    assert not torch.allclose(other["likeliest"], other["left to right"])


@pytest.mark.parametrize("given", [(), ("--masked",)])
def test_the_quick_variant_scores_every_way_and_rival(given: tuple[str, ...], tmp_path: Path) -> None:
    report = run_one_seed("text", tmp_path / "work", *given)
    (seed,) = report["seeds"]
    assert len(set(seed["row_forwards"].values())) == 1, "equal forwards"
    assert list(report["ways"]) == [*WAYS, CAUSAL, CHARACTERS, TOKENS]
    for rival in RIVALS:
        difference = seed["ways"]["learned"]["bits"] - seed["ways"][rival]["bits"]
        assert report["learned_minus"][rival]["mean"] == pytest.approx(difference, abs=1e-9)
    assert seed["causal"]["cpu_seconds"] == seed["cpu_seconds"]["global"], "equal seconds"
    assert seed["causal"]["row_forwards"] == seed["causal"]["steps"] * seed["causal"]["batch_size"] > 0
    tried = seed["causal"]["tuning_nats"]
    chosen = f"rate {seed['causal']['learning_rate']}, batch {seed['causal']['batch_size']}"
    assert tried[chosen] == min(tried.values()), "the best on validation canvases"
    assert all("order" in about["chosen"] for about in seed["n_grams"].values())
    assert report["orders"] == [seed["order"]]
    assert {kind: set(arms) - set(KINDS) for kind, arms in report["prompts"].items()} == {
        "prefix": {"causal"},
        "suffix": set(),
        "holes": set(),
    }
    assert set(report["made"]) == set(MADE)
    assert seed["rows"] < seed["test_rows"]
    assert 0.0 <= seed["repeated_share"] < 0.02


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the recipe's text, smaller and hardly trained."""
    from unveil.benchmarks.domains.text import QUICK, RECIPE
    from unveil.commands.training import cache_folder
    from unveil.training.config import load_recipe
    from unveil.training.data.load import load_dataset
    from unveil.training.publishing.publish import publish
    from unveil.training.trainer import train

    folder = tmp_path_factory.mktemp("text")
    recipe = load_recipe(RECIPE, overrides=[*QUICK, "run.evaluate_rows=2"])
    dataset = load_dataset(recipe.data, cache=cache_folder())
    trained = train(recipe, dataset, work=folder / "work")
    assert trained is not None
    publish(trained, recipe, dataset, out=folder / "model", recipe_text="")
    return folder / "model"


def test_one_model_is_asked_the_same(artifact: Path) -> None:
    report: Any = run("text", "--artifact", str(artifact), "--rows", "3", "--samples", "1")
    assert list(report["ways"]) == list(OF_ONE)
    assert list(report["rivals"]) == [CHARACTERS, TOKENS]
    for rival, found in report["rivals"].items():
        difference = report["ways"]["own law"]["bits"] - found["bits"]
        assert report["own_law_minus"][rival]["bits"] == pytest.approx(difference)
    assert set(report["prompts"]) == {"prefix", "suffix", "holes"}
    assert report["rows"] == 3
    assert set(report["made"]) == {"learned", "confidence", "uniform"}


def test_a_model_of_other_data_is_refused() -> None:
    refused = call("text", "--quick", "--artifact", "checkpoints/adult")
    assert refused.returncode == 1
    assert "checkpoints/adult: not a model of the King James Version" in refused.stderr


@pytest.mark.parametrize("other", [("--masked",), ("--seeds", "2")])
def test_what_one_model_would_ignore_is_refused(other: tuple[str, ...]) -> None:
    refused = call("text", "--quick", "--artifact", "checkpoints/text", *other)
    assert refused.returncode == 2
    assert f"{other[0]}: goes without --artifact" in refused.stderr
