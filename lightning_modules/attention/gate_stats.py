"""What gates do while they are watched: how many are closed, where, on which tokens and when, and
which gradient reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from datamodules.loading import ranks
from lightning_modules.attention.sites import Site
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.training.distributed import total

if TYPE_CHECKING:
    from lightning_modules.attention.hooks import ForwardContext

KIND_NAMES = {BOS: "bos", WORD: "word", EOS: "eos", PADDING: "padding"}
SPANS = 4  # spans of equal length that the timesteps are counted in
TIMESTEPS = 1000  # of all models that there are for these backbones
UNKNOWN = 4  # the kind of a token that is a location


@dataclass
class GateRecord:
    """Counts over everything that passed while the record was on. Gates that a rule holds open or
    closed (``free`` is False) are not counted. With ``conditional_half`` only the second half of a
    guidance batch counts."""

    conditional_half: bool = False
    keep_maps: bool = False
    live: bool = False
    closed: dict[str, Tensor] = field(default_factory=dict)  # site -> [kinds, spans], float64
    counted: dict[str, Tensor] = field(default_factory=dict)
    # Site -> mean over calls of the gates, [B, N, T]
    maps: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    # Site -> [B, N, T] of the latest pass, in the graph (``live``)
    logits: dict[str, Tensor] = field(default_factory=dict)
    gates: dict[str, Tensor] = field(default_factory=dict)
    # Site -> [B, T] of cross-attention (``live``)
    kinds: dict[str, Tensor] = field(default_factory=dict)
    # Site -> [B, T], tokens that the text's mask takes out (``live``)
    unread: dict[str, Tensor] = field(default_factory=dict)
    # Site -> [closed, open]: sum of squared gradients (``live``)
    squares: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)  # and of how many gates

    def add(
        self,
        site: Site,
        gate: Tensor,
        logits: Tensor,
        free: Tensor,
        kinds: Tensor | None,
        now: ForwardContext,
    ) -> None:
        if self.live:
            self.logits[site.name], self.gates[site.name] = logits, gate
            if kinds is not None:
                self.kinds[site.name] = kinds
                if now.unread is not None:
                    self.unread[site.name] = now.unread
            if gate.requires_grad:
                self._watch_gradient(site.name, gate, free)
        gate = gate.detach()
        times = now.timesteps
        if self.conditional_half:
            half = len(gate) // 2
            gate, free = gate[half:], free if len(free) == 1 else free[half:]
            kinds, times = (
                kinds if kinds is None else kinds[half:],
                times if times is None or len(times) == 1 else times[half:],
            )
        self._count(site.name, gate, free, kinds, times)
        if self.keep_maps:
            self.calls[site.name] = self.calls.get(site.name, 0) + 1
            past = self.maps.get(site.name, torch.zeros_like(gate, dtype=torch.float32))
            self.maps[site.name] = past + (gate.float() - past) / self.calls[site.name]

    def _count(
        self, site: str, gate: Tensor, free: Tensor, kinds: Tensor | None, times: Tensor | None
    ) -> None:
        batch, _, tokens = gate.shape
        free = free.expand_as(gate)
        shut = ((gate < 0.5) & free).sum(1).double()  # [B, T]
        every = free.sum(1).double()
        kind = (
            torch.full((batch, tokens), UNKNOWN, device=gate.device)
            if kinds is None
            else kinds.long()
        )
        span = (
            torch.zeros(1, device=gate.device) if times is None else times.to(gate.device).double()
        )
        span = (
            (span * SPANS / TIMESTEPS).long().clamp(0, SPANS - 1).view(-1, 1).expand(batch, tokens)
        )
        place = (kind * SPANS + span).flatten()
        size = (UNKNOWN + 1) * SPANS
        for store, values in ((self.closed, shut), (self.counted, every)):
            found = torch.zeros(size, dtype=torch.float64, device=gate.device).scatter_add_(
                0, place, values.flatten()
            )
            store[site] = store[site] + found if site in store else found

    def _watch_gradient(self, site: str, gate: Tensor, free: Tensor) -> None:
        shut = (gate.detach() < 0.5) & free
        opened = ~shut & free.expand_as(shut)

        def hook(grad: Tensor) -> None:
            square = grad.double().square()
            found = torch.stack([square[shut].sum(), square[opened].sum()])
            number = torch.stack([shut.sum(), opened.sum()]).double()
            self.squares[site] = self.squares[site] + found if site in self.squares else found
            self.counts[site] = self.counts[site] + number if site in self.counts else number

        gate.register_hook(hook)

    def read(self, site: str) -> Tensor | bool:
        """Which of a site's gates of the latest pass (``live``) can matter: [B, 1, T], or True for
        all."""
        return ~self.unread[site][:, None] if site in self.unread else True

    # --- read off --------------------------------------------------------------------------------

    def share_closed(self) -> float:
        """Share of free gates that were closed, over all sites, in [0, 1]."""
        closed, counted = self.tally().tolist()
        return closed / counted if counted else 0.0

    def tally(self) -> Tensor:
        """How many free gates were closed, and how many there were, over all sites: float64 [2]."""
        if not self.closed:
            return torch.zeros(2, dtype=torch.float64)
        return torch.stack(
            [torch.stack(list(store.values())).sum() for store in (self.closed, self.counted)]
        )

    def joined(self, sites: Sequence[Site]) -> GateRecord:
        """The counts of all processes at ``sites``; all of them have to call this. Maps and what is
        live are left out."""
        _, world = ranks()
        if world == 1:
            return self
        made = GateRecord(live=self.live)
        stores = {"closed": (UNKNOWN + 1) * SPANS, "counted": (UNKNOWN + 1) * SPANS} | (
            {"squares": 2, "counts": 2} if self.live else {}
        )
        for name, size in stores.items():
            mine = getattr(self, name)
            # A process that drew nothing has counted nothing.
            counts = total(
                torch.stack(
                    [
                        mine.get(site.name, torch.zeros(size, dtype=torch.float64)).cpu()
                        for site in sites
                    ]
                )
            )
            if name == "squares":
                counts /= world**2  # the loss of all is the mean of theirs
            setattr(
                made, name, {site.name: found for site, found in zip(sites, counts, strict=True)}
            )
        return made

    def shares(self) -> dict[str, float]:
        """Share of closed gates under ``site/<name>``, ``kind/<bos, word, eos or padding>`` and
        ``time/<first>-<last timestep>``."""
        result = {
            f"site/{name}": _share([self.closed[name]], [self.counted[name]])
            for name in self.closed
        }
        if not self.closed:
            return result
        closed, counted = (
            sum(store.values()).view(-1, SPANS) for store in (self.closed, self.counted)
        )  # type: ignore[union-attr]
        for kind, name in KIND_NAMES.items():
            if counted[kind].sum() > 0:
                result[f"kind/{name}"] = _share([closed[kind]], [counted[kind]])
        for span in range(SPANS):
            if counted[:, span].sum() > 0:
                first, last = span * TIMESTEPS // SPANS, (span + 1) * TIMESTEPS // SPANS - 1
                result[f"time/{first}-{last}"] = _share([closed[:, span]], [counted[:, span]])
        return result

    def gradients(self) -> dict[str, float]:
        """Root mean square of the loss's gradient by a gate, over all ``closed`` and all ``open``
        free gates."""
        if not self.squares:
            return {}
        total, number = sum(self.squares.values()), sum(self.counts.values())
        assert isinstance(total, Tensor) and isinstance(number, Tensor)
        rms = (total / number.clamp_min(1)).sqrt().tolist()
        return {
            name: value
            for name, value, n in zip(("closed", "open"), rms, number.tolist(), strict=True)
            if n
        }


def _share(closed: list[Tensor], counted: list[Tensor]) -> float:
    total = float(sum(c.sum() for c in counted))
    return float(sum(c.sum() for c in closed)) / total if total else 0.0
