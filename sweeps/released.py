"""Do the sound presets beat the released ones?

Run it: ``python -m sweeps.released``.

`released` does what the released code of the method does differently from its paper or by mistake
(conf/method/*_released.yaml). Which weights are trained, for how long and at which rate is the same
in both, so that this alone differs.
"""

from typing import Any

from sweeps.presets import (
    IMAGE_QUALITY,
    KEY_FINETUNING,
    MASK_IOU,
    MASK_TOKENS,
    MASKATTN,
    PUBLISHED_MASKATTN,
    PUBLISHED_MCGM,
    PUBLISHED_SEPARATE_ENHANCE,
    SUCCESS,
    SUCCESS_HELDOUT,
    declared,
    training_settings,
)
from sweeps.sweep import Factor, Sweep

METHODS: dict[str, dict[str, Any]] = {
    "maskattn": MASKATTN,
    "mcgm": MASK_TOKENS,
    "separate_enhance": KEY_FINETUNING,
}
# As in the sound preset
TRAINED = {
    "mcgm": {
        "method.weights.trainable": "attn2",
        "method.weights.text_encoder": False,
        "method.subjects.stock_words": False,
    }
}

SWEEP = Sweep(
    name="released",
    question="Do the sound presets beat the released ones?",
    origin=(
        "the released code of MaskAttn-SDXL (arXiv 2509.15357), MCGM (arXiv 2410.00483) "
        "and Separate-and-Enhance (arXiv 2312.06712)"
    ),
    factors=[
        Factor(
            "recipe",
            list(METHODS),
            label="Method",
            settings={name: training_settings(recipe) for name, recipe in METHODS.items()},
        ),
        Factor(
            "preset",
            ["sound", "released"],
            label="Preset",
            settings={"sound": {}, "released": {}},
        ),
    ],
    also=[
        (
            {"recipe": name, "preset": "released"},
            {"method": f"{name}_released", **TRAINED.get(name, {})},
        )
        for name in METHODS
    ],
    within="recipe",
    control={"preset": "sound"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY, MASK_IOU, *declared("gate_closed")],
    headline="success",
    published=[*PUBLISHED_MASKATTN, *PUBLISHED_MCGM, *PUBLISHED_SEPARATE_ENHANCE],
    preset={"evaluation.follow_masks": True, "evaluation.prompts": 32},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
