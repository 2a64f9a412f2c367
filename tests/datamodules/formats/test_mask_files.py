"""What the values of a mask file are taken for: there or not, shares of a pixel, or no mask."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from datamodules import SceneDataModule
from datamodules.formats.images import decode_image
from datamodules.formats.mask_files import MaskReading, find_doubts, read_levels, read_mask_image
from datamodules.inspection import report

VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def disc(value: int = 255) -> Image.Image:
    image = Image.new("L", (128, 96))
    ImageDraw.Draw(image).ellipse((20, 20, 80, 76), fill=value)
    return image


WHERE = np.asarray(disc()) > 0


def labels(*values: int) -> np.ndarray:
    """uint8 [96, 128]: 0, and the values in stripes of the disc."""
    plane = np.zeros((96, 128), np.uint8)
    for i, value in enumerate(values):
        stripe = np.zeros_like(WHERE)
        stripe[20 + 57 * i // len(values) : 20 + 57 * (i + 1) // len(values)] = True
        plane[WHERE & stripe] = value
    return plane


def palette(plane: np.ndarray, colors: list[int]) -> Image.Image:
    image = Image.frombytes("P", plane.shape[::-1], plane.tobytes())
    image.putpalette(colors)
    return image


def colored(plane: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.array(colors, np.uint8)[plane])


def cut_out(alpha: Image.Image, picture: Image.Image | str) -> Image.Image:
    size = alpha.size
    image = Image.new("RGB", size, picture) if isinstance(picture, str) else picture.convert("RGB")
    image.putalpha(alpha)
    return image


def photograph() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    return ImageOps.autocontrast(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)))


def saved(image: Image.Image | np.ndarray, form: str = "PNG", **how: Any) -> MaskReading:
    """As it is read again from a file."""
    content = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(content, form, **how)
    with Image.open(content) as file:
        file.load()
        return read_mask_image(file, form)


THERE: dict[str, tuple[Any, str, bool]] = {
    # What is saved, the kind, whether a note says how it was read
    "0 and 255": (disc(), "0 and 255", False),
    "0 and 1": (disc(1), "0 and 1", False),
    "a label": (disc(3), "0 and 3", True),
    "half grey": (disc(128), "0 and 128", True),
    "1 bit": (disc().convert("1"), "0 and 255", False),
    "16 bit": (np.asarray(disc()).astype(np.uint16) * 257, "0 and 65535", False),
    "16 bit, a label": (np.asarray(disc(7)).astype(np.uint16), "0 and 7", True),
    "16 bit, a large label": (np.asarray(disc(1)).astype(np.uint16) * 1000, "0 and 1000", True),
    "RGB": (disc().convert("RGB"), "0 and 255", False),
    "RGB of a label": (disc(2).convert("RGB"), "0 and 2", True),
    "red on black": (colored(WHERE * 1, (0, 0, 0), (255, 0, 0)), "0 and 255", False),
    "maroon on black": (colored(WHERE * 1, (0, 0, 0), (128, 0, 0)), "0 and 128", True),
    "palette, maroon": (palette(labels(1), VOC), "0 and 128", True),
    "palette, olive alone": (palette(labels(3), VOC), "0 and 128", True),
    "palette, grey": (palette(labels(1), [0, 0, 0, 255, 255, 255]), "0 and 255", False),
    "palette, all black": (palette(labels(1), [0] * 6), "0 and 1", False),
    "opaque RGBA": (disc().convert("RGBA"), "0 and 255", False),
    "opaque LA": (disc().convert("LA"), "0 and 255", False),
    "photograph cut out": (cut_out(disc(), photograph()), "alpha, 0 and 255", False),
    "white cut out": (cut_out(disc(), "white"), "alpha, 0 and 255", False),
    "black cut out": (cut_out(disc(), "black"), "alpha, 0 and 255", False),
}


@pytest.mark.parametrize("name", THERE)
def test_masks_of_there_and_not_there(name: str):
    content, kind, noted = THERE[name]
    reading = saved(content)
    assert np.array_equal(reading.values, WHERE.astype(np.float32))
    assert reading.values.dtype == np.float32
    assert (reading.kind, bool(reading.notes)) == (kind, noted)


LABELS = {
    "1 2 3": labels(1, 2, 3),
    "1 to 20": labels(*range(1, 21)),
    "1 to 40": np.tile(np.arange(128, dtype=np.uint8) % 41, (96, 1)),
    "no background": labels(1) + 1,
    "classes of COCO": labels(17, 63),
    "classes of ADE": labels(5, 22, 150),
    "a void border": labels(1, 1, 1, 255),
    "two classes and void": labels(1, 2, 2, 255),
    "four greys": labels(50, 100, 150),
    "thirty labels over the range": labels(*range(10, 250, 8)),
    "one label everywhere": np.full((96, 128), 4, np.uint8),
    "16 bit": labels(1, 2, 3).astype(np.uint16),
    "16 bit, instances": labels(1, 2, 3).astype(np.uint16) * 1000,
    "palette": palette(labels(1, 2, 3), VOC),
    "palette of grey labels": palette(labels(1, 2, 3), [v for i in range(4) for v in (i, i, i)]),
    "palette, all black": palette(labels(1, 2, 3), [0] * 12),
    "colours": colored(labels(1, 2), (0, 0, 0), (128, 0, 0), (0, 128, 0)),
    "colour on white": colored(WHERE * 1, (255, 255, 255), (200, 0, 0)),
    "colours cut out": cut_out(disc(), colored(labels(1, 2), (0, 0, 0), (128, 0, 0), (0, 128, 0))),
    "a photograph": photograph(),
    "transparent everywhere": cut_out(Image.new("L", (128, 96), 0), "white"),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_maps_and_pictures_are_no_masks(name: str):
    with pytest.raises(ValueError, match=r"save each subject as a file of its own, white") as error:
        saved(LABELS[name])
    assert len(str(error.value).splitlines()) == 1


def test_greys_beside_a_transparency_are_told():
    frame = Image.new("L", (128, 96), 0)
    frame.paste(255, (4, 4, 124, 92))
    reading = saved(cut_out(frame, disc().filter(ImageFilter.GaussianBlur(9))))
    assert reading.values.mean() == pytest.approx(120 * 88 / (128 * 96))
    assert reading.notes == (
        "its transparency is the mask; the greys where it is opaque are not read",
    )


@pytest.mark.parametrize("width", [1, 3, 40])
def test_edges_and_thin_lines_of_64_shades_are_shares(width: int):
    fine = Image.new("L", (1024, 768))
    ImageDraw.Draw(fine).line((100, 90, 900, 600), fill=255, width=8 * width)
    reading = saved(fine.reduce(8))
    assert reading.kind.startswith("soft") and reading.values.max() > 0.75
    blurred = saved(disc().filter(ImageFilter.GaussianBlur(9)))
    assert blurred.kind.startswith("soft")


def test_a_mask_in_the_colours_and_another_in_the_transparency():
    frame = Image.new("L", (128, 96), 0)
    frame.paste(255, (4, 4, 124, 92))
    with pytest.raises(ValueError, match="has 2 colours where it is not transparent"):
        saved(cut_out(frame, disc()))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_noise_of_compression_is_not_there(form: str, quality: int, mode: str):
    reading = saved(disc().convert(mode), form, quality=quality)
    assert set(np.unique(reading.values)) == {0, 1}
    assert (reading.values > 0).sum() == pytest.approx(WHERE.sum(), rel=0.01)
    both = (reading.values > 0) & WHERE
    assert both.sum() / ((reading.values > 0) | WHERE).sum() > 0.99
    assert reading.kind == "0 and 255 with noise" and "noise" in reading.notes[0]


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@pytest.mark.parametrize("quality", [30, 75, 95])
def test_the_values_of_areas_are_found_under_the_noise_of_compression(form: str, quality: int):
    grey = np.kron(WHERE * np.uint8(200), np.ones((4, 4), np.uint8))
    reading = saved(grey, form, quality=quality)
    assert set(np.unique(reading.values)) == {0, 1}
    assert (reading.values > 0).mean() == pytest.approx(WHERE.mean(), rel=0.01)
    assert reading.kind.startswith(("0 and 199", "0 and 20")) and "means there" in reading.notes[0]
    for values in ((100, 200), (100, 255), (80, 160, 240)):
        several = np.kron(labels(*values), np.ones((4, 4), np.uint8))
        with pytest.raises(ValueError, match="as a label map of several objects does"):
            saved(several, form, quality=quality)
    soft = Image.fromarray(grey).point(lambda v: v and 255).filter(ImageFilter.GaussianBlur(32))
    assert saved(soft, form, quality=quality).kind.startswith("soft")


def test_noise_that_was_saved_again_without_loss():
    content = io.BytesIO()
    disc().save(content, "JPEG", quality=75)
    reading = saved(Image.open(content))
    assert reading.kind == "0 and 255 with noise" and set(np.unique(reading.values)) == {0, 1}


def test_a_red_mask_as_jpeg_and_a_photograph_as_jpeg():
    red = colored(WHERE * 1, (0, 0, 0), (255, 0, 0))
    assert set(np.unique(saved(red, "JPEG", quality=90).values)) == {0, 1}
    with pytest.raises(ValueError, match="is a picture in colour"):
        saved(photograph(), "JPEG")
    with pytest.raises(ValueError, match="label map"):
        saved(labels(1, 2, 3), "JPEG", quality=100)


def test_soft_masks_are_shares():
    soft = disc().filter(ImageFilter.GaussianBlur(4))
    reading = saved(soft)
    assert reading.kind == f"soft, 0 to {np.asarray(soft).max()}" and not reading.notes
    assert np.allclose(reading.values, np.asarray(soft) / 255)
    deep = (np.asarray(soft).astype(np.uint16) * 257) + 3 * WHERE.astype(np.uint16)
    assert np.allclose(read_levels(deep.clip(0, 65535)).values, deep.clip(0, 65535) / 65535)
    # A few steps that reach white, as supersampling makes them
    steps = read_levels(labels(64, 128, 191, 255))
    assert steps.values.max() == 1 and "25%, 50%, 75%, 100%" in steps.notes[0]
    red = Image.merge("RGB", (soft, Image.new("L", soft.size), Image.new("L", soft.size)))
    assert np.allclose(saved(red).values, np.asarray(soft) / 255)
    dim = (np.asarray(soft) * 0.6).astype(np.uint8)
    assert "is read as 60% there" in saved(dim).notes[0]
    assert "of it is grey, as a picture is" in saved(photograph().convert("L")).notes[0]
    assert saved(np.full((8, 8), 128, np.uint8)).values[0, 0] == np.float32(128 / 255)


def test_what_looks_like_a_mistake():
    assert find_doubts(np.ones((8, 8), np.float32)) == ["covers the whole image"]
    (doubt,) = find_doubts(1 - WHERE.astype(np.float32))
    assert "white along the border" in doubt and "invert it" in doubt
    assert find_doubts(WHERE.astype(np.float32)) == []
    for wrong in (np.array([[-1, 0]]), np.array([[0, 70000]])):
        with pytest.raises(ValueError, match="expected 0 to 255, or to 65535"):
            read_levels(wrong)


def test_how_the_masks_of_a_scene_were_read_is_told(tmp_path: Path):
    Image.new("RGB", (128, 96), "blue").save(tmp_path / "img.jpg")
    disc(3).save(tmp_path / "mask0.png")
    disc().save(tmp_path / "mask1.jpg")
    disc().save(tmp_path / "mask2.png")
    Image.new("L", (128, 96), 255).save(tmp_path / "mask3.png")
    module = SceneDataModule(tmp_path, 96, flip=False)
    with pytest.warns(UserWarning, match="mask0.png: its one value 3 means there"):
        module.setup()
    said: list[str] = []
    report(module, tmp_path / "out", 1, said.append)
    text = "\n".join(said)
    assert "values of the mask files: 0 and 3 ×1, 0 and 255 with noise ×1, 0 and 255 ×1" in text
    assert "note: " in text and "mask3.png covers the whole image" in text
    assert "mask2.png shows the same as mask0.png" in text
    assert (tmp_path / "out" / "train.png").is_file()
    (view,) = module.train_set.views
    assert np.array_equal(view.masks[0].numpy() > 0, WHERE[:, 16:112])


def test_a_label_map_among_the_masks_of_a_scene_is_refused_by_name(tmp_path: Path):
    Image.new("RGB", (128, 96)).save(tmp_path / "img.png")
    Image.fromarray(labels(1, 2)).save(tmp_path / "mask0.png")
    with pytest.raises(ValueError, match=r"mask0.png holds the values 0, 1, 2, as a label map"):
        SceneDataModule(tmp_path, 96).setup()
    np.save(tmp_path / "mask1.npy", labels(1))
    with pytest.raises(ValueError, match=r"mask1.npy is in a format that is not read here"):
        SceneDataModule(tmp_path, 96).setup()


def test_the_format_of_a_file_is_known(tmp_path: Path):
    # By its content: the name says another
    disc().save(tmp_path / "mask0.png", "JPEG")
    assert decode_image(tmp_path / "mask0.png")[1] == "JPEG"
