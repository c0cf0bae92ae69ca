"""The denoiser: what it may and may not see, its vocabularies, its heads, and the sides of its attention."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from unveil.model.denoiser import Prediction, cross_entropy
from unveil.model.network.architecture import Architecture, OrderKind, OrderSpec
from unveil.model.network.attention import PairBias, RelativeBias, attend
from unveil.model.network.build import build_network
from unveil.model.network.transformer import Transformer

SIZES = (3, 1, 5, 2)
BIASES: list[dict[str, Any]] = [{}, {"relative_bias": True}, {"pair_bias": True}]


def _network(
    sizes: tuple[int, ...] = SIZES,
    *,
    length: int = 4,
    kind: OrderKind = "contextual",
    fixed: tuple[int, ...] | None = None,
    relative_bias: bool = False,
    pair_bias: bool = False,
) -> Transformer:
    torch.manual_seed(1)
    shape = {"length": length, "vocabulary_sizes": sizes, "width": 32, "layers": 2, "heads": 4, "mlp_width": 64}
    architecture = Architecture.model_validate({**shape, "relative_bias": relative_bias, "pair_bias": pair_bias})
    network = Transformer(architecture, OrderSpec(kind=kind, fixed=fixed)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def _ask(network: Transformer, tokens: list[list[int]], hidden: list[list[bool]]) -> Prediction:
    shape = torch.tensor(tokens)
    lengths = torch.full((len(shape),), shape.shape[1])
    result: Prediction = network(shape, torch.tensor(hidden), lengths)
    return result


def test_a_hidden_position_says_nothing_of_its_token() -> None:
    network = _network()
    hidden = [[True, False, True, False]]
    a, b = (_ask(network, tokens, hidden) for tokens in ([[0, 0, 0, 1]], [[2, 0, 4, 1]]))
    assert torch.equal(a.token_logits, b.token_logits)
    assert torch.equal(a.order_logits, b.order_logits)


def test_every_visible_position_reaches_every_other_in_both_directions() -> None:
    network = _network((5,))
    base = _ask(network, [[0, 1, 2, 3]], [[False] * 4]).token_logits
    for changed in range(4):
        tokens = [0, 1, 2, 3]
        tokens[changed] = 4
        logits = _ask(network, [tokens], [[False] * 4]).token_logits
        assert (logits != base).any(-1).all(), f"a change at {changed} did not reach everywhere"


def test_logits_are_minus_infinity_exactly_where_a_position_has_no_such_id() -> None:
    logits = _ask(_network(), [[0] * 4], [[True] * 4]).token_logits
    assert logits.shape == (1, 4, 5)
    for position, size in enumerate(SIZES):
        assert torch.isfinite(logits[0, position, :size]).all()
        assert torch.isneginf(logits[0, position, size:]).all()
    assert torch.isfinite(cross_entropy(logits, torch.tensor([[2, 0, 4, 1]]))).all()


def test_equal_ids_of_different_columns_are_different_things() -> None:
    network = _network((5, 5, 5), length=3)
    assert not torch.allclose(network.embedding(torch.tensor([0])), network.embedding(torch.tensor([5])))
    a = _ask(network, [[1, 0, 0]], [[False, True, True]]).token_logits[0, 2]
    b = _ask(network, [[0, 1, 0]], [[True, False, True]]).token_logits[0, 2]
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("bias", BIASES)
def test_the_content_and_amount_of_padding_do_not_matter(bias: dict[str, Any]) -> None:
    network = _network((7,), length=12, **bias)
    tokens, hidden = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[False, True, False, True, False]])
    length = torch.tensor([5])
    short = network(tokens, hidden, length)
    for fill in (0, 6):
        for pad_hidden in (False, True):
            wide_tokens = F.pad(tokens, (0, 7), value=fill)
            wide_hidden = F.pad(hidden, (0, 7), value=pad_hidden)
            wide = network(wide_tokens, wide_hidden, length)
            torch.testing.assert_close(wide.token_logits[:, :5], short.token_logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(wide.order_logits[:, :5], short.order_logits, rtol=1e-5, atol=1e-5)


def test_both_sides_of_attention_are_the_textbooks() -> None:
    """float32 takes the fused kernel, float64 and bf16 the written-out form."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.zeros(2, 1, 1, 9, dtype=torch.float64).masked_fill(torch.arange(9) >= 6, -torch.inf)
    for given in (None, bias):
        scores = torch.einsum("bhie,bhje->bhij", q, k) / 8**0.5
        expected = torch.einsum("bhij,bhje->bhie", (scores if given is None else scores + given).softmax(-1), v)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)):
            cast = [x.to(dtype) for x in (q, k, v)]
            found = attend(cast[0], cast[1], cast[2], None if given is None else given.to(dtype))
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_relative_bias_knows_distances_alone_and_heads_begin_at_neighbours() -> None:
    bias = RelativeBias(6, 5)
    found = bias(4)
    assert found.shape == (5, 4, 4)
    assert torch.equal(found[:, 1:, 1:], found[:, :-1, :-1])
    assert [int(found[head, 2].argmax()) - 2 for head in range(4)] == [-1, 1, -2, 1], "two to the right is off the end"
    assert int(bias(6)[3, 2].argmax()) == 4
    assert torch.equal(found[4], torch.zeros(4, 4))
    assert torch.equal(bias(6)[:, :4, :4], found), "a shorter canvas reads the same biases"


