"""Estimators for scikit-learn: a classifier, a regressor and an imputer, each a model of the whole table.

    from unveil.sklearn import UnveilClassifier

    UnveilClassifier(steps=1000, random_state=0).fit(X, y).predict_proba(X)

A classifier and a regressor learn the columns of X together with y, and give the exact law of y given a row. A missing
or unknown cell is integrated out. Numbers beyond those of training count as the nearest ones. The network is part of
the estimator, so it is pickled and copied with it; `save` writes it as an artifact, for `unveil serve`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError:
    raise ImportError("unveil.sklearn takes scikit-learn: pip install 'unveil[evaluate]'") from None

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from unveil.model.along.serving import decode
from unveil.model.artifact.folder import save_artifact
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.denoiser import Barring
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.tokenizers.table.columns import CategoricalColumn, NumericColumn
from unveil.model.tokenizers.table.distributions import bin_moments, quantile
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.tables.fitting import settings_of
from unveil.tables.frames import kind_of, to_polars
from unveil.training.budget import fit_steps, parse_time
from unveil.training.config import Recipe, build_recipe, fitting_batch, settle
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.conditionals import ask
from unveil.training.trainer import train

_TARGET = "target"
_HELD_OUT = 0.1  # of the rows, to stop early by
_FEWEST_HELD_OUT = 20  # rows, below which all are trained on
_ROWS_AT_ONCE = 1024
_MEDIAN = 0.5
_WARMUP = 200  # steps, of many
_MOST_SEED = 2**31 - 1


class _Table(BaseEstimator):  # type: ignore[misc]
    """What all three have in common: the network of a table's columns."""

    _predicts = True

    def __init__(
        self,
        *,
        steps: int | None = None,
        time: str | None = None,
        max_bins: int = 64,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        """`steps` of training, or as many as fit into a `time` as "30s"; by default as many as suit the rows.
        `max_bins` of a number. `settings` are keys of a recipe by their tables: `{"model": {"width": 64}}`."""
        self.steps = steps
        self.time = time
        self.max_bins = max_bins
        self.settings = settings
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def save(self, folder: str | Path) -> None:
        """Writes the model as an artifact, which `unveil serve` and `unveil.load` take."""
        check_is_fitted(self, "network_")
        card = "A model of a table, trained by an estimator for scikit-learn.\n"
        save_artifact(
            Path(folder), denoiser=self.network_, tokenizer=self.tokenizer_, training={}, metrics={}, card=card
        )

    def _columns(self, X: Any, *, reset: bool) -> dict[str, Cells]:
        """Columns by name, as a tokenizer takes them: of DataFrames texts are levels, all else must be numbers."""
        if not _is_frame(X):
            array = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=reset)
            return {f"x{i}": np.ascontiguousarray(array[:, i]) for i in range(array.shape[1])}
        validate_data(self, X, skip_check_array=True, reset=reset)
        frame = to_polars(X)
        if frame.height < 1:
            raise ValueError(f"Found array with 0 sample(s) (shape={frame.shape}) while a minimum of 1 is required.")
        return {series.name: _cells(series) for series in frame}

    def _train(self, columns: Mapping[str, Cells]) -> None:
        """Fits the network to columns that have cells; sets `tokenizer_`, `network_` and `n_iter_`."""
        kept = {name: cells for name, cells in columns.items() if not _is_empty(cells)}
        if not kept:
            raise ValueError("no column of X has a value")
        generator = check_random_state(self.random_state)
        seed = int(generator.randint(_MOST_SEED))
        self.tokenizer_ = TableTokenizer.fit(kept, max_bins=self.max_bins)
        ids = self.tokenizer_.encode_rows(kept).tokens
        held = max(round(_HELD_OUT * len(ids)), 1) if len(ids) >= _FEWEST_HELD_OUT else 0
        order = np.random.default_rng(seed).permutation(len(ids))
        train_rows, other = (ids[order[held:]], ids[order[:held]]) if held else (ids, ids)
        dataset = Dataset("table", self.tokenizer_, train_rows, other, other)
        with tempfile.TemporaryDirectory(prefix="unveil-") as folder:
            recipe = self._recipe(dataset, seed=seed, work=Path(folder))
            state = torch.get_rng_state()
            try:
                trained = train(recipe, dataset, work=Path(folder), is_quiet=True)
            finally:
                torch.set_rng_state(state)
        assert trained is not None, "estimators train in one process"
        self.network_: Network = trained.denoiser
        self.n_iter_ = int(trained.summary["steps"])

    def _recipe(self, dataset: Dataset, *, seed: int, work: Path) -> Recipe:
        """Raises UnveilError for settings that are none."""
        own: dict[str, Any] = {"seed": seed, **(self.settings or {})}
        if self.steps is not None:
            batch = min(fitting_batch(len(dataset.train)), 256)
            own["optimizer"] = {"batch_size": batch, **own.get("optimizer", {}), "steps": self.steps}
            own.setdefault("advanced", {"optimizer": {"warmup_steps": min(_WARMUP, self.steps // 5)}})
        elif self._predicts:
            own.setdefault("advanced", {"optimizer": {"patience": 0}})  # y is learned after the columns of X are
        fields = {"name": "table", "data": {"kind": "table", "path": "table.csv"}}
        recipe = build_recipe(fields, overrides=settings_of(own), source="settings")
        if self.time is not None and recipe.optimizer.steps is not None:
            raise UnveilError("time and steps exclude each other")
        settled = settle(recipe, num_rows=len(dataset.train))
        if self.time is None:
            return settled
        return fit_steps(settled, dataset, seconds=parse_time(self.time), work=work)

    def _ids(self, columns: Mapping[str, Cells]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [N, L] and which of them are known: those of cells that are neither missing nor new."""
        missing = self.tokenizer_.missing_ids
        rows = len(next(iter(columns.values())))
        shape = rows, self.tokenizer_.length
        tokens, is_known = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        for i, column in enumerate(self.tokenizer_.columns):
            if column.name in columns:
                ids = column.ids(_as_kind(columns[column.name], column))
                is_known[:, i] = (ids >= 0) & (ids != missing.get(i, -1))
                tokens[:, i] = np.where(is_known[:, i], ids, 0)
        return tokens, is_known

    @torch.inference_mode()
    def _law(self, X: Any) -> NDArray[np.float64]:
        """The law of y given each row, by its ids [N, V], a missing value left out."""
        check_is_fitted(self, "network_")
        tokens, is_known = self._ids(self._columns(X, reset=False))
        position = self.tokenizer_.position(_TARGET)
        found = []
        for start in range(0, len(tokens), _ROWS_AT_ONCE):
            x, known = (torch.from_numpy(part[start : start + _ROWS_AT_ONCE]) for part in (tokens, is_known))
            lengths = torch.full((len(x),), x.shape[1])
            ranks = torch.where(known, 0, 1)
            logits = ask(self.network_, x, ~known, lengths, ranks).token_logits[:, position].double()
            found.append(logits[:, : self.tokenizer_.vocabulary_sizes[position]].softmax(-1).numpy())
        return np.concatenate(found)


class UnveilClassifier(ClassifierMixin, _Table):  # type: ignore[misc]
    """Predicts a class by its exact probability under a model of the whole table. Missing cells are taken."""

    def fit(self, X: Any, y: Any) -> Self:
        """`X` [N, F], an array of numbers or a DataFrame; `y` [N]. Raises ValueError for what cannot be learned."""
        columns = self._columns(X, reset=True)
        labels = _checked_target(self, y, columns)
        check_classification_targets(labels)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {self.classes_[0]!r}")
        levels = np.array([str(i) for i in places], dtype=object)
        self._train({**columns, _TARGET: levels})
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each of `classes_` [N, C]."""
        law = self._law(X)
        column = self.tokenizer_.columns[self.tokenizer_.position(_TARGET)]
        assert isinstance(column, CategoricalColumn)
        return law[:, np.argsort([int(level) for level in column.levels])]

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class [N]."""
        likeliest = self.predict_proba(X).argmax(-1)
        found: NDArray[Any] = self.classes_[likeliest]
        return found


class UnveilRegressor(RegressorMixin, _Table):  # type: ignore[misc]
    """Predicts the mean of a number's law under a model of the whole table. Missing cells are taken."""

    def fit(self, X: Any, y: Any) -> Self:
        """`X` [N, F], an array of numbers or a DataFrame; `y` [N] numbers. Raises ValueError."""
        columns = self._columns(X, reset=True)
        target = _checked_target(self, y, columns).astype(np.float64)
        if not np.isfinite(target).all():
            raise ValueError("Input y contains NaN or infinity.")
        self._train({**columns, _TARGET: target})
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The mean [N]."""
        means = np.array([bin_moments(own)[0] for own in self._target.bins])
        found: NDArray[np.float64] = self._law(X)[:, : len(means)] @ means
        return found

    def predict_quantiles(self, X: Any, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> NDArray[np.float64]:
        """The values below which these shares of the law lie, [N, Q]."""
        if not all(0 <= q <= 1 for q in quantiles):
            raise ValueError(f"quantiles must lie between 0 and 1, got {list(quantiles)}")
        column = self._target
        rows = [dict(enumerate(row)) for row in self._law(X)[:, : len(column.bins)].tolist()]
        return np.array([[quantile(column, row, q) for q in quantiles] for row in rows], dtype=np.float64)

    @property
    def _target(self) -> NumericColumn:
        check_is_fitted(self, "network_")
        column = self.tokenizer_.columns[self.tokenizer_.position(_TARGET)]
        assert isinstance(column, NumericColumn)
        return column


class UnveilImputer(TransformerMixin, _Table):  # type: ignore[misc]
    """Fills missing cells, drawn together given all that is known in their row; with `mode` the likeliest ones.

    A column without a value in training is left as it is.
    """

    _predicts = False

    def __init__(
        self,
        *,
        mode: bool = False,
        steps: int | None = None,
        time: str | None = None,
        max_bins: int = 64,
        settings: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(steps=steps, time=time, max_bins=max_bins, settings=settings, random_state=random_state)
        self.mode = mode

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's interface)
        """`X` [N, F], an array of numbers or a DataFrame."""
        columns = self._columns(X, reset=True)
        self._draws_ = int(check_random_state(self.random_state).randint(_MOST_SEED))
        self._train(columns)
        return self

    def transform(self, X: Any) -> Any:
        """A copy of X with its missing cells filled: an array, or a DataFrame of polars or pandas."""
        check_is_fitted(self, "network_")
        columns = self._columns(X, reset=False)
        filled = self._filled(columns)
        if not _is_frame(X):
            return np.stack([filled.get(name, cells) for name, cells in columns.items()], axis=1)
        frame = to_polars(X)
        whole = [_put(frame[name], cells) if name in filled else frame[name] for name, cells in filled.items()]
        done = frame.with_columns(whole)
        return done if kind_of(X) != "pandas" else done.to_pandas().set_index(X.index)

    def get_feature_names_out(self, input_features: Any = None) -> Any:  # noqa: ARG002
        """Those of X."""
        check_is_fitted(self, "network_")
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(self.n_features_in_)])
        return np.asarray(names, dtype=object)

    def _filled(self, columns: Mapping[str, Cells]) -> dict[str, Cells]:
        """The columns of the model with nothing missing."""
        found = {c.name: columns[c.name].copy() for c in self.tokenizer_.columns if c.name in columns}
        tokens, is_known = self._ids(columns)
        names = [column.name for column in self.tokenizer_.columns]
        is_open = np.stack([_missing(columns[name]) for name in names], axis=1)
        rows = np.flatnonzero(is_open.any(1))
        params = SamplingParams(order_temperature=0.0 if self.mode else 1.0, temperature=0.0 if self.mode else 1.0)
        starts = (
            Canvas.start(
                tuple(tokens[row].tolist()),
                tuple((~is_known[row]).tolist()),
                seed=derive_seed(self._draws_, int(row), 0),
                params=params,
            )
            for row in rows
        )
        denoiser = Barring(self.network_, self.tokenizer_.missing_ids) if self.tokenizer_.missing_ids else self.network_
        for row, decoded in zip(rows, decode(denoiser, starts, end_id=None, max_batch=_ROWS_AT_ONCE), strict=True):
            for reveal in decoded.reveals:
                if is_open[row, reveal.position]:
                    uniform = _MEDIAN if self.mode else reveal.uniform
                    value = self.tokenizer_.value(reveal.position, reveal.token_id, uniform)
                    found[names[reveal.position]][row] = value
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64"]
        return tags


def _is_frame(X: Any) -> bool:
    """Whether X is a DataFrame whose columns have names; a pyarrow table is one, a dict is not."""
    try:
        is_frame = kind_of(X) != "dict"
    except UnveilError:
        return False
    names = X.column_names if kind_of(X) == "pyarrow" else X.columns if is_frame else ()
    return is_frame and all(isinstance(name, str) for name in names)


def _cells(series: pl.Series) -> Cells:
    """A column of a DataFrame: numbers as float64, all else as texts. Raises ValueError for infinity."""
    if series.dtype.is_numeric():
        cells: Cells = series.cast(pl.Float64).to_numpy().astype(np.float64)
        if np.isinf(cells).any():
            raise ValueError(f"Input X contains infinity in column {series.name!r}.")
        return cells
    texts = series.cast(pl.String).to_list()
    return np.array([None if text in (None, "") else text for text in texts], dtype=object)


def _as_kind(cells: Cells, column: Any) -> Cells:
    """Cells as the column's kind has them: what is no number is missing."""
    is_level = isinstance(column, CategoricalColumn)
    if is_level == (cells.dtype == object):
        return cells
    if is_level:
        texts = [str(int(x)) if float(x).is_integer() else str(x) for x in np.nan_to_num(cells)]
        return np.array([None if gap else text for gap, text in zip(np.isnan(cells), texts, strict=True)], dtype=object)
    numbers = pl.Series(cells.tolist(), dtype=pl.String).cast(pl.Float64, strict=False)
    return numbers.fill_null(np.nan).to_numpy().astype(np.float64)


def _missing(cells: Cells) -> NDArray[np.bool_]:
    return np.array([cell is None for cell in cells]) if cells.dtype == object else np.isnan(cells)


def _is_empty(cells: Cells) -> bool:
    return bool(_missing(cells).all())


def _put(series: pl.Series, cells: Cells) -> pl.Series:
    """Filled cells in the column's own type, where it holds them."""
    if series.dtype == pl.Boolean:
        return pl.Series(series.name, [cell == "true" for cell in cells])
    values = pl.Series(series.name, cells.tolist())
    return (
        values.cast(series.dtype, strict=False) if not series.dtype.is_integer() else values.round(0).cast(series.dtype)
    )


def _checked_target(estimator: Any, y: Any, columns: Mapping[str, Cells]) -> NDArray[Any]:
    if y is None:
        raise ValueError(f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    num = len(next(iter(columns.values())))
    if len(labels) != num:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: [{num}, {len(labels)}]")
    if _TARGET in columns:
        raise ValueError(f"X must have no column called {_TARGET!r}; that is what y is called")
    return np.asarray(labels)
