"""Should gates be hard, soft, of a learned threshold, or the top k tokens of a location?

Run it: ``python -m sweeps.gating_mode``.

`soft` lets the probability itself through, `learned` trains the threshold of each head, `topk`
keeps the share method.gate.keep of a location's tokens with any probability:
method.gate.keep=0.8 keeps more.
"""

from sweeps.presets import DETAILS, HEADLINES, MASK_SUPERVISED, PUBLISHED_MASKATTN
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="gating_mode",
    question="Hard, soft, learned or top-k gates?",
    origin=(
        "MaskAttn-SDXL (arXiv 2509.15357), Eq. 3: G = 1[sigmoid(f(X, e_t)) > 0.5], hard, "
        "straight-through; v1 (2025-09) has no other"
    ),
    factors=[Factor("method.gate.mode", ["hard", "soft", "learned", "topk"], label="Gate mode")],
    control={"method.gate.mode": "hard"},
    metrics=[*HEADLINES, *DETAILS],
    headline="success",
    published=PUBLISHED_MASKATTN,
    preset=MASK_SUPERVISED,
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
