"""How a sampler joins both halves of classifier-free guidance: plainly, or as a guider of diffusers
does."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from conf.guiders import DEFAULT, GUIDERS

__all__ = ["Guider"]

# Unconditional and conditional prediction, both [B, C, h, w], at a timestep -> what the scheduler
# is given
Join = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guider:
    """One of `conf.guiders.GUIDERS` with its options; those that are left out are diffusers'."""

    name: str = DEFAULT
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        return self.name == DEFAULT and not self.options

    def weakens(self, number: int, calls: int) -> float:
        """How strongly the ``number``-th of ``calls`` of the denoiser is led away from a third pass
        of the conditional half, with weakened self-attention; 0 where there is none."""
        weakening = GUIDERS[self.name].weakening
        if weakening is None:
            return 0.0
        scale, start, stop = (
            self.options.get(option, default) for option, default in weakening[:3]
        )
        return scale if start * calls <= number < stop * calls else 0.0

    @property
    def sigma(self) -> float:
        """Deviation of the blur of queries, in pixels of their map; infinite if not given."""
        weakening = GUIDERS[self.name].weakening
        return self.options.get(weakening.sigma, math.inf) if weakening else math.inf

    def start(self, scale: float, steps: int) -> Join:
        """What joins the predictions of one batch, which is drawn in ``steps`` with the guidance
        ``scale``, called once for each of the scheduler's timesteps. An image's result depends on
        its own predictions alone. Raises ValueError where this diffusers has no such guider."""
        if self.plain or GUIDERS[self.name].weakening:
            return lambda unconditional, conditional, t: (
                unconditional + scale * (conditional - unconditional)
            )
        guider, numbers = self.build(scale), itertools.count()

        def join(unconditional: Tensor, conditional: Tensor, t: Tensor) -> Tensor:
            guider.set_state(next(numbers), steps, t)
            guider.prepare_inputs({})  # A momentum begins with the first step
            if self.name == "magnitude_aware":  # Its norm is one of two dimensions at most
                halves = conditional.flatten(2), unconditional.flatten(2)
                return guider.forward(*halves).pred.view_as(conditional)
            return guider.forward(conditional, unconditional).pred

        return join

    def build(self, scale: float) -> Any:
        """The guider of diffusers."""
        from diffusers import guiders
        from diffusers.guiders import guider_utils

        kind = getattr(guiders, GUIDERS[self.name].kind, None)
        if kind is None:
            raise ValueError(
                f"evaluation.guider={self.name}: this diffusers has no {GUIDERS[self.name].kind}; "
                "install a later one, or set evaluation.guider=cfg"
            )
        level = guider_utils.logger.level
        guider_utils.logger.setLevel(logging.ERROR)  # Each says that its API may change
        try:
            return kind(guidance_scale=scale, **self.options)
        finally:
            guider_utils.logger.setLevel(level)
