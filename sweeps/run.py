"""The former place of ``sweeps.command.main``, for sweeps that import it from here."""

from sweeps.command import main

__all__ = ["main"]
