"""Whether a classifier tells generated rows from real ones, and whether one trained on them does as well on real ones.

C2ST is 2 (1 - AUC) over 3 folds and at most 1, as sdmetrics has it: real training rows against as many generated ones,
levels one by one, numbers scaled by their quartiles. TabPC (arXiv 2603.23016) has it with XGBoost; TabSyn's evaluation,
with a logistic regression. Usefulness is that of XGBoost trained on generated rows, on real test rows: the AUC of a
column of two levels, the root mean square error of a number.
"""

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unveil.model.tokenizers.table.columns import Column
from unveil.model.tokenizers.table.table import Cells
from unveil.training.evaluation.judging.rows import frame

NEEDED = "judges are scikit-learn and xgboost: pip install 'unveil[evaluate]'"
FOLDS_SEED = 0
Fields = dict[str, Any]


def why_no_judges() -> str | None:
    """One line where they are not installed."""
    return NEEDED if any(find_spec(name) is None for name in ("pandas", "sklearn", "xgboost")) else None


def detection(
    real: Mapping[str, Cells], other: Mapping[str, Cells], *, categorical: list[str], threads: int = 1
) -> Fields:
    """C2ST by XGBoost and by logistic regression, in [0, 1], 1 where they cannot be told apart."""
    linear, pipeline, preparing = (import_module(f"sklearn.{n}") for n in ("linear_model", "pipeline", "preprocessing"))
    x, y = _both(frame(real, categorical), frame(other, categorical), categorical)
    judges = {
        "xgboost": _boosting("XGBClassifier", threads, eval_metric="logloss"),
        "logistic": linear.LogisticRegression(solver="lbfgs"),
    }
    return {
        name: _indistinct(pipeline.make_pipeline(preparing.RobustScaler(), judge), x, y)
        for name, judge in judges.items()
    }


def _both(real: Any, other: Any, categorical: list[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """All rows [N, F] and which of them are real [N]: levels one by one, a missing number as the real rows' mean."""
    pandas = import_module("pandas")
    rows = pandas.concat([real, other], ignore_index=True)
    rows = pandas.get_dummies(rows.fillna(real.mean(numeric_only=True)), columns=categorical)
    x: NDArray[np.float64] = rows.to_numpy(dtype=np.float64)
    return x, np.arange(len(rows)) < len(real)


def _indistinct(judge: Any, x: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    """1 where a judge trained on two thirds of the rows cannot tell the others apart, 0 where it always can."""
    selection, metrics = (import_module(f"sklearn.{n}") for n in ("model_selection", "metrics"))
    folds = selection.StratifiedKFold(n_splits=3, shuffle=True, random_state=FOLDS_SEED)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # logistic regression may stop before it has converged, as theirs does
        for train, test in folds.split(x, y):
            scores = judge.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
            found.append(max(0.5, float(metrics.roc_auc_score(y[test], scores))) * 2 - 1)
    return 1 - float(np.mean(found))


def usefulness(
    trained_on: Mapping[str, Cells],
    test: Mapping[str, Cells],
    *,
    target: Column,
    columns: list[Column],
    threads: int = 1,
) -> Fields:
    """XGBoost trained on some rows, asked for the target of real test rows: `auc` of one of two levels, `accuracy` of
    one of more, `rmse` of a number. Nothing where the rows hold a single level."""
    (x, y), (test_x, test_y) = (_split(rows, target, columns) for rows in (trained_on, test))
    if target.kind == "categorical":
        levels, places = np.unique(y, return_inverse=True)
        if len(levels) < 2 or len(np.unique(test_y)) < 2:
            return {}
        model = _boosting("XGBClassifier", threads, eval_metric="logloss").fit(x, places)
        if len(target.levels) > 2 or not np.isin(test_y, levels).all():
            return {"accuracy": float(np.mean(levels[model.predict(test_x)] == test_y))}
        score = import_module("sklearn.metrics").roc_auc_score(test_y, model.predict_proba(test_x)[:, 1])
        return {"auc": float(score)}
    model = _boosting("XGBRegressor", threads).fit(x, y)
    return {"rmse": float(np.sqrt(np.mean((model.predict(test_x) - test_y) ** 2)))}


def _boosting(name: str, threads: int, **choices: Any) -> Any:
    made = getattr(import_module("xgboost"), name)
    return made(enable_categorical=True, random_state=0, n_jobs=threads, **choices)


def _split(rows: Mapping[str, Cells], target: Column, columns: list[Column]) -> tuple[Any, NDArray[np.float64]]:
    """Features and target of the rows that have one. Levels are pandas categories, the same in all rows."""
    pandas, levels = import_module("pandas"), [c for c in columns if c.kind == "categorical"]
    features = frame(rows, [column.name for column in levels])
    for column in levels:
        features[column.name] = pandas.Categorical(features[column.name], categories=column.levels)
    answers = features.pop(target.name)
    has_target = answers.notna().to_numpy()
    answers = answers.cat.codes if target.kind == "categorical" else answers
    return features[has_target], answers[has_target].to_numpy(dtype=np.float64)
