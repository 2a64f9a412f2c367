"""Losses that hold a method back from forgetting and from drifting.

Pure functions of tensors, float32 whatever the autocast. Every loss is a float32 scalar; its weight
is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from losses.gates import gate_density, gate_mask_loss

__all__ = ["distillation_loss", "gate_density", "gate_mask_loss", "prior_loss"]


def prior_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the class samples' prediction [B, ...]: prior preservation (DreamBooth;
    Break-A-Scene's code, weight 1).

    No mask, since class images have none. Raises ValueError on shapes that differ and on an empty
    batch.
    """
    return _mean_squared_error(pred, target, "target")


def distillation_loss(pred: Tensor, frozen: Tensor) -> Tensor:
    """Mean squared distance of a prediction [B, ...] to the frozen backbone's on the same input
    (Separate-and-Enhance, L_norm).

    ``frozen`` gets no gradient. Raises ValueError on shapes that differ and on an empty batch.
    """
    return _mean_squared_error(pred, frozen.detach(), "frozen")


def _mean_squared_error(pred: Tensor, target: Tensor, name: str) -> Tensor:
    if pred.shape != target.shape:
        raise ValueError(
            f"pred {tuple(pred.shape)} and {name} {tuple(target.shape)} differ: expected "
            "the same shape"
        )
    if pred.numel() == 0:
        raise ValueError(f"pred {tuple(pred.shape)} is empty: expected at least one sample")
    with torch.autocast(pred.device.type, enabled=False):
        return (pred.float() - target.float()).square().mean()
