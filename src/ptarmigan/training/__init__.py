"""A run from its first probe to its last snapshot."""
