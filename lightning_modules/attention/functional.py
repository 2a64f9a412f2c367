"""Attention with gates, and maps of some tokens, as pure functions.

With l = q k / sqrt(d) + bias the logits and G >= 0 a gate for every (pixel, token), there are four
rules (`RULES`). The first three have the same forward pass, p = G exp(l) / sum G exp(l), which for
a binary G is that of adding -inf to closed logits (MaskAttn-SDXL, arXiv 2509.15357, eq. 4), and
differ in the gradient by a gate:

  exact              d out / d G_t = exp(l_t) / Z * (v_t - out) with Z = sum G exp(l). It exists
                     also where G = 0, so that a straight-through estimate (dG/dprobability := 1)
                     lets closed gates open again.
  released           that of softmax(l - 10^4 (1 - G)), as the released code has it: 10^4 times too
                     steep at open gates and exactly zero at closed ones, which stay closed.
  finite_difference  the whole change that flipping a gate would make: with w = exp(l) / Z,
                     (v - out) w / (1 + w) where it is closed and (v - out) w / (1 - w) where it is
                     open. The derivative at G = 0 is w, and a closed token whose logit stands far
                     above the open ones has a w of thousands, though opening it can at most make
                     the output its value.
  post_softmax       p = G softmax(l), with its own derivative: what is closed takes no part, and
                     its share goes to no other token. Divided by its sum it would be ``exact``.

Nothing of size heads x pixels x tokens is kept for the backward pass: logits are computed again
where a gradient needs them, and where it can be the output comes from scaled-dot-product attention.
All softmax arithmetic outside that call is float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

RULES = ("exact", "released", "finite_difference", "post_softmax")
STEEP = 1e4  # What the released code subtracts from a closed logit
# An open token is never taken to have more than 1 - LONELY of the attention: without it nothing
# would be left
LONELY = 0.05
# A closed logit may stand far above the open ones: exp(20) is gradient enough for it, and finite
CEILING = 20.0
# Numbers of one slice of the logits that a backward pass holds at a time (128 MiB in float32)
CHUNK = 2**25


def gated_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    bias: Tensor | None = None,
    rule: str = "exact",
) -> Tensor:
    """Attention under gates, [B, heads, N, d], differentiable by the gate as ``rule`` says.

    ``query`` [B, heads, N, d], ``key`` and ``value`` [B, heads, T, d], ``gate`` [B, N or 1, T] >= 0
    with one open token or more a pixel, ``bias`` broadcastable to [B, heads, N, T] is added to the
    logits and gets no gradient. With every gate at 1 the output is that of the stock call, bit by
    bit.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value, gate)):
        return _GatedAttention.apply(query, key, value, gate, bias, rule)
    return _attend(query, key, value, gate, bias, rule)


def token_maps(
    query: Tensor,
    key: Tensor,
    token_weights: Tensor,
    gate: Tensor | None = None,
    bias: Tensor | None = None,
    keep_heads: bool = False,
    rule: str = "exact",
    log_total: Tensor | None = None,
) -> Tensor:
    """Attention probabilities of some tokens, float32: [B, N, objects], or [B, heads, N, objects]
    with ``keep_heads``.

    ``token_weights`` [B, T, objects] weighs the tokens of an object (a column of zeros for an
    object that is not there); the others are as in `gated_attention`. The softmax runs over all T
    tokens, so that the values are those that the layer's output is made of. Without gates and bias
    ``log_total`` [B, heads, N], the logarithm of the softmax's sum (`attend_with_total`,
    `log_totals`), spares the logits of all tokens that no object has.
    """
    return _TokenMaps.apply(query, key, token_weights, gate, bias, keep_heads, rule, log_total)


def attend_with_total(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
    """(attention [B, heads, N, d], the logarithm of its softmax's sum, float32 [B, heads, N], which
    has no gradient), where torch's own kernel says both: on a CPU, of one dtype. The attention is
    that of the stock call, bit by bit."""
    same = query.device.type == "cpu" and query.dtype == key.dtype == value.dtype
    if not same or torch.is_autocast_enabled("cpu"):
        return None
    out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return out, total.detach()


@torch.no_grad()
def log_totals(query: Tensor, key: Tensor) -> Tensor:
    """The logarithm of the softmax's sum for each pixel, float32 [B, heads, N], in slices."""
    scale, wide_key, parts = query.shape[-1] ** -0.5, key.float().transpose(-1, -2), []
    with torch.autocast(query.device.type, enabled=False):
        for rows in _pixel_slices(query, key.shape[2]):
            parts.append(((query[:, :, rows].float() * scale) @ wide_key).logsumexp(-1))
    return torch.cat(parts, dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, gate: Tensor, bias: Tensor | None, rule: str
) -> Tensor:
    """The forward pass of `gated_attention`."""
    if rule != "post_softmax" or bool((gate == 1).all()):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=_additive_mask(query, gate, bias)
        )
    parts = []
    with torch.autocast(query.device.type, enabled=False):
        wide_key, wide_value = key.float(), value.float()
        for rows in _pixel_slices(query, key.shape[2]):
            p, _ = _probabilities(
                query[:, :, rows], wide_key, _take_rows(gate, rows), _take_rows(bias, rows), rule
            )
            parts.append((p @ wide_value).to(value.dtype))
    return torch.cat(parts, dim=2)


