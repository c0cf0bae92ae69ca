"""The evaluation against the exact oracle on a world small enough to enumerate."""

import pytest
import torch

from tests.model.contextual import TableDenoiser, random_denoiser
from unveil.model.oracle.exact import exact_nelbo, order_nelbo
from unveil.model.order.plackett_luce import deterministic_order
from unveil.training.evaluation.likelihood import Estimate, Rows, imputation_accuracy, known_sets, log_likelihood, nelbo

LOG_W = torch.tensor([0.5, -1.0, 1.2])


def _rows(denoiser: TableDenoiser, *, copies: int) -> Rows:
    x = denoiser.world.x.repeat(copies, 1)
    return Rows(x, torch.full((len(x),), x.shape[1]))


def test_the_nelbo_estimate_is_the_oracles_for_every_row() -> None:
    denoiser = random_denoiser(seed=1)
    copies = 3000
    values = nelbo(denoiser, _rows(denoiser, copies=copies), LOG_W, seed=0).view(copies, -1)
    expected = exact_nelbo(LOG_W.double(), denoiser.world.tables())
    z = (values.mean(0) - expected) / (values.std(0) / copies**0.5)
    assert float(z.square().sum()) < len(expected) + 6 * (2 * len(expected)) ** 0.5
    reversed_law = exact_nelbo(-LOG_W.double(), denoiser.world.tables())
    assert float((expected - reversed_law).abs().max()) > 0.05  # so the statistic above tells the directions apart


def test_the_log_likelihood_of_an_order_is_exact() -> None:
    denoiser = random_denoiser(seed=2)
    order = deterministic_order(LOG_W)
    values = log_likelihood(denoiser, _rows(denoiser, copies=1), order.tolist())
    torch.testing.assert_close(values, -order_nelbo(denoiser.world.tables(), order))


def test_what_is_known_is_conditioned_on_and_not_paid_for() -> None:
    denoiser = random_denoiser(seed=3)
    rows = _rows(denoiser, copies=1)
    known = torch.tensor([True, False, True]).expand(len(rows), 3)
    values = nelbo(denoiser, rows, LOG_W, seed=0, known=known)
    expected = denoiser.world.cross_entropy(rows.x, ~known)[:, 1]
    torch.testing.assert_close(values, expected)


def test_two_laws_share_their_random_numbers() -> None:
    denoiser = random_denoiser(seed=4)
    rows = _rows(denoiser, copies=200)
    near = nelbo(denoiser, rows, LOG_W + 0.01 * torch.tensor([1.0, 0.0, -1.0]), seed=0)
    paired = Estimate.of(near - nelbo(denoiser, rows, LOG_W, seed=0))
    apart = Estimate.of(near - nelbo(denoiser, rows, LOG_W, seed=1))
    assert paired.standard_error < 0.5 * apart.standard_error


def test_imputation_takes_the_likeliest_id() -> None:
    denoiser = random_denoiser(seed=5)
    rows = _rows(denoiser, copies=1)
    accuracy = imputation_accuracy(denoiser, rows)
    hits = []
    for position in range(3):
        hidden = torch.zeros_like(rows.x, dtype=torch.bool)
        hidden[:, position] = True
        logits = denoiser(rows.x, hidden, rows.lengths).token_logits[:, position]
        hits.append(float((logits.argmax(-1) == rows.x[:, position]).double().mean()))
    assert accuracy.tolist() == pytest.approx(hits)


def test_shorter_rows_pay_only_for_their_own_positions() -> None:
    denoiser = random_denoiser(seed=6)
    x = denoiser.world.x[:4]

    class Padded:
        """The last position is padding: the world shows it as a visible zero."""

        def __call__(self, tokens: torch.Tensor, hidden: torch.Tensor, lengths: torch.Tensor):  # type: ignore[no-untyped-def]
            assert not hidden[:, 2].any()
            return denoiser(tokens, hidden, lengths)

    rows = Rows(x, torch.full((4,), 2))
    assert torch.isfinite(nelbo(Padded(), rows, LOG_W, seed=0)).all()
    assert torch.isfinite(log_likelihood(Padded(), rows, [2, 0, 1])).all()
    assert not known_sets(rows, seed=0)[:, 2].any()
