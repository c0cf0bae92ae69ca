"""`unveil evaluate --judge`: judges' figures, each with what it means; as a page; and whether they are good enough."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unveil.commands.output import UsageError, print_json
from unveil.commands.progress import stderr
from unveil.commands.training import cache_folder, trained_on
from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.errors import UnveilError
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.judging.figures import FIGURES, Judged, Limit, generated_value, limit_of
from unveil.training.evaluation.judging.judge import Say, judge
from unveil.training.evaluation.judging.page import html_page


class Wishes(NamedTuple):
    """The options of `unveil evaluate` for judges, as given."""

    target: str | None = None
    html: Path | None = None
    fail_below: Sequence[str] = ()
    fail_above: Sequence[str] = ()
    seed: int = 0

    @property
    def limits(self) -> list[Limit]:
        """Raises UsageError."""
        try:
            below = [limit_of(text, is_most=False) for text in self.fail_below]
            return below + [limit_of(text, is_most=True) for text in self.fail_above]
        except UnveilError as error:
            raise UsageError(str(error)) from None


def run(folder: Path, *, rows: int | None, table: Path | None, wishes: Wishes, as_json: bool) -> None:
    """Judges a table's artifact and prints what is said of it. Raises UsageError for options that are wrong, and
    UnveilError where a figure is beyond its limit, when all has been printed and written."""
    limits = wishes.limits
    artifact = load_artifact(folder)
    judged, dataset = judged_artifact(folder, artifact, rows=rows, table=table, wishes=wishes, say=_say)
    if wishes.html is not None:
        write_page(wishes.html, judged, artifact, dataset, name=folder.resolve().name)
        stderr.print(f"wrote {wishes.html}", soft_wrap=True)
    if as_json:
        print_json(judged)
    else:
        print("\n".join(as_lines(judged)))
    broken = [line for limit in limits if (line := limit.broken_by(judged)) is not None]
    if broken:
        raise UnveilError("; ".join(broken))


def judged_artifact(
    folder: Path, artifact: Artifact, *, rows: int | None, table: Path | None, wishes: Wishes, say: Say
) -> tuple[dict[str, Any], Dataset]:
    """What judges say, and the data that the artifact was trained on. Raises UsageError, UnveilError."""
    if wishes.html is not None and wishes.html.suffix not in (".html", ".htm"):
        raise UsageError(f"--html {wishes.html}: must be a file name that ends in .html")
    if wishes.html is not None and not wishes.html.parent.is_dir():  # before some minutes of work, not after them
        raise UsageError(f"--html {wishes.html}: its folder does not exist")
    config, dataset = trained_on(folder, artifact, table)
    judged = judge(
        artifact.denoiser,
        dataset,
        config,
        cache=cache_folder(),
        target=wishes.target,
        limit=rows,
        seed=wishes.seed,
        threads=torch.get_num_threads(),
        say=say,
    )
    return judged, dataset


def write_page(path: Path, judged: Judged, artifact: Artifact, dataset: Dataset, *, name: str) -> None:
    """The figures as HTML."""
    path.write_text(html_page(judged, name=name, order=_order(artifact, dataset)), encoding="utf-8")


def _say(text: str) -> None:
    stderr.print(text, soft_wrap=True)


def as_lines(judged: Judged) -> list[str]:
    """For people: each figure with its verdict, and what it means below."""
    lines = [f"{judged['rows']:,} generated rows against as many training rows, seed {judged['seed']}", ""]
    for figure in FIGURES.values():
        value, found = generated_value(judged, figure.name), judged.get(figure.name)
        if value is None:
            lines += [f"{figure.title}: not known"]
            continue
        real = f" (test rows {found['test_rows']:.3f})" if isinstance(found, dict) else ""
        lines += [f"{figure.title}: {value:.3f}{real}, {figure.words(value)}", f"  {figure.meaning}"]
    learned = judged["learned"]
    if "measure" in learned:
        own, real = learned["generated"], learned["training_rows"]
        told = f"{learned['measure']} {own:.4f} from generated rows, {real:.4f} from real ones"
        lines += ["", f"{judged['target']} of test rows, predicted by XGBoost: {told}"]
    worst = sorted((c for c in judged["columns"] if c["shape"] is not None), key=lambda c: float(c["shape"]))[:3]
    lines += ["least alike: " + ", ".join(f"{column['name']} {column['shape']:.3f}" for column in worst)]
    return lines


def _order(artifact: Artifact, dataset: Dataset) -> list[str] | None:
    if artifact.denoiser.order.kind != "global":
        return None
    return [str(dataset.names[i]) for i in Law(artifact.denoiser).order()]
