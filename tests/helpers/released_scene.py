"""A scene by formula on which the authors' training code of Break-A-Scene and MCGM was run: a small
Stable Diffusion 2.1, masks whose edges lie off the latents' grid, four steps of fixed numbers.

What that code gave is in ``tests/lightning_modules/methods/released_scene.json``: the training
scripts of google/break-a-scene (commit b142cf2) and roskaik432/MCGM-Styler (bc44b52, with its
placeholders added to the tokenizer and "a photo of" in its prompts, both switched off there), in
float32 on a CPU, with these latents, noise, timesteps, draws and weights in place of random ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.architectures import build_pipeline
from torch import Tensor, nn

SIDE, LATENT = 512, 64
TOKENS, CLASSES = ("<asset0>", "<asset1>"), ("circle", "square")
CLASS_PROMPT = "a photo of a blue square"
# Of each step: the subjects in the order of the caption, and whether the scene is mirrored
DRAWS = (((1, 0), False), ((1,), True), ((0,), False), ((0, 1), True))
# Of each step: timesteps of the class image and of the scene
TIMESTEPS = ((700, 300), (40, 810), (555, 120), (930, 640))
PHASE = 2  # Steps of the first phase
TOKEN_LR, LR, DECAY, CLIP = 5e-4, 1e-3, 0.3, 0.05


def normal(seed: int, *shape: int) -> Tensor:
    """float32 numbers that no version of any library changes."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def fill(model: nn.Module, seed: int) -> None:
    """Weights in the order of their names: normal with variance 1 / inputs; scales near one, other
    vectors near zero."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(sorted(model.named_parameters())):
            drawn = normal(seed * 1000 + i, *parameter.shape)
            if parameter.dim() > 1:
                parameter.copy_(drawn * (parameter.shape[0] / parameter.numel()) ** 0.5)
            else:
                parameter.copy_(0.1 * drawn + float("norm" in name and name.endswith("weight")))


def pipeline(folder: Path) -> Any:
    """Cross-attention at 16 x 16 (down and up) and 8 x 8 (middle) for images of 512 pixels."""
    built = build_pipeline(
        "sd21",
        folder,
        scale="tiny",
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    fill(built.unet, 1)
    fill(built.text_encoder, 2)
    return built


def masks() -> list[Tensor]:
    """A disc, and a strip of nine pixels, float32 [512, 512]."""
    y, x = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    disc = ((y - 307.7) ** 2 + (x - 200.3) ** 2 <= 91**2).float()
    strip = ((x >= 219) & (x < 228) & (y >= 37) & (y < 401)).float()
    return [disc, strip]


def latents(step: int) -> Tensor:
    """Of the class image and the scene, [2, 4, 64, 64]."""
    return normal(100 + step, 2, 4, LATENT, LATENT)


def noise(step: int) -> Tensor:
    return normal(200 + step, 2, 4, LATENT, LATENT)


def encoder_weights(width: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of the mask encoder."""
    return normal(300, width, LATENT**2) / LATENT, 0.3 * normal(301, width)


def probe(tensor: Tensor) -> tuple[float, float]:
    """Norm, and product with cos(0.7 i)."""
    flat = tensor.detach().double().flatten()
    weights = torch.cos(0.7 * torch.arange(len(flat), dtype=torch.float64))
    return float(flat.norm()), float(flat @ weights)
