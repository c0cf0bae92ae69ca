"""Asking each canvas once changes nothing."""

import torch
from torch import Tensor

from unveil.benchmarks.orders.problems.enumeration import token_table
from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.exact import subset_table


def test_the_table_is_the_plain_one_of_every_row_and_subset() -> None:
    torch.manual_seed(0)
    sizes = (2, 4, 1, 3)
    architecture = Architecture(length=4, vocabulary_sizes=sizes, width=8, layers=1, heads=1, mlp_width=8)
    denoiser = Transformer(architecture, OrderSpec(kind="uniform")).eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.stack([torch.randint(size, (30,)) for size in sizes], dim=1)
    num_asked = []
    denoiser.register_forward_hook(lambda _, arguments, __: num_asked.append(len(arguments[0])))

    def plain(rows: Tensor, hidden: Tensor) -> Tensor:
        lengths = torch.full((len(rows),), 4)
        return cross_entropy(denoiser(rows, hidden, lengths).token_logits, rows)

    table = token_table(denoiser, x)
    assert sum(num_asked) <= 3 * 5 * 2 * 4  # each level, or hidden
    with torch.no_grad():
        torch.testing.assert_close(table, subset_table(plain, x), rtol=1e-5, atol=1e-6)
