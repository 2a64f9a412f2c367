"""Reasons for gates to close beside the denoising loss, which gives them none: a target density, or
the objects' masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from conf.schema import Gate
from datamodules.batch import Phrase
from lightning_modules.attention import Site
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.token_types import BOS
from losses.gates import gate_density, gate_mask_loss, gate_targets, self_gate_targets


def supervision_weight(config: Gate, done: float) -> float:
    """The weight of the supervision when the share ``done`` of the training is over."""
    annealing = {"none": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return config.supervision_weight * annealing[config.supervision_anneal]


def density_supervision(config: Gate, record: GateRecord) -> Tensor:
    """Mean over sites of `gate_density` with the binary gates that acted, over the tokens that are
    read but BOS."""
    losses = []
    for site, gate in record.gates.items():
        types = record.token_types.get(site)
        counts = torch.ones_like(gate[:, 0], dtype=torch.bool) if types is None else types != BOS
        if site in record.masked_out:
            counts = counts & ~record.masked_out[site]
        losses.append(gate_density(gate, config.supervision_density, counts))
    return torch.stack(losses).mean()


def mask_supervision(
    config: Gate,
    record: GateRecord,
    sites: Sequence[Site],
    phrases: Sequence[Sequence[Phrase]],
    token_indices: Sequence[Sequence[list[int]]],
) -> Tensor:
    """Mean over ``sites`` of `gate_mask_loss` with `gate_targets` (self-attention:
    `self_gate_targets`) for the phrases whose masks are known.

    ``token_indices`` are those of the phrases' tokens.
    """
    losses = []
    masks = [[phrase.mask for phrase in sample] for sample in phrases]
    targets: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}  # Sites of one size share them
    for site in sites:
        logits = record.logits[site.name]  # [B, N, T]
        _, pixels, tokens = logits.shape
        key = (site.kind, pixels)
        if key not in targets:
            if site.kind == "cross":
                masked_out = record.masked_out.get(site.name)
                target, weight = gate_targets(
                    config.supervision_target, masks, token_indices, pixels, tokens, masked_out
                )
            else:
                target, weight = self_gate_targets(masks, pixels)
            targets[key] = target.to(logits.device), weight.to(logits.device)
        target, weight = targets[key]
        losses.append(gate_mask_loss(logits, target, weight))
    return torch.stack(losses).mean()
