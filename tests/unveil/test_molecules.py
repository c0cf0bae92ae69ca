"""Molecules from the command line: from a file to SMILES that hold their prompt, and one line for every mistake."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.molecules import MOLECULES
from unveil import cli

RECIPE = f"""
name = "textbook"
data = {{ kind = "smiles", path = "{MOLECULES}" }}
model = {{ width = 16, layers = 1, heads = 2, mlp_width = 32 }}
optimizer = {{ steps = 3, batch_size = 8 }}
run = {{ precision = "32-true", evaluate_rows = 4 }}
advanced.run = {{ accelerator = "cpu", validate_rows = 4 }}
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unveil", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, captured.out, captured.err

    return call


def test_the_whole_road_from_a_file_of_smiles_to_molecules(tmp_path: Path, run: Any) -> None:
    out = tmp_path / "textbook"
    (tmp_path / "recipe.toml").write_text(RECIPE)
    code, _, err = run("train", tmp_path / "recipe.toml", "--out", out)
    assert code == 0, err
    code, printed, err = run("generate", out, "c1ccc([MASK:3])cc1", "-n", "2", "--seed", "1", "--json")
    assert code == 0, err
    reply = json.loads(printed)
    assert reply["usage"] == {"prompt_tokens": 10, "generated_tokens": 6, "denoising_steps": 6}
    for sample in reply["samples"]:
        revealed = {reveal["position"]: reveal["value"] for reveal in sample["reveals"]}
        assert sorted(revealed) == [6, 7, 8]
        assert sample["output"] == sample["text"] == f"c1ccc({revealed[6]}{revealed[7]}{revealed[8]})cc1"
    code, printed, _ = run("evaluate", out, "--rows", "4")
    assert code == 0
    assert "RDKit" in printed
    code, _, err = run("generate", out, "CC[Se]C")
    assert (code, err.count("\n")) == (2, 1)
    assert 'the model does not know "[Se]" (character 3 of the prompt)' in err
    code, _, err = run("evaluate", out, "--table", MOLECULES)
    assert "this artifact was trained on smiles, not on a table of yours" in err
