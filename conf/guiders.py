"""How both halves of classifier-free guidance are joined (``evaluation.guider``): those guiders of
diffusers that are arithmetic on the two predictions, with the options that they have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from conf.describe import nearest, show

if TYPE_CHECKING:
    from conf.schema import Evaluation

__all__ = ["DEFAULT", "GUIDERS", "GuiderSpec", "check_guider", "guider_facts", "is_own"]

DEFAULT = "cfg"
COMMON = ("guidance_rescale", "start", "stop")
APG = tuple(f"adaptive_projected_guidance_{part}" for part in ("momentum", "rescale"))


class GuiderSpec(NamedTuple):
    """The class in ``diffusers.guiders``, and its options, numbers all."""

    kind: str
    options: tuple[str, ...] = COMMON


GUIDERS = {
    DEFAULT: GuiderSpec("ClassifierFreeGuidance"),
    "cfg_zero_star": GuiderSpec("ClassifierFreeZeroStarGuidance", ("zero_init_steps", *COMMON)),
    "apg": GuiderSpec("AdaptiveProjectedGuidance", ("eta", *APG, *COMMON)),
    "apg_mix": GuiderSpec(
        "AdaptiveProjectedMixGuidance",
        (
            *("eta", *APG, "adaptive_projected_guidance_scale"),
            *("adaptive_projected_guidance_start_step", *COMMON),
        ),
    ),
    "tangential": GuiderSpec("TangentialClassifierFreeGuidance"),
    "magnitude_aware": GuiderSpec("MagnitudeAwareGuidance", ("alpha", *COMMON)),
}
# A third pass has layers changed, which gates, captures and tokens act in, too
LAYERS = "it changes layers of the denoiser, where methods act themselves"
REFUSED = {
    "pag": LAYERS,
    "slg": LAYERS,
    "seg": f"{LAYERS}, and diffusers' own changes nothing",
    "auto": LAYERS,
    "frequency_decoupled": "it needs kornia, which is no dependency",
    "ltx2": "it is one of video and sound",
}


def check_guider(evaluation: Evaluation) -> None:
    """Raises ValueError, in one line, for a guider that is unknown or cannot be honoured, for
    options that it has not, and for a scale at which nothing would be guided."""
    name, options = evaluation.guider, evaluation.guider_options
    known = f"expected one of {', '.join(GUIDERS)}"
    if name not in GUIDERS:
        why = f"cannot be used: {REFUSED[name]}" if name in REFUSED else "is unknown"
        raise ValueError(f"evaluation.guider={name} {why}; {known}{nearest(name, GUIDERS)}")
    for option, value in options.items():
        if option not in GUIDERS[name].options or not math.isfinite(value):
            raise ValueError(
                f"evaluation.guider_options has {option}: {value:g} with evaluation.guider={name}; "
                f"expected numbers for {', '.join(GUIDERS[name].options)}"
                f"{nearest(option, GUIDERS[name].options)}"
            )
    start, stop = options.get("start", 0.0), options.get("stop", 1.0)
    if not 0 <= start < 1 or not start <= stop <= 1:
        raise ValueError(
            f"evaluation.guider_options={show(dict(options))}: expected 0 <= start < 1 and "
            "start <= stop <= 1, shares of the sampler's steps"
        )
    if is_own(evaluation) and evaluation.guidance <= 1:
        raise ValueError(
            f"evaluation.guider={name} with evaluation.guidance={evaluation.guidance:g}: nothing "
            "is guided up to a scale of 1; set it higher, or evaluation.guider=cfg"
        )


def is_own(evaluation: Evaluation) -> bool:
    """Whether it is any other than plain classifier-free guidance."""
    return evaluation.guider != DEFAULT or bool(evaluation.guider_options)


def guider_facts(evaluation: Evaluation) -> dict[str, str | Mapping[str, float]]:
    """What images depend on; nothing where it is plain classifier-free guidance."""
    if not is_own(evaluation):
        return {}
    return {"guider": evaluation.guider, "guider_options": dict(evaluation.guider_options)}
