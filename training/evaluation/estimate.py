"""A mean over rows with its standard error."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean over rows and its standard error, which is not a number where there is one row."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        values = values.double()
        error = values.std() / len(values) ** 0.5 if len(values) > 1 else torch.tensor(float("nan"))
        return cls(float(values.mean()), float(error))

    def __str__(self) -> str:
        if math.isnan(self.standard_error):
            return f"{self.mean:.4f}, of one row"
        return f"{self.mean:.4f} ± {self.standard_error:.4f}"
