"""Which attention layers a UNet has, and where they stand."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

STAGES = ("high", "mid", "low")
PLACEMENTS = ("encoder", "bridge", "decoder")
KINDS = ("cross", "self")


@dataclass(frozen=True)
class Site:
    """One attention layer: ``name`` is its module path, ``resolution`` the side of its map in locations (for a square image),
    ``width`` the channels of its queries' input, ``context`` those of its keys' input, ``level`` how often its plane was halved."""

    name: str
    stage: str
    placement: str
    resolution: int
    width: int
    heads: int
    context: int
    kind: str = "cross"
    level: int = 0

    @property
    def processor(self) -> str:
        """Its key in diffusers' ``attn_processors``."""
        return f"{self.name}.processor"


def sites(unet: Any, latent_size: int | None = None) -> list[Site]:
    """Every attention layer, cross and self, of a UNet's transformer blocks in the order in which they run.

    ``latent_size`` is the side of the latents (image side over the autoencoder's factor; `Backbone.sites` takes pixels); without it the
    model's own size. The stage follows from where a level lies, never from a fixed name: ``high`` is the finest level that has
    cross-attention, ``low`` the mid block, ``mid`` all the rest.
    """
    side = unet.config.sample_size if latent_size is None else latent_size
    levels = len(unet.config.block_out_channels)
    found = []
    for key in unet.attn_processors:
        name = key.removesuffix(".processor")
        if not name.endswith((".attn1", ".attn2")):
            continue
        block, _, rest = name.partition(".")
        index = int(rest.split(".")[0]) if block != "mid_block" else levels - 1
        level = levels - 1 - index if block == "up_blocks" else index
        placement = {"down_blocks": "encoder", "mid_block": "bridge", "up_blocks": "decoder"}[block]
        layer = unet.get_submodule(name)
        found.append((name, placement, level, layer, "cross" if layer.is_cross_attention else "self"))
    found.sort(key=lambda one: PLACEMENTS.index(one[1]))  # diffusers lists the mid block last; the order within a block is right
    finest = min((level for _, placement, level, _, kind in found if kind == "cross" and placement != "bridge"), default=0)

    def stage(placement: str, level: int) -> str:
        return "low" if placement == "bridge" else "high" if level <= finest else "mid"

    return [
        Site(
            name=name,
            stage=stage(placement, level),
            placement=placement,
            resolution=halved(side, level),
            width=layer.to_q.in_features,
            heads=layer.heads,
            context=layer.to_k.in_features,
            kind=kind,
            level=level,
        )
        for name, placement, level, layer, kind in found
    ]


def halved(side: int, level: int) -> int:
    """Side of a plane after ``level`` convolutions of stride 2, each of which rounds up."""
    return -(-side // 2**level)


def select(
    found: Iterable[Site],
    stage: str | None = None,
    placement: str | None = None,
    resolution: int | None = None,
    kind: str | None = "cross",
) -> list[Site]:
    """The sites that fit every filter given: cross-attention where ``kind`` is left as it is, "self", or None for both.

    ``stage`` "all" or None takes every stage; ``placement`` "both" or None every place; the mid block belongs to neither encoder nor
    decoder, but a stage of "low" has no other. Raises ValueError on an unknown word and when nothing fits.
    """
    found = list(found)
    for what, value, known, every in (
        ("stage", stage, STAGES, "all"),
        ("placement", placement, PLACEMENTS, "both"),
        ("kind", kind, KINDS, None),
    ):
        if value not in (None, every, *known):
            expected = f"{every!r} or one of {', '.join(known)}" if every else f"one of {', '.join(known)}"
            raise ValueError(f"{what} {value!r} is unknown: expected {expected}")
    chosen = [
        site
        for site in found
        if (stage in (None, "all") or site.stage == stage)
        and (placement in (None, "both") or site.placement == placement)
        and (resolution is None or site.resolution == resolution)
        and (kind is None or site.kind == kind)
    ]
    if not chosen:
        there = ", ".join(sorted({f"{s.stage}/{s.placement}/{s.resolution}" for s in found if kind in (None, s.kind)}))
        asked = f"stage={stage}, placement={placement}, resolution={resolution}"
        raise ValueError(f"no {f'{kind}-' if kind else ''}attention at {asked}; this model has {there or 'none at all'}")
    return chosen


def nearest(found: Iterable[Site], resolution: int = 16) -> list[Site]:
    """The sites of the level whose maps are nearest to ``resolution`` (by ratio; of two equally near, the finer), said in the log
    when it is another: SDXL at 1024 pixels has maps of 64 and 32 and none of 16. Raises ValueError when there is no site."""
    found = list(found)
    if not found:
        raise ValueError("no site to choose from: expected at least one attention layer")
    best = min({site.resolution for site in found}, key=lambda side: (abs(math.log2(side / resolution)), -side))
    if best != resolution:
        there = ", ".join(str(side) for side in sorted({site.resolution for site in found}, reverse=True))
        log.warning("no attention maps of %d×%d here (sides: %s): those of %d×%d are taken", resolution, resolution, there, best, best)
    return [site for site in found if site.resolution == best]
