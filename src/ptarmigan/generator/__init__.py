"""Load a trained generator, sample from it, and export it as a folder."""
