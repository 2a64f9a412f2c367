"""Which cross-attention layers should be gated: of which stage, on which side of the UNet?

    python -m sweeps.injection_layer                                              # the embedded world, on two CPU cores
    python -m sweeps.injection_layer seeds=5                                      # two more seeds for the same cells
    python -m sweeps.injection_layer trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

The stage `low` is the mid block, which belongs to neither encoder nor decoder: it has one cell.
"""

from sweeps.maskattn_shared import DETAILS, HEADLINES, OVERHEAD, PUBLISHED, TAUGHT
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="injection_layer",
    question="Which layers should be gated?",
    origin=(
        "MaskAttn-SDXL v2 (arXiv 2509.15357, IJCNN 2026), Tables IV-A (stage), IV-B "
        "(placement); released code: mid, both sides"
    ),
    factors=[
        Factor("method.gate.stage", ["high", "mid", "low", "all"], label="Gated stage"),
        Factor("method.gate.placement", ["encoder", "decoder", "both"], label="Placement"),
    ],
    baseline={"method.gate.stage": "mid", "method.gate.placement": "both"},
    metrics=[*HEADLINES, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED,
    preset=TAUGHT,
    without=[
        {"method.gate.stage": "low", "method.gate.placement": side}
        for side in ("encoder", "decoder")
    ],
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
