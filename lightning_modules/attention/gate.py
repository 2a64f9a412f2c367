"""Gates on cross-attention (MaskAttn-SDXL, arXiv 2509.15357, eq. 1-4): which token may act at which location.

A head looks at a location's features X_i and a token's embedding e_t and gives the logit of a gate. The gate is open where
sigmoid(logit) > threshold. With l the attention logits and G the binary gate, attention is p = G exp(l) / sum G exp(l): in the forward
pass the same as adding -inf to closed logits (eq. 4). Written this way its derivative by G exists also where G = 0,

    d out / d G_t = exp(l_t) / Z * (v_t - out),

so that a straight-through estimate (dG/dprobability := 1) lets closed gates open again. Adding -1e4 instead leaves them at zero gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.attention.sites import Site


class GateHead(nn.Module):
    """Two normalised projections and their scaled dot product: logits [B, N, T] from features [B, N, C] and tokens [B, T, D].

    Computed in float32 whatever the autocast: a gate is a comparison, and bfloat16 would move it.
    """

    def __init__(self, width: int, context: int, hidden: int, bias: float) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.token = nn.Sequential(nn.LayerNorm(context), nn.Linear(context, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.scale = hidden**-0.5

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            f = self.feature(features.float())  # [B, N, hidden]
            t = self.token(tokens.float())  # [B, T, hidden]
            return f @ t.transpose(1, 2) * self.scale + self.bias


def binary_gate(logits: Tensor, threshold: float, protect_first: bool) -> Tensor:
    """Gates [B, N, T]: exactly 0 or 1, with the gradient of sigmoid(logits) (straight through; eq. 3).

    ``protect_first`` keeps token 0 (BOS) open. A location whose gates are all closed opens the one of highest probability.
    """
    probability = logits.sigmoid()
    is_open = probability > threshold
    if protect_first:
        is_open = torch.cat([torch.ones_like(is_open[..., :1]), is_open[..., 1:]], dim=-1)
    else:
        best = F.one_hot(probability.argmax(-1), probability.shape[-1]).bool()
        is_open = is_open | (best & ~is_open.any(-1, keepdim=True))
    # Exactly binary in the forward pass: (hard + p) - p would round.
    return is_open.to(probability.dtype) + (probability - probability.detach())


def gated_attention(query: Tensor, key: Tensor, value: Tensor, gate: Tensor) -> Tensor:
    """Attention p = G exp(l) / sum G exp(l), differentiable by G also at G = 0; [B, heads, N, d].

    ``query`` [B, heads, N, d], ``key`` and ``value`` [B, heads, T, d], ``gate`` [B, N, T] with at least one open gate a location.
    Without gradients it is one scaled-dot-product attention, and with every gate open the same call as the stock processor's.
    """
    if not (torch.is_grad_enabled() and gate.requires_grad):
        is_open = gate > 0.5
        mask = None if bool(is_open.all()) else is_open.unsqueeze(1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast(query.device.type, enabled=False):  # a product would be rounded to half precision again
        logits = (query.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5  # [B, heads, N, T]
    gate = gate.unsqueeze(1).float()
    top = logits.detach().masked_fill(gate < 0.5, -torch.inf).amax(-1, keepdim=True)
    # A closed logit may stand far above the open ones; exp(20) is gradient enough for it and finite.
    weight = gate * (logits - top).clamp_max(20.0).exp()
    probability = weight / weight.sum(-1, keepdim=True)
    return (probability.to(value.dtype) @ value).to(query.dtype)


@dataclass
class GateRecord:
    """What gates did while recorded: closed and counted gates by site, and, when asked for, the last gates themselves."""

    conditional_half: bool = False  # count only the second half of a guidance batch
    keep_maps: bool = False
    closed: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)  # site -> mean over calls of open gates, [B, N, T]
    calls: dict[str, int] = field(default_factory=dict)

    def add(self, site: str, gate: Tensor, protected: int) -> None:
        gate = gate.detach()
        if self.conditional_half:
            gate = gate[len(gate) // 2 :]
        free = gate[..., protected:]
        self.closed[site] = self.closed.get(site, 0.0) + float((free < 0.5).sum())
        self.counted[site] = self.counted.get(site, 0) + free.numel()
        if self.keep_maps:
            self.calls[site] = self.calls.get(site, 0) + 1
            past = self.maps.get(site, torch.zeros_like(gate, dtype=torch.float32))
            self.maps[site] = past + (gate.float() - past) / self.calls[site]

    def share_closed(self) -> float:
        """Share of unprotected gates that were closed, over all sites, in [0, 1]."""
        return sum(self.closed.values()) / max(sum(self.counted.values()), 1)


class GatedProcessor:
    """The stock cross-attention of a UNet layer with a gate before the softmax. Plain class: its head is owned by `Gates`."""

    def __init__(self, site: Site, gates: Gates) -> None:
        self.site, self.gates = site, gates

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is None or attention_mask is not None:
            raise ValueError(f"{self.site.name}: gates take cross-attention without an attention mask")
        batch, locations, _ = hidden_states.shape
        logits = self.gates.head(self.site)(hidden_states, encoder_hidden_states)  # [B, N, T]
        gate = binary_gate(logits, self.gates.threshold, self.gates.protect_first)
        if self.gates.record is not None:
            self.gates.record.add(self.site.name, gate, int(self.gates.protect_first))

        def heads(x: Tensor) -> Tensor:  # [B, L, heads * d] -> [B, heads, L, d]
            return x.view(batch, -1, attn.heads, x.shape[-1] // attn.heads).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        key, value = heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states))
        out = gated_attention(query, key, value, gate)
        out = out.transpose(1, 2).reshape(batch, locations, -1)
        out = attn.to_out[1](attn.to_out[0](out))
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor


class Gates(nn.Module):
    """The gate heads of a set of sites: one for each (stage, width, context), shared by the sites that agree in all three."""

    def __init__(self, chosen: list[Site], hidden: int, bias: float, threshold: float, protect_first: bool) -> None:
        super().__init__()
        self.sites, self.threshold, self.protect_first = chosen, threshold, protect_first
        self.record: GateRecord | None = None
        self.heads = nn.ModuleDict()
        for site in chosen:
            if self._key(site) not in self.heads:
                self.heads[self._key(site)] = GateHead(site.width, site.context, hidden, bias)

    @staticmethod
    def _key(site: Site) -> str:
        return f"{site.stage}_{site.width}_{site.context}"

    def head(self, site: Site) -> nn.Module:
        return self.heads[self._key(site)]

    def install(self, unet) -> dict:  # noqa: ANN001 - a diffusers UNet2DConditionModel
        """Puts the gates into ``unet``; returns the processors that stood there, for ``unet.set_attn_processor``."""
        before = dict(unet.attn_processors)
        gated = {site.processor: GatedProcessor(site, self) for site in self.sites}
        # set_attn_processor empties the dict that it is given.
        unet.set_attn_processor({**before, **gated})
        return before

    @contextmanager
    def recording(self, conditional_half: bool = False, keep_maps: bool = False) -> Iterator[GateRecord]:
        """Records what the gates do inside the block; not meant for training steps with gradient checkpointing."""
        self.record = GateRecord(conditional_half, keep_maps)
        try:
            yield self.record
        finally:
            self.record = None
