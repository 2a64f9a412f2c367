"""How both halves of classifier-free guidance are joined (``evaluation.guider``): by guiders of
diffusers that are arithmetic on the two predictions, with the options that they have there, or with
a third pass of weakened self-attention."""

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


class Weakening(NamedTuple):
    """A third pass, of the conditional half with weakened self-attention, that guidance leads away
    from: the option that says how strongly, with its default, those between which shares of the
    sampler's steps, with theirs, and the option of its own."""

    scale: tuple[str, float]
    start: tuple[str, float]
    stop: tuple[str, float]
    sigma: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        names = (self.scale[0], self.start[0], self.stop[0], self.sigma)
        return tuple(filter(None, names))


class GuiderSpec(NamedTuple):
    """The class in ``diffusers.guiders``, and its options, numbers all; or a third pass of ours."""

    kind: str
    options: tuple[str, ...] = COMMON
    weakening: Weakening | None = None


def weaken(prefix: str, scale: float, start: float, stop: float, sigma: str = "") -> GuiderSpec:
    """One with a third pass, whose options begin with ``prefix``, by its defaults."""
    weakening = Weakening(
        (f"{prefix}_scale", scale), (f"{prefix}_start", start), (f"{prefix}_stop", stop), sigma
    )
    return GuiderSpec("", weakening.options, weakening)


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
    # Those with a third pass are computed here: diffusers' own replace the processors in which
    # methods act. Options are called as there, numbers are the papers' (for slg those of SD3.5)
    "pag": weaken("perturbed_guidance", 3.0, 0.0, 1.0),
    "seg": weaken("seg_guidance", 3.0, 0.0, 1.0, "seg_blur_sigma"),
    "slg": weaken("skip_layer_guidance", 2.8, 0.01, 0.2),
}
REFUSED = {
    "auto": "it chooses its layers for each model by hand",
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
    weakening = GUIDERS[name].weakening
    ends = weakening[1:3] if weakening else (("start", 0.0), ("stop", 1.0))
    start, stop = (options.get(option, default) for option, default in ends)
    if weakening and options.get(weakening.sigma, 1.0) <= 0:
        raise ValueError(
            f"evaluation.guider_options has {weakening.sigma}: {options[weakening.sigma]:g}; "
            "expected a number above 0, in pixels of the layer's map"
        )
    if not 0 <= start < 1 or not start <= stop <= 1:
        raise ValueError(
            f"evaluation.guider_options={show(dict(options))}: expected 0 <= {ends[0][0]} < 1 and "
            f"{ends[0][0]} <= {ends[1][0]} <= 1, shares of the sampler's steps"
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
