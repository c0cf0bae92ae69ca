"""Estimators for scikit-learn: its own checks, what they predict, copies. In a process of their own, for its memory."""

import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.apart import apart

needs_sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn comes with unveil[evaluate]")
TINY = {"model": {"width": 8, "mlp_width": 8, "heads": 2}, "run": {"threads": 1}}
SMALL = {"model": {"width": 32, "mlp_width": 64, "heads": 2, "dropout": 0.0}, "run": {"threads": 1}}
LEARN = "two steps learn nothing; what more of them learn is tested here"


def _own_checks(kind: str) -> list[str]:
    """The checks of scikit-learn that an estimator fails, with why."""
    from sklearn.utils.estimator_checks import check_estimator

    import unveil.sklearn as own

    warnings.simplefilter("ignore")
    estimator = getattr(own, kind)(steps=2, settings=TINY, max_bins=8)
    expected = {"check_classifiers_train": LEARN, "check_regressors_train": LEARN}
    found = check_estimator(estimator, expected_failed_checks=expected, on_fail=None)
    assert len(found) > 40
    return [f"{own['check_name']}: {own['exception']!r}" for own in found if own["status"] == "failed"]


@needs_sklearn
@pytest.mark.parametrize("kind", ["UnveilClassifier", "UnveilRegressor", "UnveilImputer"])
def test_scikit_learns_own_checks_pass(kind: str) -> None:
    assert apart(_own_checks, kind) == []


def _problem(num: int = 400) -> tuple[Any, Any, Any]:
    """Three columns, of which two say what y is; and its sign."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(num, 3))
    y = 2 * X[:, 0] - X[:, 1] + 0.2 * generator.normal(size=num)
    X[generator.random(X.shape) < 0.05] = np.nan
    return X, y, np.where(y > 0, "up", "down")


def _learned() -> dict[str, Any]:
    import pandas as pd
    import polars as pl
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    from unveil.sklearn import UnveilClassifier, UnveilImputer, UnveilRegressor

    X, y, sign = _problem()
    choice: Any = {"steps": 250, "settings": SMALL, "random_state": 0, "max_bins": 12}
    classifier = UnveilClassifier(**choice).fit(X[:300], sign[:300])
    regressor = UnveilRegressor(**choice).fit(X[:300], y[:300])
    imputer = UnveilImputer(steps=20, settings=TINY, random_state=0).fit(X)
    law = classifier.predict_proba(X[300:])
    back = pickle.loads(pickle.dumps(classifier))
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 0, "hi", "lo"), "c": X[:, 2]}, index=range(7, 407))
    mixed = UnveilClassifier(steps=20, settings=TINY, random_state=0).fit(frame, y > 0)
    pipeline = make_pipeline(FunctionTransformer(), UnveilClassifier(steps=5, settings=TINY))
    filled, holes = imputer.transform(X), np.isnan(X)
    flags = pl.DataFrame({"a": X[:, 0], "flag": [None if i % 9 == 0 else bool(x > 0) for i, x in enumerate(X[:, 0])]})
    codes = pd.DataFrame({"code": np.where(y > 0, "1234567", "7654321"), "x": X[:, 2]})
    coded = UnveilClassifier(**{**choice, "steps": 150}).fit(codes, sign)
    return {
        "classifier": classifier.score(X[300:], sign[300:]),
        "classes": classifier.classes_.tolist(),
        "sums": law.sum(1),
        "regressor": regressor.score(X[300:], y[300:]),
        "quantiles": regressor.predict_quantiles(X[300:]),
        "target": y[300:],
        "copied": bool((back.predict_proba(X[300:]) == law).all()),
        "again": bool((clone(classifier).fit(X[:300], sign[:300]).predict_proba(X[300:]) == law).all()),
        "beyond": classifier.predict(np.array([[1e9, -1e9, 0.0], [-1e9, 1e9, np.nan]])).tolist(),
        "known": bool((filled[~holes] == X[~holes]).all()),
        "left": int(np.isnan(filled).sum()),
        "mode": bool(np.isnan(UnveilImputer(mode=True, steps=2, settings=TINY).fit_transform(X)).any()),
        "flags": UnveilImputer(steps=2, settings=TINY).fit_transform(flags)["flag"],
        "coded": coded.score(codes.assign(code=codes["code"].astype(int)), sign),
        "mixed": mixed.predict(frame.assign(b="new")).dtype.name,
        "cross": len(cross_val_score(pipeline, X, sign, cv=3)),
        "names": mixed.feature_names_in_.tolist(),
    }


def _served(folder: Path) -> tuple[list[float], list[float]]:
    import unveil
    from unveil.sklearn import UnveilClassifier

    X, _, sign = _problem(100)
    classifier = UnveilClassifier(steps=10, settings=TINY, random_state=0).fit(X, sign)
    classifier.save(folder)
    prompt = {f"x{i}": float(x) for i, x in enumerate(X[7]) if not np.isnan(x)}
    (found,) = unveil.load(folder).predict(prompt, columns=["target"])["predictions"]
    by_level = {own["value"]: own["probability"] for own in found["columns"][0]["levels"]}
    return classifier.predict_proba(X[7:8])[0].tolist(), [by_level["0"], by_level["1"]]


@needs_sklearn
def test_they_learn_take_missing_cells_and_are_copied_whole() -> None:
    found = apart(_learned)
    assert found["classifier"] > 0.8
    assert found["classes"] == ["down", "up"]
    assert found["sums"] == pytest.approx(1.0)
    assert found["regressor"] > 0.6
    low, middle, high = found["quantiles"].T
    assert ((low <= middle) & (middle <= high)).all()
    assert 0.6 < np.mean((found["target"] >= low) & (found["target"] <= high)) <= 1
    assert found["copied"]
    assert found["again"], "the same seed gives the same weights"
    assert found["beyond"] == ["up", "down"]
    assert (found["known"], found["left"], found["mode"]) == (True, 0, False)
    assert (str(found["flags"].dtype), found["flags"].null_count()) == ("Boolean", 0)
    assert found["coded"] > 0.95, "codes given as numbers are the levels that they were"
    assert (found["mixed"], found["cross"], found["names"]) == ("bool", 3, ["a", "b", "c"])


@needs_sklearn
def test_a_saved_one_is_an_artifact_that_gives_the_same_law(tmp_path: Path) -> None:
    own, served = apart(_served, tmp_path / "model")
    assert own == pytest.approx(served, abs=1e-5)


@needs_sklearn
def test_mistakes_get_one_line() -> None:
    assert apart(_mistakes) == [
        "time and steps exclude each other",
        "settings: model.depth: unknown key",
    ]


def _mistakes() -> list[str]:
    from unveil.sklearn import UnveilClassifier

    X, _, sign = _problem(40)
    said = []
    wrong: list[dict[str, Any]] = [{"steps": 3, "time": "5s"}, {"steps": 3, "settings": {"model": {"depth": 3}}}]
    for choice in wrong:
        with pytest.raises(ValueError, match=r".") as error:
            UnveilClassifier(**choice).fit(X, sign)
        said.append(str(error.value))
    return said
