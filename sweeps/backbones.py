"""Does the effect of a method carry to other backbones?

    python -m sweeps.backbones    # the embedded backbone, and the one that hardly fails
    python -m sweeps.backbones levels=[sd15,sd21,sdxl,pixart] data=coco data.root=/data/coco \
        trainer=paper512 evaluation=paper headline=fid    # large models, on COCO
    python -m sweeps.backbones levels=[embedded,/my/backbone]    # 64 pixels, in the embedded world

A level is a name of conf/backbone/, a diffusers folder, or the id of a model that was downloaded.
Each method is compared with the untouched backbone that it was put into; backbones are never
compared with each other. The two embedded ones share their architecture: what differs is how
careless the captions were that they were trained on, and for how long. Methods have the recipes of
their own sweeps; method.gate.supervision=none method.gate.denoising_weight=1 trains gates as their
paper does.
"""

from sweeps.presets import (
    KEY_FINETUNING,
    MASK_SUPERVISED,
    SUCCESS,
    SUCCESS_HELDOUT,
    declared,
    training_settings,
)
from sweeps.sweep import Factor, Sweep

RECIPES = {
    "untouched": {"method": "untouched"},
    "maskattn": training_settings(MASK_SUPERVISED),
    "separate_enhance": training_settings(KEY_FINETUNING),
}

SWEEP = Sweep(
    name="backbones",
    question="Does the effect carry to other backbones?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Separate-and-Enhance (arXiv 2312.06712): each "
        "shown on one or two UNets, on no transformer"
    ),
    factors=[
        Factor("backbone", ["embedded", "embedded_strong"], label="Backbone"),
        Factor("recipe", list(RECIPES), label="Method", settings=RECIPES),
    ],
    within="backbone",
    control={"recipe": "untouched"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, *declared("fid")],
    headline="success",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
