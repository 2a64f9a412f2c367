"""Is it the method, or how guidance joins its halves, and at which scale?

Run it: ``python -m sweeps.guiders``.

A guider that is better at one scale may only be a stronger one: each is drawn at several, with and
without guidance by attention maps. Nothing is trained. Guiders have diffusers' own numbers, but for
the adaptive projected one, which does with them what plain guidance does: its paper's eta and
momentum. PAG and SEG take a third pass of the denoiser, half as much time again.
"""

from typing import Any

from sweeps.presets import IMAGE_QUALITY, SUCCESS, SUCCESS_HELDOUT
from sweeps.sweep import Factor, Sweep

GUIDERS: dict[str, dict[str, Any]] = {
    "CFG": {"evaluation.guider": "cfg"},
    "CFG-Zero*": {"evaluation.guider": "cfg_zero_star"},
    "APG": {
        "evaluation.guider": "apg",
        "evaluation.guider_options": {
            "eta": 0.0,
            "adaptive_projected_guidance_momentum": -0.5,
        },
    },
    "tangential": {"evaluation.guider": "tangential"},
    "magnitude-aware": {"evaluation.guider": "magnitude_aware"},
    "PAG": {"evaluation.guider": "pag"},
    "SEG": {"evaluation.guider": "seg"},
}
RECIPES: dict[str, dict[str, Any]] = {
    "untouched": {"method": "untouched"},
    "enhance guidance": {
        "method": "attention_guidance",
        "method.attention_guidance.losses": {"enhance": 1.0},
    },
}

SWEEP = Sweep(
    name="guiders",
    question="Is it the method, or how guidance joins its halves, and at which scale?",
    origin=(
        "CFG-Zero* (arXiv 2503.18886), APG (2410.02416), tangential damping (2503.18137), PAG "
        "(2403.17377) and SEG (2408.00760) beside methods that are compared at one guidance scale"
    ),
    factors=[
        Factor("guider", list(GUIDERS), label="Guider", settings=GUIDERS),
        Factor("evaluation.guidance", [3.0, 6.0], label="Guidance scale"),
        Factor("recipe", list(RECIPES), label="Method", settings=RECIPES),
    ],
    control={"guider": "CFG", "evaluation.guidance": 3.0, "recipe": "untouched"},
    metrics=[SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY],
    headline="success",
    preset={"evaluation.prompts": 32},
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
