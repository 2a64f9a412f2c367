"""Losses on a denoiser's prediction. Pure functions of tensors, computed in float32 under any
autocast; each gives a float32 scalar, the mean over the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from conf.describe import show_count


def denoising_loss(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    normalise: str = "all",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean squared error of a noise or v prediction (Ho et al. 2020, eq. 14; masked: Break-A-Scene
    eq. 1).

    ``pred``, ``target`` [B, C, H, W]; ``mask`` [B, 1, H, W] or [B, H, W] in [0, 1] says how much
    each pixel counts (the share of it that is inside): it weighs the squared error once, where eq.
    1 has prediction and target multiplied by a mask of zeros and ones, which is the same there.
    ``weight`` [B] weighs samples (their mean is taken over B, not over the weights' sum). With a
    mask, ``normalise="all"`` divides each sample's sum by C·H·W as the released Break-A-Scene does,
    ``"area"`` by C times the mask's sum; a sample with an empty mask then adds zero.

    Raises ValueError on shapes that do not fit and on an unknown ``normalise``.
    """
    _expect_same_shape(pred, target, "target")
    if normalise not in ("all", "area"):
        raise ValueError(f"normalise={normalise!r} is unknown: expected 'all' or 'area'")
    if weight is not None and weight.shape != pred.shape[:1]:
        raise ValueError(
            f"weight {tuple(weight.shape)} does not fit {show_count(len(pred), 'sample')}: "
            "expected one "
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
        error = error * mask
        counted = mask.expand_as(error) if normalise == "area" else torch.ones_like(error)
        area = counted.flatten(1).sum(1)
        per_sample = error.flatten(1).sum(1) / area.clamp_min(1e-8)
    return (per_sample if weight is None else per_sample * weight.float()).mean()


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Min-SNR-gamma weights [B] for a plain squared error on ``prediction_type`` (Hang et al. 2023,
    eq. 6).

    epsilon: min(SNR, gamma) / SNR; v_prediction: min(SNR, gamma) / (SNR + 1); sample: min(SNR,
    gamma); flow_prediction, whose error is that of the clean latents over the noise share 1 / (1 +
    sqrt(SNR)): min(SNR, gamma) / (1 + sqrt(SNR))^2. Raises ValueError on another prediction type
    and on a gamma that is not positive.
    """
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be positive (the paper takes 5)")
    divisor = {
        "epsilon": snr,
        "v_prediction": snr + 1,
        "sample": torch.ones_like(snr),
        "flow_prediction": (1 + snr.sqrt()).square(),
    }
    if prediction_type not in divisor:
        raise ValueError(
            f"prediction_type={prediction_type!r} is unknown: expected one of {', '.join(divisor)}"
        )
    return snr.clamp_max(gamma) / divisor[prediction_type]


def prior_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the class images' prediction, ``pred`` and ``target`` [B, ...]: prior
    preservation (DreamBooth; Break-A-Scene's code, weight 1).

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
    _expect_same_shape(pred, target, name)
    if pred.numel() == 0:
        raise ValueError(f"pred {tuple(pred.shape)} is empty: expected at least one sample")
    with torch.autocast(pred.device.type, enabled=False):
        return (pred.float() - target.float()).square().mean()


def _expect_same_shape(pred: Tensor, other: Tensor, name: str) -> None:
    if pred.shape != other.shape:
        raise ValueError(
            f"pred {tuple(pred.shape)} and {name} {tuple(other.shape)} differ: expected "
            "the same shape"
        )
