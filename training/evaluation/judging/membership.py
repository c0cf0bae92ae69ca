"""Whether a row's likelihood tells that the model was trained on it: membership inference, the attack that an exact
likelihood makes as strong as it can be without training other models.

The attacker says "trained on" where a row costs few nats. `attack` is the AUC of that, among equally many training rows
and held-out ones; 0.5: it knows nothing. `found` is the share of training rows that it names when one held-out row in a
hundred is named wrongly, 0.01 by chance (Carlini et al., 2022, arXiv 2112.03570).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FALSE_ALARMS = 0.01
Floats = NDArray[np.float64]


def membership(trained_on: Floats, held_out: Floats) -> dict[str, Any]:
    """Nats of rows [N] and [M] -> the attack's AUC with its standard error (DeLong), and what it finds."""
    below = np.searchsorted(np.sort(held_out), trained_on, side="left")
    up_to = np.searchsorted(np.sort(held_out), trained_on, side="right")
    wins = 1.0 - (below + up_to) / (2 * len(held_out))  # the share of held-out rows that cost more
    ordered = np.sort(trained_on)
    losses = (np.searchsorted(ordered, held_out, side="left") + np.searchsorted(ordered, held_out, side="right")) / (
        2 * len(trained_on)
    )
    variance = wins.var(ddof=1) / len(wins) + losses.var(ddof=1) / len(losses)
    threshold = np.quantile(held_out, FALSE_ALARMS)
    return {
        "attack": float(wins.mean()),
        "attack_standard_error": float(np.sqrt(variance)),
        "found": float((trained_on < threshold).mean()),
        "rows": [len(trained_on), len(held_out)],
    }
