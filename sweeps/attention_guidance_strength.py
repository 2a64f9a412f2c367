"""How far must latents move, and until when?

Run it: ``python -m sweeps.attention_guidance_strength``.

Nothing is trained. The last guided step is a share of the sampler's steps. The random direction of
the same length, and what it costs, are questions of ``python -m sweeps.objectives``.
"""

from sweeps.presets import IMAGE_QUALITY, SUCCESS, SUCCESS_HELDOUT, declared
from sweeps.sweep import Factor, Sweep

SWEEP = Sweep(
    name="attention_guidance_strength",
    question="How far must latents move along an attention loss, and until which step?",
    origin=(
        "Attend-and-Excite (arXiv 2301.13826), section 4: a step size of 20 and the first 25 of "
        "50 steps, neither of them varied"
    ),
    factors=[
        Factor("method.attention_guidance.step_size", [5.0, 20.0, 60.0], label="Step size"),
        Factor(
            "method.attention_guidance.stop",
            [0.25, 0.5, 1.0],
            label="Last guided step",
            unit="of the steps",
        ),
    ],
    control={
        "method.attention_guidance.step_size": 20.0,
        "method.attention_guidance.stop": 0.5,
    },
    metrics=[SUCCESS, SUCCESS_HELDOUT, *IMAGE_QUALITY, *declared("sampling_time")],
    headline="success",
    preset={
        "method": "attention_guidance",
        "method.attention_guidance.losses": {"enhance": 1.0},
        "evaluation.costs": True,
    },
)

if __name__ == "__main__":
    from sweeps.command import main

    raise SystemExit(main(SWEEP))
