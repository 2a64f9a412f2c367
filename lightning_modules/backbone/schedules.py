"""How training adds noise to latents: by a share of signal at each timestep, or along the straight
line of a flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction")
FLOW = "flow_prediction"

__all__ = ["FLOW", "FlowSchedule", "NoiseSchedule", "open_schedule"]


def open_schedule(scheduler: Any) -> NoiseSchedule:
    """How training adds noise where images are drawn by the diffusers ``scheduler``."""
    kind = FlowSchedule if is_flow(scheduler) else NoiseSchedule
    return kind(scheduler)


def is_flow(scheduler: Any) -> bool:
    """Whether it is one of flow matching, by its class."""
    return "FlowMatch" in type(scheduler).__name__


class NoiseSchedule:
    """How much signal is left at each training timestep, by a diffusers scheduler.

    One that knows no such share (EDM) can sample; `check` says that it cannot train. A noise level
    is a whole number from 0 up to, and without, `num_timesteps`, more for more noise.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        known = getattr(scheduler, "alphas_cumprod", None)
        self._known = known is not None
        self._alphas = torch.as_tensor(known if self._known else (), dtype=torch.float64)

    def check(self) -> None:
        """Raises ValueError where `add_noise` could not make a training target."""
        if not self._known:
            raise ValueError(
                f"the backbone's {type(self.scheduler).__name__} does not add noise by timesteps: "
                "expected a scheduler with alphas_cumprod, such as DDPMScheduler"
            )
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"the backbone predicts {self.prediction_type!r}: expected "
                f"{' or '.join(map(repr, PREDICTION_TYPES))}"
            )

    def describe(self) -> str:
        """A line on a scheduler that only draws; empty where it can train, too."""
        if self._known:
            return ""
        return (
            f"backbone: {type(self.scheduler).__name__} goes by sigmas of its own, without "
            "alphas_cumprod: images are drawn as its stock pipeline draws them, which a model that "
            "was not trained for it does badly; nothing can be trained on it"
        )

    @property
    def prediction_type(self) -> str:
        return self.scheduler.config.prediction_type

    @property
    def num_timesteps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    def timesteps_at(self, levels: Tensor) -> Tensor:
        """What the denoiser is told at the noise ``levels`` [B]: these themselves."""
        return levels

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(noised latents, training target), both [B, C, h, w], at ``timesteps`` [B]: the target is
        the noise, or v = sqrt(a) e - sqrt(1-a) x.

        Raises ValueError as `check`.
        """
        self.check()
        # Roots are taken in float64 on the CPU: 1 - a in half precision is off by a tenth at small
        # t, and not every device has float64.
        alpha = self._alphas[timesteps.cpu()].view(-1, 1, 1, 1)
        signal, spread = (
            root.to(latents.dtype).to(latents.device) for root in (alpha.sqrt(), (1 - alpha).sqrt())
        )
        noised = signal * latents + spread * noise
        if self.prediction_type == "v_prediction":
            return noised, signal * noise - spread * latents
        return noised, noise

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a) at ``timesteps``, float32 [B]."""
        alpha = self._alphas[timesteps.cpu()]
        return (alpha / (1 - alpha)).float().to(timesteps.device)


class FlowSchedule(NoiseSchedule):
    """Rectified flow (SD3, arXiv 2403.03206, section 3.1): z = (1 - s) x + s e at the noise share
    s, and the target is the velocity e - x.

    The shares are those that the scheduler has when it is made: its shift is applied once. (In
    sampling ``set_timesteps`` spreads its steps evenly between the largest and the smallest of
    them and shifts these, as stock pipelines do.) The denoiser is told s times `num_timesteps`.
    """

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        # One that has drawn holds the shares of its steps
        fresh = type(scheduler).from_config(scheduler.config)
        self._shares = fresh.sigmas.flip(0)
        self._timesteps = fresh.timesteps.flip(0)

    def check(self) -> None:
        """Every flow can train."""

    def describe(self) -> str:
        return ""

    @property
    def prediction_type(self) -> str:
        return FLOW

    def timesteps_at(self, levels: Tensor) -> Tensor:
        """As `NoiseSchedule`'s: s times `num_timesteps`, float32 [B]."""
        return self._timesteps[levels.cpu()].to(levels.device)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(noised latents, velocity), both [B, C, h, w], at ``timesteps`` [B]."""
        share = self._share(timesteps).view(-1, 1, 1, 1).to(latents.device)
        signal, spread = (part.to(latents.dtype) for part in (1 - share, share))
        return signal * latents + spread * noise, noise - latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio ((1 - s) / s)^2 at ``timesteps``, float32 [B]."""
        share = self._share(timesteps)
        return ((1 - share) / share).square()

    def _share(self, timesteps: Tensor) -> Tensor:
        return timesteps.float() / self.num_timesteps
