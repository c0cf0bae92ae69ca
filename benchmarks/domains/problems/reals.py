"""A made table of ten real-valued columns and a class: few latents, bent and stretched, and noise that follows them.

It stands for tables in which numbers rule, as physical measurements: heavy tails, columns that follow from others but
for noise, bounded and folded ones.
"""

import csv
from pathlib import Path

import numpy as np

ROWS, SEED = 19_000, 5
_LATENTS, _BENT, _COLUMNS = 6, 16, 10


def write_reals(path: Path, *, rows: int = ROWS) -> Path:
    """Draws the table into a CSV file, the same in each call."""
    g = np.random.default_rng(SEED)
    is_g = g.random(rows) < 0.65
    middle = np.where(is_g[:, None], 0.4, -0.5) * np.array([1, 0.5, 0, 0.3, 0, 1])
    z = g.normal(size=(rows, _LATENTS)) * np.where(is_g[:, None], 1, 0.8) + middle
    bend, shift = g.normal(size=(_LATENTS, _BENT)), g.normal(size=_BENT)
    mix = g.normal(size=(_BENT, _COLUMNS)) / 4
    x = np.tanh(z @ bend + shift) @ mix + 0.08 * np.exp(0.5 * z[:, [0]]) * g.normal(size=(rows, _COLUMNS))
    x[:, 0] = np.exp(2.5 + 1.2 * x[:, 0])
    x[:, 1] = x[:, 0] * np.exp(-1 + 0.6 * x[:, 1])
    x[:, 2] = np.log10(x[:, 0] * x[:, 1]) + 0.1 * g.normal(size=rows)
    x[:, 3] = 1 / (1 + np.exp(-3 * x[:, 3]))
    x[:, 4] = x[:, 3] * g.beta(5, 2, size=rows)
    x[:, 8] = np.degrees(np.arccos(np.clip(np.tanh(x[:, 8]), -1, 1))) / 2
    x[:, 9] = np.abs(100 + 150 * x[:, 9])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"c{i}" for i in range(_COLUMNS)), "class"])
        for row, own in zip(x.tolist(), is_g.tolist(), strict=True):
            writer.writerow([*(f"{v:.4f}" for v in row), "gh"[own]])
    return path
