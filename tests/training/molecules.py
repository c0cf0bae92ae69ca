"""Two hundred textbook molecules, and a recipe that trains on them in a second or two."""

from pathlib import Path
from typing import Any

from unveil.training.config import Recipe, build_recipe
from unveil.training.data.config import SmilesData
from unveil.training.data.dataset import Dataset
from unveil.training.data.molecules.molecules import load_smiles

MOLECULES = Path(__file__).parent / "data" / "molecules" / "molecules.smi"


def textbook() -> list[str]:
    return MOLECULES.read_text().split()


def molecules_dataset() -> Dataset:
    return load_smiles(SmilesData(path=MOLECULES))


def molecules_recipe(*overrides: str) -> Recipe:
    fields: dict[str, Any] = {
        "name": "textbook",
        "data": {"kind": "smiles", "path": str(MOLECULES)},
        "model": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32},
        "optimizer": {"steps": 6, "batch_size": 16},
        "run": {"precision": "32-true", "threads": 1, "evaluate_rows": 8},
        "advanced": {
            "optimizer": {"warmup_steps": 2},
            "run": {
                "accelerator": "cpu",
                "log_every": 1,
                "validate_every": 6,
                "validate_rows": 8,
                "checkpoint_every": 3,
            },
        },
    }
    return build_recipe(fields, overrides=overrides, source="textbook")
