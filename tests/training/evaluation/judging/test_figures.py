"""Judges' figures on made rows whose answers are known, limits, and the page."""

from html.parser import HTMLParser
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from tests.apart import apart
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.training.evaluation.judging.coverage import coverage
from unveil.training.evaluation.judging.figures import FIGURES, limit_of
from unveil.training.evaluation.judging.histograms import histogram
from unveil.training.evaluation.judging.membership import membership
from unveil.training.evaluation.judging.page import html_page, rank_of

needs_judges = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn comes with unveil[evaluate]")


def _rows(seed: int, *, shift: float = 0.0, spread: float = 1.0, num: int = 800) -> dict[str, Cells]:
    generator = np.random.default_rng(seed)
    x = generator.normal(shift, spread, num)
    level = np.where(generator.random(num) < 0.3, "a", "b").astype(object)
    return {"x": x, "y": generator.normal(shift, spread, num), "level": level}


def _coverages() -> list[dict[str, float]]:
    others = (_rows(1), _rows(1, shift=9.0), _rows(1, spread=0.1))
    return [coverage(_rows(0), other, categorical=["level"]) for other in others]


@needs_judges
def test_rows_of_one_law_are_where_real_rows_are_and_others_are_not() -> None:
    same, far, narrow = apart(_coverages)
    assert same["precision"] > 0.93
    assert 0.4 < same["recall"] < 0.65, "a row's nearest other row is as often real as generated"
    assert far["precision"] < 0.1
    assert far["recall"] < 0.1
    assert narrow["recall"] < 0.25 < same["recall"]


def test_the_attack_knows_what_the_likelihoods_tell() -> None:
    generator = np.random.default_rng(2)
    nats = generator.normal(10.0, 1.0, 4000)
    blind = membership(nats[:2000], nats[2000:])
    assert abs(blind["attack"] - 0.5) < 4 * blind["attack_standard_error"]
    assert blind["found"] == pytest.approx(0.01, abs=0.01)
    shifted = membership(nats[:2000] - 1.0, nats[2000:])
    assert shifted["attack"] == pytest.approx(0.760, abs=0.02), "Phi(1 / sqrt 2)"
    assert shifted["found"] == pytest.approx(0.092, abs=0.06), "Phi(1 - 2.326)"
    certain = membership(nats[:2000] - 100.0, nats[2000:])
    assert (certain["attack"], certain["found"]) == (1.0, 1.0)
    same = np.ones(50)
    assert membership(same, same)["attack"] == 0.5, "ties count half"


def test_the_standard_error_of_the_attack_is_that_of_many_drawn_ones() -> None:
    generator = np.random.default_rng(3)
    found = [membership(generator.normal(0, 1, 200), generator.normal(0.5, 1, 300)) for _ in range(200)]
    spread = float(np.std([own["attack"] for own in found]))
    assert np.mean([own["attack_standard_error"] for own in found]) == pytest.approx(spread, rel=0.15)


def test_histograms_are_shares_of_all_rows() -> None:
    rows = {**_rows(0), "z": np.array([1.0, np.nan, 2.0, 2.0] * 200)}
    table = TableTokenizer.fit(rows)
    by_name = {column.name: column for column in table.columns}
    for name, cells in rows.items():
        found = histogram(by_name[name], cells, cells)
        assert found["real"] == found["generated"]
        assert sum(found["real"]) == pytest.approx(1.0)
        assert len(found["labels"]) == len(found["real"])
    assert dict(zip(*(histogram(by_name["z"], rows["z"], rows["z"])[k] for k in ("labels", "real")), strict=True)) == {
        "1": 0.25,
        "2": 0.5,
        "[MISSING]": 0.25,
    }


JUDGED: dict[str, Any] = {
    "rows": 1000,
    "seed": 3,
    "target": "<b>target",
    "c2st": {"generated": 0.75, "test_rows": 0.99},
    "logistic": {"generated": 0.96, "test_rows": 0.99},
    "usefulness": None,
    "learned": {"measure": "auc", "generated": 0.9, "training_rows": 0.92},
    "attack": 0.51,
    "attack_standard_error": 0.01,
    "closer": 0.7,
    "columns": [
        {
            "name": "<script>alert(1)</script>",
            "kind": "categorical",
            "shape": 0.9,
            "histogram": {"labels": ['"><img src=x>', "b"], "real": [0.5, 0.5], "generated": [0.25, 0.75]},
        }
    ],
}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_the_page_asks_nothing_of_the_network_and_shows_names_as_they_are() -> None:
    page = html_page(JUDGED, name="<i>mine</i>", order=["<script>alert(1)</script>", "b"])
    tags = _Tags()
    tags.feed(page)
    assert not {"script", "img", "link", "iframe", "b", "i"} & set(tags.found)
    assert not {"src", "href", "onload", "onerror"} & set(tags.attributes)
    assert "://" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
    assert tags.found.count("rect") == 4
    for words in ("can be told apart in part", "training rows are repeated", "not known", "0.510 ± 0.010"):
        assert words in page


def test_verdicts_follow_the_value() -> None:
    assert [FIGURES["c2st"].words(x) for x in (0.95, 0.8, 0.1)] == [
        verdict.words for verdict in FIGURES["c2st"].verdicts
    ]
    assert [rank_of(FIGURES["attack"], x) for x in (0.4, 0.55, 0.9)] == ["good", "fair", "poor"]


def test_a_limit_is_broken_by_what_is_beyond_it_and_by_what_is_not_known() -> None:
    assert limit_of("c2st=0.8", is_most=False).broken_by(JUDGED) == "c2st is 0.7500, below 0.8"
    assert limit_of("c2st=0.7", is_most=False).broken_by(JUDGED) is None
    assert limit_of("attack=0.5", is_most=True).broken_by(JUDGED) == "attack is 0.5100, above 0.5"
    unknown = limit_of("usefulness=0.5", is_most=False).broken_by(JUDGED)
    assert unknown == "usefulness is not known, and must not be below 0.5"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("c2ts=0.8", "no such figure; did you mean c2st?"),
        ("zzz=0.8", "known are c2st, logistic"),
        ("c2st", "must be c2st=NUMBER"),
        ("c2st=nan", "must be c2st=NUMBER"),
        ("c2st=high", "must be c2st=NUMBER"),
    ],
)
def test_a_limit_that_is_no_limit_gets_one_line(text: str, reason: str) -> None:
    with pytest.raises(UnveilError, match=r"^--fail-below") as error:
        limit_of(text, is_most=False)
    assert reason in str(error.value)
