"""Ablations, one short module each, and the engine that runs them (``python -m sweeps`` lists
them); how a trial trains and what a report says does not belong here."""

from pathlib import Path

from conf.commands import check_command
from sweeps.api import results, run
from sweeps.sweep import Cell, Factor, Metric, Sweep

__all__ = ["Cell", "Factor", "Metric", "Sweep", "results", "run"]

check_command(__name__, Path(__file__).parent)
