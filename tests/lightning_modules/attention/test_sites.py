"""Which attention layers a UNet has: counts, stages, placements, resolutions."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest
from helpers.architectures import build_unet
from helpers.unet_inputs import run

from conf.schema import Gate
from lightning_modules.attention import Site, nearest, select, sites
from lightning_modules.attention.gates import Gates


def summary(unet: Any, **filters: Any) -> Counter:
    found = select(sites(unet), **filters)
    return Counter(
        (site.name.split(".attentions")[0], site.stage, site.placement, site.resolution, site.width)
        for site in found
    )


@cache
def full(name: str) -> Any:
    """A full-size UNet without memory for its weights."""
    return build_unet(name, "meta")


def test_embedded(embedded: Any):
    assert summary(embedded.unet) == {
        ("down_blocks.0", "high", "encoder", 16, 48): 1,
        ("down_blocks.1", "mid", "encoder", 8, 128): 1,
        ("mid_block", "low", "bridge", 8, 128): 1,
        ("up_blocks.0", "mid", "decoder", 8, 128): 2,
        ("up_blocks.1", "high", "decoder", 16, 48): 2,
    }
    assert {(s.width, s.heads, s.context) for s in select(sites(embedded.unet))} == {
        (48, 2, 192),
        (128, 4, 192),
    }


def test_sd1_has_none_at_its_coarsest_level_but_in_the_middle(sd1_pipeline: Any):
    assert summary(sd1_pipeline.unet) == {
        ("down_blocks.0", "high", "encoder", 16, 16): 1,
        ("down_blocks.1", "mid", "encoder", 8, 32): 1,
        ("mid_block", "low", "bridge", 4, 32): 1,
        ("up_blocks.1", "mid", "decoder", 8, 32): 2,
        ("up_blocks.2", "high", "decoder", 16, 16): 2,
    }


def test_sdxl_has_none_at_its_finest_level(sdxl_unet: Any):
    assert summary(sdxl_unet) == {
        ("down_blocks.1", "high", "encoder", 8, 32): 1,
        ("down_blocks.2", "mid", "encoder", 4, 64): 2,
        ("mid_block", "low", "bridge", 4, 64): 2,
        ("up_blocks.0", "mid", "decoder", 4, 64): 4,
        ("up_blocks.1", "high", "decoder", 8, 32): 2,
    }


def test_full_sdxl_has_seventy():
    assert summary(full("sdxl")) == {
        ("down_blocks.1", "high", "encoder", 64, 640): 4,
        ("down_blocks.2", "mid", "encoder", 32, 1280): 20,
        ("mid_block", "low", "bridge", 32, 1280): 10,
        ("up_blocks.0", "mid", "decoder", 32, 1280): 30,
        ("up_blocks.1", "high", "decoder", 64, 640): 6,
    }
    assert {(s.heads, s.context) for s in select(sites(full("sdxl")))} == {(10, 2048), (20, 2048)}
    assert len(select(sites(full("sdxl")), stage="mid")) == 50
    assert summary(full("sdxl"), kind="self") == summary(full("sdxl")), "each block has one of both"
    assert len(sites(full("sdxl"))) == 140


@pytest.mark.parametrize(("name", "context"), [("sd14", 768), ("sd15", 768), ("sd21", 1024)])
def test_full_sd1_and_sd2_have_sixteen(name: str, context: int):
    assert summary(full(name)) == {
        ("down_blocks.0", "high", "encoder", 64, 320): 2,
        ("down_blocks.1", "mid", "encoder", 32, 640): 2,
        ("down_blocks.2", "mid", "encoder", 16, 1280): 2,
        ("mid_block", "low", "bridge", 8, 1280): 1,
        ("up_blocks.1", "mid", "decoder", 16, 1280): 3,
        ("up_blocks.2", "mid", "decoder", 32, 640): 3,
        ("up_blocks.3", "high", "decoder", 64, 320): 3,
    }
    assert {s.context for s in select(sites(full(name)))} == {context}
    # The level of 16x16 maps that the papers speak of: two layers of the encoder and three of the
    # decoder.
    assert Counter(s.placement for s in nearest(select(sites(full(name))), 16)) == {
        "encoder": 2,
        "decoder": 3,
    }


def test_the_key_projections_of_sd14_hold_what_separate_and_enhance_trains():
    keys = [
        full("sd14").get_submodule(site.name).to_k.weight for site in select(sites(full("sd14")))
    ]
    assert sum(key.numel() for key in keys) == 9_584_640


@pytest.mark.parametrize(
    ("pixels", "sides"), [(1024, {64, 32}), (512, {32, 16}), (768, {48, 24}), (1000, {63, 32})]
)
def test_resolutions_follow_the_image(pixels: int, sides: set[int]):
    # An odd plane is rounded up when it is halved: 1000 pixels are 125 latents, then 63, then 32.
    assert {site.resolution for site in sites(full("sdxl"), latent_size=pixels // 8)} == sides


def test_one_head_serves_all_of_a_stage_of_full_sdxl():
    cross = select(sites(full("sdxl")))
    middle = Gates(select(cross, stage="mid"), Gate())
    assert len(middle.sites) == 50 and sum(p.numel() for p in middle.parameters()) == 465_921
    everything = Gates(cross, Gate())
    # The middle block has the width of `mid` and still a head of its own.
    assert sorted(everything.heads) == ["high_640_2048", "low_1280_2048", "mid_1280_2048"]


def test_names_are_those_of_the_processors_in_the_order_of_the_network(sdxl_unet: Any):
    names = [site.name for site in sites(sdxl_unet)]
    assert {site.processor for site in sites(sdxl_unet)} == set(sdxl_unet.attn_processors)
    ran: list[str] = []
    layers = {name: sdxl_unet.get_submodule(name) for name in names}
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, layer in layers.items()
    ]
    run(sdxl_unet)
    for hook in hooks:
        hook.remove()
    assert ran == names


SOME = [
    Site("a", "high", "encoder", 16, 8, 1, 4),
    Site("b", "mid", "encoder", 8, 8, 1, 4),
    Site("c", "low", "bridge", 8, 8, 1, 4),
    Site("d", "mid", "decoder", 8, 8, 1, 4),
    Site("e", "high", "decoder", 16, 8, 1, 4),
    Site("f", "high", "decoder", 16, 8, 1, 8, kind="self"),
]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "abcde"),
        ({"stage": "all", "placement": "both"}, "abcde"),
        ({"stage": "high"}, "ae"),
        ({"stage": "low"}, "c"),
        ({"placement": "encoder"}, "ab"),
        ({"placement": "bridge"}, "c"),
        ({"resolution": 8}, "bcd"),
        ({"stage": "mid", "placement": "decoder", "resolution": 8}, "d"),
        ({"kind": "self"}, "f"),
        ({"kind": None}, "abcdef"),
    ],
)
def test_select_takes_what_fits_every_filter(filters: dict, names: str):
    assert "".join(site.name for site in select(iter(SOME), **filters)) == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"stage": "middle"}, "stage 'middle' is unknown: expected 'all' or one of high, mid, low"),
        (
            {"placement": "up"},
            ("placement 'up' is unknown: expected 'both' or one of encoder, bridge, decoder"),
        ),
        ({"kind": "joint"}, "kind 'joint' is unknown: expected one of cross, self"),
        (
            {"stage": "mid", "kind": "self"},
            ("no self-attention at stage=mid, .*; this model has high/decoder/16"),
        ),
        (
            {"resolution": 32},
            (r"no cross-attention at .*resolution=32; this model has " r"high/decoder/16"),
        ),
        (
            {"stage": "low", "placement": "encoder"},
            ("no cross-attention at stage=low, placement=encoder"),
        ),
    ],
)
def test_select_says_what_there_is(filters: dict, message: str):
    with pytest.raises(ValueError, match=message):
        select(SOME, **filters)
