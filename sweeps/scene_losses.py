"""What does each part of Break-A-Scene do?

    python -m sweeps.scene_losses                                              # the embedded world, on two CPU cores
    python -m sweeps.scene_losses seeds=5                                      # two more seeds for the same cells
    python -m sweeps.scene_losses trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

One part is off at a time.
"""

from itertools import combinations

from sweeps.masks_shared import BREAK_A_SCENE, FOUND, IDENTITY, OTHERS, SCENE, SUCCESS
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
    baseline=ALL,
    metrics=[IDENTITY, SUCCESS, FOUND, *OTHERS],
    headline="success",
    published=BREAK_A_SCENE,
    preset=SCENE,
    without=[dict(pair) for pair in combinations(OFF.items(), 2)],
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
