"""A small attention under gates, and its probabilities by the formula of each rule."""

from __future__ import annotations

import torch
from helpers.unet_inputs import draw


def problem() -> tuple[torch.Tensor, ...]:
    """query [2, 3, 5, 4], key and value [2, 3, 6, 4], and a random gate [2, 5, 6] with token 0
    open."""
    gate = (draw(4, 2, 5, 6) > 0).float()
    gate[..., 0] = 1
    return draw(1, 2, 3, 5, 4), draw(2, 2, 3, 6, 4), draw(3, 2, 3, 6, 4), gate


def probability(
    query: torch.Tensor,
    key: torch.Tensor,
    gate: torch.Tensor,
    rule: str,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """p [B, heads, N, T] by the formula of each rule, in float64."""
    logits = query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5
    logits = logits if bias is None else logits + bias.double()
    gate = gate.double().unsqueeze(1)
    if rule == "released":
        return (logits - 1e4 * (1 - gate)).softmax(-1)
    if rule == "post_softmax":
        return gate * logits.softmax(-1)
    return gate * logits.exp() / (gate * logits.exp()).sum(-1, keepdim=True)
