"""Environment variables that numerical libraries read once, when torch is first imported.

To be called by whoever starts the process, before anything imports torch. What the user has set stays.
"""

import os
from collections.abc import MutableMapping

VARIABLES = {
    # Idle OpenMP threads sleep. Spinning, two threads with one busy neighbour are forty times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    # MKL rounds alike wherever an operand lies in memory. Else a row's logits may depend on its place in the batch,
    # and such models have to be stepped row by row.
    "MKL_CBWR": "AUTO",
}


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what is not set."""
    for name, value in VARIABLES.items():
        environment.setdefault(name, value)
