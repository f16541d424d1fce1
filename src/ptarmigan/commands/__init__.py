"""The commands `score`, `compare` and `replay`."""
