"""What should Separate-and-Enhance be trained on: which timesteps, and noise or images?

python -m sweeps.sepen_training                                              # the embedded world, on two CPU cores
python -m sweeps.sepen_training seeds=5                                      # two more seeds for the same cells
python -m sweeps.sepen_training trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere
"""

from sweeps.sepen_shared import METRICS, PUBLISHED, SEPEN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="sepen_training",
    question="What should Separate-and-Enhance be trained on?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), released code: timesteps drawn from all, "
        "noise in the place of images"
    ),
    factors=[
        Factor("method.separate.timesteps", ["all", "noisier"], label="Timesteps"),
        Factor("method.separate.inputs", ["noise", "images"], label="Latents"),
    ],
    baseline={"method.separate.timesteps": "noisier", "method.separate.inputs": "noise"},
    metrics=METRICS,
    headline="success_heldout",
    preset=SEPEN,
    published=PUBLISHED,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
