"""Late queries beside the networks they could be: at equal CPU seconds, along their order, in others, and for prompts.

    python -m benchmarks late_queries [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--seconds S] [--rows N]
                                      [--problems NAME,...] [--smiles FILE] [--net NAME]...

Problems: `moses`, molecules, and `text`, the King James Version; recipes as bundled, whose width and number of layers
in all every network has, but no dropout. Networks: `late 1` to `late 3`, late queries with so many layers that ask
(the rest compute contents); `two streams`; `masked`, bidirectional, one prefix of an order a row; `causal`, which knows
left to right and nothing else, and `causal, AdamW`, the same without Muon. But for that and the causal ones' lack of
prompts and other orders all are trained alike (`benchmarks/orders/rivals/timed.py`): 15 % of the rows in uniform
orders, the others from left to right, 30 % behind a prompt. `causal, half` has half of the seconds.

Nats a test row, exact along each row's order: from left to right, in uniform orders; and of what a prompt hides, from
left to right: beginnings (the rest is hidden), ends (what is in front is), scattered holes, stretches. Ends absorb, and
none is offered before a known token. Test rows are evenly spaced over the split. Intervals are Student's over seeds,
95 %, and what the first network costs more is paired by seed. Results are kept in DIR and found again: remove DIR
after a change to the method.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unveil import training as training_package
from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.text.causal import CausalTransformer
from unveil.benchmarks.orders.rivals.timed import Training, train_for, turns
from unveil.benchmarks.orders.rivals.two_streams import TwoStreams
from unveil.commands.training import cache_folder
from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.training.config import load_recipe
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.evaluation.conditionals import end_barred
from unveil.training.run.warm_start import fresh_architecture

RECIPES = Path(training_package.__file__ or "").parent / "recipes"
PROBLEMS = ("moses", "text")
NETS = ("late 1", "late 2", "late 3", "two streams", "masked", "causal", "causal, half", "causal, AdamW")
KINDS = ("left to right", "uniform", "beginnings", "ends", "holes", "stretches")
SEED, _BATCH_ROWS = 20_511, 64
QUICK = ["model={width = 16, layers = 2, heads = 2, mlp_width = 32}", "optimizer={batch_size = 8}"]


def main() -> None:
    own = {"--net": {"action": "append", "choices": NETS, "help": "only this one; repeatable"}}
    given, problems = given_problems(__doc__, work="runs/late-queries", seeds=3, seconds=480.0, rows=512, more=own)
    overrides = {"moses": smiles_override(given.smiles), "text": list[str]()}
    tasks = [
        {
            "problem": problem,
            "arm": net,
            "seed": seed,
            "seconds": 0.5 if given.quick else given.seconds,
            "rows": 8 if given.quick else given.rows,
            "overrides": [*overrides[problem], *(QUICK if given.quick else [])],
        }
        for problem in problems
        for seed in range(given.seeds)
        for net in given.net or NETS
    ]
    report = summary(tasks, run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def given_problems(
    doc: str | None, *, work: str, seeds: int, seconds: float, rows: int, more: Mapping[str, Fields] | None = None
) -> tuple[Namespace, list[str]]:
    """The command line of a benchmark of such networks, and the problems that it names. `more`: options of its own."""
    parser = arguments(doc, work=work, seeds=seeds)
    for option, fields in (more or {}).items():
        parser.add_argument(option, **fields)
    parser.add_argument("--seconds", type=float, default=seconds, help="of CPU time, for each network")
    parser.add_argument("--rows", type=int, default=rows, help="rows to score, evenly spaced")
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--smiles", type=Path, help="a file of SMILES, one a line, instead of MOSES")
    given = parser.parse_args()
    problems = given.problems.split(",")
    if not set(problems) <= set(PROBLEMS):
        parser.error(f"--problems: must be of {', '.join(PROBLEMS)}")
    return given, problems


def smiles_override(path: Path | None) -> list[str]:
    """What a recipe of molecules takes for a file of one's own."""
    return [] if path is None else [f"data={{kind = 'smiles', path = {json.dumps(str(path))}}}"]


