"""Images to latents and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.backbone.weights import modules_digest


class Autoencoder:
    """A pipeline's VAE; its latents have the dtype and the device of ``denoiser``.

    Latents are scaled by the VAE's ``scaling_factor`` and, if ``standardizes`` (as SDXL's stock
    pipeline does) and the VAE has both, by ``latents_mean`` and ``latents_std`` of each channel.
    """

    def __init__(self, vae: Any, denoiser: nn.Module, standardizes: bool = False) -> None:
        self.vae, self.denoiser = vae, denoiser
        mean, std = (vae.config.get(key) for key in ("latents_mean", "latents_std"))
        self._known = standardizes and mean is not None and std is not None
        shift, spread = (mean, std) if self._known else ((), ())
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            for values in (shift, spread)
        )

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
                parts.append(std * self._spread().to(std))
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
        facts = (type(self.vae).__name__, settings, self._known)
        return modules_digest(str(facts), self.vae)

    def _scale(self, latents: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        if not self._known:
            return latents * scale
        return (latents - self._mean.to(latents)) * scale / self._std.to(latents)

    def _spread(self) -> Tensor:
        """What `_scale` multiplies a difference of latents by."""
        scale = torch.tensor(self.vae.config.scaling_factor)
        return scale / self._std if self._known else scale

    def _unscale(self, latents: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        if not self._known:
            return latents / scale
        return latents * self._std.to(latents) / scale + self._mean.to(latents)

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