def _additive_mask(query: Tensor, gate: Tensor, bias: Tensor | None) -> Tensor | None:
    """The mask of scaled-dot-product attention that does what ``gate`` and ``bias`` do; None where
    they change nothing."""
    if bool((gate == 1).all()):
        return bias
    mask = gate.float().log().unsqueeze(1)
    return (mask if bias is None else mask + bias.float()).to(query.dtype)


def _pixel_slices(query: Tensor, tokens: int) -> Iterator[slice]:
    """Slices of the pixels, so small that their logits fit into `CHUNK`."""
    batch, heads, pixels, _ = query.shape
    step = max(CHUNK // max(batch * heads * tokens, 1), 1)
    for start in range(0, pixels, step):
        yield slice(start, min(start + step, pixels))


def _take_rows(tensor: Tensor | None, rows: slice) -> Tensor | None:
    """The same pixels of something that may have one row for all of them."""
    return tensor if tensor is None or tensor.shape[-2] == 1 else tensor[..., rows, :]


def _probabilities(
    query: Tensor, key: Tensor, gate: Tensor | None, bias: Tensor | None, rule: str
) -> tuple[Tensor, Tensor]:
    """(p, what a gate multiplies: p = G * that), both float32 [B, heads, n, T]; the same tensor
    without a gate."""
    logits = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
    if bias is not None:
        logits = logits + bias.float()
    if gate is None or rule == "post_softmax":
        raw = logits.softmax(-1)
        return (raw, raw) if gate is None else (gate.float().unsqueeze(1) * raw, raw)
    gate = gate.float().unsqueeze(1)
    top = logits.masked_fill(gate <= 0, -torch.inf).amax(-1, keepdim=True)
    raw = logits.sub_(top).clamp_(max=CEILING).exp_()
    weight = gate * raw
    total = weight.sum(-1, keepdim=True)
    return weight.div_(total), raw.div_(total)


def _softmax_backward(
    p: Tensor, raw: Tensor, grad_p: Tensor, gate: Tensor | None, rule: str, wants_gate: bool
) -> tuple[Tensor, Tensor | None]:
    """(gradient by the logits, gradient by the gate [B, n, T]) from the gradient by p."""
    if gate is not None and rule == "post_softmax":
        weighted = gate.float().unsqueeze(1) * grad_p
        by_logits = raw * (weighted - (raw * weighted).sum(-1, keepdim=True))
        return by_logits, (raw * grad_p).sum(1) if wants_gate else None
    centred = grad_p - (p * grad_p).sum(-1, keepdim=True)
    by_logits = p * centred
    if not wants_gate:
        return by_logits, None
    if rule == "released":
        return by_logits, (STEEP * by_logits).sum(1)
    if rule == "finite_difference":
        assert gate is not None
        raw = torch.where(gate.unsqueeze(1) > 0, raw / (1 - raw).clamp_min(LONELY), raw / (1 + raw))
    return by_logits, (raw * centred).sum(1)


class _GatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, gate, bias, rule):  # noqa: ANN001, ANN205
        ctx.save_for_backward(query, key, value, gate, bias)
        ctx.rule = rule
        return _attend(query, key, value, gate, bias, rule)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        query, key, value, gate, bias = ctx.saved_tensors
        grad_value = (
            torch.zeros_like(value, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        )
        with torch.autocast(query.device.type, enabled=False):
            wide_value = value.float()

            def gradient_by_probability(rows: slice, p: Tensor) -> Tensor:
                g = grad[:, :, rows].float()
                if grad_value is not None:
                    grad_value.add_(p.transpose(-1, -2) @ g)
                return g @ wide_value.transpose(-1, -2)

            grad_query, grad_key, grad_gate = _gradients(
                ctx, query, key, gate, bias, gradient_by_probability
            )
        return grad_query, grad_key, _cast_like(grad_value, value), grad_gate, None, None


class _TokenMaps(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: ANN205
        ctx,  # noqa: ANN001
        query,  # noqa: ANN001
        key,  # noqa: ANN001
        token_weights,  # noqa: ANN001
        gate,  # noqa: ANN001
        bias,  # noqa: ANN001
        keep_heads,  # noqa: ANN001
        rule,  # noqa: ANN001
        log_total,  # noqa: ANN001
    ):
        ctx.keep_heads, ctx.rule = keep_heads, rule
        parts = []
        with torch.autocast(query.device.type, enabled=False):
            wide_weights = token_weights.float()
            if log_total is not None:
                ctx.save_for_backward(query, key, wide_weights, gate, bias)
                return _maps_by_total(query, key, wide_weights, log_total, keep_heads)
            wide_key = key.float()
            for rows in _pixel_slices(query, key.shape[2]):
                p, _ = _probabilities(
                    query[:, :, rows],
                    wide_key,
                    _take_rows(gate, rows),
                    _take_rows(bias, rows),
                    rule,
                )
                parts.append(
                    p @ wide_weights.unsqueeze(1) if keep_heads else p.mean(1) @ wide_weights
                )
        ctx.save_for_backward(query, key, wide_weights, gate, bias)
        return torch.cat(parts, dim=-2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        query, key, token_weights, gate, bias = ctx.saved_tensors
        back = token_weights.transpose(-1, -2)  # [B, objects, T]

        def gradient_by_probability(rows: slice, p: Tensor) -> Tensor:
            g = grad[..., rows, :].float()
            return (
                g @ back.unsqueeze(1)
                if ctx.keep_heads
                else (g @ back).unsqueeze(1) / query.shape[1]
            )

        with torch.autocast(query.device.type, enabled=False):
            grad_query, grad_key, grad_gate = _gradients(
                ctx, query, key, gate, bias, gradient_by_probability
            )
        return grad_query, grad_key, None, grad_gate, None, None, None, None


def _maps_by_total(
    query: Tensor, key: Tensor, token_weights: Tensor, log_total: Tensor, keep_heads: bool
) -> Tensor:
    """`token_maps` of the tokens that objects have, from the softmax's sums."""
    counted = (token_weights != 0).any(-1).any(0).nonzero().flatten()
    logits = (query.float() * query.shape[-1] ** -0.5) @ key[:, :, counted].float().mT
    p = (logits - log_total[..., None]).exp_()  # [B, heads, N, counted]
    weights = token_weights[:, counted]
    return p @ weights.unsqueeze(1) if keep_heads else p.mean(1) @ weights


def _gradients(
    ctx: Any,
    query: Tensor,
    key: Tensor,
    gate: Tensor | None,
    bias: Tensor | None,
    gradient_by_probability: Callable[[slice, Tensor], Tensor],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients by query, key and gate, as far as ``ctx`` needs them, from the one by p, which
    ``gradient_by_probability`` gives for a slice of the pixels and their p, [B, heads or 1, n,
    T]."""
    wants_query, wants_key, _, wants_gate, *_ = ctx.needs_input_grad
    grad_query = torch.empty_like(query) if wants_query else None
    grad_key = torch.zeros_like(key, dtype=torch.float32) if wants_key else None
    grad_gate = torch.zeros_like(gate) if wants_gate and gate is not None else None
    scale, wide_key = query.shape[-1] ** -0.5, key.float()
    for rows in _pixel_slices(query, key.shape[2]):
        q, here = query[:, :, rows].float(), _take_rows(gate, rows)
        p, raw = _probabilities(q, wide_key, here, _take_rows(bias, rows), ctx.rule)
        by_logits, by_gate = _softmax_backward(
            p, raw, gradient_by_probability(rows, p), here, ctx.rule, wants_gate
        )
        if grad_query is not None:
            grad_query[:, :, rows] = (by_logits @ wide_key * scale).to(query.dtype)
        if grad_key is not None:
            grad_key += by_logits.transpose(-1, -2) @ q * scale
        if grad_gate is not None and by_gate is not None:
            if grad_gate.shape[-2] == 1:  # One row for all pixels gets their sum
                grad_gate += by_gate.sum(-2, keepdim=True)
            else:
                grad_gate[..., rows, :] = by_gate
    return grad_query, _cast_like(grad_key, key), grad_gate


def _cast_like(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)