def test_a_pair_bias_has_a_weight_for_every_pair_and_decides_who_is_read() -> None:
    bias = PairBias(6, 2)
    assert torch.equal(bias(6)[:, :4, :4], bias(4)), "a shorter canvas reads the same biases"
    network = _network((5,), pair_bias=True)
    biases = [module for module in network.modules() if isinstance(module, PairBias)]
    assert len(biases) == 2, "one a block"
    for each in biases:
        with torch.no_grad():
            each.weight[:, :3, 3] = -1e6  # nobody else reads the last place
    a, b = (_ask(network, [[0, 1, 2, last]], [[False] * 4]).token_logits for last in (0, 4))
    assert torch.equal(a[0, :3], b[0, :3])
    assert not torch.equal(a[0, 3], b[0, 3])


def test_a_network_with_a_relative_bias_tells_left_from_right_without_its_positions() -> None:
    plain, relative = (_network((5,), relative_bias=has) for has in (False, True))
    for network, is_told in ((plain, False), (relative, True)):
        torch.nn.init.zeros_(network.position)
        hidden = [[False, True, False, True]]
        a, b = (_ask(network, tokens, hidden).token_logits[0, 1] for tokens in ([[1, 0, 2, 0]], [[2, 0, 1, 0]]))
        assert torch.allclose(a, b, atol=1e-4) != is_told


@pytest.mark.parametrize("kind", ["uniform", "global", "contextual"])
def test_only_a_contextual_order_depends_on_what_is_revealed(kind: OrderKind) -> None:
    network = _network(kind=kind)
    a = _ask(network, [[0, 0, 0, 0]], [[False, True, True, True]]).order_logits
    b = _ask(network, [[2, 0, 0, 0]], [[False, True, True, True]]).order_logits
    assert torch.equal(a, b) == (kind != "contextual")
    assert torch.equal(a, torch.zeros_like(a)) == (kind == "uniform")


def test_a_global_order_is_in_the_gauge_of_mean_zero() -> None:
    network = _network(kind="global")
    torch.nn.init.constant_(network.order_head.log_w, 3.0)
    assert torch.equal(_ask(network, [[0] * 4], [[True] * 4]).order_logits, torch.zeros(1, 4))


def test_a_fixed_order_is_what_it_lists() -> None:
    network = _network(kind="fixed", fixed=(2, 0, 3, 1))
    assert network.order_head.global_log_w().argsort(descending=True).tolist() == [2, 0, 3, 1]
    assert not any("log_w" in name for name, _ in network.named_parameters())
    with pytest.raises(ValueError, match="fixed order of 2 positions for a model of 4"):
        _network(kind="fixed", fixed=(1, 0))


def test_gradients_go_back_through_so_many_loops_and_every_loop_says_what_it_did() -> None:
    architecture = Architecture(length=6, vocabulary_sizes=(5,), width=16, layers=1, heads=2, mlp_width=32, num_loops=4)
    torch.manual_seed(0)
    network = Transformer(architecture, OrderSpec(kind="uniform"))
    x, lengths = torch.randint(5, (3, 6)), torch.tensor([6, 4, 2])
    hidden = torch.ones(3, 6, dtype=torch.bool)
    plain, cut = (network.depths(x, hidden, lengths, backward_loops=num_loops) for num_loops in (None, 2))
    torch.testing.assert_close(plain.prediction.token_logits, network(x, hidden, lengths).token_logits)
    said, wanted = ([*depths.earlier, depths.prediction.token_logits] for depths in (cut, plain))
    for ours, theirs in zip(said, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    reached = [torch.autograd.grad(logits.sum(), network.mask, allow_unused=True, retain_graph=True) for logits in said]
    assert [gradient is not None for (gradient,) in reached] == [True, True, False, False]


@pytest.mark.parametrize("bias", BIASES)
def test_every_parameter_gets_a_gradient_from_both_heads(bias: dict[str, Any]) -> None:
    network = _network(**bias)
    prediction = _ask(network, [[0, 0, 3, 1], [1, 0, 2, 0]], [[True, False, True, False], [False, True, False, True]])
    finite = prediction.token_logits.masked_fill(torch.isinf(prediction.token_logits), 0.0)
    (finite.square().sum() + prediction.order_logits.square().sum()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_an_architecture_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        Architecture(length=4, vocabulary_sizes=(5,), width=30, heads=4)
    with pytest.raises(ValueError, match="one positive size, or one for each position"):
        Architecture(length=4, vocabulary_sizes=(5, 6))
    with pytest.raises(ValueError, match="relative_bias is only valid with trunk attention"):
        Architecture(length=81, vocabulary_sizes=(9,), trunk="planes", relative_bias=True)
    with pytest.raises(ValueError, match="pair_bias is only valid with trunk attention"):
        Architecture(length=81, vocabulary_sizes=(9,), trunk="planes", pair_bias=True)
    with pytest.raises(ValueError, match="give one of them"):
        Architecture(length=4, vocabulary_sizes=(5,), relative_bias=True, pair_bias=True)


def test_a_network_that_reads_ranks_has_no_loops_and_no_head_over_all_positions() -> None:
    shape: dict[str, Any] = {"length": 4, "vocabulary_sizes": (3,), "width": 8, "heads": 2}
    for other in ({"num_loops": 2}, {"trunk": "planes", "length": 81, "vocabulary_sizes": (9,)}):
        with pytest.raises(ValueError, match="query_layers is only valid with"):
            Architecture(**{**shape, **other}, query_layers=1)
    with pytest.raises(ValueError, match="head cost_to_go is not valid with query_layers"):
        build_network(Architecture(**shape, query_layers=1), OrderSpec(kind="contextual", head="cost_to_go"))
    for num in (0, 1, 2):
        for head in ("trunk", "next_cost"):
            made = build_network(Architecture(**shape, query_layers=num), OrderSpec(kind="contextual", head=head))
            assert made.reads_ranks == (num > 0)
