"""Ablations: one short module each, and the engine that plans and runs them. `python -m sweeps` lists them."""

from sweeps.sweep import Cell, Factor, Metric, Sweep

__all__ = ["Cell", "Factor", "Metric", "Sweep"]
