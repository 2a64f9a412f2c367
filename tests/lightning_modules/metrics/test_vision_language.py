from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as t
from helpers.vision_language_models import CONTEXT, MEAN, SD, make_blip, make_clip, make_siglip
from PIL import Image
from torch import Tensor

from lightning_modules.metrics.vision_language import (
    BlipCaptioner,
    BlipMatcher,
    Clip,
    Preprocessing,
    Siglip,
    load_aligner,
)

TEXTS = ["a red circle", "a blue square and a green star", "zebra"]
LONG = "the red dog with a blue cat and a green zebra left of a star"


def pictures(n: int = 3, height: int = 40, width: int = 57) -> Tensor:
    """Coarse blocks, so that resizing leaves something to tell them apart by."""
    blocks = torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(blocks.float(), (height, width)).to(torch.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "clip": make_clip(base / "clip"),
        "itm": make_blip(base / "itm", "BlipForImageTextRetrieval"),
        "caption": make_blip(base / "caption", "BlipForConditionalGeneration"),
    }


@pytest.mark.parametrize("size", [(40, 57), (61, 33), (32, 32), (20, 90)])
def test_preprocessing_equals_transformers_own(size: tuple[int, int]):
    images = pictures(2, *size)
    options = {"image_mean": MEAN, "image_std": SD}
    clip = t.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 30}, **options
    )
    blip = t.BlipImageProcessorPil(size={"height": 24, "width": 28}, **options)
    for processor, shape in ((clip, (32, 30)), (blip, (24, 28))):
        expected = processor(list(images), return_tensors="pt", input_data_format="channels_first")[
            "pixel_values"
        ]
        got = Preprocessing.of(processor)(images)
        assert got.shape == (2, 3, *shape) and got.dtype == torch.float32
        assert torch.allclose(got, expected.float(), atol=1e-5)


