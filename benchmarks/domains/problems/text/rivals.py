"""The usual models of text on a dataset's own canvases: a causal transformer and n-gram models."""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.text.causal import CausalSettings, causal_nats, train_causal
from unveil.benchmarks.domains.problems.text.judge import Judge, stretches
from unveil.benchmarks.domains.problems.text.ngram import Ids, tuned
from unveil.training.config import Recipe
from unveil.training.data.config import KjvData
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.run.warm_start import fresh_architecture

CAUSAL, CHARACTERS, TOKENS = "causal transformer", "n-gram of characters", "n-gram of tokens"
TUNING_ROWS = 64  # validation canvases that settle the causal transformer's settings
TUNING_GRID = tuple(product((3e-3, 1e-2), (8, 16, 32)))  # learning rates and batch sizes
TUNING_SHARE = 0.1  # of the seconds, for each of these


class Rival(NamedTuple):
    """`nats` of each row, [N] float64, and how the model was trained or tuned."""

    nats: Tensor
    about: Fields


def causal_rival(recipe: Recipe, dataset: Dataset, rows: Rows, *, seconds: float) -> tuple[Rival, Tensor]:
    """A causal transformer of a recipe's size, trained for `seconds` of CPU time, and its nats of each token, [N, L].

    It has as many layers as the recipe's network with those of its queries. Learning rate and batch size are the best
    of TUNING_GRID on validation canvases, each tried for a tenth of the seconds, which are not counted.
    """
    architecture = fresh_architecture(recipe, dataset)
    depth = architecture.layers + architecture.query_layers
    architecture = architecture.model_copy(update={"layers": depth, "query_layers": 0})
    canvases = split_rows(dataset, "train", is_packed=True).x
    validation = split_rows(dataset, "validation", limit=TUNING_ROWS).x

    def settings(share: float, rate: float, batch_size: int) -> CausalSettings:
        return CausalSettings(seconds=share * seconds, learning_rate=rate, batch_size=batch_size, seed=recipe.seed)

    trials = {}
    for rate, batch_size in TUNING_GRID:
        net, _ = train_causal(architecture, canvases, settings(TUNING_SHARE, rate, batch_size))
        trials[rate, batch_size] = float(causal_nats(net, validation).sum(1).mean())
    best_rate, best_size = min(trials, key=trials.__getitem__)
    net, num_steps = train_causal(architecture, canvases, settings(1.0, best_rate, best_size))
    by_token = causal_nats(net, rows.x)
    about = {
        "cpu_seconds": seconds,
        "steps": num_steps,
        "row_forwards": num_steps * best_size,
        "learning_rate": best_rate,
        "batch_size": best_size,
        "tuning_nats": {f"rate {rate}, batch {size}": nats for (rate, size), nats in trials.items()},
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }
    return Rival(by_token.sum(1), about), by_token


def n_gram_rivals(
    dataset: Dataset, rows: Rows, judge: Judge, *, data: KjvData, token_orders: Sequence[int]
) -> dict[str, Rival]:
    """Those of characters, which the judge has, and of tokens."""
    (vocabulary,) = dataset.tokenizer.vocabulary_sizes
    train, validation = training_text(dataset, data), list(dataset.validation)
    of_tokens = tuned(train, validation, vocabulary=vocabulary, orders=token_orders)
    nats = {
        CHARACTERS: judge.nats(as_texts(dataset, rows.x.tolist())),
        TOKENS: of_tokens.nats([row.numpy() for row in rows.x]),
    }
    models = {CHARACTERS: judge.n_gram, TOKENS: of_tokens}
    return {
        label: Rival(
            torch.from_numpy(nats[label]), {"chosen": model.name, "validation_nats_a_symbol": dict(model.trials)}
        )
        for label, model in models.items()
    }


def make_judge(dataset: Dataset, *, data: KjvData, orders: Sequence[int]) -> Judge:
    """Of the characters of a dataset's training and validation text."""
    train = as_texts(dataset, [text.tolist() for text in training_text(dataset, data)])
    return Judge(train, as_texts(dataset, dataset.validation.tolist()), orders=orders)


def training_text(dataset: Dataset, data: KjvData) -> list[Ids]:
    """Token ids of all the training text that canvases hold, each part once."""
    return stretches(dataset.train, stride=data.stride or data.length)


def as_texts(dataset: Dataset, rows: Sequence[Sequence[int]]) -> list[str]:
    """The characters of rows of token ids."""
    (V,) = dataset.tokenizer.vocabulary_sizes
    tokens = [dataset.tokenizer.token(0, i) for i in range(V)]
    return ["".join(tokens[i] for i in row) for row in rows]


def num_characters(dataset: Dataset, x: Tensor) -> Tensor:
    """How many characters each token is: ids [N, L] -> [N, L] float64."""
    (V,) = dataset.tokenizer.vocabulary_sizes
    return torch.tensor([len(dataset.tokenizer.token(0, i)) for i in range(V)], dtype=torch.float64)[x]


def bits_per_character(nats: Tensor, lengths: Tensor) -> Fields:
    """Bits of all rows over characters of all rows, from nats and characters a row, [N] each, with the standard error
    of that ratio (the delta method)."""
    bits = nats / math.log(2)
    ratio = bits.sum() / lengths.sum()
    error = (bits - ratio * lengths).std() / len(bits) ** 0.5 / lengths.mean()
    return {"bits": float(ratio), "standard_error": float(error)}
