"""Gates on attention (MaskAttn-SDXL, arXiv 2509.15357, eq. 1-4): which token may act at which pixel
of a map.

A head looks at a pixel's features X_i and a token's embedding e_t and gives the logit of a gate.
What a gate does to the attention, and why it can open again, stands in `functional`. In
self-attention the tokens are the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conf.schema import Gate
from lightning_modules.attention.gate_stats import GateRecord
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
from losses.gates import gate_targets


def straight_through(is_open: Tensor, value: Tensor) -> Tensor:
    """Exactly 0 or 1 as ``is_open``, with the gradient of ``value``. (hard + p) - p would round."""
    return is_open.to(value.dtype) + (value - value.detach())


def decide(
    logits: Tensor, mode: str, threshold: Tensor | float, keep: float, free: Tensor | None = None
) -> Tensor:
    """Gates [B, N, T] from logits; p = sigmoid(logit).

    ``hard``: 1 where p > threshold, gradient of p (straight through; eq. 3). ``learned``: the same,
    where the threshold is a tensor that gets the gradient of -threshold. ``soft``: p itself.
    ``topk``: 1 at the share ``keep`` of a pixel's tokens with the highest p (at least one),
    gradient of p. ``free``, broadcastable to [B, N, T], are the tokens that ``topk`` ranks, all of
    them without.
    """
    probability = logits.sigmoid()
    if mode == "soft":
        return probability
    if mode == "topk":
        ranked = torch.ones_like(probability, dtype=torch.bool)
        if free is not None:
            ranked = free.expand_as(probability)
        count = (keep * ranked.sum(-1, keepdim=True)).round().clamp_min(1)  # [B, N, 1]
        order = logits.masked_fill(~ranked, -torch.inf).argsort(
            dim=-1, descending=True, stable=True
        )
        return straight_through(ranked & (order.argsort(dim=-1) < count), probability)
    if mode == "learned":
        return straight_through(probability > threshold, probability - threshold)
    return straight_through(probability > threshold, probability)


def keep_one_open(gate: Tensor, logits: Tensor, rule: str, allowed: Tensor | None = None) -> Tensor:
    """Opens gates where all of a pixel's are closed: ``strongest`` opens the most probable token,
    ``all`` opens every token.

    ``allowed`` [B, 1, T] are the tokens that may be opened. Other pixels stay as they are,
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
        opened = torch.ones_like(gate, dtype=torch.bool)
        if allowed is not None:
            opened = allowed.expand_as(gate)
    return gate + (opened & empty).to(gate.dtype)


def gradient_rule(config: Gate) -> str:
    """The rule of `functional` by which gates of these settings act and get their gradient."""
    if config.apply_at == "post_softmax":
        return "post_softmax"
    # G softmax(l) over its sum is G exp(l) over its sum: the gradient at the logits serves, but not
    # that of -10^4.
    if config.apply_at == "post_softmax_renormalised" and config.gradient == "released":
        return "exact"
    # Soft gates do not flip.
    if config.gradient == "finite_difference" and config.mode == "soft":
        return "exact"
    return config.gradient


