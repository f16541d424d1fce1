"""A training run: the choice of settings, the loop, checkpoints and snapshots."""
