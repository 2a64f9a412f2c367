"""Are two phases better than one?

python -m sweeps.phases                                              # the embedded world, on two CPU cores
python -m sweeps.phases seeds=5                                      # two more seeds for the same cells
python -m sweeps.phases trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.masks_shared import BREAK_A_SCENE, FOUND, IDENTITY, OTHERS, SCENE, SUCCESS
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
    baseline={"method.subjects.schedule": "two_phase"},
    metrics=[IDENTITY, SUCCESS, FOUND, *OTHERS],
    headline="success",
    published=BREAK_A_SCENE,
    preset=SCENE,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
