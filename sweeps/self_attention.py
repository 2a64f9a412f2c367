"""Does gating self-attention, instead of cross-attention or beside it, add anything?

    python -m sweeps.self_attention                                              # the embedded world, on two CPU cores
    python -m sweeps.self_attention seeds=5                                      # two more seeds for the same cells
    python -m sweeps.self_attention trainer.accelerator=gpu output=/data/runs    # on a GPU, kept elsewhere

On self-attention a gate says which location may look at which; a location always looks at itself.
"""

from sweeps.maskattn_shared import DETAILS, HEADLINES, OVERHEAD, PUBLISHED, TAUGHT
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="self_attention",
    question="Does gating self-attention add anything?",
    origin=(
        "MaskAttn-SDXL v1 (arXiv 2509.15357, 2025-09), future work: the same principle for "
        "self-attention"
    ),
    factors=[Factor("method.gate.attention", ["cross", "self", "both"], label="Gated attention")],
    baseline={"method.gate.attention": "cross"},
    metrics=[*HEADLINES, OVERHEAD, *DETAILS],
    headline="success",
    published=PUBLISHED,
    preset=TAUGHT,
)

if __name__ == "__main__":
    from sweeps.run import main

    raise SystemExit(main(SWEEP))
