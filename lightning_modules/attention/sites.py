"""Which attention layers a UNet has, and where they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STAGES = ("high", "mid", "low")
PLACEMENTS = ("encoder", "bridge", "decoder")


@dataclass(frozen=True)
class Site:
    """One cross-attention layer: ``name`` is its module path, ``resolution`` the side of its map in latent pixels at the model's
    own image size, ``width`` the channels of its queries' input, ``context`` those of its keys' input."""

    name: str
    stage: str
    placement: str
    resolution: int
    width: int
    heads: int
    context: int

    @property
    def processor(self) -> str:
        """Its key in diffusers' ``attn_processors``."""
        return f"{self.name}.processor"


def sites(unet) -> list[Site]:  # noqa: ANN001 - a diffusers UNet2DConditionModel, not imported for its weight
    """Every cross-attention layer of a UNet in the order of its ``attn_processors``.

    The stage follows from where a level lies, never from a fixed name: ``high`` is the finest level that has cross-attention,
    ``low`` the mid block, ``mid`` all the rest.
    """
    levels = len(unet.config.block_out_channels)
    found = []
    for key in unet.attn_processors:
        if not key.endswith(".attn2.processor"):
            continue
        name = key.removesuffix(".processor")
        block, _, rest = name.partition(".")
        index = int(rest.split(".")[0]) if block != "mid_block" else levels - 1
        level = levels - 1 - index if block == "up_blocks" else index
        placement = {"down_blocks": "encoder", "mid_block": "bridge", "up_blocks": "decoder"}[block]
        layer = unet.get_submodule(name)
        found.append((name, placement, unet.config.sample_size // 2**level, layer))
    finest = max((resolution for _, placement, resolution, _ in found if placement != "bridge"), default=0)

    def stage(placement: str, resolution: int) -> str:
        return "low" if placement == "bridge" else "high" if resolution == finest else "mid"

    return [
        Site(name, stage(placement, side), placement, side, layer.to_q.in_features, layer.heads, layer.to_k.in_features)
        for name, placement, side, layer in found
    ]


def select(found: Iterable[Site], stage: str | None = None, placement: str | None = None, resolution: int | None = None) -> list[Site]:
    """The sites that fit every filter given. ``stage`` "all" or None takes every stage; ``placement`` "both" or None every place;
    the mid block belongs to neither encoder nor decoder, but a stage of "low" has no other.

    Raises ValueError on an unknown word and when nothing fits.
    """
    found = list(found)
    if stage not in (None, "all", *STAGES):
        raise ValueError(f"stage {stage!r} is unknown: expected 'all' or one of {', '.join(STAGES)}")
    if placement not in (None, "both", *PLACEMENTS):
        raise ValueError(f"placement {placement!r} is unknown: expected 'both' or one of {', '.join(PLACEMENTS)}")
    chosen = [
        site
        for site in found
        if (stage in (None, "all") or site.stage == stage)
        and (placement in (None, "both") or site.placement == placement)
        and (resolution is None or site.resolution == resolution)
    ]
    if not chosen:
        there = ", ".join(sorted({f"{s.stage}/{s.placement}/{s.resolution}" for s in found}))
        raise ValueError(f"no cross-attention at stage={stage}, placement={placement}, resolution={resolution}; this model has {there}")
    return chosen
