"""Masked diffusion models that learn the order in which they decode: the library, and the command `unveil`.

`import unveil` is cheap: torch is imported when a model first computes.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unveil.api import Model, load
    from unveil.model.errors import UnveilError
    from unveil.tables.fitting import fit

__all__ = ["Model", "UnveilError", "fit", "load"]
_PLACES = {"UnveilError": "unveil.model.errors", "fit": "unveil.tables.fitting"}
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "unveil.api")), name)
