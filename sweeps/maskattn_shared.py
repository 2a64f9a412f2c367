"""The former place of parts of ``sweeps.presets``, for sweeps that import them from here."""

from sweeps.presets import DETAILS, HEADLINES
from sweeps.presets import MASK_SUPERVISED as TAUGHT
from sweeps.presets import MASKATTN as PAPER

__all__ = ["DETAILS", "HEADLINES", "PAPER", "TAUGHT"]
