"""What is encoded once for a whole training, dropped captions, and training on the data that people
have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.coco_files import write_coco
from helpers.flickr_files import write_comma, write_entities, write_images
from safetensors.torch import load_file

from conf import load as conf
from conf.schema import Run
from datamodules.batch import Batch
from datamodules.cache import TextCache, text_facts
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.training import run as train

TEXTS = ["a red circle", "a blue square and a green ring"]


def trained(config: Run) -> dict[str, torch.Tensor]:
    return load_file(
        Path(config.output) / "adapters" / train.training_key(config) / "adapter.safetensors"
    )


def known(backbone: Backbone, folder: Path, texts: list[str]) -> TextCache:
    return TextCache.fill(
        folder,
        text_facts(backbone.text.fingerprint(), "float32"),
        texts,
        backbone.text.encode_for_cache,
    )


@pytest.mark.parametrize("which", ["embedded", "sd1"])
def test_texts_from_the_cache_are_what_the_encoders_say(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
):
    backbone = request.getfixturevalue(which)
    fresh = backbone.text.encode(TEXTS)
    kinds = backbone.text.token_types(fresh.hidden).clone()
    backbone.text.cache = known(backbone, tmp_path, TEXTS)
    backbone.text.token_types.past.clear()
    found = backbone.text.encode(TEXTS[::-1])
    assert torch.allclose(found.hidden, fresh.hidden.flip(0), atol=1e-5)
    assert (found.pooled is None) == (fresh.pooled is None)
    assert found.pooled is None or torch.allclose(found.pooled, fresh.pooled.flip(0), atol=1e-5)
    assert torch.equal(backbone.text.token_types(found.hidden), kinds.flip(0)), (
        "gates still know words from padding"
    )


def test_an_unknown_text_is_encoded(embedded: Backbone, tmp_path: Path):
    wanted = embedded.text.encode(["a white cross", TEXTS[0]]).hidden
    embedded.text.cache = known(embedded, tmp_path, TEXTS)
    assert torch.equal(embedded.text.encode(["a white cross", TEXTS[0]]).hidden, wanted)


def test_text_keys_change_with_the_encoders(embedded: Backbone):
    before = embedded.text.fingerprint()
    with torch.no_grad():
        next(embedded.text.encoders[-1].parameters()).add_(1e-3)
    assert embedded.text.fingerprint() != before


@pytest.mark.parametrize("which", ["embedded", "sd1"])
def test_a_dropped_caption_is_what_guidance_takes_for_none(
    which: str, request: pytest.FixtureRequest
):
    backbone = request.getfixturevalue(which)
    config = conf.replace(Run(), {"method": "untouched"})
    method = train.build_method(config, backbone)
    text, alone = method._encode(Batch([0, 1], [TEXTS[0], ""])), backbone.text.encode(TEXTS[:1])
    empty = backbone.text.encode_empty(1)
    assert torch.allclose(text.hidden[:1], alone.hidden, atol=1e-5) and torch.equal(
        text.hidden[1:], empty.hidden
    )
    if text.pooled is not None:
        assert torch.allclose(text.pooled[:1], alone.pooled, atol=1e-5) and torch.equal(
            text.pooled[1:], empty.pooled
        )


def test_training_is_the_same_whatever_is_cached(base: Run, tmp_path: Path):
    found = {}
    for cache in ("none", "latents", "all"):
        config = conf.replace(
            base,
            {
                "data.cache": cache,
                "evaluation.prompts": 0,
                "data.drop_captions": 0.3,
                "trainer.steps": 2,
                "seed": 5,
            },
        )
        train.run(config, tmp_path / cache)
        found[cache] = trained(config)
    for other in ("latents", "all"):
        assert all(
            torch.allclose(tensor, found["none"][name], atol=1e-4)
            for name, tensor in found[other].items()
        ), other
    assert any((Path(base.output) / "cache" / "texts").iterdir())


def test_flips_and_dropped_captions_reach_the_training(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Batch] = []
    step = Method.training_step
    monkeypatch.setattr(
        Method,
        "training_step",
        lambda method, batch, i: (seen.append(batch), step(method, batch, i))[1],
    )
    changes = {"evaluation.prompts": 0, "seed": 66, "trainer.steps": 2}
    for i, more in enumerate(({}, {"data.flip": True}, {"data.drop_captions": 0.5})):
        train.run(conf.replace(base, changes | more), tmp_path / str(i))
    plain, flipped, dropped = seen[:2], seen[2:4], seen[4:]
    same = [
        torch.equal(a, b)
        for x, y in zip(plain, flipped, strict=True)
        for a, b in zip(x.latents, y.latents, strict=True)
    ]
    assert 0 < sum(same) < 8, "about half of the samples are mirrored"
    captions = [caption for batch in dropped for caption in batch.captions]
    whole = [caption for batch in plain for caption in batch.captions]
    assert 0 < captions.count("") < 8 and all(
        a in ("", b) for a, b in zip(captions, whole, strict=True)
    )
    assert [batch.ids for batch in plain] == [batch.ids for batch in dropped], (
        "whatever is dropped, the order stays"
    )


@pytest.mark.parametrize("name", ["coco", "flickr30k"])
def test_data_of_ones_own_are_trained_on_and_said_in_a_manifest(
    base: Run, tmp_path: Path, name: str
):
    root = tmp_path / "data"
    if name == "coco":
        write_coco(root, "train2017", range(1, 7))
        (root / "train2017" / "000000000003.jpg").unlink()
        more = {"data.train_split": "train2017"}
    else:
        write_images(root / "Images")
        write_comma(root / "captions.txt")
        write_entities(root)
        more = {"data.split_by": "all", "data.detokenise": True}
    config = conf.replace(
        base,
        {
            "data.name": name,
            "data.root": str(root),
            "evaluation.prompts": 0,
            "trainer.batch": 2,
            "data.cache": "all",
            **more,
        },
    )
    train.run(config, tmp_path / "trial")
    manifest = json.loads((tmp_path / "trial" / "data.json").read_text())
    assert manifest["train"]["images"] >= 2 and trained(config)
    if name == "coco":
        assert (
            manifest["train"]["images"] == 5
            and sum(found["count"] for found in manifest["train"]["problems"].values()) == 1
        )
        with pytest.raises(ValueError, match="000000000003.jpg"):
            train.run(
                conf.replace(config, {"data.on_error": "raise", "seed": 1}), tmp_path / "strict"
            )


def test_prompts_alone_train_separate_enhance(base: Run, tmp_path: Path):
    (tmp_path / "pairs.txt").write_text(
        "a red circle and a blue square\na green ring above a white cross\n\na cyan diamond\n"
    )
    config = conf.replace(
        base,
        {
            "method": "separate_enhance",
            "data.name": "prompts",
            "data.root": str(tmp_path / "pairs.txt"),
            "data.cache": "all",
            "trainer.batch": 2,
            "evaluation.prompts": 0,
        },
    )
    result = train.run(config, tmp_path / "trial")
    assert (
        result["counts"]["trained_parameters"] > 0
        and json.loads((tmp_path / "trial" / "data.json").read_text())["prompts"] == 3
    )
