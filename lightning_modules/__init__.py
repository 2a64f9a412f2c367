"""Everything that trains, samples and measures with a model; plans, queues and reports do not
belong here."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.commands import check_command

if TYPE_CHECKING:
    from lightning_modules.methods.attention_guidance import AttentionGuidance as AttentionGuidance
    from lightning_modules.methods.break_a_scene import BreakAScene as BreakAScene
    from lightning_modules.methods.finetune import Finetune as Finetune
    from lightning_modules.methods.maskattn import MaskAttn as MaskAttn
    from lightning_modules.methods.mcgm import MCGM as MCGM
    from lightning_modules.methods.reward_finetune import RewardFinetune as RewardFinetune
    from lightning_modules.methods.separate_enhance import SeparateEnhance as SeparateEnhance
    from lightning_modules.methods.untouched import Untouched as Untouched

HOMES = {  # Class -> its file below ``methods``
    "AttentionGuidance": "attention_guidance",
    "BreakAScene": "break_a_scene",
    "Finetune": "finetune",
    "MaskAttn": "maskattn",
    "MCGM": "mcgm",
    "RewardFinetune": "reward_finetune",
    "SeparateEnhance": "separate_enhance",
    "Untouched": "untouched",
}
FORMER_NAMES = {"Baseline": "Untouched"}

check_command(__name__, Path(__file__).parent)


def __getattr__(name: str) -> Any:
    # Imported on first use: Lightning takes seconds to load, and not every module of this package
    # needs it.
    name = FORMER_NAMES.get(name, name)
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.methods.{HOMES[name]}"), name)
