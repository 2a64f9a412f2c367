"""Whole runs on PixArt: each method that can is trained, kept, read again, drawn with and measured;
the others are refused early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Run
from lightning_modules import MCGM, MaskAttn, SeparateEnhance
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method
from lightning_modules.training import run as train

SCENE = {"data": "scene", "data.root": "auto"}
PROMPTS = ["a red circle above a blue square", "a green ring"]


@pytest.fixture(scope="module")
def start(base: Run, pixart_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps of MaskAttn on PixArt, without evaluation."""
    folder = tmp_path_factory.mktemp("pixart")
    pixart_pipeline.save_pretrained(folder)
    changes = {
        "backbone.name": "pixart",
        "backbone.path": str(folder),
        "evaluation.prompts": 0,
        "method.gate.protect": "none",
    }
    return conf.replace(
        base, changes | {"trainer.lr": 0.05, "output": str(tmp_path_factory.mktemp("runs"))}
    )


def adapter(config: Run) -> Path:
    return Path(config.output) / "adapters" / train.training_key(config)


def opened(config: Run, kind: type[Method]) -> Method:
    """The adapter of a run in a backbone of its own."""
    method = Method.load_adapter(adapter(config), Backbone.load(config.backbone.path))
    assert isinstance(method, kind)
    return method


def drawn(method: Method, **given: Any) -> torch.Tensor:
    return method.generate(PROMPTS, [1, 2], steps=2, guidance=3.0, **given).int()


@pytest.mark.slow
def test_maskattn_is_trained_measured_and_read_again(start: Run, tmp_path: Path):
    changes = {
        "evaluation.prompts": 4,
        "evaluation.attention": True,
        "data.cache": "all",
        "data.drop_captions": 0.3,
    }
    config = conf.replace(start, changes | {"method.gate.supervision": "masks"})
    result = train.run(config, tmp_path)
    metrics = result["metrics"]
    for name in (
        "success",
        "fid",
        "gate_closed",
        "gate_mask_iou",
        "gates_shut",
        "map_overlap",
        "map_activation",
        "gate_closed_kind/eos",
    ):
        assert f"eval/{name}" in metrics, name
    assert (
        not {"eval/gate_closed_kind/bos", "eval/gate_closed_kind/padding"} & metrics.keys()
        and metrics["eval/n_images"] == 8
    )
    assert result["counts"]["backbone_parameters"] == sum(
        p.numel() for p in Backbone.load(config.backbone.path).denoiser.parameters()
    )
    tokens = json.loads((tmp_path / "gates.json").read_text())[0]["tokens"]
    assert tokens[-1] == "EOS" and "BOS" not in tokens and len(tokens) < 20
    weights = load_file(adapter(config) / "adapter.safetensors")
    assert {name.split(".")[1] for name in weights} == {"high_48_48", "mid_48_48", "low_48_48"}
    method = opened(config, MaskAttn)
    gated, untouched = (
        drawn(method),
        sample(Backbone.load(config.backbone.path), PROMPTS, [1, 2], 2, 3.0, 64).int(),
    )
    assert int((gated - untouched).abs().max()) > 1 and torch.equal(drawn(method), gated)
    method.remove()
    assert torch.equal(drawn(method), untouched)


WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "low rank": {"method.weights.rank": 2},
    "concepts": {"data.concepts": ["red circle", "blue square"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_separate_enhance_trains_the_keys_alone_and_stock_opens_them(
    start: Run, tmp_path: Path, settings: dict[str, Any]
):
    config = conf.replace(start, {"method": "separate_enhance", "trainer.lr": 0.02} | settings)
    train.run(config, tmp_path)
    method = opened(config, SeparateEnhance)
    names = [name for name, _ in method.weights.named_parameters()]
    assert len(names) == 12 and all(".attn2.to_k." in name for name in names), (
        "weight and bias, or A and B, of six layers"
    )
    untouched = Backbone.load(config.backbone.path)
    before, after = sample(untouched, PROMPTS, [1, 2], 2, 3.0, 64), drawn(method)
    assert int((after - before.int()).abs().max()) > 1
    stock = adapter(config) / "stock"
    if config.method.weights.rank:
        from peft import PeftModel

        untouched.denoiser = PeftModel.from_pretrained(
            untouched.pipeline.transformer, stock / "transformer"
        ).base_model.model
    else:
        found = untouched.denoiser.load_state_dict(
            load_file(stock / "transformer.safetensors"), strict=False
        )
        assert not found.unexpected_keys
    assert int((sample(untouched, PROMPTS, [1, 2], 2, 3.0, 64).int() - after).abs().max()) <= 1
    method.remove()
    assert torch.equal(drawn(method), before.int())


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["per_mask", "merged"])
def test_mcgm_steers_by_masks_of_words(start: Run, tmp_path: Path, encoder: str):
    config = conf.replace(
        start,
        {
            "method": "mcgm",
            "method.masks.encoder": encoder,
            "method.masks.token_scale": 4.0,
            "method.masks.lr": 0.05,
        },
    )
    train.run(config, tmp_path)
    method = opened(config, MCGM)
    assert (
        method.encoder.project.out_features == 48
        and (adapter(config) / "stock" / "transformer.safetensors").exists()
    )
    half = torch.zeros(64, 64)
    half[:, :32] = 1
    blank = torch.zeros(64, 64)
    plain = drawn(method)
    assert torch.equal(drawn(method, masks=[{"red circle": blank}, None]), plain)
    steered = drawn(method, masks=[{"red circle": half}, None])
    assert int((steered[0] - plain[0]).abs().max()) > 1 and torch.equal(steered[1], plain[1])


def test_words_of_a_mask_are_states_as_cross_attention_reads_them(pixart: Backbone, start: Run):
    config = conf.replace(start, {"method": "mcgm"})
    method = MCGM(pixart, config.method, config.trainer, 64)
    text = pixart.text.encode(["a red ring"])
    (words,) = method.word_states(text, [[[1, 2]]]).detach()
    assert torch.allclose(
        words[0], pixart.denoiser.caption_projection(text.hidden)[0, 1:3].mean(0), atol=1e-6
    ) and words.shape == (1, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "mcgm"} | SCENE,
            ("method=mcgm with data=scene and backbone=pixart: placeholders are words of CLIP"),
        ),
        (
            {"method": "break_a_scene"} | SCENE,
            ("method=break_a_scene with data=scene and backbone=pixart: placeholders"),
        ),
        (
            {"method": "mcgm", "method.weights.text_encoder": True},
            ("text_encoder=true with backbone=pixart: T5 is not trained here"),
        ),
        (
            {"method": "separate_enhance", "method.separate.tokens": "released"},
            ("tokens=released with backbone=pixart: the token indices are"),
        ),
        (
            {"data": "coco", "data.root": "/x", "backbone.resolution": 72},
            ("backbone.resolution=72: PixArt expects a multiple of 16 pixels"),
        ),
    ],
)
def test_what_pixart_cannot_do_is_refused_once_it_is_loaded(
    start: Run, tmp_path: Path, changes: dict[str, Any], message: str
):
    config = conf.replace(start, changes | {"output": str(tmp_path / "runs")})
    with pytest.raises(ValueError, match=message):
        train.run(config, tmp_path / "trial")
    assert not (tmp_path / "runs").exists(), "neither data nor class images were made"
