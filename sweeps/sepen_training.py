"""What should Separate-and-Enhance be trained on: which timesteps, and noise or images?

Run it: ``python -m sweeps.sepen_training``.
"""

from sweeps.presets import KEY_FINETUNING, KEY_METRICS, PUBLISHED_SEPARATE_ENHANCE
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="sepen_training",
    question="What should Separate-and-Enhance be trained on?",
    origin=(
        "Separate-and-Enhance (arXiv 2312.06712), released code: timesteps drawn from all, "
        "noise in the place of images"
    ),
    factors=[
        Factor("trainer.timesteps", ["uniform", "high_noise"], label="Timesteps"),
        Factor("method.separate.inputs", ["noise", "images"], label="Latents"),
    ],
    control={"trainer.timesteps": "high_noise", "method.separate.inputs": "noise"},
    metrics=KEY_METRICS,
    headline="success_heldout",
    preset=KEY_FINETUNING,
    published=PUBLISHED_SEPARATE_ENHANCE,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
