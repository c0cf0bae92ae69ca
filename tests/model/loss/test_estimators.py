"""Every estimator against the exact oracle: value, gradient for the order, gradient for the denoiser, in one statistic.

Each arm is run on many independent batches at a fixed seed. The batch means form a vector (value, gradient for log w,
gradient for the denoiser along a few fixed directions) that Hotelling's T2 compares with the oracle's; and the
standard errors of both whole gradients must be at most 1 % of the gradients' norms, so that a pass means something.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.model.enumerable import World, random_world
from tests.model.pooled import chi_square_bound, hotelling, relative_error
from unveil.model.loss.baseline import RunningBaseline, leave_one_out
from unveil.model.loss.objective import Loss, eq8, order_form
from unveil.model.loss.prefixes import Prefixes, draw_prefixes
from unveil.model.oracle.exact import exact_nelbo, order_table, prefix_probabilities
from unveil.model.order.schedule import PolynomialSchedule

L, B = 4, 8192
DRAWN = random_world(L=L, seed=1, imperfection=4.0)
WORLD = World(x=DRAWN.x, p=DRAWN.p, logits=DRAWN.logits.clone().requires_grad_())
LOG_W = torch.tensor([1.0, -0.4, 0.3, -0.9], dtype=torch.float64, requires_grad=True)
UNIFORM = torch.zeros(L, dtype=torch.float64)

Step = Callable[[torch.Generator], Loss]


@dataclass(frozen=True)
class Moments:
    """A scalar and its gradients: `value` [1], `order` [L], `denoiser` [entries]; or a stack of them, one a batch."""

    value: Tensor
    order: Tensor
    denoiser: Tensor


def differentiate(value: Tensor) -> Moments:
    order, denoiser = torch.autograd.grad(value, [LOG_W, WORLD.logits], allow_unused=True)
    assert denoiser is not None
    order = torch.zeros(L, dtype=torch.float64) if order is None else order
    return Moments(value=value.detach()[None], order=order, denoiser=denoiser.flatten())


def run(step: Step, *, num_batches: int, num_skipped: int = 0) -> Moments:
    generator = torch.Generator().manual_seed(7)
    for _ in range(num_skipped):
        step(generator)
    batches = [differentiate(step(generator).total) for _ in range(num_batches)]
    return Moments(
        value=torch.stack([m.value for m in batches]),
        order=torch.stack([m.order for m in batches]),
        denoiser=torch.stack([m.denoiser for m in batches]),
    )


def directions(gradient: Tensor) -> Tensor:
    """[d, entries]: the oracle's own gradient, split by the number of revealed positions, and four random ones."""
    canvas = torch.arange(3**L)
    num_revealed = sum((canvas // 3**i % 3 > 0).long() for i in range(L))
    assert isinstance(num_revealed, Tensor)
    parts = [gradient.view(3**L, -1) * (num_revealed == k)[:, None] for k in range(L)]
    own = torch.stack([(part / part.norm()).flatten() for part in parts])
    other = torch.randn(4, gradient.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return torch.cat([own, other / other.norm(dim=1, keepdim=True)])


def assert_unbiased(estimates: Moments, truth: Moments) -> None:
    chosen = directions(truth.denoiser)
    pooled = torch.cat([estimates.value, estimates.order, estimates.denoiser @ chosen.T], dim=1)
    statistic, rank = hotelling(pooled, torch.cat([truth.value, truth.order, chosen @ truth.denoiser]))
    assert statistic < chi_square_bound(rank), f"T2 = {statistic:.1f} in {rank} dimensions"
    assert relative_error(estimates.denoiser, truth.denoiser) < 0.01
    if truth.order.norm() > 0:
        assert relative_error(estimates.order, truth.order) < 0.01


def no_prompt() -> Tensor:
    return torch.zeros(B, L, dtype=torch.bool)


def draw(generator: torch.Generator, **options: Tensor | int) -> tuple[Prefixes, Tensor, Tensor]:
    """Prefixes, cross-entropies and controls on freshly drawn sequences; no prompt unless `known` is given."""
    known = options.pop("known", no_prompt())
    prefixes = draw_prefixes(LOG_W, known=known, generator=generator, **options)  # type: ignore[arg-type]
    x = WORLD.draw(B, generator).repeat(len(prefixes.sigma) // B, 1)
    return prefixes, WORLD.cross_entropy(x, prefixes.hidden), CONTROLS.gather(1, x.T).T


def marginal_controls() -> Tensor:
    """-log p(x_i) of every id at every position under the world's marginals: [L, V]."""
    is_value = torch.nn.functional.one_hot(WORLD.x).double()  # [V**L, L, V]
    return -(WORLD.p[:, None, None] * is_value).sum(0).log()


CONTROLS = marginal_controls()


def with_running_baseline(**options: object) -> Step:
    """Read the baseline, differentiate, then update it."""
    learns = bool(options.pop("learn_order_from_prompted", False))
    has_control = bool(options.pop("has_control", False))
    running = RunningBaseline(L)

    def step(generator: torch.Generator) -> Loss:
        prefixes, ce, control = draw(generator, **options)  # type: ignore[arg-type]
        loss = order_form(
            ce,
            prefixes,
            log_w=LOG_W,
            baseline=running.read(prefixes),
            control=control if has_control else None,
            learn_order_from_prompted=learns,
        )
        running.update(*running.statistics(prefixes, loss.row_signals))
        return loss

    return step


def without_baseline(generator: torch.Generator) -> Loss:
    prefixes, ce, _ = draw(generator)
    return order_form(ce, prefixes, log_w=LOG_W)


def with_leave_one_out(generator: torch.Generator) -> Loss:
    prefixes, ce, _ = draw(generator, num_draws=2)
    baseline = leave_one_out(ce, prefixes, log_w=LOG_W, num_draws=2)
    return order_form(ce, prefixes, log_w=LOG_W, baseline=baseline)


def eq8_in_finite_gauge(generator: torch.Generator) -> Loss:
    schedule = PolynomialSchedule(LOG_W).finite_gauge()
    masks = schedule.draw_masks(B, generator=generator)
    return eq8(WORLD.cross_entropy(WORLD.draw(B, generator), masks.hidden), masks, schedule=schedule)


@pytest.mark.parametrize(
    ("make_step", "num_batches"),
    [
        pytest.param(lambda: without_baseline, 150, id="order form, no baseline"),
        pytest.param(with_running_baseline, 150, id="order form, running baseline"),
        pytest.param(lambda: with_running_baseline(has_control=True), 150, id="order form, control variate"),
        pytest.param(lambda: with_leave_one_out, 100, id="order form, leave-one-out"),
        pytest.param(lambda: eq8_in_finite_gauge, 900, id="eq. 8 in the finite gauge"),
    ],
)
def test_an_estimator_of_the_learned_law_has_the_oracles_value_and_gradients(
    make_step: Callable[[], Step], num_batches: int
) -> None:
    truth = differentiate(exact_nelbo(LOG_W, WORLD.mean_table()))
    assert_unbiased(run(make_step(), num_batches=num_batches, num_skipped=1), truth)


def test_spreading_trains_every_hidden_position_and_changes_neither_the_value_nor_the_order_s_gradient() -> None:
    spread = 0.4
    exact = differentiate(exact_nelbo(LOG_W, WORLD.mean_table()))
    law, even = order_table(LOG_W).exp(), order_table(UNIFORM).exp()
    chances = (prefix_probabilities(LOG_W)[:, None] * ((1 - spread) * law + spread * even)).detach()
    trained = differentiate((chances * WORLD.mean_table()).sum()).denoiser

    def step(generator: torch.Generator) -> Loss:
        prefixes, ce, control = draw(generator)
        return order_form(ce, prefixes, log_w=LOG_W, control=control, spread=spread)

    assert (trained - exact.denoiser).norm() > 0.05 * exact.denoiser.norm()  # or nothing would be shown
    assert_unbiased(run(step, num_batches=150), Moments(exact.value, exact.order, trained))


def test_uniform_rows_train_the_denoiser_under_uniform_orders_and_leave_the_order_to_the_others() -> None:
    uniform_rows = torch.arange(B) % 4 == 0
    table = WORLD.mean_table()
    truth = differentiate(0.75 * exact_nelbo(LOG_W, table) + 0.25 * exact_nelbo(UNIFORM, table))
    assert_unbiased(run(with_running_baseline(uniform_rows=uniform_rows), num_batches=200, num_skipped=1), truth)


def conditional_nelbo(log_w: Tensor, known: Tensor) -> Tensor:
    """The oracle with `known` [L] given: those positions come first beyond doubt and cost nothing."""
    first = torch.where(known, 1e4, 0.0)
    return exact_nelbo(log_w + first, WORLD.mean_table().masked_fill(known, 0.0))


@pytest.mark.parametrize("learns", [False, True])
def test_prompted_rows_train_the_denoiser_and_the_order_only_if_the_recipe_says_so(learns: bool) -> None:
    """Three rows in four have a prompt; their order runs over the rest with the same weights. Two prompts are of one
    size: with one of each, a baseline by size would hide a score taken over the known part too."""
    prompts = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 1]]).bool()
    known = prompts.repeat(B // 4, 1)
    taught = LOG_W if learns else LOG_W.detach()
    whole = 0.25 * exact_nelbo(LOG_W, WORLD.mean_table())
    prompted = sum(0.25 * conditional_nelbo(taught, prompt) for prompt in prompts[1:])
    step = with_running_baseline(known=known, learn_order_from_prompted=learns, has_control=True)
    assert_unbiased(run(step, num_batches=250, num_skipped=1), differentiate(whole + prompted))


@pytest.mark.parametrize("fixed", [False, True], ids=["uniform", "fixed order"])
def test_the_uniform_and_the_fixed_arm_need_no_path_of_their_own(fixed: bool) -> None:
    log_w = torch.tensor([-64.0, 64.0, 0.0, 128.0], dtype=torch.float64) if fixed else UNIFORM
    table = WORLD.mean_table()

    def step(generator: torch.Generator) -> Loss:
        prefixes = draw_prefixes(log_w, known=no_prompt(), generator=generator)
        ce = WORLD.cross_entropy(WORLD.draw(B, generator), prefixes.hidden)
        return order_form(ce, prefixes, log_w=log_w)

    assert_unbiased(run(step, num_batches=150), differentiate(exact_nelbo(log_w, table)))


def test_the_control_variate_halves_the_variance_of_value_and_order_gradient_at_least() -> None:
    """Where positions differ in what they cost in any order, that is: here one has 20 nats more than the others."""
    offset = torch.tensor([20.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    estimates: list[list[Moments]] = [[], []]
    for is_controlled in (False, True):
        generator = torch.Generator().manual_seed(11)
        for _ in range(40):
            prefixes, ce, control = draw(generator)
            given = control + offset if is_controlled else None
            loss = order_form(ce + offset, prefixes, log_w=LOG_W, control=given)
            estimates[is_controlled].append(differentiate(loss.total))
    for part in ("value", "order"):
        variances = [torch.stack([getattr(m, part) for m in runs]).var(0).sum() for runs in estimates]
        assert variances[1] < 0.5 * variances[0], part


def test_cutting_small_times_off_biases_eq8_downward() -> None:
    schedule = PolynomialSchedule(LOG_W.detach()).finite_gauge()
    truth = exact_nelbo(LOG_W, WORLD.mean_table()).detach()
    generator = torch.Generator().manual_seed(5)
    for min_t, is_biased in ((0.0, False), (0.5, True)):
        masks = schedule.draw_masks(200_000, generator=generator, min_t=min_t)
        ce = WORLD.cross_entropy(WORLD.draw(200_000, generator), masks.hidden).detach()
        values = eq8(ce, masks, schedule=schedule).row_nelbos
        z = float((values.mean() - truth) / (values.std() / len(values) ** 0.5))
        assert z < -20 if is_biased else abs(z) < 4


def test_the_statistic_sees_a_bias_of_five_percent() -> None:
    """The power of the proof: the same estimates against a slightly wrong gradient, or against a reversed order."""
    truth = differentiate(exact_nelbo(LOG_W, WORLD.mean_table()))
    reversed_law = differentiate(exact_nelbo(-LOG_W, WORLD.mean_table()))
    estimates = run(with_running_baseline(), num_batches=150, num_skipped=1)
    for wrong in (Moments(truth.value, 1.05 * truth.order, truth.denoiser), reversed_law):
        with pytest.raises(AssertionError, match="T2"):
            assert_unbiased(estimates, wrong)
