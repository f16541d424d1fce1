"""One training step: its random draws, the updates of D and G, and the moving average of G."""
