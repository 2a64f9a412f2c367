"""Which cross-attention layers a UNet has: counts, stages, placements, resolutions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lightning_modules.attention import Site, select, sites
from lightning_modules.attention.gate import Gates


def summary(unet: Any) -> Counter:
    return Counter((site.name.split(".attentions")[0], site.stage, site.placement, site.resolution, site.width) for site in sites(unet))


@pytest.fixture(scope="module")
def sdxl_full() -> Any:
    """SDXL base 1.0's UNet from the values of its published config, without memory for its weights."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )


def test_embedded(embedded: Any):
    assert summary(embedded.unet) == {
        ("down_blocks.0", "high", "encoder", 16, 48): 1,
        ("down_blocks.1", "mid", "encoder", 8, 128): 1,
        ("mid_block", "low", "bridge", 8, 128): 1,
        ("up_blocks.0", "mid", "decoder", 8, 128): 2,
        ("up_blocks.1", "high", "decoder", 16, 48): 2,
    }
    assert {(s.width, s.heads, s.context) for s in sites(embedded.unet)} == {(48, 2, 192), (128, 4, 192)}


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


def test_full_sdxl_has_seventy(sdxl_full: Any):
    assert summary(sdxl_full) == {
        ("down_blocks.1", "high", "encoder", 64, 640): 4,
        ("down_blocks.2", "mid", "encoder", 32, 1280): 20,
        ("mid_block", "low", "bridge", 32, 1280): 10,
        ("up_blocks.0", "mid", "decoder", 32, 1280): 30,
        ("up_blocks.1", "high", "decoder", 64, 640): 6,
    }
    assert {(s.heads, s.context) for s in sites(sdxl_full)} == {(10, 2048), (20, 2048)}


def test_one_head_serves_all_of_a_stage_of_full_sdxl(sdxl_full: Any):
    middle = Gates(select(sites(sdxl_full), stage="mid"), hidden=128, bias=2.0, threshold=0.5, protect_first=True)
    assert len(middle.sites) == 50 and sum(p.numel() for p in middle.parameters()) == 465_921
    everything = Gates(sites(sdxl_full), hidden=128, bias=2.0, threshold=0.5, protect_first=True)
    # The middle block has the width of `mid` and still a head of its own.
    assert sorted(everything.heads) == ["high_640_2048", "low_1280_2048", "mid_1280_2048"]


def test_names_are_those_of_the_processors(sdxl_unet: Any):
    keys = [key for key in sdxl_unet.attn_processors if ".attn2." in key]
    assert [site.processor for site in sites(sdxl_unet)] == keys


SOME = [
    Site("a", "high", "encoder", 16, 8, 1, 4),
    Site("b", "mid", "encoder", 8, 8, 1, 4),
    Site("c", "low", "bridge", 8, 8, 1, 4),
    Site("d", "mid", "decoder", 8, 8, 1, 4),
    Site("e", "high", "decoder", 16, 8, 1, 4),
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
    ],
)
def test_select_takes_what_fits_every_filter(filters: dict, names: str):
    assert "".join(site.name for site in select(iter(SOME), **filters)) == names


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"stage": "middle"}, "stage 'middle' is unknown: expected 'all' or one of high, mid, low"),
        ({"placement": "up"}, "placement 'up' is unknown: expected 'both' or one of encoder, bridge, decoder"),
        ({"resolution": 32}, r"no cross-attention at .*resolution=32; this model has high/decoder/16"),
        ({"stage": "low", "placement": "encoder"}, "no cross-attention at stage=low, placement=encoder"),
    ],
)
def test_select_says_what_there_is(filters: dict, message: str):
    with pytest.raises(ValueError, match=message):
        select(SOME, **filters)
