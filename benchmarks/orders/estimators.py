"""Which estimator teaches an order best? Eq. 8 and the order form on a real, frozen denoiser whose every loss is known.

    python -m benchmarks estimators [--quick] [--seeds N] [--json] [--plot FILE] [--work DIR] [--jobs N]

Two problems (`benchmarks/orders/problems/frozen_problem.py`): nine positions of latents and observations, and eight
columns of Adult, each with a small net trained under uniform orders, another one for each seed. Its losses at every
subset of every row are computed once and looked up from then on, so the NELBO of any law, its gradient and the best
order V* are exact.

- **Variance**, at three laws on the way from uniform orders to the best one: bias and spread of each arm's value and of
  its gradient for log w (mean zero over positions), a batch of 256 forwards at a time. An arm that draws each row K
  times takes a K-th of the rows.
- **Tails**: the sample variance of a single draw's value as more are drawn. Where it keeps growing it is infinite.
- **Learning**: log w alone by Adam, from uniform orders, at two rates that all arms share; forwards until the exact
  NELBO of the law is half, 80 % and 90 % of the way from uniform orders to V* (the median over all seeds, one that
  does not get there counted as the largest), and how many get there within 179,200 forwards.

Arms are small functions (`benchmarks/orders/problems/frozen_arms.py`). The paper's own takes t from (0.001, 1) and w as
it is; all others fix the gauge. "Control" is the control variate of `model.loss.objective`; running baselines of eq. 8
have a cell for each stretch of t, as those of the order form for each prefix length. `critic` is
`model/loss/critic.py`: its gradient is no unbiased estimate, but that of a fit to all losses seen so far, so its
figures under a law come after as many forwards there as others get to fill their baselines. Nets were chosen on seed
100.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all
from unveil.benchmarks.orders.problems.frozen_arms import ARMS, BETAS, CHUNK, CRITIC_RATE, FORWARDS, SINGLE_DRAWS, Maker
from unveil.benchmarks.orders.problems.frozen_problem import Frozen, frozen, settings
from unveil.benchmarks.orders.problems.frozen_report import as_text, picture
from unveil.model.errors import UnveilError
from unveil.model.oracle.exact import exact_nelbo
from unveil.model.order.plackett_luce import fix_gauge, order_entropy

RATES = (0.1, 0.03)
LAWS = {"uniform": 0.0, "spread": 1.5, "nearly decided": 6.0}  # log w from +s to -s along the best order
LEVELS = (0.5, 0.8, 0.9)
PROBLEMS = ("latents", "adult")


@dataclass(frozen=True)
class Scale:
    """How many batches; the quick one takes every path, and its figures mean nothing."""

    batches: int = 150
    filling: int = 30  # batches before, for baselines to fill
    steps: int = 700
    every: int = 10  # steps from one exact NELBO to the next
    draws: tuple[int, ...] = (1_000, 10_000, 100_000, 300_000)
    repeats: int = 3


FULL, QUICK = Scale(), Scale(batches=5, filling=2, steps=10, every=5, draws=(100, 1_000), repeats=2)

FINITE_GAUGE = "eq. 8, finite gauge"


def main() -> None:
    parser = arguments(__doc__, work="runs/estimators", seeds=5)
    parser.add_argument("--plot", type=Path, help="where to put a picture (PNG)")
    given = parser.parse_args()
    tasks = [
        {"problem": problem, "arm": arm, "seed": seed, "quick": given.quick, "frozen": str(given.work / "frozen")}
        for problem in PROBLEMS
        for seed in range(given.seeds)
        for arm in ("tails", *ARMS)
        if arm != "tails" or seed == 0
    ]
    depends_on = hashlib.sha256(json.dumps(_dependencies()).encode()).hexdigest()[:12]
    try:
        results = run_all(
            measure, [{**task, "settings": depends_on} for task in tasks], folder=given.work, jobs=given.jobs
        )
    except UnveilError as error:
        raise SystemExit(f"error: {error}") from None
    report = summary(results)
    if given.plot is not None:
        given.plot.write_bytes(picture(report))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """One arm on one problem, or the tails of single draws."""
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])  # a critic's first weights
    scale = QUICK if task["quick"] else FULL
    problem = frozen(task["problem"], seed=task["seed"], work=Path(task["frozen"]), quick=task["quick"])
    found: Fields = {name: task[name] for name in ("problem", "arm", "seed")}
    found |= {"uniform": problem.uniform, "best": problem.best[0], "rows": len(problem.ce)}
    if task["arm"] == "tails":
        return found | {"tails": tails(problem, scale)}
    maker = ARMS[task["arm"]]
    laws = {name: law_statistics(problem, maker, log_w, scale) for name, log_w in _laws(problem).items()}
    learned = {str(rate): learning(problem, maker, scale, seed=task["seed"], rate=rate) for rate in RATES}
    return found | {"laws": laws, "learning": learned}


def law_statistics(problem: Frozen, maker: Maker, log_w: Tensor, scale: Scale) -> Fields:
    """Bias and spread of an arm's value and gradient under one law, a batch at a time, against the exact ones."""
    estimator = maker(problem, torch.Generator().manual_seed(1))
    law = log_w.clone().requires_grad_()
    truth = exact_nelbo(law, problem.mean)
    (exact,) = torch.autograd.grad(truth, law)
    values, gradients = [], []
    for number in range(scale.filling + scale.batches):
        loss = estimator(law)
        (gradient,) = torch.autograd.grad(loss.total, law)
        if number >= scale.filling:
            values.append(loss.row_nelbos.mean())
            gradients.append(fix_gauge(gradient))
    value, gradient, n = torch.stack(values), torch.stack(gradients), scale.batches
    variance = float(gradient.var(0).sum())
    return {
        "order_entropy": float(order_entropy(log_w)),
        "nelbo": float(truth),
        "bias": float(value.mean() - truth),
        "bias_standard_error": float(value.std() / n**0.5),
        "standard_deviation": float(value.std()),
        "gradient_norm": float(exact.norm()),
        "gradient_variance": variance,
        "gradient_bias": float((gradient.mean(0) - exact).norm()),
        "gradient_bias_by_chance": (variance / n) ** 0.5,
        "gradient_squared_error": float((gradient - exact).square().sum(-1).mean()),
    }


