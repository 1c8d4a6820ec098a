"""The parts of a training run: its folder, checkpoints, checks, metrics and report."""
