"""What gates do while they are recorded: how many are closed, where, on which tokens and when, and
which gradient reaches them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.loading import ranks
from lightning_modules.attention.sites import Site
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.training.distributed import sum_over_ranks

if TYPE_CHECKING:
    from lightning_modules.attention.hooks import ForwardContext

TYPE_NAMES = {BOS: "bos", WORD: "word", EOS: "eos", PADDING: "padding"}
PIXEL = 4  # The type of a token that is a pixel
SPANS = 4  # Spans of equal length that the timesteps are counted in
TIMESTEPS = 1000  # Of all models that there are for these backbones
BINS = (PIXEL + 1) * SPANS  # One for each type and span


@dataclass
class GateRecord:
    """Counts over everything that passed while the record was on. Gates that a rule holds open or
    closed (``free`` is False) are not counted. With ``conditional_half`` only the second half of a
    guidance batch counts; ``by_image`` counts each row of a batch by itself, and all batches have
    as many then; ``keep_maps`` keeps mean gates, ``live`` the latest pass in the graph.

    All fields but the first four go from a site's name to what was recorded there.
    """

    conditional_half: bool = False
    keep_maps: bool = False
    live: bool = False
    by_image: bool = False
    # Number of gates, float64 [BINS], or [B, BINS] by image
    closed: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)  # Mean of the gates over calls, [B, N, T]
    calls: dict[str, int] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)  # Live: [B, N, T]
    gates: dict[str, Tensor] = field(default_factory=dict)  # Live: [B, N, T]
    token_types: dict[str, Tensor] = field(default_factory=dict)  # Live, cross-attention: [B, T]
    masked_out: dict[str, Tensor] = field(default_factory=dict)  # Live: [B, T], by the text's mask
    free: dict[str, Tensor] = field(default_factory=dict)  # Live: broadcastable to [B, N, T]
    # Live: sum of squared gradients of [closed, open] gates, and of how many
    squares: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(
        self,
        site: Site,
        gate: Tensor,
        logits: Tensor,
        free: Tensor,
        types: Tensor | None,
        forward: ForwardContext,
    ) -> None:
        """One layer of a forward pass: ``gate``, ``logits`` and ``free`` (broadcastable) are [B, N,
        T], ``types`` [B, T], None in self-attention."""
        if self.live:
            self.logits[site.name], self.gates[site.name] = logits, gate
            self.free[site.name] = free
            if types is not None:
                self.token_types[site.name] = types
                if forward.masked_out is not None:
                    self.masked_out[site.name] = forward.masked_out
            if gate.requires_grad:
                self._watch_gradient(site.name, gate, free)
        gate, timesteps = gate.detach(), forward.timesteps
        if self.conditional_half and not forward.conditional:
            half = len(gate) // 2
            gate = gate[half:]
            free = free if len(free) == 1 else free[half:]
            types = None if types is None else types[half:]
            if timesteps is not None and len(timesteps) > 1:
                timesteps = timesteps[half:]
        self._count(site.name, gate, free, types, timesteps)
        if self.keep_maps:
            self.calls[site.name] = self.calls.get(site.name, 0) + 1
            past = self.maps.get(site.name, torch.zeros_like(gate, dtype=torch.float32))
            self.maps[site.name] = past + (gate.float() - past) / self.calls[site.name]

    def _count(
        self,
        site: str,
        gate: Tensor,
        free: Tensor,
        types: Tensor | None,
        timesteps: Tensor | None,
    ) -> None:
        batch, _, tokens = gate.shape
        free = free.expand_as(gate)
        closed = ((gate < 0.5) & free).sum(1).double()  # [B, T]
        counted = free.sum(1).double()
        if types is None:
            types = torch.full((batch, tokens), PIXEL, device=gate.device)
        if timesteps is None:
            timesteps = torch.zeros(1)
        times = timesteps.to(gate.device).double()
        span = (times * SPANS / TIMESTEPS).long().clamp(0, SPANS - 1).view(-1, 1)
        bins = types.long() * SPANS + span.expand(batch, tokens)
        for store, values in ((self.closed, closed), (self.counted, counted)):
            if not self.by_image:
                bins, values = bins.view(1, -1), values.view(1, -1)
            sums = torch.zeros(len(bins), BINS, dtype=torch.float64, device=gate.device)
            sums = sums.scatter_add_(1, bins, values)
            _add_to(store, site, sums if self.by_image else sums[0])

    def _watch_gradient(self, site: str, gate: Tensor, free: Tensor) -> None:
        closed = (gate.detach() < 0.5) & free
        opened = ~closed & free.expand_as(closed)
        # Not the record, which holds gates: the graph would hold itself, where no collector looks
        squares, counts = self.squares, self.counts

        def hook(grad: Tensor) -> None:
            square = grad.double().square()
            _add_to(squares, site, torch.stack([square[closed].sum(), square[opened].sum()]))
            _add_to(counts, site, torch.stack([closed.sum(), opened.sum()]).double())

        gate.register_hook(hook)

    # --- results ---------------------------------------------------------------------------------

    def all_reduce(self, sites: Sequence[Site]) -> GateRecord:
        """The counts of all processes at ``sites``; all of them have to call this. Maps and what is
        live are left out."""
        _, world = ranks()
        if world == 1:
            return self
        result = GateRecord(live=self.live)
        sizes = {"closed": BINS, "counted": BINS}
        if self.live:
            sizes |= {"squares": 2, "counts": 2}
        for name, size in sizes.items():
            # A process that drew nothing has counted nothing.
            nothing, own = torch.zeros(size, dtype=torch.float64), getattr(self, name)
            sums = sum_over_ranks(
                torch.stack([own.get(site.name, nothing).cpu() for site in sites])
            )
            if name == "squares":
                sums /= world**2  # The loss of all is the mean of theirs
            getattr(result, name).update(zip((site.name for site in sites), sums, strict=True))
        return result

    def tally(self) -> Tensor:
        """How many free gates were closed, and how many there were, over all sites: float64 [2]."""
        if not self.closed:
            return torch.zeros(2, dtype=torch.float64)
        return torch.stack([_sum_sites(self.closed).sum(), _sum_sites(self.counted).sum()])

    def share_closed(self) -> float:
        """Share of free gates that were closed, over all sites, in [0, 1]; NaN without any."""
        closed, counted = self.tally().tolist()
        return closed / counted if counted else math.nan

    def shares(self) -> dict[str, float]:
        """Share of closed gates under ``site/<name>``, ``kind/<bos, word, eos or padding>`` and
        ``time/<first>-<last timestep>``; those of which there was no free gate are absent."""
        result = {
            f"site/{name}": _share(self.closed[name], self.counted[name])
            for name in self.closed
            if self.counted[name].sum() > 0
        }
        if self.closed:
            closed, counted = _sum_sites(self.closed), _sum_sites(self.counted)
            for name, part in _parts(closed.view(-1, BINS), counted.view(-1, BINS)):
                result[name] = _share(*part)
        return result

    def counts_by_image(self) -> dict[str, list[tuple[float, float]]]:
        """For each image, of the record ``by_image``, how many free gates were closed and how many
        there were, over all sites: of all kinds and times under "", the others as in `shares`."""
        if not self.closed:
            return {}
        closed, counted = _sum_sites(self.closed), _sum_sites(self.counted)
        parts = [("", (closed, counted)), *_parts(closed, counted)]
        return {
            name: list(zip(some.sum(1).tolist(), whole.sum(1).tolist(), strict=True))
            for name, (some, whole) in parts
        }

    def gradients(self) -> dict[str, float]:
        """Root mean square of the loss's gradient by a gate, over all ``closed`` and all ``open``
        free gates."""
        if not self.squares:
            return {}
        squares, counts = _sum_sites(self.squares), _sum_sites(self.counts)
        rms = (squares / counts.clamp_min(1)).sqrt().tolist()
        names = zip(("closed", "open"), rms, counts.tolist(), strict=True)
        return {name: value for name, value, count in names if count}


def _parts(closed: Tensor, counted: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Name -> the counts [B, n] of a kind of tokens or a span of timesteps, of [B, BINS], where
    there are any."""
    planes = (closed.view(-1, PIXEL + 1, SPANS), counted.view(-1, PIXEL + 1, SPANS))
    slices: dict[str, Any] = {f"kind/{name}": (slice(None), i) for i, name in TYPE_NAMES.items()}
    for span in range(SPANS):
        first, last = span * TIMESTEPS // SPANS, (span + 1) * TIMESTEPS // SPANS - 1
        slices[f"time/{first}-{last}"] = (slice(None), slice(None), span)
    for name, part in slices.items():
        if planes[1][part].sum() > 0:
            yield name, (planes[0][part], planes[1][part])


def _add_to(store: dict[str, Tensor], site: str, values: Tensor) -> None:
    store[site] = store[site] + values if site in store else values


def _sum_sites(store: dict[str, Tensor]) -> Tensor:
    return reduce(torch.add, store.values())


def _share(closed: Tensor, counted: Tensor) -> float:
    return float(closed.sum()) / float(counted.sum())
