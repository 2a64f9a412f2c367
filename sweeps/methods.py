"""Which method wins, and at what cost?

    python -m sweeps.methods                                              # the embedded world, on two CPU cores
    python -m sweeps.methods seeds=5                                      # two more seeds for the same cells
    python -m sweeps.methods trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

Each method with the recipe that its own sweeps use, on the same prompts and noise. MCGM is told
where things shall be, which no other method is: `mcgm without masks` is the same adapter without.
`gates + separation` has gates that learn from Separate-and-Enhance's losses.
"""

from typing import Any

from sweeps.maskattn_shared import PUBLISHED as MASKATTN
from sweeps.maskattn_shared import TAUGHT
from sweeps.masks_shared import MASK_IOU, OTHERS, STEERED, SUCCESS, SUCCESS_HELDOUT
from sweeps.masks_shared import PUBLISHED as MCGM
from sweeps.sepen_shared import PUBLISHED as SEPARATE_ENHANCE
from sweeps.sepen_shared import SEPEN
from sweeps.sweep import Factor, Metric, Sweep

TRAINED = ("method", "trainer")  # of a method's own sweeps; how it is evaluated is the same for all
RECIPES: dict[str, dict[str, Any]] = {
    "untouched backbone": {"method": "untouched"},
    "maskattn": TAUGHT,
    "gates + separation": TAUGHT | {"method.gate.supervision": "separate_enhance"},
    "separate_enhance": SEPEN,
    "break_a_scene": STEERED | {"method": "break_a_scene"},
    "mcgm": STEERED,
    "mcgm without masks": STEERED | {"evaluation.masks": "none"},
}

SWEEP = Sweep(
    name="methods",
    question="Which method wins, and at what cost?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Table III: parameters, memory and latency; the "
        "combination was tried in none of the papers"
    ),
    factors=[
        Factor(
            "recipe",
            list(RECIPES),
            label="Method",
            settings={
                name: {
                    key: value
                    for key, value in recipe.items()
                    if key.startswith(TRAINED) or key == "evaluation.masks"
                }
                for name, recipe in RECIPES.items()
            },
        )
    ],
    baseline={"recipe": "untouched backbone"},
    metrics=[
        SUCCESS,
        SUCCESS_HELDOUT,
        *OTHERS,
        MASK_IOU,
        Metric("trained_parameters", "Trained parameters", "lower"),
        Metric("train_seconds", "Training", "lower", "s"),
        Metric("train_memory", "Peak memory of training", "lower", "GiB"),
        Metric("sampling_time", "Sampling time", "lower", "× the backbone's"),
    ],
    headline="success",
    published=[*MASKATTN, *MCGM, *SEPARATE_ENHANCE],
    preset={"evaluation.follow_masks": True, "evaluation.costs": True, "evaluation.prompts": 32},
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
