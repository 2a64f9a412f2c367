"""Denoising losses. Pure functions of tensors, float32 whatever the autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def denoising_loss(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    normalise: str = "all",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error of a noise or v prediction, a float32 scalar (Ho et al. 2020, eq. 14;
    masked: Break-A-Scene eq. 1).

    ``pred``, ``target`` [B, C, H, W]; ``mask`` [B, 1, H, W] or [B, H, W] in [0, 1] multiplies both;
    ``weight`` [B] weighs samples (their mean is taken over B, not over the weights' sum). With a
    mask, ``normalise="all"`` divides each sample's sum by C·H·W as the released Break-A-Scene does,
    ``"area"`` by C times the mask's sum; a sample with an empty mask then adds zero.

    Raises ValueError on shapes that do not fit and on an unknown ``normalise``.
    """
    if pred.shape != target.shape:
        raise ValueError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ: expected "
            "the same shape"
        )
    if normalise not in ("all", "area"):
        raise ValueError(f"normalise={normalise!r} is unknown: expected 'all' or 'area'")
    if weight is not None and weight.shape != pred.shape[:1]:
        raise ValueError(
            f"weight {tuple(weight.shape)} does not fit {len(pred)} samples: expected one "
            "number for each"
        )
    error = (pred.float() - target.float()).square()  # [B, C, H, W]
    if mask is None:
        per_sample = error.flatten(1).mean(1)
    else:
        mask = mask.float() if mask.dim() == 4 else mask.float().unsqueeze(1)
        if mask.shape != (len(pred), 1, *pred.shape[-2:]):
            raise ValueError(
                f"mask {tuple(mask.shape)} does not fit pred {tuple(pred.shape)}: expected "
                "[B, 1, H, W] resized to pred"
            )
        # The mask multiplies prediction and target (eq. 1), so the squared error carries its
        # square.
        error = error * mask.square()
        total = error.flatten(1).sum(1)
        area = (
            (mask.expand_as(error) if normalise == "area" else torch.ones_like(error))
            .flatten(1)
            .sum(1)
        )
        per_sample = total / area.clamp_min(1e-8)
    return (per_sample if weight is None else per_sample * weight.float()).mean()


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma weights [B] for a plain squared error on ``prediction_type`` (Hang et al. 2023,
    eq. 6).

    epsilon: min(SNR, gamma) / SNR; v_prediction: min(SNR, gamma) / (SNR + 1); sample: min(SNR,
    gamma). Raises ValueError on another prediction type and on a gamma that is not positive.
    """
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be positive (the paper takes 5)")
    divisor = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    if prediction_type not in divisor:
        raise ValueError(
            f"prediction_type={prediction_type!r} is unknown: expected one of {', '.join(divisor)}"
        )
    return snr.clamp_max(gamma) / divisor[prediction_type]
