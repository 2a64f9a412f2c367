"""Does gating self-attention, instead of cross-attention or beside it, add anything?

Run it: ``python -m sweeps.self_attention``.

On self-attention a gate says which location may look at which; a location always looks at itself.
"""

from sweeps.presets import DETAILS, HEADLINES, MASK_SUPERVISED, OVERHEAD, PUBLISHED_MASKATTN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="self_attention",
    question="Does gating self-attention add anything?",
    origin=(
        "MaskAttn-SDXL v1 (arXiv 2509.15357, 2025-09), future work: the same principle for "
        "self-attention"
    ),
    factors=[Factor("method.gate.attention", ["cross", "self", "both"], label="Gated attention")],
    control={"method.gate.attention": "cross"},
    metrics=[*HEADLINES, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASK_SUPERVISED,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
