"""Do the sound presets beat the released ones?

    python -m sweeps.released                                              # the embedded world, on two CPU cores
    python -m sweeps.released seeds=5                                      # two more seeds for the same cells
    python -m sweeps.released trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

`released` does what the released code of the method does differently from its paper or by mistake
(conf/method/*_released.yaml). Which weights are trained, for how long and at which rate is the same
in both, so that this alone differs.
"""

from typing import Any

from sweeps.maskattn_shared import PAPER
from sweeps.maskattn_shared import PUBLISHED as MASKATTN
from sweeps.masks_shared import MASK_IOU, OTHERS, STEERED, SUCCESS, SUCCESS_HELDOUT
from sweeps.masks_shared import PUBLISHED as MCGM
from sweeps.sepen_shared import PUBLISHED as SEPARATE_ENHANCE
from sweeps.sepen_shared import SEPEN
from sweeps.sweep import Factor, Metric, Sweep

METHODS: dict[str, dict[str, Any]] = {"maskattn": PAPER, "mcgm": STEERED, "separate_enhance": SEPEN}
# As in the sound preset
TRAINED = {"mcgm": {"method.weights.trainable": "attn2", "method.weights.text_encoder": False}}


def _released(name: str) -> dict[str, Any]:
    return {"method": f"{name}_released", **TRAINED.get(name, {})}


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
            settings={
                name: {
                    key: value
                    for key, value in recipe.items()
                    if key.startswith(("method", "trainer"))
                }
                for name, recipe in METHODS.items()
            },
        ),
        Factor(
            "preset", ["sound", "released"], label="Preset", settings={"sound": {}, "released": {}}
        ),
    ],
    also=[({"recipe": name, "preset": "released"}, _released(name)) for name in METHODS],
    within="recipe",
    baseline={"preset": "sound"},
    metrics=[
        SUCCESS,
        SUCCESS_HELDOUT,
        *OTHERS,
        MASK_IOU,
        Metric("gate_closed", "Gates closed", "none", "share"),
    ],
    headline="success",
    published=[*MASKATTN, *MCGM, *SEPARATE_ENHANCE],
    preset={"evaluation.follow_masks": True, "evaluation.prompts": 32},
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
