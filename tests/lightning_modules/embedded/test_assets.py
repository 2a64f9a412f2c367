"""The shipped backbones: opened by stock diffusers, small enough to ship, and able to do what their
cards say."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from conf.schema import SHIPPED
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.backbone.weights import ASSETS, shipped_folder
from lightning_modules.embedded.grade import GROUPS, grade


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Backbone:
    return Backbone.load(request.param)


def read_card(name: str) -> dict[str, float]:
    """Group of prompts -> success, of the card's table."""
    rows = [
        [part.strip() for part in line.strip("|\n").split("|")]
        for line in (shipped_folder(name) / "README.md").read_text().splitlines()
        if line.startswith("|")
    ]
    at = next(row for row in rows if row[0] == "prompts").index("success")
    return {row[0]: float(row[at]) for row in rows if row[0] in GROUPS}


def test_a_stock_pipeline_opens_it_and_draws_the_same_image(shipped: Backbone):
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        shipped_folder(shipped.source), add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    stock = pipeline(
        "a red circle",
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=generator,
        output_type="pt",
    ).images
    ours = sample(shipped, ["a red circle"], [5], 4, 3.0, 64)
    assert int(((stock * 255).round() - ours.float()).abs().max()) <= 1


def test_assets_are_small_safetensors_without_a_trace_of_where_they_were_made():
    files = [file for file in ASSETS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 40_000_000
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".txt", ".csv"}
    paths = [
        json.loads(file.read_text()).get("_name_or_path", "")
        for file in files
        if file.name in ("config.json", "model_index.json")
    ]
    assert not any("/" in path for path in paths)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_card_has_every_group_of_prompts(name: str):
    assert read_card(name).keys() == GROUPS.keys()


@pytest.mark.slow
def test_it_composes_what_its_card_says(shipped: Backbone):
    card, images = read_card(shipped.source), 40
    table = grade(shipped, images=images, steps=8, guidance=3.0)
    for group in GROUPS:
        # Three and a half standard errors of so few images; at 0 and 1 of one in fifty
        spread = 3.5 * (max(card[group] * (1 - card[group]), 0.02) / images) ** 0.5
        assert table[group]["success"] == pytest.approx(card[group], abs=spread), group
