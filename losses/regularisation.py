"""Losses that hold a method back: from forgetting, from drifting, from closing (or never closing)
its gates.

Pure functions of tensors, float32 whatever the autocast. Every loss is a float32 scalar; its weight
is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


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


def gate_density(gate: Tensor, target: float, present: Tensor | None = None) -> Tensor:
    """Squared distance of each sample's share of open gates to ``target``, mean over B (this
    project's; MaskAttn-SDXL has no such term).

    ``gate`` [B, N, T] in [0, 1], binary with a straight-through gradient or probabilities; the
    share is their mean over the N locations and the counted tokens. ``present`` [B, T] (bool) says
    which tokens count, all of them where it is None: another one adds nothing and gets a gradient
    of exactly zero, whatever it holds. A sample without a counted token adds zero. ``target`` is a
    share in [0, 1]. Raises ValueError on shapes that do not fit, on an empty batch and on a target
    outside [0, 1].
    """
    if not 0 <= target <= 1:
        raise ValueError(
            f"target={target} is not a share of open gates: expected a number from 0 to 1"
        )
    if gate.dim() != 3 or gate.numel() == 0:
        raise ValueError(
            f"gate {tuple(gate.shape)} does not fit: expected [B, locations, tokens], nothing empty"
        )
    samples, locations, tokens = gate.shape
    if present is None:
        present = torch.ones(samples, tokens, dtype=torch.bool, device=gate.device)
    elif present.shape != (samples, tokens) or present.dtype != torch.bool:
        expected = f"bool of shape {(samples, tokens)}, [B, tokens] of gate {tuple(gate.shape)}"
        raise ValueError(
            f"present {tuple(present.shape)} of {present.dtype} does not fit: expected {expected}"
        )
    with torch.autocast(gate.device.type, enabled=False):
        counted = present.sum(1)  # [B]
        opened = torch.where(present[:, None], gate.float(), 0.0).sum((1, 2))  # [B]
        share = opened / (locations * counted.clamp_min(1))
        return torch.where(counted > 0, (share - target).square(), 0.0).mean()


def gate_mask_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of gates against where they should be open (this project's;
    MaskAttn-SDXL has no mask supervision).

    ``logits`` [B, N, T] before the sigmoid; ``target`` [B, N, T] in [0, 1], 1 where the token
    should act; ``weight`` [B, N or 1, T] >= 0 says which gates count, all of them alike where it is
    None. Weighted mean over a sample's gates, mean over B; a sample whose weights are all zero adds
    zero. Raises ValueError on shapes that do not fit and on an empty batch.
    """
    if logits.dim() != 3 or logits.shape != target.shape or logits.numel() == 0:
        expected = "expected both [B, locations, tokens], nothing empty"
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: {expected}"
        )
    if weight is None:
        weight = torch.ones_like(logits)
    elif weight.shape[::2] != logits.shape[::2] or weight.shape[1] not in (1, logits.shape[1]):
        raise ValueError(
            f"weight {tuple(weight.shape)} does not fit logits {tuple(logits.shape)}: "
            "expected [B, locations or 1, tokens]"
        )
    with torch.autocast(logits.device.type, enabled=False):
        each = binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        weight = weight.float().expand_as(each)
        total = weight.sum((1, 2))
        return ((each * weight).sum((1, 2)) / total.clamp_min(1e-8)).mean()


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
