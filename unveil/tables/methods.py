"""What a model of a table does with DataFrames: the methods of `unveil.Model` that take and give them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.table.table import TableTokenizer

if TYPE_CHECKING:
    from unveil.api import Model
    from unveil.tables.drawing import Shares
    from unveil.tables.frames import Likeness

_ROWS_AT_ONCE = 2048


class SampleOptions(TypedDict, total=False):
    """What `Model.sample` takes beside the number of rows, as in the body of POST /generate."""

    where: dict[str, Any] | None
    rules: list[str] | None
    attempts: int | None
    seed: int | None
    order: str | list[int]
    order_temperature: float | None
    tokens_per_step: int | None
    steps: int | None
    threshold: float | None
    temperature: float
    top_k: int | None
    top_p: float | None


class TableMethods:
    """Part of `unveil.Model`. DataFrames are of pandas, polars or pyarrow, or dicts of columns. `likeness` is that of
    the DataFrame that the model was fitted to, if it was."""

    likeness: "Likeness | None" = None

    def sample(
        self, n: int = 1, *, as_: str | None = None, shares: "Shares | None" = None, **fields: Unpack[SampleOptions]
    ) -> Any:
        """`n` rows as a DataFrame. `where` says what they must be like, as in POST /generate:
        `{"age": {"min": 30}, "state": ["CA", "NY"]}`; their law is then the model's under it.

        `rules` say what columns must be like together: `["signup <= last_login", "pair(city, country)",
        "unique(email)"]`; None is what the model was trained with, [] nothing. `shares` say which values of a column
        stand in how many of the rows: `{"sex": {"Female": 0.5, "Male": 0.5}}`; the rest of a row is drawn given them.

        The DataFrame is of the kind and of the types that `unveil.fit` was given. Of a model that was loaded, or
        fitted to a file, it is polars, with integers where the training data has whole numbers, dates and times as
        such, levels as texts. `as_` says otherwise: polars, pandas, pyarrow, dict. A missing value is null.
        """
        import polars as pl

        from unveil.tables.cells import typed
        from unveil.tables.frames import Likeness, likeness_named

        model = _model(self)
        tokenizer = _table(model.tokenizer, "sample")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UnveilError(f"n must be an integer of at least 1, got {n!r}", param="n")
        like = (self.likeness or Likeness("polars")) if as_ is None else likeness_named(as_)
        rows = [list(row.values()) for row in model.outputs({}, num_samples=n, shares=shares, **fields)]
        columns = zip(tokenizer.columns, zip(*rows, strict=True), strict=True)
        return like.made(pl.DataFrame([typed(own, cells, like.dtypes.get(own.name)) for own, cells in columns]))

    def impute(
        self,
        data: Any,
        *,
        seed: int | None = None,
        order: str = "learned",
        mode: bool = False,
        where: dict[str, Any] | None = None,
        rules: list[str] | None = None,
        ignore_foreign: bool = False,
    ) -> Any:
        """The same DataFrame with its empty cells filled: null, NaN, an empty text, and what the training table had for
        a missing value. All other cells, columns, types and the index of pandas stay; columns that the model does not
        have are left alone.

        Values are drawn given all that is known in their row, together; with `mode` the likeliest are taken, and the
        median of a bin of numbers. A cell that the model does not know is refused, naming row and column;
        `ignore_foreign` keeps it from the model instead, and leaves it as it is.

        `where` and `rules` say what filled cells must be like, as in `sample`, and exclude `mode`. A rule that the
        known cells of a row break is left out there.
        """
        from unveil.tables.constraints import constraints_of
        from unveil.tables.filled import impute
        from unveil.tables.filling import Wishes

        model = _model(self)
        _table(model.tokenizer, "impute")
        constraints = constraints_of(model, where=where, rules=rules, is_mode=mode)
        wishes = Wishes(order, seed, is_mode=mode, ignores_foreign=ignore_foreign, constraints=constraints)
        return impute(model, _table(model.tokenizer, "impute"), model.manifest, data, wishes)

    def log_prob(
        self, data: Any, *, order: str | None = None, num_orders: int | None = None, seed: int | None = None
    ) -> Any:
        """The log-probability of each row in nats, as a column of the DataFrame's library (a list for a dict).

        A number or a date counts with the probability of its bin. By default it is exact along the likeliest learned
        order, which is the order of a model that has decided on one. Where orders are drawn (a model of uniform
        orders, or `order="uniform"`) it is minus the NELBO, a mean over `num_orders` orders (16): a lower bound, by
        chance more or less. Columns of the model that the DataFrame lacks are integrated out; others than the model's
        are not looked at. A null is a missing value, and refused in a column that had none in training.
        """
        from unveil.tables.frames import Likeness, to_polars
        from unveil.tables.scoring import prompts_of

        model = _model(self)
        tokenizer = _table(model.tokenizer, "log_prob")
        frame = to_polars(data)
        prompts = prompts_of(tokenizer, model.manifest, frame)
        is_uniform = model.manifest.order.kind == "uniform"
        fields: dict[str, Any] = {"order": order or "learned", "num_orders": num_orders, "seed": seed}
        if order is None and not is_uniform:
            fields["order_temperature"] = 0.0
        values: list[float] = []
        for start in range(0, len(prompts), _ROWS_AT_ONCE):
            reply = model.score(prompts[start : start + _ROWS_AT_ONCE], **fields)
            values += [-found["nelbo"] for found in reply["scores"]]
        return Likeness.of(data, frame).numbers(values, "log_prob", index=getattr(data, "index", None))

    def evaluate(
        self,
        *,
        target: str | None = None,
        rows: int | None = None,
        seed: int = 0,
        table: str | Path | None = None,
        html: str | Path | None = None,
    ) -> dict[str, Any]:
        """What judges say of generated rows, as `unveil evaluate --judge --json` prints it: C2ST, usefulness for
        predicting `target` (the last column), likeness, membership inference. `rows` at most are generated.

        The training table is read again, from `table` if it has moved; `html` is a page to write. Needs the extra
        `evaluate`. Raises UnveilError.
        """
        from unveil.commands.judging import Wishes, judged_artifact, write_page
        from unveil.model.artifact.folder import load_artifact

        model = _model(self)
        _table(model.tokenizer, "evaluate")
        folder, artifact = model.folder, load_artifact(model.folder)
        place = None if table is None else Path(table)
        wishes = Wishes(target, None if html is None else Path(html), seed=seed)
        judged, dataset = judged_artifact(folder, artifact, rows=rows, table=place, wishes=wishes, say=lambda _: None)
        if wishes.html is not None:
            write_page(wishes.html, judged, artifact, dataset, name=model.name)
        return judged


def _model(methods: TableMethods) -> "Model":
    """They are part of no other class."""
    return cast("Model", methods)


def _table(tokenizer: Tokenizer, method: str) -> TableTokenizer:
    """Raises UnveilError for a model of something else."""
    if not isinstance(tokenizer, TableTokenizer):
        raise UnveilError(f"{method} is for models of tables, and this is a {tokenizer.domain} model")
    return tokenizer