def measure(task: Fields) -> Fields:
    """One network of one seed."""
    torch.manual_seed(task["seed"])
    recipe = load_recipe(RECIPES / f"{task['problem']}.toml", overrides=task["overrides"])
    dataset = load_dataset(recipe.data, cache=cache_folder())
    architecture = fresh_architecture(recipe, dataset)
    net = build(task["arm"], architecture)
    is_causal, is_half = task["arm"].startswith("causal"), task["arm"].endswith("half")
    settings = Training(
        seconds=task["seconds"] / 2 if is_half else task["seconds"],
        batch_size=recipe.optimizer.batch_size,
        uniform=0.0 if is_causal else 0.15,
        prompted=0.0 if is_causal else 0.3,
        matrix_rate=0.0 if task["arm"].endswith("AdamW") else recipe.matrix_rate,
        learning_rate=recipe.optimizer.learning_rate,
        seed=task["seed"],
    )
    losses = masked_losses if task["arm"] == "masked" else in_turn_losses
    trained, num_steps = train_for(net, split_rows(dataset, "train", is_packed=True), losses, settings)
    rows = split_rows(dataset, "test", limit=task["rows"]).widened()
    kinds = KINDS[:1] if is_causal else KINDS
    return {
        "steps": num_steps,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "rows": len(rows),
        "nats": {kind: float(scored(trained, rows, kind).mean()) for kind in kinds},
    }


def build(name: str, architecture: Architecture) -> nn.Module:
    """A fresh network of the architecture's width and number of layers in all."""
    depth = architecture.layers + architecture.query_layers
    shape = architecture.model_dump() | {"layers": depth, "query_layers": 0, "dropout": 0.0}
    whole = Architecture(**shape)
    if name.startswith("late"):
        asking = int(name.removeprefix("late "))
        late = Architecture(**shape | {"layers": depth - asking, "query_layers": asking})
        return build_network(late, OrderSpec(kind="uniform"))
    if name == "two streams":
        return TwoStreams(whole)
    return build_network(whole, OrderSpec(kind="uniform")) if name == "masked" else CausalTransformer(whole)


def logits_in_turn(net: nn.Module, batch: Rows, asked: Tensor) -> Tensor:
    """Token logits [B, L, V] of every position as of just before its turn, `asked` [B, L]."""
    if isinstance(net, CausalTransformer):
        return net(batch.x)  # type: ignore[no-any-return]
    if isinstance(net, TwoStreams):
        return net.in_turn(batch.x, asked, batch.lengths)
    if net.architecture.query_layers:  # type: ignore[union-attr]
        return net.in_turn(batch.x, asked, batch.lengths)  # type: ignore[operator, no-any-return]
    logits = torch.zeros(*batch.x.shape, max(net.architecture.vocabulary_sizes))  # type: ignore[union-attr, arg-type]
    for turn in range(1, batch.x.shape[1] + 1):
        is_now = asked == turn
        if is_now.any():
            hidden = asked >= turn
            found = net(batch.x.masked_fill(hidden, 0), hidden, batch.lengths).token_logits
            logits[is_now] = found[is_now]
    return logits


def in_turn_losses(net: nn.Module, batch: Rows, asked: Tensor, _: torch.Generator) -> Tensor:
    """Nats of each row, all turns in one forward: [B]."""
    losses = cross_entropy(logits_in_turn(net, batch, asked), batch.x)
    return losses.masked_fill(~_is_paid(asked), 0.0).sum(-1)


def masked_losses(net: nn.Module, batch: Rows, asked: Tensor, generator: torch.Generator) -> Tensor:
    """Of one prefix of each row's order: half of the weight for what is next, half for all that is hidden."""
    order = asked.masked_fill(~_is_paid(asked), batch.x.shape[1] + 1)
    num_turns = _is_paid(asked).sum(-1, keepdim=True)
    step = (torch.rand((len(batch), 1), generator=generator) * num_turns).long()
    turn = order.sort(-1).values.gather(1, step)
    is_next, hidden = asked == turn, asked >= turn
    paid = hidden & _is_paid(asked)
    losses = cross_entropy(net(batch.x.masked_fill(hidden, 0), hidden, batch.lengths).token_logits, batch.x)
    even = losses.masked_fill(~paid, 0.0).sum(-1) / paid.sum(-1)
    return num_turns[:, 0] * (losses.masked_fill(~is_next, 0.0).sum(-1) + even) / 2