class Gates(nn.Module, GateHook):
    """The gate heads of a set of sites: one for each (stage, kind, width, context) that its sites
    share, or one for each site.

    ``token_types`` gives the types [B, T] of a text's tokens [B, T, D] (`token_types`); without it
    they are known from the mask that the model is given with its text (T5), and where there is
    none, too, BOS is all that is known. Tokens that such a mask takes out have no gate: theirs is
    1, and a pixel where all others are closed is closed.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        config: Gate,
        token_types: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.sites, self.config, self.token_types = list(sites), config, token_types
        self.rule = gradient_rule(config)
        self.record: GateRecord | None = None
        # Phrases and their token indices, whose masks stand in for the heads
        self.layout: tuple[Sequence, Sequence] | None = None
        # Gates act, but only what reads them gets their gradient: none flows through the backbone
        self.watch_only = False
        self.heads = nn.ModuleDict()
        self.thresholds = nn.ParameterDict()
        for site in sites:
            key = self.key(site)
            if key not in self.heads:
                self.heads[key] = build_head(
                    config.head, site.width, site.context, config.width, config.depth, config.bias
                )
                if config.mode == "learned":
                    self.thresholds[key] = nn.Parameter(torch.logit(torch.tensor(config.threshold)))

    @property
    def skips_blank(self) -> bool:
        """As `GateHook`'s: no, while gates of all rows are recorded."""
        return self.record is None or self.record.conditional_half

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def key(self, site: Site) -> str:
        """The name of a site's head."""
        if self.config.sharing == "layer":
            return site.name.replace(".", "_")
        kind = "" if site.kind == "cross" else "self_"
        return f"{kind}{site.stage}_{site.width}_{site.context}"

    def weight(
        self, site: Site, hidden: Tensor, context: Tensor, forward: ForwardContext
    ) -> Tensor | None:
        if self.watch_only:
            with torch.enable_grad():
                gate = self._weigh(site, hidden.detach(), context.detach(), forward).detach()
            return gate if self.config.acts_in_training else None
        return self._weigh(site, hidden, context, forward)

    def _weigh(
        self, site: Site, hidden: Tensor, context: Tensor, forward: ForwardContext
    ) -> Tensor:
        config, key = self.config, self.key(site)
        self._follow(hidden.device)
        if self.layout is not None and site.kind == "cross":
            logits = self._layout_logits(*self.layout, hidden, context)
        else:
            size = forward.map_size(site, hidden.shape[1])
            logits = self.heads[key](hidden, context, size)  # [B, N, T]
        threshold = self.thresholds[key].sigmoid() if key in self.thresholds else config.threshold
        types = self.types_at(site, context, forward)  # [B, T], or None in self-attention
        always_open, closed = self._fixed(types, logits)
        masked_out = None
        if types is not None and forward.masked_out is not None:
            masked_out = forward.masked_out[:, None]
            always_open = always_open & ~masked_out
            closed = masked_out if closed is None else closed | masked_out
        free = ~always_open if closed is None else ~(always_open | closed)
        gate = decide(logits, config.mode, threshold, config.keep, free)
        if closed is not None:
            gate = torch.where(closed, 0.0, gate)
        gate = torch.where(always_open, 1.0, gate)
        allowed = None if closed is None else ~closed
        gate = keep_one_open(gate, logits, config.if_all_closed, allowed)
        if masked_out is not None:
            gate = torch.where(masked_out, 1.0, gate)  # The mask closes them, as in the stock model
        if self.record is not None and not forward.replay:
            # Supervision teaches when a gate opens, and so where the learned threshold lies.
            decisive = logits - torch.logit(threshold) if isinstance(threshold, Tensor) else logits
            self.record.add(site, gate, decisive, free, types, forward)
        return gate

    def _follow(self, device: torch.device) -> None:
        """Where the model's layers compute: pipelines move between devices without their hooks."""
        first = next(self.heads.parameters(), None)
        if first is not None and first.device != device:
            self.to(device)

    @staticmethod
    def _layout_logits(
        phrases: Sequence, token_indices: Sequence, hidden: Tensor, context: Tensor
    ) -> Tensor:
        """Logits of gates that are open as the masks say; open everywhere in an unconditional
        half."""
        masks = [[phrase.mask for phrase in sample] for sample in phrases]
        target, _ = gate_targets("own", masks, token_indices, hidden.shape[1], context.shape[1])
        if len(hidden) == 2 * len(target):
            target = torch.cat([torch.ones_like(target), target])
        return (target.to(hidden.device) - 0.5) * 40

    def types_at(
        self, site: Site, context: Tensor, forward: ForwardContext | None = None
    ) -> Tensor | None:
        """uint8 [B, T]: the types of a text's tokens; None where the tokens are pixels."""
        if site.kind == "self":
            return None
        if site.is_joint:  # The text's own states are other ones in each layer
            known = None if forward is None else forward.text
            if known is None or self.token_types is None:
                return unknown_token_types(context)
            return self.token_types(known)
        if self.token_types is not None:
            return self.token_types(context)
        if forward is None or forward.masked_out is None:
            return unknown_token_types(context)
        return token_types_by_end((~forward.masked_out).sum(1) - 1, context.shape[1], bos=False)

    def _fixed(self, types: Tensor | None, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """(gates that are always open, gates that are always closed or None), broadcastable to [B,
        N, T]."""
        if types is None:  # A pixel may always look at itself
            return torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)[None], None
        protect, padding = self.config.protect, types == PADDING
        always_open = torch.zeros_like(padding)
        if protect == "bos":
            always_open = types == BOS
        elif protect == "specials":
            always_open = types != WORD
        if self.config.padding_gate == "closed":
            return (always_open & ~padding)[:, None], padding[:, None]
        if self.config.padding_gate == "open":
            always_open = always_open | padding
        return always_open[:, None], None

    @contextmanager
    def recording(
        self,
        conditional_half: bool = False,
        keep_maps: bool = False,
        live: bool = False,
        by_image: bool = False,
    ) -> Iterator[GateRecord]:
        """Records what the gates do inside the block; ``live`` also keeps the latest pass's logits
        with their gradient."""
        before, self.record = self.record, GateRecord(conditional_half, keep_maps, live, by_image)
        try:
            yield self.record
        finally:
            self.record = before
