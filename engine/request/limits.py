"""What one request may ask for, and how long it may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Most of what a request may ask for. `queue_capacity` counts canvases, of all requests together; times are in
    seconds. The default time is that of a request which names none."""

    max_num_samples: int
    max_num_orders: int
    max_prompts: int
    queue_capacity: int
    default_timeout_seconds: float
    max_timeout_seconds: float
