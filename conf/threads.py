"""How the threads of a computation wait for one another."""

from __future__ import annotations

import os

__all__ = ["wait_passively"]


def wait_passively() -> None:
    """Makes threads that wait for others of their computation sleep instead of spin, in this
    process and those it starts, unless ``OMP_WAIT_POLICY`` is set.

    Spinning threads take the cores that the others need: a training step on two cores beside two
    busy processes took 21 s where it takes 4 s like this. Must be called before torch is loaded,
    since GNU OpenMP reads the variable once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