def test_preprocessing_by_hand():
    image = pictures(1, 64, 96)
    got = Preprocessing(32, (32, 32), MEAN, SD, 3)(image)
    resized = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize(
        (48, 32), Image.Resampling.BICUBIC
    )
    expected = (
        np.asarray(resized)[:, 8:40].transpose(2, 0, 1) / 255 - np.array(MEAN)[:, None, None]
    ) / np.array(SD)[:, None, None]
    assert np.allclose(got[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "images", [torch.rand(1, 3, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(1, 4, 8, 8).byte()]
)
def test_only_uint8_images(images: Tensor, folders: dict[str, Path]):
    with pytest.raises(ValueError, match=r"expected uint8 images \[N, 3, H, W\]"):
        Preprocessing(8, None, MEAN, SD, 3)(images)
    with pytest.raises(ValueError, match="expected uint8"):
        load_aligner(str(folders["clip"])).images(images)  # type: ignore[union-attr]


def test_preprocessing_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="crops .* expected a crop that fits"):
        Preprocessing.of(
            t.CLIPImageProcessorPil(
                size={"shortest_edge": 16}, crop_size={"height": 32, "width": 32}
            )
        )
    with pytest.raises(ValueError, match="expected a shortest_edge"):
        Preprocessing.of(t.BlipImageProcessorPil(size={"longest_edge": 16}))


def test_the_kind_is_read_from_config(folders: dict[str, Path]):
    kinds = [type(load_aligner(str(folders[name]))) for name in ("clip", "itm", "caption")]
    assert kinds == [Clip, BlipMatcher, BlipCaptioner]
    with pytest.raises(ValueError, match="is a BlipForConditionalGeneration: expected a CLIPModel"):
        Clip(str(folders["caption"]))


@pytest.mark.parametrize("published", [False, True])
def test_clip_vectors_equal_the_models_own(published: bool, tmp_path: Path):
    folder = make_clip(tmp_path / "clip", published=published)
    clip = Clip(str(folder), batch=2)
    model = t.CLIPModel.from_pretrained(folder).eval()
    images = pictures()
    pixels = t.CLIPImageProcessorPil.from_pretrained(folder)(list(images), return_tensors="pt")[
        "pixel_values"
    ]
    vectors, cut = clip.texts(TEXTS)
    assert cut == [False] * 3 and vectors.shape == (3, 8)
    with torch.no_grad():
        assert torch.allclose(
            clip.images(images),
            unit(model.get_image_features(pixels.float()).pooler_output),
            atol=1e-5,
        )
        for text, vector in zip(TEXTS, vectors, strict=True):  # Alone, so without padding
            ids = clip.tokenizer(text, return_tensors="pt")["input_ids"]
            assert torch.allclose(
                vector, unit(model.get_text_features(ids).pooler_output)[0], atol=1e-5
            )
    assert clip.images(images[:0]).shape == (0, 8) and clip.texts([])[0].shape == (0, 8)


def test_siglip_vectors_equal_the_models_own(tmp_path: Path):
    folder = make_siglip(tmp_path / "siglip")
    siglip = load_aligner(str(folder), batch=2)
    assert isinstance(siglip, Siglip) and siglip.score == "siglip_score"
    model = t.SiglipModel.from_pretrained(folder).eval()
    images = pictures()
    pixels = t.SiglipImageProcessorPil.from_pretrained(folder)(list(images), return_tensors="pt")
    vectors, cut = siglip.texts(TEXTS)
    assert cut == [False] * 3
    with torch.no_grad():
        own = model.get_image_features(pixels["pixel_values"].float()).pooler_output
        assert torch.allclose(siglip.images(images), unit(own), atol=1e-5)
        for text, vector in zip(TEXTS, vectors, strict=True):
            ids = siglip.tokenizer(text, padding="max_length", max_length=12, return_tensors="pt")[
                "input_ids"
            ]
            own = model.get_text_features(ids).pooler_output
            assert torch.allclose(vector, unit(own)[0], atol=1e-5)
    assert siglip.images(images[:0]).shape[0] == 0 and siglip.texts([])[0].shape[0] == 0


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def test_long_texts_keep_their_closing_token(folders: dict[str, Path]):
    clip = Clip(str(folders["clip"]))
    assert len(clip.tokenizer(LONG)["input_ids"]) > CONTEXT == clip.context
    vectors, cut = clip.texts([LONG, "a cat"])
    assert cut == [True, False]
    kept = clip.tokenizer(LONG)["input_ids"][: CONTEXT - 1] + [clip.tokenizer.eos_token_id]
    with torch.no_grad():
        expected = unit(clip.model.get_text_features(torch.tensor([kept])).pooler_output)[0]
    assert torch.allclose(vectors[0], expected, atol=1e-5)


def test_blip_equals_the_models_own(folders: dict[str, Path]):
    blip = BlipMatcher(str(folders["itm"]), batch=2)
    model = t.BlipForImageTextRetrieval.from_pretrained(folders["itm"]).eval()
    images, (texts, _) = pictures(), blip.texts(TEXTS)
    probability, cut = blip.match(images, TEXTS)
    assert probability.shape == (3,) and cut == [False] * 3
    pixels = blip.preprocessing(images)
    with torch.no_grad():
        for i, text in enumerate(TEXTS):
            ids = blip.tokenizer(text, return_tensors="pt")["input_ids"]
            itc = model(input_ids=ids, pixel_values=pixels[i : i + 1], use_itm_head=False).itm_score
            itm = model(input_ids=ids, pixel_values=pixels[i : i + 1]).itm_score
            assert torch.allclose((blip.images(images)[i] * texts[i]).sum(), itc, atol=1e-5)
            assert torch.allclose(probability[i], itm.softmax(-1)[0, 1], atol=1e-5)
    assert probability.std() > 1e-3
    assert blip.match(images[:0], [])[0].shape == (0,)


def test_captions_continue_the_prompt(folders: dict[str, Path]):
    captioner = BlipCaptioner(str(folders["caption"]), batch=2, beams=2, shortest=6, longest=9)
    images = pictures(5)
    captions = captioner.captions(images)
    model = t.BlipForConditionalGeneration.from_pretrained(folders["caption"]).eval()
    for image, caption in zip(images, captions, strict=True):
        inputs = captioner.tokenizer(["a picture of"], return_tensors="pt")
        pixels = captioner.preprocessing(image[None])
        ids = model.generate(
            pixels, inputs["input_ids"], num_beams=2, min_length=6, max_length=9, do_sample=False
        )
        assert (
            captioner.tokenizer.decode(ids[0, 1:], skip_special_tokens=True)
            == f"a picture of {caption}"
        )
    assert len(set(captions)) > 1
    assert captioner.captions(images[:0]) == []
    assert captioner.facts["caption_prompt"] == "a picture of" and captioner.facts[
        "caption_tokens"
    ] == [6, 9]


def test_float16_checkpoints_and_autocast_give_float32(folders: dict[str, Path], tmp_path: Path):
    half = Clip(str(make_clip(tmp_path / "half", dtype=torch.float16)))
    assert half.model.dtype == torch.float32 and not any(
        p.requires_grad for p in half.model.parameters()
    )
    images = pictures()
    for model in (half, load_aligner(str(folders["itm"]))):
        assert isinstance(model, Clip | BlipMatcher)
        plain = model.images(images), model.texts(TEXTS)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert all(
                torch.equal(a, b)
                for a, b in zip(plain, (model.images(images), model.texts(TEXTS)[0]), strict=True)
            )
        assert all(v.dtype == torch.float32 for v in plain)


def test_incomplete_checkpoints_are_refused(folders: dict[str, Path], tmp_path: Path):
    """A captioner's weights under a matcher's name would score with random heads."""
    shutil.copytree(folders["caption"], tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(
        json.dumps({**config, "architectures": ["BlipForImageTextRetrieval"]})
    )
    with pytest.raises(
        ValueError, match=("lacks .* weights of a BlipForImageTextRetrieval .* would stay random")
    ):
        load_aligner(str(tmp_path / "b"))


@pytest.mark.parametrize("kind", ["clip", "itm"])
def test_a_missing_tokenizer_is_refused(kind: str, folders: dict[str, Path], tmp_path: Path):
    """transformers makes an empty one, to which all texts are alike."""
    shutil.copytree(
        folders[kind],
        tmp_path / "b",
        ignore=shutil.ignore_patterns("tokenizer*", "vocab*", "merges*"),
    )
    with pytest.raises(ValueError, match="its tokenizer .: expected the tokenizer's own files"):
        load_aligner(str(tmp_path / "b"))


def test_what_cannot_be_loaded_is_said_in_one_line(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(
        FileNotFoundError,
        match=("expected a local folder.*HF_HUB_OFFLINE is set: run `hf download nobody/none`"),
    ) as missing:
        load_aligner("nobody/none")
    with pytest.raises(FileNotFoundError, match="cannot be loaded") as empty:
        load_aligner(str(tmp_path))
    pickled = tmp_path / "pickled"
    shutil.copytree(folders["clip"], pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors") as unsafe:
        load_aligner(str(pickled))
    (pickled / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(FileNotFoundError, match="cannot be loaded") as broken:
        load_aligner(str(pickled))
    assert not any("\n" in str(error.value) for error in (missing, empty, unsafe, broken))
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "vit", "architectures": ["ViTModel"]})
    )
    with pytest.raises(
        ValueError,
        match="is a ViTModel: expected one of CLIPModel, SiglipModel, BlipForImageTextRetrieval",
    ):
        load_aligner(str(tmp_path))


def test_facts_name_no_folder_of_this_machine(folders: dict[str, Path]):
    clip = load_aligner(str(folders["clip"]))
    assert clip.facts == {
        "model": "clip",
        "resize": "shorter side 32, bicubic (Pillow)",
        "crop": "32x32",
        "context": CONTEXT,
    }
    assert json.loads(json.dumps(clip.facts)) == clip.facts
