"""Engine, HTTP, training: both sides in one run."""
