"""Which cross-attention layers should be gated: of which stage, on which side of the UNet?

Run it: ``python -m sweeps.injection_layer``.

The stage `low` is the mid block, which belongs to neither encoder nor decoder: it has one cell.
"""

from sweeps.presets import DETAILS, HEADLINES, MASK_SUPERVISED, OVERHEAD, PUBLISHED_MASKATTN
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
    control={"method.gate.stage": "mid", "method.gate.placement": "both"},
    metrics=[*HEADLINES, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASK_SUPERVISED,
    without=[
        {"method.gate.stage": "low", "method.gate.placement": side}
        for side in ("encoder", "decoder")
    ],
    brief="one_factor",
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
