"""Which attention layers a UNet or a transformer has, and where they stand."""

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
    """One attention layer: ``name`` is its module path, ``resolution`` the side of its map in
    pixels (for a square image), ``width`` the channels of its queries' input, ``context`` those of
    its keys' input, ``level`` how often its map was halved. Where ``is_joint`` queries and keys are
    those of image and text at once; ``kind`` is cross then, and means pixels that look at words."""

    name: str
    stage: str
    placement: str
    resolution: int
    width: int
    heads: int
    context: int
    kind: str = "cross"
    level: int = 0
    is_joint: bool = False

    @property
    def processor(self) -> str:
        """Its key in diffusers' ``attn_processors``."""
        return f"{self.name}.processor"


def sites(model: Any, latent_size: int | None = None) -> list[Site]:
    """Every attention layer, cross and self, of a UNet's transformer blocks, or of a transformer,
    in the order in which they run.

    ``latent_size`` is the side of the latents (image side over the autoencoder's factor;
    `Backbone.sites` takes pixels); without it the model's own size. In a UNet the stage follows
    from where a level lies, never from a fixed name: ``high`` is the finest level that has
    cross-attention, ``low`` the mid block, ``mid`` all the rest. A transformer (PixArt, SD3, FLUX)
    has one level and no bridge: there ``high``, ``mid`` and ``low`` are the first, second and last
    third of its depth, encoder and decoder its first and second half.
    """
    side = model.config.sample_size if latent_size is None else latent_size
    list_layers = _transformer_layers if hasattr(model, "transformer_blocks") else _unet_layers
    return [
        Site(
            name=name,
            stage=stage,
            placement=placement,
            resolution=halved(side, level),
            width=layer.to_q.in_features,
            heads=layer.heads,
            context=_text_projection(layer).in_features,
            kind="cross" if _reads_text(name, layer) else "self",
            level=level,
            is_joint=_is_joint(name, layer),
        )
        for name, layer, stage, placement, level in list_layers(model)
    ]


SINGLE = "single_transformer_blocks"  # Blocks of one stream, which holds text and image


def _is_joint(name: str, layer: Any) -> bool:
    return name.startswith(SINGLE) or getattr(layer, "add_k_proj", None) is not None


def _reads_text(name: str, layer: Any) -> bool:
    return _is_joint(name, layer) or getattr(layer, "is_cross_attention", False)


def _text_projection(layer: Any) -> Any:
    """The linear layer that makes the keys of text."""
    added = getattr(layer, "add_k_proj", None)
    return layer.to_k if added is None else added


def _transformer_layers(model: Any) -> list[tuple[str, Any, str, str, int]]:
    """Name, layer, stage, placement and level of each layer; patches of 2 x 2 latents are one
    halving, also where they are packed before (FLUX)."""
    double, patch = len(model.transformer_blocks), model.config.patch_size
    singles = len(getattr(model, SINGLE, ()))
    blocks, level = double + singles, (2 if singles else patch).bit_length() - 1
    layers = []
    for key in model.attn_processors:
        name = key.removesuffix(".processor")
        index = int(name.split(".")[1]) + (double if name.startswith(SINGLE) else 0)
        placement = "encoder" if 2 * index < blocks else "decoder"
        stage = STAGES[3 * index // blocks]
        layers.append((name, model.get_submodule(name), stage, placement, level))
    return layers


def _unet_layers(unet: Any) -> list[tuple[str, Any, str, str, int]]:
    """Name, layer, stage, placement and level of each layer."""
    levels = len(unet.config.block_out_channels)
    layers = []
    for key in unet.attn_processors:
        name = key.removesuffix(".processor")
        if not name.endswith((".attn1", ".attn2")):
            continue
        block, _, rest = name.partition(".")
        index = int(rest.split(".")[0]) if block != "mid_block" else levels - 1
        level = levels - 1 - index if block == "up_blocks" else index
        placement = {"down_blocks": "encoder", "mid_block": "bridge", "up_blocks": "decoder"}[block]
        layers.append((name, unet.get_submodule(name), placement, level))
    # Diffusers lists the mid block last; the order within a block is right.
    layers.sort(key=lambda layer: PLACEMENTS.index(layer[2]))
    cross = [
        level
        for _, layer, placement, level in layers
        if layer.is_cross_attention and placement != "bridge"
    ]
    finest = min(cross, default=0)

    def stage(placement: str, level: int) -> str:
        return "low" if placement == "bridge" else "high" if level <= finest else "mid"

    return [
        (name, layer, stage(placement, level), placement, level)
        for name, layer, placement, level in layers
    ]


def halved(side: int, level: int) -> int:
    """Side of a map after ``level`` convolutions of stride 2, each of which rounds up."""
    return -(-side // 2**level)


def select(
    candidates: Iterable[Site],
    stage: str | None = None,
    placement: str | None = None,
    resolution: int | None = None,
    kind: str | None = "cross",
) -> list[Site]:
    """The sites that fit every filter given: cross-attention unless ``kind`` is "self", or None for
    both.

    ``stage`` "all" or None takes every stage; ``placement`` "both" or None every placement; the mid
    block belongs to neither encoder nor decoder, but a stage of "low" has no other. Raises
    ValueError on an unknown word and when nothing fits.
    """
    candidates = list(candidates)
    for what, value, known, every in (
        ("stage", stage, STAGES, "all"),
        ("placement", placement, PLACEMENTS, "both"),
        ("kind", kind, KINDS, None),
    ):
        if value not in (None, every, *known):
            words = f"one of {', '.join(known)}"
            expected = f"{every!r} or {words}" if every else words
            raise ValueError(f"{what} {value!r} is unknown: expected {expected}")
    fitting = [
        site
        for site in candidates
        if (stage in (None, "all") or site.stage == stage)
        and (placement in (None, "both") or site.placement == placement)
        and (resolution is None or site.resolution == resolution)
        and (kind is None or site.kind == kind)
    ]
    if not fitting:
        there = sorted(
            {
                f"{site.stage}/{site.placement}/{site.resolution}"
                for site in candidates
                if kind in (None, site.kind)
            }
        )
        asked = f"stage={stage}, placement={placement}, resolution={resolution}"
        raise ValueError(
            f"no {f'{kind}-' if kind else ''}attention at {asked}; this model has "
            f"{', '.join(there) or 'none at all'}"
        )
    return fitting


def nearest(candidates: Iterable[Site], resolution: int = 16) -> list[Site]:
    """The sites of the level whose maps are nearest to ``resolution`` (by ratio; of two equally
    near, the finer).

    A warning in the log says so when it is another: SDXL at 1024 pixels has maps of 64 and 32 and
    none of 16. Raises ValueError when there is no site.
    """
    candidates = list(candidates)
    if not candidates:
        raise ValueError("no site to choose from: expected at least one attention layer")
    sides = sorted({site.resolution for site in candidates}, reverse=True)
    best = min(sides, key=lambda side: (abs(math.log2(side / resolution)), -side))
    if best != resolution:
        log.warning(
            "no attention maps of %d×%d here (sides: %s): those of %d×%d are taken",
            resolution,
            resolution,
            ", ".join(map(str, sides)),
            best,
            best,
        )
    return [site for site in candidates if site.resolution == best]
