"""Which attention objective is worth it, acting on weights or on latents?

Run it: ``python -m sweeps.objectives``.

The same losses on the maps of a prompt's objects train the key projections of the cross-attention
(``method=finetune``) or move the latents while an image is drawn (``method=attention_guidance``).
`random direction` moves latents as far as `enhance` does, and says what moving alone brings.
"""

from typing import Any

from sweeps.presets import (
    COSTS,
    IMAGE_QUALITY,
    KEY_FINETUNING,
    PUBLISHED_SEPARATE_ENHANCE,
    SUCCESS,
    SUCCESS_HELDOUT,
    training_settings,
)
from sweeps.sweep import Factor, Sweep

LOSSES: dict[str, dict[str, float]] = {
    "enhance": {"enhance": 1.0},
    "separate": {"separate": 1.0},
    "enhance + separate": {"enhance": 1.0, "separate": 1.0},
    "attend_and_excite": {"attend_and_excite": 1.0},
    "iou": {"iou": 1.0},
    "conform": {"conform": 1.0},
    "syngen": {"syngen": 1.0},
}
RANDOM = "random direction"
TRAINING = {
    **{k: v for k, v in training_settings(KEY_FINETUNING).items() if k.startswith("trainer")},
    "method": "finetune",
    "method.finetune.distillation_weight": 1.0,
}
ACTS_ON: dict[str, dict[str, Any]] = {
    "latents": {"method": "attention_guidance"},
    "weights": TRAINING,
}
SECTIONS = {"latents": "method.attention_guidance", "weights": "method.finetune"}

SWEEP = Sweep(
    name="objectives",
    question="Which attention objective is worth it, acting on weights or on latents?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712) trains, Attend-and-Excite (2301.13826), CONFORM "
        "(2312.06059) and SynGen (2306.08877) guide; no table has one objective in both places"
    ),
    factors=[
        Factor(
            "objective",
            [*LOSSES, RANDOM],
            label="Objective",
            settings=dict.fromkeys([*LOSSES, RANDOM], {}),
        ),
        Factor("acts_on", list(ACTS_ON), label="Acts on", settings=ACTS_ON),
    ],
    control={"objective": "enhance", "acts_on": "latents"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY, *COSTS],
    headline="success",
    published=PUBLISHED_SEPARATE_ENHANCE,
    preset={"evaluation.costs": True, "evaluation.prompts": 32},
    without=[{"objective": RANDOM, "acts_on": "weights"}],
    also=[
        *(
            ({"objective": name, "acts_on": where}, {f"{section}.losses": losses})
            for name, losses in LOSSES.items()
            for where, section in SECTIONS.items()
        ),
        (
            {"objective": RANDOM},
            {
                "method.attention_guidance.losses": LOSSES["enhance"],
                "method.attention_guidance.direction": "random",
            },
        ),
    ],
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
