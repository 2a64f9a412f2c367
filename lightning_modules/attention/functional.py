"""Attention with gates and maps of chosen tokens, as pure functions.

With l = q k / sqrt(d) + bias the logits and G >= 0 a weight for every (location, token), attention is p = G exp(l) / sum G exp(l).
A binary G is a gate (MaskAttn-SDXL, arXiv 2509.15357, eq. 4: the same forward pass as adding -inf to closed logits), any other G
scales how much a token counts. The derivative by G exists also where G = 0,

    d out / d G_t = exp(l_t) / Z * (v_t - out)        Z = sum G exp(l),

so that a straight-through estimate (dG/dprobability := 1) lets closed gates open again.

Nothing of size heads x locations x tokens is kept for the backward pass: the output comes from scaled-dot-product attention, and logits
are computed again where a gradient needs them. All softmax arithmetic outside that call is float32 whatever the autocast.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CEILING = 20.0       # a closed logit may stand far above the open ones: exp(20) is gradient enough for it, and finite
CHUNK = 2**25        # numbers of one slice of the logits that a backward pass holds at a time (128 MiB in float32)


def gated_attention(query: Tensor, key: Tensor, value: Tensor, gate: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention p = G exp(l) / sum G exp(l), differentiable by G also at G = 0; [B, heads, N, d].

    ``query`` [B, heads, N, d], ``key`` and ``value`` [B, heads, T, d], ``gate`` [B, N or 1, T] >= 0 with one open token or more a
    location, ``bias`` broadcastable to [B, heads, N, T] is added to the logits and gets no gradient. With every gate at 1 the output is
    that of the stock call, bit by bit.
    """
    if torch.is_grad_enabled() and gate.requires_grad:
        return _GatedAttention.apply(query, key, value, gate, bias)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=_additive(query, gate, bias))


def token_maps(
    query: Tensor, key: Tensor, select: Tensor, gate: Tensor | None = None, bias: Tensor | None = None, keep_heads: bool = False
) -> Tensor:
    """Attention probabilities of chosen tokens, float32: [B, N, objects], or [B, heads, N, objects] with ``keep_heads``.

    ``select`` [B, T, objects] weighs the tokens of an object (a column of zeros for an object that is not there); the others are as in
    `gated_attention`. The softmax runs over all T tokens, so that the values are those that the layer's output is made of.
    """
    return _TokenMaps.apply(query, key, select, gate, bias, keep_heads)


def _additive(query: Tensor, gate: Tensor, bias: Tensor | None) -> Tensor | None:
    """The mask of scaled-dot-product attention that does what ``gate`` and ``bias`` do; None where they change nothing."""
    if bool((gate == 1).all()):
        return bias
    mask = gate.float().log().unsqueeze(1)
    return (mask if bias is None else mask + bias.float()).to(query.dtype)


