"""Does the effect of a method carry to other architectures?

    python -m sweeps.backbones data=coco data.root=/data/coco trainer=paper512 evaluation=paper headline=fid
    python -m sweeps.backbones levels=[sdxl,/my/backbone,org/model] data=coco data.root=/data/coco trainer=paper512 evaluation=paper \
        headline=fid
    python -m sweeps.backbones levels=[embedded,/my/backbone]      # one's own of 64 pixels, in the embedded world

A level is a name of conf/backbone/, a diffusers folder, or the id of a model that was downloaded.
Each method is compared with the untouched backbone that it was put into; backbones are never
compared with each other.
"""

from sweeps.masks_shared import SUCCESS
from sweeps.sweep import Factor, Metric, Sweep

SWEEP = Sweep(
    name="backbones",
    question="Does the effect carry to other architectures?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Separate-and-Enhance (arXiv 2312.06712): each "
        "shown on one or two UNets, on no transformer"
    ),
    factors=[
        Factor("backbone", ["sd15", "sd21", "sdxl", "pixart"], label="Backbone"),
        Factor("method", ["untouched", "maskattn", "separate_enhance"], label="Method"),
    ],
    within="backbone",
    baseline={"method": "untouched"},
    metrics=[SUCCESS, Metric("fid", "FID", "lower")],
    headline="success",
    needs="real weights, and images to train and measure on",
    instead="on its own backbone it shows what each method does: python -m sweeps.methods",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
