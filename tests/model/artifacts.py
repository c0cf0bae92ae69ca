"""Small artifacts with random weights, for tests that need a real folder."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from unveil.model.artifact.folder import save_artifact
from unveil.model.artifact.manifest import Manifest
from unveil.model.network.architecture import Architecture, OrderKind, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.text import TextTokenizer


def table_tokenizer() -> TableTokenizer:
    """Three numeric and two categorical columns, one with missing values."""
    generator = np.random.default_rng(0)
    n = 400
    columns: dict[str, Any] = {
        "age": generator.integers(17, 91, n).astype(np.float64),
        "workclass": np.array([None if i % 9 == 0 else f"class {i % 4}" for i in range(n)], dtype=object),
        "income": np.array([">50K" if i % 3 else "<=50K" for i in range(n)], dtype=object),
        "hours": generator.integers(1, 6, n).astype(np.float64),
        "rate": np.round(generator.normal(size=n), 2),
    }
    return TableTokenizer.fit(columns, max_bins=12)


def text_tokenizer(*, length: int = 40, default_length: int = 8) -> TextTokenizer:
    return TextTokenizer.train_characters(["abcdefghij klmno\npq."], length=length, default_length=default_length)


def random_transformer(
    tokenizer: Tokenizer,
    *,
    kind: OrderKind = "global",
    seed: int = 0,
    layers: int = 2,
    query_layers: int = 0,
    **bias: bool,
) -> Network:
    """Weights large enough that tokens and orders really differ from place to place."""
    torch.manual_seed(seed)
    sizes = tuple(tokenizer.vocabulary_sizes)
    architecture = Architecture(
        length=tokenizer.length,
        vocabulary_sizes=sizes,
        width=32,
        layers=layers,
        heads=2,
        mlp_width=64,
        query_layers=query_layers,
        **bias,
    )
    network = build_network(architecture, OrderSpec(kind=kind)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def write_artifact(
    folder: Path, *, tokenizer: Tokenizer | None = None, kind: OrderKind = "global", seed: int = 0, **fields: Any
) -> Manifest:
    tokenizer = tokenizer or table_tokenizer()
    return save_artifact(
        folder,
        denoiser=random_transformer(tokenizer, kind=kind, seed=seed, **fields),
        tokenizer=tokenizer,
        training={"steps": 0},
        metrics={"nelbo": {"learned": {"mean": 1.5, "standard_error": 0.1}}},
        card="# A test model\n",
    )
