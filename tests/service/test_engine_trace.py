"""A replayed forward is the network's own, bit for bit, or it is not used."""

import pytest
import torch
from torch import Tensor

from model.denoiser import Prediction, Stages, Whole
from model.manifest import Architecture, OrderSpec
from model.networks import build_network, prepare
from model.tokenizers.base import Tokenizer
from service.engine_shapes import Inputs, random_inputs
from service.engine_trace import Traced
from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer


def _inputs(tokenizer: Tokenizer, rows: int, *, seed: int) -> Inputs:
    L, sizes = tokenizer.length, tuple(tokenizer.vocabulary_sizes)
    shortest = L if len(sizes) > 1 else 1
    return random_inputs(rows, L, shortest=shortest, vocabulary_sizes=sizes, seed=seed)


@pytest.mark.parametrize("kind", ["uniform", "global", "contextual"])
@pytest.mark.parametrize(
    "bias",
    [
        {},
        {"relative_bias": True},
        {"pair_bias": True},
        {"attends": "visible"},
        {"attends": "visible", "pair_bias": True},
    ],
    ids=["none", "relative", "pair", "visible", "visible, pair"],
)
@pytest.mark.parametrize("tokenizer", [table_tokenizer(), text_tokenizer()], ids=["table", "text"])
@torch.inference_mode()
def test_a_recorded_shape_gives_the_stages_own_bits_for_other_inputs(
    tokenizer: Tokenizer, kind: str, bias: dict[str, bool | str]
) -> None:
    stages = prepare(random_transformer(tokenizer, kind=kind, **bias))  # type: ignore[arg-type]
    traced = Traced(stages)
    assert traced.record_begin(*_inputs(tokenizer, 3, seed=1))
    states, positions = _states(stages, tokenizer, seed=1)
    assert traced.record_finish(states, positions)
    for seed in range(2, 6):
        inputs = _inputs(tokenizer, 3, seed=seed)
        for found, expected in zip(traced.begin(*inputs), stages.begin(*inputs), strict=True):
            assert torch.equal(found, expected)
        states, positions = _states(stages, tokenizer, seed=seed)
        assert torch.equal(traced.finish(states, positions), stages.finish(states, positions))


def _states(stages: Stages, tokenizer: Tokenizer, *, seed: int) -> tuple[Tensor, Tensor]:
    """Those of every position of two canvases, and where they stand."""
    states = stages.begin(*_inputs(tokenizer, 2, seed=seed)).states
    return states.flatten(0, 1), torch.arange(states.shape[1]).repeat(2)


@torch.inference_mode()
def test_a_shape_that_was_not_recorded_runs_as_it_is() -> None:
    tokenizer = table_tokenizer()
    stages = prepare(random_transformer(tokenizer))
    inputs = _inputs(tokenizer, 2, seed=1)
    assert torch.equal(Traced(stages).begin(*inputs).states, stages.begin(*inputs).states)


def test_grids_which_stop_when_they_are_certain_are_not_recorded() -> None:
    """Inputs that all stop at once would not show it."""
    architecture = Architecture(length=81, vocabulary_sizes=(9,), width=8, mlp_width=12, loops=24, trunk="planes")
    stages = prepare(build_network(architecture, OrderSpec(kind="uniform")))
    traced = Traced(stages)
    inputs = random_inputs(2, 81, shortest=81, vocabulary_sizes=(9,), seed=0)
    assert not traced.record_begin(*inputs)
    assert torch.equal(traced.begin(*inputs).states, stages.begin(*inputs).states)


def test_a_network_whose_path_depends_on_its_inputs_is_not_recorded() -> None:
    def branching(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        sign = 1.0 if int(lengths.min()) < tokens.shape[1] else -1.0
        logits = sign * tokens[..., None].double() + torch.arange(3)
        return Prediction(logits, logits[..., 0])

    inputs = random_inputs(2, 6, shortest=1, vocabulary_sizes=(3,), seed=3)
    assert int(inputs.lengths.min()) < 6
    traced = Traced(Whole(branching))
    assert not traced.record_begin(*inputs)
    assert torch.equal(traced.begin(*inputs).states, branching(*inputs).token_logits)


def test_a_network_that_fails_is_not_recorded_and_still_fails_when_asked() -> None:
    def broken(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        raise RuntimeError("no such kernel")

    traced = Traced(Whole(broken))
    inputs = random_inputs(2, 6, shortest=6, vocabulary_sizes=(3,), seed=3)
    assert not traced.record_begin(*inputs)
    with pytest.raises(RuntimeError, match="no such kernel"):
        traced.begin(*inputs)
