"""What does each part of Break-A-Scene do?

Run it: ``python -m sweeps.scene_losses``.

One part is off at a time.
"""

from itertools import combinations

from sweeps.presets import (
    FOUND,
    IDENTITY,
    IMAGE_QUALITY,
    ONE_SCENE,
    PUBLISHED_BREAK_A_SCENE,
    SUCCESS,
)
from sweeps.sweep import Factor, Sweep

ALL = {
    "method.subjects.masked_loss": True,
    "method.subjects.attention_weight": 0.01,
    "method.subjects.union_sampling": True,
    "method.subjects.prior_weight": 1.0,
}
OFF = {key: type(value)(0) for key, value in ALL.items()}

SWEEP = Sweep(
    name="scene_losses",
    question="What does each part of Break-A-Scene do?",
    origin=(
        "Break-A-Scene (arXiv 2305.16311), ablation study: without masked loss, attention "
        "loss, union sampling; the code adds a prior"
    ),
    factors=[
        Factor("method.subjects.masked_loss", [True, False], label="Masked loss"),
        Factor("method.subjects.attention_weight", [0.01, 0.0], label="Attention loss"),
        Factor("method.subjects.union_sampling", [True, False], label="Union sampling"),
        Factor("method.subjects.prior_weight", [1.0, 0.0], label="Prior"),
    ],
    control=ALL,
    metrics=[IDENTITY, SUCCESS, FOUND, *IMAGE_QUALITY],
    headline="success",
    published=PUBLISHED_BREAK_A_SCENE,
    preset=ONE_SCENE,
    without=[dict(pair) for pair in combinations(OFF.items(), 2)],
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