def _slices(query: Tensor, tokens: int) -> Iterator[slice]:
    """Slices of the locations, so small that their logits fit into `CHUNK`."""
    batch, heads, locations, _ = query.shape
    step = max(CHUNK // max(batch * heads * tokens, 1), 1)
    for start in range(0, locations, step):
        yield slice(start, min(start + step, locations))


def _rows(tensor: Tensor | None, rows: slice) -> Tensor | None:
    """The same locations of something that may have one row for all of them."""
    return tensor if tensor is None or tensor.shape[-2] == 1 else tensor[..., rows, :]


def _probability(query: Tensor, key: Tensor, gate: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """(p, exp(l) / Z), both float32 [B, heads, n, T]; the same tensor without a gate."""
    logits = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-1, -2)
    if bias is not None:
        logits = logits + bias.float()
    if gate is None:
        p = logits.softmax(-1)
        return p, p
    gate = gate.float().unsqueeze(1)
    top = logits.masked_fill(gate <= 0, -torch.inf).amax(-1, keepdim=True)
    raw = logits.sub_(top).clamp_(max=CEILING).exp_()
    weight = gate * raw
    total = weight.sum(-1, keepdim=True)
    return weight.div_(total), raw.div_(total)


def _through_softmax(p: Tensor, raw: Tensor, grad_p: Tensor, gated: bool) -> tuple[Tensor, Tensor | None]:
    """(gradient by the logits, gradient by the gate [B, n, T]) from the gradient by p."""
    centred = grad_p - (p * grad_p).sum(-1, keepdim=True)
    return p * centred, (raw * centred).sum(1) if gated else None


class _GatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, gate, bias):  # noqa: ANN001, ANN205
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=_additive(query, gate, bias))
        ctx.save_for_backward(query, key, value, gate, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        query, key, value, gate, bias = ctx.saved_tensors
        wants_query, wants_key, wants_value, wants_gate, _ = ctx.needs_input_grad
        grad_query = torch.empty_like(query) if wants_query else None
        grad_key, grad_value = (torch.zeros_like(x, dtype=torch.float32) if wanted else None
                                for x, wanted in ((key, wants_key), (value, wants_value)))
        grad_gate = torch.zeros_like(gate) if wants_gate else None
        scale = query.shape[-1] ** -0.5
        with torch.autocast(query.device.type, enabled=False):
            wide_key, wide_value = key.float(), value.float()
            for rows in _slices(query, key.shape[2]):
                q, g = query[:, :, rows].float(), grad[:, :, rows].float()
                p, raw = _probability(q, wide_key, _rows(gate, rows), _rows(bias, rows))
                by_logits, by_gate = _through_softmax(p, raw, g @ wide_value.transpose(-1, -2), wants_gate)
                if grad_query is not None:
                    grad_query[:, :, rows] = (by_logits @ wide_key * scale).to(query.dtype)
                if grad_key is not None:
                    grad_key += by_logits.transpose(-1, -2) @ q * scale
                if grad_value is not None:
                    grad_value += p.transpose(-1, -2) @ g
                _add_gate(grad_gate, by_gate, rows)
        return grad_query, _narrow(grad_key, key), _narrow(grad_value, value), grad_gate, None


class _TokenMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, select, gate, bias, keep_heads):  # noqa: ANN001, ANN205
        parts = []
        with torch.autocast(query.device.type, enabled=False):
            wide_key, wide_select = key.float(), select.float()
            for rows in _slices(query, key.shape[2]):
                p, _ = _probability(query[:, :, rows], wide_key, _rows(gate, rows), _rows(bias, rows))
                parts.append(p @ wide_select.unsqueeze(1) if keep_heads else p.mean(1) @ wide_select)
        ctx.save_for_backward(query, key, wide_select, gate, bias)
        ctx.keep_heads = keep_heads
        return torch.cat(parts, dim=-2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        query, key, select, gate, bias = ctx.saved_tensors
        wants_query, wants_key, _, wants_gate, *_ = ctx.needs_input_grad
        grad_query = torch.empty_like(query) if wants_query else None
        grad_key = torch.zeros_like(key, dtype=torch.float32) if wants_key else None
        grad_gate = torch.zeros_like(gate) if wants_gate else None
        scale = query.shape[-1] ** -0.5
        back = select.transpose(-1, -2)  # [B, objects, T]
        with torch.autocast(query.device.type, enabled=False):
            wide_key = key.float()
            for rows in _slices(query, key.shape[2]):
                q, g = query[:, :, rows].float(), grad[..., rows, :].float()
                p, raw = _probability(q, wide_key, _rows(gate, rows), _rows(bias, rows))
                by_p = g @ back.unsqueeze(1) if ctx.keep_heads else (g @ back).unsqueeze(1) / query.shape[1]
                by_logits, by_gate = _through_softmax(p, raw, by_p, wants_gate)
                if grad_query is not None:
                    grad_query[:, :, rows] = (by_logits @ wide_key * scale).to(query.dtype)
                if grad_key is not None:
                    grad_key += by_logits.transpose(-1, -2) @ q * scale
                _add_gate(grad_gate, by_gate, rows)
        return grad_query, _narrow(grad_key, key), None, grad_gate, None, None


def _add_gate(total: Tensor | None, part: Tensor | None, rows: slice) -> None:
    """Adds the gate's gradient of some locations; a gate with one row for all of them gets their sum."""
    if total is None or part is None:
        return
    if total.shape[-2] == 1:
        total += part.sum(-2, keepdim=True)
    else:
        total[..., rows, :] = part


def _narrow(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)
