"""Gates on cross-attention (MaskAttn-SDXL, arXiv 2509.15357, eq. 1-4): which token may act at which location.

A head looks at a location's features X_i and a token's embedding e_t and gives the logit of a gate. The gate is open where
sigmoid(logit) > threshold. What a gate does to the attention, and why it can open again, stands in `functional`; adding -1e4 to the
logits instead would leave closed gates at zero gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.attention.sites import Site
from lightning_modules.attention.wiring import WeighsTokens


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


class Gates(nn.Module, WeighsTokens):
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

    def weight(self, site: Site, hidden: Tensor, context: Tensor, replay: bool) -> Tensor:
        gate = binary_gate(self.heads[self._key(site)](hidden, context), self.threshold, self.protect_first)
        if self.record is not None and not replay:
            self.record.add(site.name, gate, int(self.protect_first))
        return gate

    @contextmanager
    def recording(self, conditional_half: bool = False, keep_maps: bool = False) -> Iterator[GateRecord]:
        """Records what the gates do inside the block."""
        self.record = GateRecord(conditional_half, keep_maps)
        try:
            yield self.record
        finally:
            self.record = None
