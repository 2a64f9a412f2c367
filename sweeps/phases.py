"""Are two phases better than one?

Run it: ``python -m sweeps.phases``.
"""

from sweeps.presets import (
    FOUND,
    IDENTITY,
    IMAGE_QUALITY,
    ONE_SCENE,
    PUBLISHED_BREAK_A_SCENE,
    SUCCESS,
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="phases",
    question="Are two phases better than one?",
    origin=(
        "Break-A-Scene (arXiv 2305.16311), section 3 and ablation: without the first phase "
        "the model overfits; MCGM takes both over"
    ),
    factors=[
        Factor(
            "method.subjects.schedule",
            ["two_phase", "joint", "tokens_only", "unet_only"],
            label="Schedule",
        ),
        Factor("method.name", ["break_a_scene", "mcgm"], label="Method"),
    ],
    within="method.name",
    control={"method.subjects.schedule": "two_phase"},
    metrics=[IDENTITY, SUCCESS, FOUND, *IMAGE_QUALITY],
    headline="success",
    published=PUBLISHED_BREAK_A_SCENE,
    preset=ONE_SCENE,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
