from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules.shapes.world import Scene, Thing, render
from lightning_modules.metrics import DinoFeatures, JudgeFeatures
from lightning_modules.metrics.identity import masked_similarity


def picture(
    color: str, shape: str, x: float, y: float, background: int = 100
) -> tuple[Tensor, Tensor]:
    pixels, masks = render(Scene((Thing(color, shape, x, y, 11),), background))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None], torch.from_numpy(masks)


def test_similarity_is_the_cosine_of_area_weighted_means():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(2, 5, 4, 4, generator=generator),
        torch.randn(2, 5, 2, 2, generator=generator),
    )
    mask_a, mask_b = torch.zeros(2, 8, 8, dtype=torch.bool), torch.ones(2, 6, 6, dtype=torch.bool)
    mask_a[0, 0:2, 0:2], mask_a[0, 2, 2] = True, True  # one cell whole, another by a quarter
    mask_a[1, 7, 7] = True  # a single pixel is not lost
    expected = [(a[0, :, 0, 0] + a[0, :, 1, 1] / 4), a[1, :, 3, 3]]
    wanted = torch.stack(
        [
            torch.cosine_similarity(e, f.mean((1, 2)), dim=0)
            for e, f in zip(expected, b, strict=True)
        ]
    )
    assert torch.allclose(masked_similarity(a, mask_a, b, mask_b), wanted, atol=1e-6)
    assert torch.allclose(masked_similarity(b, mask_b, a, mask_a), wanted, atol=1e-6)


def test_similarity_ignores_what_is_outside_and_marks_empty_masks():
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 1] = True
    other = torch.where(mask[:, None], features, 9.0)
    similarity = masked_similarity(features, mask, other, mask)
    assert similarity[0] == pytest.approx(1) and similarity[1].isnan()


def test_similarity_refuses_what_does_not_fit():
    features, masks = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="same N and d"):
        masked_similarity(features, masks, features[:, :2], masks)
    with pytest.raises(ValueError, match="one mask .* for each of 2"):
        masked_similarity(features, masks[:1], features, masks)


def test_judge_features_know_a_subject_again():
    extractor = JudgeFeatures()
    image, mask = picture("blue", "ring", 22, 24)
    maps = extractor.maps(image)
    assert maps.shape == (1, 48, 16, 16) and maps.dtype == torch.float32

    def like(color: str, shape: str) -> float:
        other, where = picture(color, shape, 41, 38, 120)
        return float(masked_similarity(maps, mask, extractor.maps(other), where))

    same, shape, color = like("blue", "ring"), like("blue", "square"), like("orange", "ring")
    assert same > 0.9 and same > shape + 0.02 and shape > color + 0.1


@pytest.fixture(scope="module", params=["vit", "dinov2_with_registers"])
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers as t

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    small: dict = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    if request.param == "vit":
        t.ViTModel(t.ViTConfig(intermediate_size=16, **small)).save_pretrained(folder)
    else:
        t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(num_register_tokens=3, **small)
        ).save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_patch_features_and_class_tokens(model_folder: Path):
    extractor = DinoFeatures(str(model_folder), batch=2)
    images = torch.randint(
        0, 256, (3, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    masks = torch.zeros(3, 48, 64, dtype=torch.bool)
    masks[0, 10:30, 20:50], masks[2, :, :3] = True, True
    with torch.autocast("cpu", torch.bfloat16):
        maps, subjects = extractor.maps(images), extractor.subjects(images, masks)
    assert maps.shape == (3, 16, 4, 4) and subjects.shape == (3, 16)
    assert maps.dtype == subjects.dtype == torch.float32 and maps.isfinite().all()
    assert subjects.isfinite().all(1).tolist() == [True, False, True]
    assert not any(p.requires_grad for p in extractor.model.parameters())
    # Only what is inside the mask counts, wherever it lies.
    changed = torch.where(masks[:, None], images, 255 - images)
    assert torch.allclose(extractor.subjects(changed, masks)[0], subjects[0], atol=1e-5)
    moved = extractor.subjects(images.roll((5, -9), (2, 3)), masks.roll((5, -9), (1, 2)))
    assert torch.allclose(moved[0], subjects[0], atol=1e-5)
    assert extractor.subjects(images, torch.zeros_like(masks)).isnan().all()
    inverted = extractor.subjects(255 - images, masks)
    assert not torch.allclose(inverted[0], subjects[0], atol=1e-3)


def test_patches_keep_their_places_and_pixels_are_normalised(model_folder: Path):
    extractor = DinoFeatures(str(model_folder))
    extractor._states = lambda inputs: torch.cat(  # type: ignore[method-assign]
        [
            torch.full((len(inputs), 4, 3), 99.0),
            inputs.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)).flatten(2).transpose(1, 2),
        ],
        1,
    )
    image = (
        torch.arange(16)
        .repeat_interleave(64)
        .reshape(4, 4, 8, 8)
        .transpose(1, 2)
        .reshape(1, 1, 32, 32)
        .expand(1, 3, -1, -1)
        * 10
    )
    maps = extractor.maps(image.to(torch.uint8))
    expected = (torch.arange(16.0).reshape(4, 4) * 10 / 255 - 0.5) / 0.3
    assert torch.allclose(maps[0, 1], expected, atol=1e-5)


def test_bad_requests(model_folder: Path, tmp_path: Path):
    extractor = DinoFeatures(str(model_folder))
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="a bool mask for each image"):
        extractor.subjects(images, torch.zeros(1, 4, 4, dtype=torch.bool))
    with pytest.raises(
        FileNotFoundError, match=("cannot be loaded .* expected a hub id or a folder")
    ) as error:
        DinoFeatures(str(tmp_path))
    assert "\n" not in str(error.value)