def learning(problem: Frozen, maker: Maker, scale: Scale, *, seed: int, rate: float) -> Fields:
    """Adam on log w alone: the share of the headroom closed, exactly, every few steps; forwards until each level."""
    estimator = maker(problem, torch.Generator().manual_seed(1000 + seed))
    log_w = torch.zeros(problem.length, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_w], lr=rate, betas=BETAS)
    curve = []
    for step in range(1, scale.steps + 1):
        (log_w.grad,) = torch.autograd.grad(estimator(log_w).total, log_w)
        optimizer.step()
        if step % scale.every == 0:
            curve.append(problem.share_closed(float(exact_nelbo(log_w.detach(), problem.mean))))
    reached = {}
    for level in LEVELS:
        first = next((k for k, share in enumerate(curve) if share >= level), None)
        reached[str(level)] = None if first is None else (first + 1) * scale.every * FORWARDS
    return {"curve": curve, "forwards": reached, "closed_at_end": curve[-1], "log_w": log_w.tolist()}


@torch.no_grad()
def tails(problem: Frozen, scale: Scale) -> Fields:
    """Sample variance of a single draw's value after so many draws, in nats squared: of some repeats the median, and
    the spread from the smallest to the largest."""
    return {
        name: {form: _growth(maker, problem, log_w, scale) for form, maker in SINGLE_DRAWS.items()}
        for name, log_w in _laws(problem).items()
    }


