"""Images to latents and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.backbone.weights import modules_digest


class Autoencoder:
    """A pipeline's VAE; its latents have the dtype and the device of ``denoiser``.

    Latents are scaled by the VAE's ``scaling_factor`` and, if ``standardizes`` (as SDXL's stock
    pipeline does) and the VAE has both, by ``latents_mean`` and ``latents_std`` of each channel. If
    ``shifts`` (SD3, FLUX), the VAE's ``shift_factor`` is taken away first.
    """

    def __init__(
        self, vae: Any, denoiser: nn.Module, standardizes: bool = False, shifts: bool = False
    ) -> None:
        self.vae, self.denoiser, self.standardizes = vae, denoiser, standardizes
        self.shifts = shifts

    @property
    def scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> scaled latents [B, C, h, w], the mode of the
        posterior."""
        return self._encode(images, spread=False)

    def encode_posterior(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> [B, 2 C, h, w]: mode and standard deviation of the
        posterior of the scaled latents."""
        return self._encode(images, spread=True)

    @torch.no_grad()
    def _encode(self, images: Tensor, spread: bool) -> Tensor:
        vae, like = self._without_overflow(), next(self.denoiser.parameters())
        latents = []
        for part in images.split(_batch_size(images.shape[-2] * images.shape[-1])):
            encoded = vae.encode(part.to(like.device, vae.dtype))
            # A tiny autoencoder has no posterior
            known = not hasattr(encoded, "latents")
            mode = encoded.latent_dist.mode() if known else encoded.latents
            parts = [self._scale(mode)]
            if spread:
                std = encoded.latent_dist.std if known else torch.zeros_like(mode)
                parts.append(std * self._spread(std))
            latents.append(torch.cat(parts, dim=1).to(like.dtype))
        return torch.cat(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> uint8 images [B, 3, H, W] on the CPU.

        Raises ValueError where a pixel would be no finite number.
        """
        vae, images = self._without_overflow(), []
        pixels = latents.shape[-2] * latents.shape[-1] * self.scale_factor**2
        for part in latents.split(_batch_size(pixels)):
            image = vae.decode(self._unscale(part.to(vae.dtype))).sample
            if not image.isfinite().all():
                raise ValueError(
                    f"the VAE gives numbers that are not finite in {vae.dtype}, which would be "
                    "black images: set backbone.dtype to bfloat16 or float32"
                )
            image = ((image.float() / 2 + 0.5).clamp(0, 1) * 255).round()
            images.append(image.to(torch.uint8).cpu())
        return torch.cat(images)

    def fingerprint(self) -> str:
        """Digest of the weights and of all settings: what cached latents depend on."""
        settings = {k: v for k, v in sorted(self.vae.config.items()) if not k.startswith("_")}
        facts: tuple[Any, ...] = (type(self.vae).__name__, settings, self.standardizes)
        facts += (self.shifts,) if self.shifts else ()
        return modules_digest(str(facts), self.vae)

    def _scale(self, latents: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        if self.shifts:
            latents = latents - self.vae.config.shift_factor
        if (standard := self._standard(latents)) is None:
            return latents * scale
        mean, std = standard
        return (latents - mean) * scale / std

    def _spread(self, latents: Tensor) -> Tensor:
        """What `_scale` multiplies a difference of ``latents`` by."""
        scale = torch.tensor(self.vae.config.scaling_factor).to(latents)
        standard = self._standard(latents)
        return scale if standard is None else scale / standard[1]

    def _unscale(self, latents: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        if self.shifts:
            return latents / scale + self.vae.config.shift_factor
        if (standard := self._standard(latents)) is None:
            return latents / scale
        mean, std = standard
        return latents * std / scale + mean

    def _standard(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of each channel, [1, C, 1, 1] each; None where they do not count."""
        mean, std = (self.vae.config.get(key) for key in ("latents_mean", "latents_std"))
        if not self.standardizes or mean is None or std is None:
            return None
        mean, std = (torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, std))
        return mean, std

    def _without_overflow(self) -> Any:
        """The VAE. SDXL's overflows in float16 (its ``force_upcast``): it computes in float32 then,
        until `Backbone.restored_pipeline` is asked for."""
        if self.vae.dtype == torch.float16 and self.vae.config.get("force_upcast"):
            self.vae.to(torch.float32)
        return self.vae


def _batch_size(pixels: int) -> int:
    """How many images of so many pixels an autoencoder takes at once: its activations at full
    resolution are hundreds of channels wide."""
    return max(1, min(64, 8 * 512**2 // pixels))
