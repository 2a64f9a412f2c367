"""Where gates should be open, by the masks of the objects that phrases mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import Phrase


def gate_targets(
    kind: str,
    phrases: Sequence[Sequence[Phrase]],
    positions: Sequence[Sequence[list[int]]],
    locations: int,
    tokens: int,
    unread: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(target, weight), both [B, N, T]: where the tokens of phrases should act, 1 or 0, and how
    much each gate counts.

    Target ``own``: a phrase's tokens act where its object is and nowhere else. ``others``: they act
    everywhere but where another phrase's object is and theirs is not. Inside and outside count
    alike, whatever their size; a phrase with nothing to tell apart does not count. All other tokens
    should stay open, and count together as much as the phrases do; those ``unread`` [B, T] by the
    model do not. ``positions`` are the tokens of the phrases.
    """
    target, weight = (
        torch.ones(len(phrases), locations, tokens),
        torch.zeros(len(phrases), locations, tokens),
    )
    for b, (sample, places) in enumerate(zip(phrases, positions, strict=True)):
        masks = [on_plane(phrase.mask, locations) for phrase in sample]
        for i, (mask, at) in enumerate(zip(masks, places, strict=True)):
            wanted = mask
            if kind == "others":
                others = [m for k, m in enumerate(masks) if k != i]
                wanted = ~(torch.stack(others).any(0) & ~mask) if others else torch.ones_like(mask)
            balance = (
                torch.where(
                    wanted, 0.5 / wanted.sum().clamp_min(1), 0.5 / (~wanted).sum().clamp_min(1)
                )
                * locations
            )
            if wanted.all() or not wanted.any():
                continue  # nothing to tell apart
            target[b, :, at] = wanted.float()[:, None]
            weight[b, :, at] = balance[:, None]
        taken = {t for at in places for t in at} | (
            set() if unread is None else set(unread[b].nonzero().flatten().tolist())
        )
        free = [t for t in range(tokens) if t not in taken]
        if free:
            weight[b, :, free] = weight[b].sum() / (locations * len(free))
    return target, weight


def self_targets(phrases: Sequence[Sequence[Phrase]], locations: int) -> tuple[Tensor, Tensor]:
    """(target, weight), both [B, N, N], for gates between locations: closed where they belong to
    different objects and to no common one.

    Both kinds count alike; a sample without two objects does not count.
    """
    target, weight = (
        torch.ones(len(phrases), locations, locations),
        torch.zeros(len(phrases), locations, locations),
    )
    for b, sample in enumerate(phrases):
        if len(sample) < 2:
            continue
        # [objects, N]
        masks = torch.stack([on_plane(phrase.mask, locations) for phrase in sample]).float()
        covered = masks.amax(0)
        apart = (torch.outer(covered, covered) > 0) & (masks.T @ masks == 0)
        if not apart.any():
            continue
        target[b] = (~apart).float()
        weight[b] = torch.where(apart, 0.5 / apart.sum(), 0.5 / (~apart).sum()) * locations**2
    return target, weight


def on_plane(mask: Tensor, locations: int) -> Tensor:
    """A bool mask [H, W] on a plane of ``locations`` of the same shape, bool [N]: where a quarter
    of a location or more is covered, and in any case where most of it is, so that nothing small
    vanishes."""
    height = max(round(math.sqrt(locations * mask.shape[0] / mask.shape[1])), 1)
    share = F.interpolate(
        mask[None, None].float(), (height, locations // height), mode="area"
    ).flatten()
    return (share >= 0.25) | ((share == share.max()) & (share > 0))
