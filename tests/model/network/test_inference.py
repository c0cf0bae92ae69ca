"""What is served is the network: the same function in fewer operations, and in two stages."""

import pytest
import torch

from unveil.model.denoiser import Barring
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import random_inputs
from unveil.model.network.inference import Prepared
from unveil.model.network.transformer import Transformer


def _network(*, sizes: tuple[int, ...], width: int = 32, **fields: object) -> Transformer:
    torch.manual_seed(0)
    length = len(sizes) if len(sizes) > 1 else 9
    bias = "relative_bias" if len(sizes) == 1 else "pair_bias"
    shape = {
        bias: True,
        "length": length,
        "vocabulary_sizes": sizes,
        "width": width,
        "layers": 2,
        "heads": 2,
        "mlp_width": 48,
    }
    order = OrderSpec(**{"kind": "global", **fields})
    network = Transformer(Architecture(**shape), order).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3 * (32 / width) ** 0.5)
    return network


WALKED = [{"kind": "contextual", "head": head} for head in ("next_cost", "cost_to_go")]
ORDERS = [{"kind": "global"}, {"kind": "contextual"}, *WALKED]


@pytest.mark.parametrize("order", ORDERS, ids=["global", "contextual", "next cost", "cost to go"])
@pytest.mark.parametrize("sizes", [(11,), (3, 5, 2, 7), (3000, 5, 2000, 7)], ids=["text", "table", "many ids"])
@pytest.mark.parametrize("width", [32, 256], ids=["narrow", "wide"])
@torch.inference_mode()
def test_both_stages_give_what_the_network_gives(sizes: tuple[int, ...], order: dict[str, str], width: int) -> None:
    network = _network(sizes=sizes, width=width, **order)
    L = network.architecture.length
    inputs = random_inputs(5, L, shortest=L if len(sizes) > 1 else 3, vocabulary_sizes=sizes, seed=2)
    expected = network(*inputs)
    stages = prepare(network)
    assert isinstance(stages, Prepared)
    begun = stages.begin(*inputs)
    inside = torch.arange(L) < inputs.lengths[:, None]
    assert torch.allclose(begun.order_logits[inside], expected.order_logits[inside], rtol=1e-4, atol=1e-4)
    rows, positions = inside.nonzero(as_tuple=True)
    logits = stages.finish(begun.states[rows, positions], positions)
    V = max(sizes)
    assert torch.allclose(logits[:, :V], expected.token_logits[rows, positions], rtol=1e-4, atol=1e-4)
    assert bool((logits[:, V:] == -torch.inf).all())


@torch.inference_mode()
def test_what_is_barred_is_never_offered_and_all_else_is_as_it_was() -> None:
    network = _network(sizes=(3, 5, 2, 7))
    inputs = random_inputs(6, 4, shortest=4, vocabulary_sizes=(3, 5, 2, 7), seed=2)
    stages = prepare(network)
    states = stages.begin(*inputs).states.flatten(0, 1)
    positions = torch.arange(4).repeat(6)
    free = stages.finish(states, positions)
    found = Barring(stages, {1: 4, 3: 0}).bar(free, positions)
    assert bool((found[positions == 1, 4] == -torch.inf).all())
    assert bool((found[positions == 3, 0] == -torch.inf).all())
    same = found == free
    same[positions == 1, 4] = same[positions == 3, 0] = True
    assert bool(same.all())
