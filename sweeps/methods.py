"""Which method wins, and at what cost?

Run it: ``python -m sweeps.methods``.

Each method with the recipe that its own sweeps use, on the same prompts and noise. MCGM knows
where things go, which no other method is: `mcgm without masks` is the same adapter without.
`gates + separation` has gates that learn from Separate-and-Enhance's losses. Nothing is trained for
guidance: Attend-and-Excite, InitNO, CONFORM, SynGen, and Separate-and-Enhance's L_En acting on
latents. `oracle gates` bound from above what gates can do; `denoising alone` (as many steps on the
same captions) and `permuted change` are controls, which a method has to beat. `reward finetune` and
`preference finetune` learn from the verdicts of a judge, which no method could ask elsewhere: they
bound from above what training can do. Another judge measures; the report says where the first one
alone was pleased.
"""

from typing import Any

from sweeps.presets import (
    COSTS,
    IMAGE_QUALITY,
    KEY_FINETUNING,
    MASK_IOU,
    MASK_SUPERVISED,
    MASK_TOKENS,
    PREFERENCE_FINETUNING,
    PUBLISHED_MASKATTN,
    PUBLISHED_MCGM,
    PUBLISHED_SEPARATE_ENHANCE,
    REWARD,
    REWARD_FINETUNING,
    SUCCESS,
    SUCCESS_HELDOUT,
    training_settings,
)
from sweeps.sweep import Factor, Sweep

RECIPES: dict[str, dict[str, Any]] = {
    "untouched backbone": {"method": "untouched"},
    "maskattn": MASK_SUPERVISED,
    "gates + separation": {**MASK_SUPERVISED, "method.gate.supervision": "separate_enhance"},
    "separate_enhance": KEY_FINETUNING,
    # The whole UNet, on images with masks: fewer and larger steps than the release's 24,000 of 5e-6
    "token_compose": {"method": "token_compose", "trainer.steps": 60, "trainer.lr": 1e-4},
    "break_a_scene": {**MASK_TOKENS, "method": "break_a_scene"},
    "mcgm": MASK_TOKENS,
    # What could be won: gates by a layout that fits the noise, which no training has to find
    "oracle gates": {**MASK_SUPERVISED, "method.gate.supervision": "oracle"},
    # What any training, or any change of that size, brings
    "denoising alone": {**KEY_FINETUNING, "method.separate.control": "denoising"},
    "permuted change": {**KEY_FINETUNING, "method.separate.control": "permuted"},
    # What could be won where a judge's verdicts are known in training
    "reward finetune": REWARD_FINETUNING,
    "preference finetune": PREFERENCE_FINETUNING,
    "attend_and_excite": {"method": "attend_and_excite"},
    "initno": {"method": "initno"},
    "conform": {"method": "conform"},
    "syngen": {"method": "syngen"},
    "enhance guidance": {
        "method": "attention_guidance",
        "method.attention_guidance.losses": {"enhance": 1.0},
    },
}
# How a method is evaluated is the same for all
SETTINGS = {name: training_settings(recipe) for name, recipe in RECIPES.items()}
SETTINGS["mcgm without masks"] = {**SETTINGS["mcgm"], "evaluation.masks": "none"}

SWEEP = Sweep(
    name="methods",
    question="Which method wins, and at what cost?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Table III: parameters, memory and latency; the "
        "combination was tried in none of the papers"
    ),
    factors=[Factor("recipe", list(SETTINGS), label="Method", settings=SETTINGS)],
    control={"recipe": "untouched backbone"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, REWARD, *IMAGE_QUALITY, MASK_IOU, *COSTS],
    headline="success",
    published=[*PUBLISHED_MASKATTN, *PUBLISHED_MCGM, *PUBLISHED_SEPARATE_ENHANCE],
    preset={
        "evaluation.follow_masks": True,
        "evaluation.costs": True,
        "evaluation.prompts": 32,
        "evaluation.metrics": ["judge_reward"],
    },
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
