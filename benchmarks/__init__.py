"""Measurements of bitcc itself, run by hand: ``python -m benchmarks.<name> --help``."""
