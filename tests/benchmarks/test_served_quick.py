"""The served benchmark: what it compares and how it is shown; the data of the bundled models are not fetched here."""

from pathlib import Path

import pytest
import torch

from tests.model.ordered import ranked_network
from unveil.benchmarks.serving import served
from unveil.engine.runner import Runner
from unveil.model.along.serving import along
from unveil.model.network.late import LateQueries
from unveil.training.data.rows import Rows
from unveil.training.evaluation.comparison_orders import Law

X = torch.tensor([[1, 2, 0, 0], [2, 2, 1, 0], [0, 0, 0, 0], [1, 1, 2, 2]])
ROWS = Rows(X, torch.full((4,), 4), end_id=0)


def _runner(end_id: int | None) -> Runner:
    network = ranked_network()
    assert isinstance(network, LateQueries)
    denoiser = along(network, end_id=end_id, max_rows=4)
    return Runner(denoiser, weights_version="", device=torch.device("cpu"))


def test_what_is_served_is_the_greedy_order_of_the_network_ends_included() -> None:
    expected = Law(ranked_network()).greedy(ranked_network(), ROWS)
    torch.testing.assert_close(served.served_nats(_runner(0), ROWS), expected, rtol=0, atol=1e-4)
    without = served.served_nats(_runner(None), ROWS)
    assert float((without - expected).abs().max()) > 0.01


def test_models_that_are_not_bundled_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["served", "--models", "moses,nobody"])
    with pytest.raises(SystemExit):
        served.main()
    assert "takes some of adult, moses, sudoku, text, not moses,nobody" in capsys.readouterr().err


def test_a_report_is_shown_with_its_differences() -> None:
    one = {"mean": 1.5, "standard_error": 0.25}
    found = {"rows": 2, "served": one, "trained": one, "largest_difference": 2e-5}
    bits = {"bits": 1.25, "standard_error": 0.5}
    found |= {"test": {"rows": 3, "cpu_seconds": 2.0, "bits_per_character": bits}}
    assert served.as_text({"text": found}).splitlines() == [
        "text: 2 rows, served 1.500 ± 0.250 nats, trained 1.500 ± 0.250, largest difference 2.0e-05",
        "  test split: 3 canvases in 2.0 CPU seconds, 1.250 ± 0.500 bits a character",
    ]


def test_the_bundled_models_are_measured() -> None:
    assert sorted(served.ROWS) == sorted(path.name for path in Path(served.FOLDER).iterdir() if path.is_dir())
