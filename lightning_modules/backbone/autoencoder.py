"""Images to latents and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.backbone.weights import modules_digest


class Autoencoder:
    """A pipeline's VAE; its latents have the dtype and the device of ``denoiser``."""

    def __init__(self, vae: Any, denoiser: nn.Module) -> None:
        self.vae, self.denoiser = vae, denoiser

    @property
    def scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> scaled latents [B, C, h, w], the mode of the
        posterior."""
        vae, like = self._without_overflow(), next(self.denoiser.parameters())
        latents = []
        for part in images.split(_batch_size(images.shape[-2] * images.shape[-1])):
            posterior = vae.encode(part.to(like.device, vae.dtype)).latent_dist
            latents.append((posterior.mode() * vae.config.scaling_factor).to(like.dtype))
        return torch.cat(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> uint8 images [B, 3, H, W] on the CPU."""
        vae, images = self._without_overflow(), []
        pixels = latents.shape[-2] * latents.shape[-1] * self.scale_factor**2
        for part in latents.split(_batch_size(pixels)):
            image = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor).sample
            image = ((image.float() / 2 + 0.5).clamp(0, 1) * 255).round()
            images.append(image.to(torch.uint8).cpu())
        return torch.cat(images)

    def fingerprint(self) -> str:
        """Digest of the weights and the scaling: what cached latents depend on."""
        return modules_digest(str(self.vae.config.scaling_factor), self.vae)

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
