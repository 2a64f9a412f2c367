"""What guidance by attention maps did while images were drawn; given where it acts."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("guidance_fallback", "Fell back to no guidance", "lower", "share"),
        Metric("guidance_moves", "Moves of a latent", "none"),
        Metric("guidance_noise", "Initial noise met its thresholds", "higher", "share"),
        Metric("guidance_loss", "Loss on maps, last", "lower"),
    ),
    measured=lambda evaluation: True,
    without={
        "guidance_loss": "no image was guided to the end",
        "guidance_noise": "no initial noise was optimised",
    },
    scores_images=False,
    by_methods=True,
)