def _growth(maker: Maker, problem: Frozen, log_w: Tensor, scale: Scale) -> list[Fields]:
    repeats = []
    for repeat in range(scale.repeats):
        estimator = maker(problem, torch.Generator().manual_seed(repeat))
        pieces = [estimator(log_w).row_nelbos for _ in range(-(-max(scale.draws) // CHUNK))]
        values = torch.cat(pieces)
        values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(repeat))]
        repeats.append(torch.stack([values[:n].var() for n in scale.draws]))
    found = torch.stack(repeats)  # [repeats, draws]
    middle, low, high = found.median(0).values.tolist(), found.amin(0).tolist(), found.amax(0).tolist()
    return [
        {"draws": n, "median": m, "smallest": a, "largest": b}
        for n, m, a, b in zip(scale.draws, middle, low, high, strict=True)
    ]


def summary(results: Sequence[Fields]) -> Fields:
    """Every problem's arms over seeds."""
    return {
        "problems": {name: _problem_summary([r for r in results if r["problem"] == name]) for name in PROBLEMS},
        "settings": _dependencies(),
        "forwards_a_point": FULL.every * FORWARDS,
        "torch": torch.__version__,
    }


def _problem_summary(results: Sequence[Fields]) -> Fields:
    tail = next(r for r in results if r["arm"] == "tails")
    runs = {arm: [r for r in results if r["arm"] == arm] for arm in ARMS}
    seeds = runs[FINITE_GAUGE]
    return {
        "rows": tail["rows"],
        "headroom": [r["uniform"] - r["best"] for r in seeds],
        "uniform": [r["uniform"] for r in seeds],
        "best": [r["best"] for r in seeds],
        "tails": tail["tails"],
        "laws": {law: {arm: _law_summary(runs[arm], seeds, law) for arm in ARMS} for law in LAWS},
        "learning": {rate: {arm: _learning_summary(runs[arm], rate) for arm in ARMS} for rate in map(str, RATES)},
    }


def _law_summary(runs: Sequence[Fields], gauge: Sequence[Fields], law: str) -> Fields:
    """Means over seeds; the variance also as a share of the finite gauge's, seed by seed."""
    found = [r["laws"][law] for r in runs]
    shares = [a["gradient_variance"] / b["laws"][law]["gradient_variance"] for a, b in zip(found, gauge, strict=True)]
    means = {name: sum(f[name] for f in found) / len(found) for name in found[0]}
    means["bias_standard_error"] = sum(f["bias_standard_error"] ** 2 for f in found) ** 0.5 / len(found)
    return means | {"variance_share": interval(shares), "variance_share_max": max(shares)}


def _learning_summary(runs: Sequence[Fields], rate: str) -> Fields:
    found = [r["learning"][rate] for r in runs]
    levels = {level: _level_summary([f["forwards"][level] for f in found]) for level in map(str, LEVELS)}
    curve = [round(share, 4) for share in torch.tensor([f["curve"] for f in found]).mean(0).tolist()]
    closed = [f["closed_at_end"] for f in found]
    return {"levels": levels, "closed_at_end": interval(closed), "closed_at_end_min": min(closed), "curve": curve}


def _level_summary(each: Sequence[int | None]) -> Fields:
    """Forwards of each seed until a level, None where it was not reached: their median counts those as the largest."""
    reached = [forwards for forwards in each if forwards is not None]
    middle = sorted(forwards or math.inf for forwards in each)[len(each) // 2]
    return {
        "each": list(each),
        "failed": len(each) - len(reached),
        "median": None if middle == math.inf else middle,
        "forwards": interval(reached) if reached else None,  # of the seeds that got there
    }


def _laws(problem: Frozen) -> dict[str, Tensor]:
    """log w [L] of each law: the further from uniform, the likelier the best order."""
    laws = {}
    for name, spread in LAWS.items():
        falling = torch.linspace(spread, -spread, problem.length, dtype=torch.float64)
        laws[name] = torch.zeros_like(falling).index_copy(0, torch.tensor(problem.best[1]), falling)
    return laws


def _dependencies() -> Fields:
    """What every figure depends on besides problem, arm and seed."""
    return {
        "forwards_a_batch": FORWARDS,
        "learning_rates": RATES,
        "critic_learning_rate": CRITIC_RATE,
        "laws": LAWS,
        "scale": asdict(FULL),
        "problems": settings(),
    }


if __name__ == "__main__":
    main()
