"""Losses on the gates of attention, and where gates should be open by the masks of objects.

Pure functions of tensors; losses are float32 scalars, under autocast too, and their weight is the
caller's. Gates are [B, N, T]: N pixels of a map, T tokens (the pixels again in self-attention).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from losses.masks import cover_pixels


def gate_density(gate: Tensor, target: float, present: Tensor | None = None) -> Tensor:
    """Squared distance of each sample's share of open gates to ``target``, mean over B (this
    project's; MaskAttn-SDXL has no such term).

    ``gate`` [B, N, T] in [0, 1], binary with a straight-through gradient or probabilities; the
    share is their mean over the N pixels and the counted tokens. ``present`` [B, T] (bool) says
    which tokens count, all of them where it is None: another one adds nothing and gets a gradient
    of exactly zero, even where it is not finite. A sample without a counted token adds zero.
    ``target`` is a share in [0, 1]. Raises ValueError on shapes that do not fit, on an empty batch
    and on a target outside [0, 1].
    """
    if not 0 <= target <= 1:
        raise ValueError(
            f"target={target} is not a share of open gates: expected a number from 0 to 1"
        )
    if gate.dim() != 3 or gate.numel() == 0:
        raise ValueError(
            f"gate {tuple(gate.shape)} does not fit: expected [B, pixels, tokens], nothing empty"
        )
    samples, pixels, tokens = gate.shape
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
        share = opened / (pixels * counted.clamp_min(1))
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
        expected = "expected both [B, pixels, tokens], nothing empty"
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: {expected}"
        )
    if weight is None:
        weight = torch.ones_like(logits)
    elif weight.shape[::2] != logits.shape[::2] or weight.shape[1] not in (1, logits.shape[1]):
        raise ValueError(
            f"weight {tuple(weight.shape)} does not fit logits {tuple(logits.shape)}: "
            "expected [B, pixels or 1, tokens]"
        )
    with torch.autocast(logits.device.type, enabled=False):
        each = binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
        weight = weight.float().expand_as(each)
        total = weight.sum((1, 2))
        return ((each * weight).sum((1, 2)) / total.clamp_min(1e-8)).mean()


def gate_targets(
    kind: str,
    masks: Sequence[Sequence[Tensor]],
    token_indices: Sequence[Sequence[list[int]]],
    pixels: int,
    tokens: int,
    masked_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(target, weight), both [B, N, T]: where the tokens of each sample's objects should act, 1 or
    0, and how much each gate counts.

    ``masks`` are bool [H, W], ``token_indices`` those of each object's phrase, ``pixels`` is N and
    ``tokens`` T. Target ``own``: an object's tokens act in its mask and nowhere else. ``others``:
    they act everywhere but where another object is and theirs is not. Inside and outside count
    alike in all sizes; an object with nothing to tell apart does not count. All other
    tokens should stay open, and count together as much as the objects do; those ``masked_out``
    [B, T] of the text do not.
    """
    target = torch.ones(len(masks), pixels, tokens)
    weight = torch.zeros(len(masks), pixels, tokens)
    for b, (sample, indices) in enumerate(zip(masks, token_indices, strict=True)):
        inside = [mask_to_pixels(mask, pixels) for mask in sample]
        for own, at in zip(inside, indices, strict=True):
            act = ~(torch.stack(inside).any(0) & ~own) if kind == "others" else own
            if act.all() or not act.any():
                continue  # Nothing to tell apart
            balance = torch.where(act, 0.5 / act.sum(), 0.5 / (~act).sum()) * pixels
            target[b, :, at] = act.float()[:, None]
            weight[b, :, at] = balance[:, None]
        taken = {t for at in indices for t in at}
        if masked_out is not None:
            taken |= set(masked_out[b].nonzero().flatten().tolist())
        free = [t for t in range(tokens) if t not in taken]
        if free:
            weight[b, :, free] = weight[b].sum() / (pixels * len(free))
    return target, weight


def self_gate_targets(masks: Sequence[Sequence[Tensor]], pixels: int) -> tuple[Tensor, Tensor]:
    """(target, weight), both [B, N, N], for gates between pixels: closed where they belong to
    different objects and to no common one.

    Open and closed count alike; a sample without two objects does not count.
    """
    target = torch.ones(len(masks), pixels, pixels)
    weight = torch.zeros(len(masks), pixels, pixels)
    for b, sample in enumerate(masks):
        if len(sample) < 2:
            continue
        inside = torch.stack([mask_to_pixels(mask, pixels) for mask in sample]).float()
        covered = inside.amax(0)  # [N]
        apart = (torch.outer(covered, covered) > 0) & (inside.T @ inside == 0)
        if not apart.any():
            continue
        target[b] = (~apart).float()
        weight[b] = torch.where(apart, 0.5 / apart.sum(), 0.5 / (~apart).sum()) * pixels**2
    return target, weight


def mask_to_pixels(mask: Tensor, pixels: int) -> Tensor:
    """A bool mask [H, W] on a map of N = ``pixels`` of the same shape, bool [N]: the pixels that
    are covered by a quarter or more, and in any case the one that is covered most, so that nothing
    small vanishes."""
    height = max(round(math.sqrt(pixels * mask.shape[0] / mask.shape[1])), 1)
    size = (height, pixels // height)
    return cover_pixels(mask, size).flatten()
