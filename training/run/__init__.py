"""What a training run stands on: devices, checkpoints, log, warm start, monitoring."""
