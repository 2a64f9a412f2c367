"""What makes gates useful: the denoising loss alone, a target density of open gates, or the
objects' masks?

Run it: ``python -m sweeps.gate_signal``.

`masks` teaches the gates of a phrase's tokens where its object is, from the training images'
instance masks. `high_noise` trains on the noisier half of the timesteps alone. `oracle` is an upper
bound: gates by a layout that fits the noise, without training. Weight, density and annealing are
settings: method.gate.supervision_weight=0.3 method.gate.supervision_density=0.6
method.gate.supervision_anneal=cosine.
"""

from sweeps.presets import DETAILS, GATE_MASK_IOU, HEADLINES, MASKATTN, PUBLISHED_MASKATTN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="gate_signal",
    question=(
        "What makes gates useful: the denoising loss alone, a density target, or instance masks?"
    ),
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357): trained on the noise-prediction loss alone, "
        "without mask supervision or a sparsity term"
    ),
    factors=[
        Factor(
            "method.gate.supervision", ["none", "density", "masks", "oracle"], label="Supervision"
        ),
        Factor("trainer.timesteps", ["uniform", "high_noise"], label="Timesteps"),
    ],
    control={"method.gate.supervision": "none", "trainer.timesteps": "uniform"},
    metrics=[*HEADLINES, GATE_MASK_IOU, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASKATTN
    | {
        "method.gate.sharing": "layer",
        "method.gate.stage": "all",
        "trainer.steps": 60,
    },
    without=[{"method.gate.supervision": "oracle", "trainer.timesteps": "high_noise"}],
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
