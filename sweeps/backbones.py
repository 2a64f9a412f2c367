"""Does the effect of a method carry to other backbones?

    python -m sweeps.backbones    # the embedded backbone, and the one that hardly fails
    python -m sweeps.backbones data=coco data.root=/data/coco trainer=paper512 \
        evaluation=paper headline=fid levels=[sd15,sd21,sdxl,pixart]    # models of other kinds
    python -m sweeps.backbones levels=[embedded,/my/backbone]    # 64 pixels, in the embedded world

A level is a name of conf/backbone/, a diffusers folder, or the id of a model that was downloaded.
Each method is compared with the untouched backbone that it was put into; backbones are never
compared with each other. The two embedded ones share their architecture: what differs is how
carelessly the captions they were trained on are written, and how long.
"""

from sweeps.presets import SUCCESS, declared
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="backbones",
    question="Does the effect carry to other backbones?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Separate-and-Enhance (arXiv 2312.06712): each "
        "shown on one or two UNets, on no transformer"
    ),
    factors=[
        Factor("backbone", ["embedded", "embedded_strong"], label="Backbone"),
        Factor("method", ["untouched", "maskattn", "separate_enhance"], label="Method"),
    ],
    within="backbone",
    control={"method": "untouched"},
    metrics=[SUCCESS, *declared("fid")],
    headline="success",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
