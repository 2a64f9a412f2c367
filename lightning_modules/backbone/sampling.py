"""Noise: how training adds it to latents, and how sampling takes it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone


class NoiseSchedule:
    """How much signal is left at each training timestep, by a diffusers scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._alphas = torch.as_tensor(scheduler.alphas_cumprod, dtype=torch.float64)

    @property
    def prediction_type(self) -> str:
        return self.scheduler.config.prediction_type

    @property
    def num_timesteps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(noised latents, training target), both [B, C, h, w], at ``timesteps`` [B]: the target is
        the noise, or v = sqrt(a) e - sqrt(1-a) x.

        Raises ValueError on another prediction type.
        """
        # Roots are taken in float64 on the CPU: 1 - a in half precision is off by a tenth at small
        # t, and not every device has float64.
        alpha = self._alphas[timesteps.cpu()].view(-1, 1, 1, 1)
        signal, spread = (
            root.to(latents.dtype).to(latents.device) for root in (alpha.sqrt(), (1 - alpha).sqrt())
        )
        noised = signal * latents + spread * noise
        if self.prediction_type == "v_prediction":
            return noised, signal * noise - spread * latents
        if self.prediction_type == "epsilon":
            return noised, noise
        raise ValueError(
            f"the backbone predicts {self.prediction_type!r}: expected 'epsilon' or 'v_prediction'"
        )

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a) at ``timesteps``, float32 [B]."""
        alpha = self._alphas[timesteps.cpu()]
        return (alpha / (1 - alpha)).float().to(timesteps.device)


def initial_noise(seeds: list[int], shape: tuple[int, int, int]) -> Tensor:
    """float32 [B, C, h, w]; each row depends on its own seed alone, so that the batching changes no
    image."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: list[str],
    seeds: list[int],
    steps: int,
    guidance: float,
    resolution: int,
    batch: int = 64,
) -> Tensor:
    """uint8 images [N, 3, H, W]: the backbone's own scheduler, both halves of classifier-free
    guidance in one call of the denoiser.

    Raises ValueError when ``prompts`` and ``seeds`` differ in length.
    """
    if len(prompts) != len(seeds):
        raise ValueError(
            f"{len(prompts)} prompts but {len(seeds)} seeds: expected one seed for each prompt"
        )
    shape = backbone.latent_size(resolution)
    images = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        text = backbone.text.encode(prompts[rows])
        if guidance > 1:
            text = backbone.text.encode_empty(len(text.hidden)) + text
        scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
        scheduler.set_timesteps(steps, device=backbone.device)
        noise = initial_noise(seeds[rows], shape).to(backbone.device, backbone.dtype)
        latents = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            inputs = torch.cat([latents] * 2) if guidance > 1 else latents
            inputs = scheduler.scale_model_input(inputs, t)
            prediction = backbone.predict(inputs, t.expand(len(inputs)), text, resolution)
            if guidance > 1:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
        images.append(backbone.autoencoder.decode(latents))
    return torch.cat(images)
