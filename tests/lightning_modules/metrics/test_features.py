from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.metrics.features import (
    INCEPTION_LAYERS,
    JudgeExtractor,
    TransformersExtractor,
    VGG16Extractor,
    build_extractor,
    resize,
)


def pictures(n: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_bicubic_is_pils_in_floating_point():
    images = pictures(2, 50, 41)
    found = resize(images, 19)
    for image, resized in zip(images, found, strict=True):
        for plane, small in zip(image, resized, strict=True):
            expected = Image.fromarray(plane.numpy().astype(np.float32)).resize(
                (19, 19), Image.Resampling.BICUBIC
            )
            assert np.array_equal(small.numpy(), np.asarray(expected))
    assert found.dtype == torch.float32 and not torch.equal(found, found.round())
    antialiased = F.interpolate(
        images.float(), (19, 19), mode="bicubic", antialias=True, align_corners=False
    )
    assert torch.allclose(found, antialiased, atol=0.01)


def test_bilinear_takes_four_pixels_and_no_more():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[..., 3, 3] = 100
    # Output cell 1 of 4 has its centre between input pixels 2 and 3.
    assert resize(images, 4, "bilinear")[0, 0, 1, 1] == 25
    # TensorFlow 1 puts it at pixel 2 x 1 = 2, where nothing is.
    assert resize(images, 4, "tf1").sum() == 0
    images[..., 2, 2] = 80
    assert resize(images, 4, "tf1")[0, 0, 1, 1] == 80


@pytest.mark.parametrize(("height", "width", "side"), [(5, 7, 13), (13, 11, 6)])
def test_tf1_bilinear_by_hand(height: int, width: int, side: int):
    image = pictures(1, height, width)
    found = resize(image, side, "tf1")[0]
    plane = image[0].numpy().astype(np.float64)
    for y in range(side):
        for x in range(side):
            v, u = y * height / side, x * width / side
            top, left = int(v), int(u)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = plane[:, top, left] * (1 - u + left) + plane[:, top, right] * (u - left)
            lower = plane[:, below, left] * (1 - u + left) + plane[:, below, right] * (u - left)
            assert found[:, y, x].numpy() == pytest.approx(
                upper * (1 - v + top) + lower * (v - top), abs=1e-3
            )


def test_images_of_the_right_size_are_left_alone():
    images = pictures(2, 9, 9)
    for name in ("bicubic", "bilinear", "tf1"):
        assert torch.equal(resize(images, 9, name), images.float())
        assert resize(images[:0], 5, name).shape == (0, 3, 5, 5)
    with pytest.raises(
        ValueError, match=("'nearest' is unknown: expected one of bicubic, bilinear, tf1")
    ):
        resize(images, 5, "nearest")
    with pytest.raises(ValueError, match="uint8 images .* not torch.float32"):
        resize(images.float(), 5)


def test_judge():
    judge = build_extractor("judge")
    images = pictures(3, 64, 64)
    assert isinstance(judge, JudgeExtractor)
    assert torch.equal(judge(images), judge.judge.features(images))
    assert judge(images).shape == (3, judge.size) == (3, 52)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(judge(images), judge.judge.features(images))
    assert judge.facts == {
        "extractor": "judge",
        "weights": judge.facts["weights"],
        "layer": "first block and layout",
        "side": 64,
        "filter": "none",
        "features": 52,
    }
    with pytest.raises(ValueError, match=r"\[N, 3, 64, 64\]"):
        judge(pictures(1, 32, 32))


# Torchvision's index: channels
VGG = {0: 2, 2: 3, 5: 4, 7: 4, 10: 5, 12: 5, 14: 5, 17: 6, 19: 6, 21: 6, 24: 6, 26: 6, 28: 3}
POOLED = (2, 7, 14, 21, 28)  # A pooling follows


@pytest.fixture(scope="module")
def vgg_state() -> dict[str, Tensor]:
    """Weights under torchvision's names, narrow."""
    generator = torch.Generator().manual_seed(0)
    state, channels = {}, 3
    for index, width in VGG.items():
        state[f"features.{index}.weight"] = torch.randn(
            width, channels, 3, 3, generator=generator
        ) / (3 * channels**0.5)
        state[f"features.{index}.bias"] = torch.randn(width, generator=generator)
        channels = width
    for index, (out, into) in {0: (9, channels * 49), 3: (8, 9), 6: (5, 8)}.items():
        state[f"classifier.{index}.weight"] = (
            torch.randn(out, into, generator=generator) / into**0.5
        )
        state[f"classifier.{index}.bias"] = torch.randn(out, generator=generator)
    return state


def test_vgg16_is_torchvisions_up_to_the_second_layer(vgg_state: dict[str, Tensor], tmp_path: Path):
    save_file(vgg_state, tmp_path / "vgg.safetensors")
    torch.save(vgg_state, tmp_path / "vgg.pt")
    vgg = build_extractor("vgg16", tmp_path / "vgg.safetensors", filter="tf1", batch=2)
    images = pictures(3, 60, 48)
    x = resize(images, 224, "tf1") / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    for index in VGG:
        x = F.conv2d(
            x, vgg_state[f"features.{index}.weight"], vgg_state[f"features.{index}.bias"], padding=1
        ).relu()
        x = F.max_pool2d(x, 2) if index in POOLED else x
    x = x.flatten(1)
    for index in (0, 3):
        x = F.linear(
            x, vgg_state[f"classifier.{index}.weight"], vgg_state[f"classifier.{index}.bias"]
        ).relu()
    found = vgg(images)
    assert found.shape == (3, vgg.size) == (3, 8) and found.any()
    assert torch.allclose(found, x, atol=1e-5)
    assert (
        vgg.facts["side"] == 224
        and vgg.facts["filter"] == "tf1"
        and vgg.facts["layer"] == "fc2 ReLU"
    )
    assert VGG16Extractor(tmp_path / "vgg.pt", filter="tf1").facts == vgg.facts
    # The filter matters
    assert not torch.allclose(VGG16Extractor(tmp_path / "vgg.pt")(images), found, atol=1e-3)


def test_weights_of_another_network_are_refused(vgg_state: dict[str, Tensor], tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=("the extractor vgg16 has no weights: give the path")
    ):
        build_extractor("vgg16")
    with pytest.raises(
        FileNotFoundError, match=("none.pt is missing: expected a state dict of VGG-16")
    ):
        build_extractor("vgg16", tmp_path / "none.pt")
    torch.save(
        {name: tensor for name, tensor in vgg_state.items() if "features.12." not in name},
        tmp_path / "other.pt",
    )
    torch.save(Path("an object that only a pickle makes"), tmp_path / "pickle.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00\x01")
    for name in ("other.pt", "pickle.pt", "cut.safetensors"):
        with pytest.raises(
            ValueError, match=(f"{name} cannot be used .*: expected a state dict of VGG-16")
        ) as error:
            build_extractor("vgg16", tmp_path / name)
        assert "\n" not in str(error.value)


def test_an_extractor_is_no_part_of_the_module_that_holds_it(
    vgg_state: dict[str, Tensor], tmp_path: Path
):
    torch.save(vgg_state, tmp_path / "vgg.pt")
    images = pictures(3, 64, 64)
    for held in (VGG16Extractor(tmp_path / "vgg.pt"), JudgeExtractor()):
        holder = nn.Module()
        holder.extractor = held
        before = held(images)
        holder.train().to(torch.bfloat16)
        assert not list(holder.parameters()) and not holder.state_dict()
        with torch.autocast("cpu", torch.bfloat16):
            after = held(images)
        assert (
            torch.equal(before, after) and after.dtype == torch.float32 and not after.requires_grad
        )
        assert held(images[:0]).shape == (0, held.size)
        assert json.loads(json.dumps(held.facts)) == held.facts


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """What the Inception extractor uses of torch-fidelity, smaller."""

    class FeatureExtractorInceptionV3(nn.Module):
        def __init__(
            self, name: str, features_list: list[str], feature_extractor_weights_path=None
        ):
            super().__init__()
            for layer in INCEPTION_LAYERS:
                setattr(self, layer, nn.Identity())
            self.Conv2d_1a_3x3 = nn.Conv2d(3, 4, 3, stride=50)
            self.Mixed_7c = nn.Conv2d(4, 2048, 1)
            self.AvgPool = nn.AdaptiveAvgPool2d(1)
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FeatureExtractorInceptionV3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    return FeatureExtractorInceptionV3


def test_inception_sees_our_resize(
    fidelity: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3, stride=50), nn.Conv2d(4, 2048, 1)
    state = {f"Conv2d_1a_3x3.{n}": p.detach() for n, p in first.named_parameters()}
    state |= {f"Mixed_7c.{n}": p.detach() for n, p in last.named_parameters()}
    path = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    torch.save(state, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    inception = build_extractor("inception")
    images = pictures(2, 400, 320)
    expected = last(first((resize(images, 299, "bicubic") - 128) / 128)).mean((2, 3))
    assert torch.allclose(inception(images), expected, atol=1e-5)
    assert (inception.size, inception.facts["side"], inception.facts["filter"]) == (
        2048,
        299,
        "bicubic",
    )
    with pytest.raises(ValueError, match="'area' is unknown"):
        build_extractor("inception", filter="area")


def test_inception_says_what_is_missing(
    fidelity: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=("HF_HUB_OFFLINE is set: download https://.* and give its path as weights"),
    ):
        build_extractor("inception")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError,
        match=("other.pth cannot be used .*: expected torch-fidelity's Inception weights"),
    ) as error:
        build_extractor("inception", tmp_path / "other.pth")
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(
        ImportError, match=(r"needs torch-fidelity .*`pip install " r".\[real-metrics\]`")
    ):
        build_extractor("inception")


def save_model(kind: str, folder: Path) -> Path:
    import transformers as t

    torch.manual_seed(0)
    small: dict = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    processor = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    if kind == "dinov2":
        # Positions are made for 32 pixels, but the processor asks for 24, as the published ones do
        # with 518 and 224.
        t.Dinov2Model(t.Dinov2Config(mlp_ratio=1, **small)).save_pretrained(folder)
        processor |= {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 28},
            "crop_size": {"height": 24, "width": 24},
        }
    elif kind == "vit":
        t.ViTModel(t.ViTConfig(intermediate_size=16, **small)).save_pretrained(folder)
        processor |= {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 32, "width": 32},
        }
    elif kind == "clip":
        text: dict = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "vocab_size": 99,
        }
        vision = {**small, "intermediate_size": 16}
        t.CLIPModel(
            t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        ).save_pretrained(folder)
        processor |= {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
        }
    else:
        t.ResNetModel(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
        ).save_pretrained(folder)
        processor |= {"image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.mark.parametrize(
    ("kind", "side", "size"), [("dinov2", 24, 16), ("vit", 32, 16), ("clip", 32, 12)]
)
def test_models_of_transformers(kind: str, side: int, size: int, tmp_path: Path):
    import transformers as t

    folder = save_model(kind, tmp_path / f"{kind}-tiny")
    model = build_extractor(str(folder), batch=2)
    images = pictures(3, 48, 64)
    x = resize(images, side) / 255
    x = (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    with torch.no_grad():
        if kind == "clip":
            whole = t.CLIPModel.from_pretrained(folder).eval()
            expected = whole.visual_projection(whole.vision_model(x).pooler_output)
        else:
            expected = t.AutoModel.from_pretrained(folder).eval()(x).last_hidden_state[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
    assert found.shape == (3, model.size) == (3, size) and found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert model.name == f"{kind}-tiny"
    assert (model.facts["side"], model.facts["filter"]) == (side, "bicubic")
    assert not any(p.requires_grad for p in model.network.parameters())  # type: ignore[attr-defined]


def test_models_without_such_features_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="is a resnet: expected a CLIP or a vision transformer"):
        TransformersExtractor(str(save_model("resnet", tmp_path / "resnet")))
    for nothing in (str(tmp_path), "nobody/no-such-model"):
        with pytest.raises(
            FileNotFoundError,
            match=("cannot be loaded .* expected judge, inception, vgg16, a folder, or a hub id"),
        ) as error:
            build_extractor(nothing)
        assert "\n" not in str(error.value)