def _is_paid(asked: Tensor) -> Tensor:
    return (asked > 0) & (asked <= asked.shape[1])


@torch.inference_mode()
def scored(net: nn.Module, rows: Rows, kind: str) -> Tensor:
    """Nats of each row's hidden positions, as they are served: [N] float64."""
    found = []
    for number, (batch, _) in enumerate(rows.batches(size=_BATCH_ROWS)):
        generator = torch.Generator().manual_seed(SEED + number)
        known = prompts(batch, kind, generator)
        L = batch.x.shape[1]
        keys = torch.rand(batch.x.shape, generator=generator) if kind == "uniform" else torch.arange(L).expand_as(known)
        asked = turns(keys.double(), known, batch)
        logits = logits_in_turn(net, batch, asked)
        if batch.end_id is not None:
            logits[..., batch.end_id].masked_fill_(end_barred(batch.x, asked, batch.lengths, batch.end_id), -torch.inf)
        losses = cross_entropy(logits, batch.x).double()
        found.append(losses.masked_fill(~_is_paid(asked), 0.0).sum(-1))
    return torch.cat(found)


def prompts(batch: Rows, kind: str, generator: torch.Generator) -> Tensor:
    """What is known of each row, [B, L] bool."""
    B, L = batch.x.shape
    places, share = torch.arange(L), torch.rand((2, B, 1), generator=generator)
    length = batch.lengths if batch.end_id is None else (batch.x != batch.end_id).sum(-1)
    cut = (share[0] * length[:, None]).long()
    if kind == "beginnings":
        return places < cut
    if kind == "ends":
        return places >= cut
    if kind == "holes":
        return torch.rand((B, L), generator=generator) < 0.1 + 0.8 * share[0]
    if kind == "stretches":
        other = (share[1] * length[:, None]).long()
        return (places < torch.minimum(cut, other)) | (places >= torch.maximum(cut, other))
    return torch.zeros((B, L), dtype=torch.bool)


def summary(tasks: Sequence[Fields], results: Sequence[Fields]) -> Fields:
    """Means over seeds of every network, and what the first one costs more than it."""
    problems = list(dict.fromkeys(task["problem"] for task in tasks))
    every = list(dict.fromkeys(task["arm"] for task in tasks))

    def nats(problem: str, net: str, kind: str) -> list[float]:
        pairs = zip(tasks, results, strict=True)
        return [r["nats"][kind] for t, r in pairs if (t["problem"], t["arm"]) == (problem, net) and kind in r["nats"]]

    found: Fields = {}
    for problem in problems:
        nets: Fields = {}
        for net in every:
            own = [kind for kind in KINDS if nats(problem, net, kind)]
            late = {kind: nats(problem, every[0], kind) for kind in own}
            nets[net] = {
                "nats": {kind: interval(nats(problem, net, kind)) for kind in own},
                "first_minus": {
                    kind: interval([a - b for a, b in zip(late[kind], nats(problem, net, kind), strict=True)])
                    for kind in own
                    if late[kind]
                },
                "steps": [
                    r["steps"]
                    for t, r in zip(tasks, results, strict=True)
                    if (t["problem"], t["arm"]) == (problem, net)
                ],
                "parameters": next(
                    r["parameters"]
                    for t, r in zip(tasks, results, strict=True)
                    if (t["problem"], t["arm"]) == (problem, net)
                ),
            }
        found[problem] = nets
    return {"seconds": tasks[0]["seconds"], "rows": results[0]["rows"], "problems": found}


def as_text(report: Fields) -> str:
    """The same for a reader."""
    lines = [f"nats a test row after {report['seconds']:g} CPU seconds, {report['rows']} rows"]
    for problem, nets in report["problems"].items():
        for net, found in nets.items():
            lines.append(f"{problem}, {net}: {found['parameters']:,} parameters, {found['steps'][0]} steps")
            for kind, own in found["nats"].items():
                minus = None if net == next(iter(nets)) else found["first_minus"].get(kind)
                less = "" if minus is None else f"   {next(iter(nets))} minus: {with_interval(minus, '.3f')}"
                lines.append(f"  {kind:<16}{with_interval(own, '.3f'):>30}{less}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
