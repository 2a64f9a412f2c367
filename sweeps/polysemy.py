"""Are words with two meanings confused, and does the training make it worse?

    python -m sweeps.polysemy backbone=sdxl
    python -m sweeps.polysemy backbone=sd15 trainer.accelerator=gpu output=/data/runs seeds=5

It needs real weights: the embedded world has no such words. A detector of COCO's classes says
whether both things are there. One adapter a seed is compared with the untouched backbone on plain
and on disambiguated prompts.
"""

from sweeps.presets import CHANGE, SUCCESS, declared
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="polysemy",
    question="Are words with two meanings confused?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), limitations: words such as mouse and "
        "orange after training on many concepts"
    ),
    factors=[
        Factor(
            "evaluation.splits", [["plain"], ["disambiguated"]], when="evaluate", label="Prompts"
        ),
        CHANGE,
    ],
    within="evaluation.splits",
    control={CHANGE.key: "none"},
    metrics=[SUCCESS, *declared("clip_score")],
    headline="success",
    preset={
        "method": "separate_enhance",
        "data": "prompts",
        "data.root": "polysemy",
        "trainer": "sepen_joint",
        "evaluation.splits": ["plain"],
        "evaluation.prompts": 48,
        "evaluation.steps": 50,
        "evaluation.guidance": 6.0,
        "evaluation.extractor": "none",
        "evaluation.detector": "facebook/detr-resnet-50",
        "evaluation.aligners": ["openai/clip-vit-base-patch16"],
    },
    needs="real weights (words with two meanings, and a detector of things)",
    instead="what it shows of concepts that training did not have: python -m sweeps.generalisation",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
