"""What makes gates useful: the denoising loss alone, a wanted density of open gates, or the
objects' masks?

    python -m sweeps.gate_signal                                              # the embedded world, on two CPU cores
    python -m sweeps.gate_signal seeds=5                                      # two more seeds for the same cells
    python -m sweeps.gate_signal trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

`masks` teaches the gates of a phrase's tokens where its object is, from the training images'
instance masks. `noisier` lets the signal act on the noisier half of the timesteps alone; without a
signal there is nothing for it to act on. `oracle` is an upper bound: gates by a layout that fits
the noise, without training. Weight, density and annealing are settings:
method.gate.supervision_weight=0.3 method.gate.supervision_density=0.6
method.gate.supervision_anneal=cosine.
"""

from sweeps.maskattn_shared import DETAILS, GATE_MASK_IOU, HEADLINES, PAPER, PUBLISHED
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
        Factor("method.gate.supervision", ["none", "density", "masks", "oracle"], label="Signal"),
        Factor("method.gate.supervision_timesteps", ["all", "noisier"], label="Timesteps"),
    ],
    baseline={"method.gate.supervision": "none", "method.gate.supervision_timesteps": "all"},
    metrics=[*HEADLINES, GATE_MASK_IOU, *DETAILS],
    headline="success",
    published=PUBLISHED,
    preset=PAPER
    | {
        "method.gate.sharing": "layer",
        "method.gate.stage": "all",
        "trainer.steps": 60,
    },
    without=[
        {"method.gate.supervision": "none", "method.gate.supervision_timesteps": "noisier"},
        {"method.gate.supervision": "oracle", "method.gate.supervision_timesteps": "noisier"},
    ],
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
