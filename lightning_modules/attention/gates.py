"""Gates on attention (MaskAttn-SDXL, arXiv 2509.15357, eq. 1-4): which token may act at which
location.

A head looks at a location's features X_i and a token's embedding e_t and gives the logit of a gate.
What a gate does to the attention, and why it can open again, stands in `functional`. On
self-attention the tokens are the locations themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conf.schema import Gate
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gate_targets import gate_targets
from lightning_modules.attention.hooks import ForwardContext, GateHook
from lightning_modules.attention.sites import Site
from lightning_modules.attention.token_types import (
    BOS,
    PADDING,
    WORD,
    token_types_by_end,
    unknown_token_types,
)
from lightning_modules.networks.gate_heads import build_head


def straight_through(is_open: Tensor, value: Tensor) -> Tensor:
    """Exactly 0 or 1 as ``is_open``, with the gradient of ``value``. (hard + p) - p would round."""
    return is_open.to(value.dtype) + (value - value.detach())


def decide(
    logits: Tensor, mode: str, threshold: Tensor | float, keep: float, free: Tensor | None = None
) -> Tensor:
    """Gates [B, N, T] from logits; p = sigmoid(logit).

    ``hard``: 1 where p > threshold, gradient of p (straight through; eq. 3). ``learned``: the same,
    where the threshold is a tensor that gets the gradient of -threshold. ``soft``: p itself.
    ``topk``: 1 at the share ``keep`` of a location's tokens with the highest p (at least one),
    gradient of p. ``free``, broadcastable to [B, N, T], are the tokens that ``topk`` chooses from,
    all of them without.
    """
    probability = logits.sigmoid()
    if mode == "soft":
        return probability
    if mode == "topk":
        there = (
            torch.ones_like(probability, dtype=torch.bool)
            if free is None
            else free.expand_as(probability)
        )
        count = (keep * there.sum(-1, keepdim=True)).round().clamp_min(1)  # [B, N, 1]
        place = (
            logits.masked_fill(~there, -torch.inf)
            .argsort(dim=-1, descending=True, stable=True)
            .argsort(dim=-1)
        )
        return straight_through(there & (place < count), probability)
    if mode == "learned":
        return straight_through(probability > threshold, probability - threshold)
    return straight_through(probability > threshold, probability)


def keep_one_open(gate: Tensor, logits: Tensor, rule: str, allowed: Tensor | None = None) -> Tensor:
    """Locations whose gates are all closed get a defined one: ``strongest`` opens the most probable
    token, ``all`` opens every token.

    ``allowed`` [B, 1, T] are the tokens that may be opened. Other locations stay as they are,
    gradients too.
    """
    empty = ~(gate > 0).any(-1, keepdim=True)
    # Where nothing is empty the rest adds zeros. To look first saves that on a CPU, but makes a GPU
    # wait for the host in every layer.
    if gate.device.type == "cpu" and not bool(empty.any()):
        return gate
    if rule == "strongest":
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        opened = F.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
    else:
        opened = (
            torch.ones_like(gate, dtype=torch.bool) if allowed is None else allowed.expand_as(gate)
        )
    return gate + (opened & empty).to(gate.dtype)


def rule_of(config: Gate) -> str:
    """The rule of `functional` by which gates of these settings act and get their gradient."""
    if config.apply_at == "post_softmax":
        return "post_softmax"
    # G softmax(l) over its sum is G exp(l) over its sum: the gradient at the logits serves, but not
    # that of -10^4.
    if config.apply_at == "post_softmax_renormalised" and config.gradient == "released":
        return "exact"
    # Soft gates do not flip.
    return (
        "exact"
        if config.gradient == "finite_difference" and config.mode == "soft"
        else config.gradient
    )


class Gates(nn.Module, GateHook):
    """The gate heads of a set of sites: one for each (stage, kind, width, context) that its sites
    share, or one for each site.

    ``kinds`` tells, for a text [B, T, D], what stands at each position (`tokens.list_token_types`);
    without it, it is known from the mask that the model is given with its text (T5), and where
    there is none, too, BOS is all that is known. Tokens that such a mask takes out have no gate:
    theirs is 1, and a location where all others are closed is closed.
    """

    def __init__(
        self, chosen: Sequence[Site], config: Gate, kinds: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.sites, self.config, self.kinds = list(chosen), config, kinds
        self.rule = rule_of(config)
        self.record: GateRecord | None = None
        # Phrases and positions whose masks stand in for the heads (`gate_targets`)
        self.layout: tuple[Sequence, Sequence] | None = None
        # Gates act, but only what reads them gets their gradient: none flows through the backbone
        self.watch_only = False
        self.heads = nn.ModuleDict()
        self.thresholds = nn.ParameterDict()
        for site in chosen:
            key = self.key(site)
            if key not in self.heads:
                self.heads[key] = build_head(
                    config.head, site.width, site.context, config.width, config.depth, config.bias
                )
                if config.mode == "learned":
                    self.thresholds[key] = nn.Parameter(torch.logit(torch.tensor(config.threshold)))

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def key(self, site: Site) -> str:
        """The name of a site's head."""
        if self.config.sharing == "layer":
            return site.name.replace(".", "_")
        kind = "" if site.kind == "cross" else "self_"
        return f"{kind}{site.stage}_{site.width}_{site.context}"

    def weight(self, site: Site, hidden: Tensor, context: Tensor, now: ForwardContext) -> Tensor:
        if self.watch_only:
            with torch.enable_grad():
                return self._weigh(site, hidden.detach(), context.detach(), now).detach()
        return self._weigh(site, hidden, context, now)

    def _weigh(self, site: Site, hidden: Tensor, context: Tensor, now: ForwardContext) -> Tensor:
        config, key = self.config, self.key(site)
        if self.layout is not None and site.kind == "cross":
            logits = self._by_layout(*self.layout, hidden, context)
        else:
            logits = self.heads[key](hidden, context, now.plane(site, hidden.shape[1]))  # [B, N, T]
        threshold = self.thresholds[key].sigmoid() if key in self.thresholds else config.threshold
        kinds = self.kinds_of(site, context, now)  # [B, T], or None for self-attention
        fixed, closed = self._fixed(kinds, logits)
        unread = None if kinds is None or now.unread is None else now.unread[:, None]
        if unread is not None:
            fixed, closed = fixed & ~unread, unread if closed is None else closed | unread
        free = ~fixed if closed is None else ~(fixed | closed)
        gate = decide(logits, config.mode, threshold, config.keep, free)
        if closed is not None:
            gate = torch.where(closed, 0.0, gate)
        gate = torch.where(fixed, 1.0, gate)
        gate = keep_one_open(
            gate, logits, config.if_all_closed, None if closed is None else ~closed
        )
        if unread is not None:
            gate = torch.where(unread, 1.0, gate)  # the mask does the rest, as in the stock model
        if self.record is not None and not now.replay:
            # What a signal teaches is when a gate opens, and so where the learned threshold lies.
            decisive = logits - torch.logit(threshold) if isinstance(threshold, Tensor) else logits
            self.record.add(site, gate, decisive, free, kinds, now)
        return gate

    @staticmethod
    def _by_layout(
        phrases: Sequence, positions: Sequence, hidden: Tensor, context: Tensor
    ) -> Tensor:
        """Logits of gates that are open as the masks say; open everywhere in an unconditional
        half."""
        target, _ = gate_targets("own", phrases, positions, hidden.shape[1], context.shape[1])
        if len(hidden) == 2 * len(target):
            target = torch.cat([torch.ones_like(target), target])
        return (target.to(hidden.device) - 0.5) * 40

    def kinds_of(
        self, site: Site, context: Tensor, now: ForwardContext | None = None
    ) -> Tensor | None:
        """uint8 [B, T]: what stands at the positions of a text; None where the tokens are
        locations."""
        if site.kind == "self":
            return None
        if self.kinds is not None:
            return self.kinds(context)
        if now is None or now.unread is None:
            return unknown_token_types(context)
        return token_types_by_end((~now.unread).sum(1) - 1, context.shape[1], bos=False)

    def _fixed(self, kinds: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """(gates that are always open, gates that are always closed or None), broadcastable to [B,
        N, T]."""
        if kinds is None:  # a location may always look at itself
            return torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)[None], None
        protect, padding = self.config.protect, self.config.padding_gate
        fixed = torch.zeros_like(kinds, dtype=torch.bool)
        if protect == "bos":
            fixed = kinds == BOS
        elif protect == "specials":
            fixed = kinds != WORD
        if padding == "open":
            fixed = fixed | (kinds == PADDING)
        closed = kinds == PADDING if padding == "closed" else None
        if closed is not None:
            fixed = fixed & ~closed
        return fixed[:, None], None if closed is None else closed[:, None]

    @contextmanager
    def recording(
        self, conditional_half: bool = False, keep_maps: bool = False, live: bool = False
    ) -> Iterator[GateRecord]:
        """Records what the gates do inside the block; ``live`` also keeps the latest pass's logits
        with their gradient."""
        before, self.record = self.record, GateRecord(conditional_half, keep_maps, live)
        try:
            yield self.record
        finally:
            self.record = before
