"""The naive way, to be measured against: attention of every layer multiplied out by autograd's own
operations, its probabilities kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attention import hooks

CLOSED = 1e4  # what is subtracted from the logit of a closed gate, as released code does it


@contextmanager
def materialised() -> Iterator[list[Tensor]]:
    """Inside the block every attention, with gates or without, computes its probabilities [B,
    heads, N, T] and appends them to the list; maps of tokens are read from the latest of them."""
    kept: list[Tensor] = []

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *_: Any,
        scale: float | None = None,
        **__: Any,
    ) -> Tensor:
        logits = (
            query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        )
        kept.append((logits if attn_mask is None else logits + attn_mask).softmax(-1))
        return kept[-1] @ value

    def gated(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        gate: Tensor,
        bias: Tensor | None = None,
        rule: str = "",
    ) -> Tensor:
        added = torch.where(
            gate > 0, gate.clamp_min(torch.finfo(gate.dtype).tiny).log(), -CLOSED * (1 - gate)
        )
        mask = added.unsqueeze(1).to(query.dtype)
        return attention(query, key, value, mask if bias is None else mask + bias)

    def maps(
        query: Tensor,
        key: Tensor,
        select: Tensor,
        gate: Any = None,
        bias: Any = None,
        keep_heads: bool = False,
        rule: str = "",
    ) -> Tensor:
        p = kept[-1][-len(query) :].float()
        return p @ select.unsqueeze(1) if keep_heads else p.mean(1) @ select

    places: list[tuple[Any, str, Any]] = [
        (F, "scaled_dot_product_attention", attention),
        (hooks, "gated_attention", gated),
        (hooks, "token_maps", maps),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, ours in places:
        setattr(module, name, ours)
    try:
        yield kept
    finally:
        for (module, name, _), stock in zip(places, before, strict=True):
            setattr(module, name, stock)
