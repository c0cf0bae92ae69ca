"""Requests and replies that only tables have, as pydantic models: POST /predict and POST /count."""

from typing import Any, Self

from pydantic import Field, model_validator

from unveil.engine.request.schemas import ModelRequest, Reply, ScoreTimings
from unveil.model.decoding.canvas import MAX_SEED
from unveil.model.errors import UnveilError

COUNT_SAMPLES, MAX_COUNT_SAMPLES = 256, 1024


class PredictRequest(ModelRequest):
    """One row, or a list of rows, and the columns whose distribution is wanted."""

    prompt: Any = Field(description="An object of columns, or a list of them: what is known.")
    columns: list[str] | None = Field(default=None, description="Hidden columns; null = all that the prompt hides.")
    num_samples: int = Field(default=0, ge=0, description="Draws of all these columns together, for each prompt.")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Of the draws; null = by the server.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.columns == []:
            raise UnveilError("columns is an empty list", param="columns")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise UnveilError("columns has one of them twice", param="columns")
        return self


class CountRequest(ModelRequest):
    """A condition whose probability is wanted."""

    prompt: Any = Field(default_factory=dict, description="An object of columns: what is known of a row.")
    where: dict[str, Any] = Field(description="What a row must be like, as in /generate.")
    num_samples: int = Field(
        default=COUNT_SAMPLES,
        ge=1,
        le=MAX_COUNT_SAMPLES,
        description="Draws over which several columns are averaged; one column is exact and takes one.",
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="null = drawn by the server.")


class Level(Reply):
    value: str | None
    probability: float


class BinReply(Reply):
    low: str | int | float
    high: str | int | float
    probability: float


class ColumnPrediction(Reply):
    """The law of one column given the prompt, of the decoder that reveals this column next.

    Of levels: `levels`, the likeliest first; null is a missing value. Of numbers and dates: `missing`, the probability
    of a missing value, and `bins`; and of what is not missing `quantiles`, and of numbers the mean.
    """

    name: str
    kind: str
    levels: list[Level] | None = None
    missing: float | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    quantiles: dict[str, str | int | float | None] | None = None
    bins: list[BinReply] | None = None


class PredictionOfPrompt(Reply):
    """`samples`: draws of all asked columns together, of the decoder that reveals them first."""

    prompt_index: int
    columns: list[ColumnPrediction]
    samples: list[dict[str, str | int | float | None]]


class PredictReply(Reply):
    """`seed` is null where nothing was drawn."""

    id: str
    model: str
    created: int
    seed: int | None
    predictions: list[PredictionOfPrompt]
    timings: ScoreTimings


class CountReply(Reply):
    """`probability`: the model's, that a row meets the condition; its standard error is 0 where it is exact, and null
    after a single draw. `rows`: those of training; `count`: that many times the probability."""

    id: str
    model: str
    created: int
    seed: int
    probability: float
    standard_error: float | None
    draws: int
    rows: int | None
    count: float | None
    count_standard_error: float | None
    timings: ScoreTimings
