"""The methods, and what trains and evaluates them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_modules.baseline import Baseline as Baseline
    from lightning_modules.break_a_scene import BreakAScene as BreakAScene
    from lightning_modules.maskattn import MaskAttn as MaskAttn
    from lightning_modules.mcgm import MCGM as MCGM
    from lightning_modules.separate_enhance import SeparateEnhance as SeparateEnhance

METHODS = {  # `method.name` in the config, which is also the module's -> class
    "baseline": "Baseline",
    "break_a_scene": "BreakAScene",
    "maskattn": "MaskAttn",
    "mcgm": "MCGM",
    "separate_enhance": "SeparateEnhance",
}
HOMES = {kind: module for module, kind in METHODS.items()}


def __getattr__(name: str) -> Any:
    # Imported when asked for: Lightning takes seconds to load, and not every module of this package needs it.
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
