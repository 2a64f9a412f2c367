"""Does what was learnt survive other words for the same wish?

Run it: ``python -m sweeps.paraphrase``.

The same scenes are asked for on the same noise: as in training's plain words, with the last object
first, with synonyms, behind "a photo of", and all at once. One adapter a seed is compared with the
untouched backbone in each wording; what is right is the same in all of them, and the judge is asked
for it question by question, too.
"""

from sweeps.presets import CHANGE, IMAGE_QUALITY, KEY_FINETUNING, SUCCESS, declared
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="paraphrase",
    question="Does it survive other words for the same wish?",
    origin="a question of our own: benchmarks word each wish once",
    factors=[
        Factor(
            "evaluation.wording",
            ["own", "order", "synonyms", "opening", "all"],
            when="evaluate",
            label="Wording",
        ),
        CHANGE,
    ],
    within="evaluation.wording",
    control={CHANGE.key: "none"},
    metrics=[
        SUCCESS,
        *declared("vqa_success", "questions_right", "vqa_score"),
        *IMAGE_QUALITY,
    ],
    headline="success",
    preset=KEY_FINETUNING
    | {
        "evaluation.splits": ["three", "heldout"],
        "evaluation.attention": False,
        "evaluation.vqa": "judge",
    },
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
