"""Options that change how fast a backbone computes, and its numbers by rounding alone: memory format and compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from conf import schema

if TYPE_CHECKING:
    from lightning_modules.backbone import Backbone

__all__ = ["accelerate", "compile_blocks"]

BLOCK = "BasicTransformerBlock"  # of UNets and of PixArt; SDXL has 70 of two widths. Residual blocks hardly share a shape: minutes more
VARIANTS = 64  # of one block: its width and plane in each level, with and without gradients, gated or not, each batch size that is new


def accelerate(backbone: Backbone, settings: schema.Backbone) -> None:
    """Applies ``settings.channels_last`` and ``settings.compile`` to a loaded backbone, in place."""
    if settings.channels_last:
        for module in (backbone.denoiser, backbone.vae):
            module.to(memory_format=torch.channels_last)
    if settings.compile:
        compile_blocks(backbone.denoiser)


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Has torch.compile compile each transformer block of a UNet, or of PixArt, when it first runs; ``backend`` is torch.compile's.

    Blocks one by one, not the model as a whole: those of one shape share their code, which takes a fraction of the time, and what happens
    around them (`attention.wiring`'s passes, gradient checkpointing, `as_far_as`) is Python as ever. The attention of a layer where gates,
    maps or tokens are at work is left out (`SiteProcessor`).
    """
    import torch._dynamo.config as dynamo

    dynamo.cache_size_limit = max(VARIANTS, dynamo.cache_size_limit)
    for module in model.modules():
        if type(module).__name__ == BLOCK:
            module.compile(backend=backend)
