"""Does Separate-and-Enhance hold beyond two objects?

Run it: ``python -m sweeps.objects``.

One adapter a seed is compared with the untouched backbone at each number of objects.
"""

from sweeps.presets import (
    CHANGE,
    IMAGE_QUALITY,
    KEY_FINETUNING,
    PUBLISHED_SEPARATE_ENHANCE,
    SUCCESS,
    declared,
)
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="objects",
    question="Does it hold beyond two objects?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712): claimed for more than two concepts, "
        "shown in pictures"
    ),
    factors=[
        Factor(
            "evaluation.splits",
            [["one"], ["two"], ["three"], ["four"]],
            when="evaluate",
            label="Objects",
        ),
        CHANGE,
    ],
    within="evaluation.splits",
    control={CHANGE.key: "none"},
    metrics=[
        SUCCESS,
        *declared("map_overlap", "map_activation"),
        *IMAGE_QUALITY,
    ],
    headline="success",
    published=PUBLISHED_SEPARATE_ENHANCE,
    preset=KEY_FINETUNING | {"evaluation.splits": ["two"]},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
