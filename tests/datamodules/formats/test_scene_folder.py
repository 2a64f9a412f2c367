"""Scene folders read back: names, sizes and modes of images and masks, and one clear error for each
that does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.formats.scene_folder import SUFFIXES, Subject, load_image, read_scene

LEFT = np.zeros((32, 32), np.uint8)
LEFT[:, :16] = 1


def picture(height: int = 32, width: int = 32) -> Image.Image:
    """Blue over green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (0, 0, 255)
    pixels[height // 2 :] = (0, 200, 0)
    return Image.fromarray(pixels)


def scene(folder: Path, **files: Image.Image | np.ndarray) -> Path:
    """A folder of PNGs by stem; arrays are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in files.items():
        (Image.fromarray(content) if isinstance(content, np.ndarray) else content).save(
            folder / f"{stem}.png"
        )
    return folder


def plain(folder: Path, masks: int = 2) -> Path:
    return scene(folder, img=picture(), **{f"mask{i}": LEFT * 255 for i in range(masks)})


def only_mask(folder: Path, mask: Image.Image | np.ndarray, resolution: int = 32) -> torch.Tensor:
    (view,) = read_scene(scene(folder, img=picture(), mask0=mask)).load(resolution)
    return view.masks[0]


def test_a_scene_as_break_a_scene_lays_it_out(tmp_path: Path):
    found = read_scene(plain(tmp_path))
    assert found.subjects == [Subject("<asset0>"), Subject("<asset1>")] and found.prompts == []
    (view,) = found.load(32)
    assert torch.equal(view.pixels, torch.from_numpy(np.array(picture())).permute(2, 0, 1))
    assert list(view.masks) == [0, 1]
    for mask in view.masks.values():
        assert mask.dtype == torch.float32 and torch.equal(mask, torch.from_numpy(LEFT).float())


def test_several_images_of_which_each_shows_some_of_the_subjects(tmp_path: Path):
    files: dict[str, Image.Image | np.ndarray] = {f"img{j}": picture() for j in range(11)} | {
        f"mask{j}0": LEFT * 255 for j in range(11)
    }
    found = read_scene(scene(tmp_path, **files, mask31=LEFT[:, ::-1] * 255, mask102=LEFT * 255))
    assert [p.name for p in found.images] == [f"img{j}.png" for j in range(11)]
    assert [list(masks) for masks in found.masks] == [[0], [0], [0], [0, 1], *[[0]] * 6, [0, 2]]
    assert len(found.subjects) == 3
    assert torch.equal(found.load(32)[3].masks[1], torch.from_numpy(LEFT).flip(-1).float())


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JPG"])
def test_formats(tmp_path: Path, suffix: str):
    picture().save(tmp_path / f"img{suffix}")
    Image.fromarray(LEFT * 255).save(tmp_path / "mask0.png")
    (view,) = read_scene(tmp_path).load(32)
    assert (
        view.pixels.float() - torch.from_numpy(np.array(picture())).permute(2, 0, 1)
    ).abs().mean() < 4


def palette(colors: list[int]) -> Image.Image:
    image = Image.fromarray(LEFT).convert("L").copy()
    image = Image.frombytes("P", (32, 32), image.tobytes())
    image.putpalette(colors)
    return image


def layered(color: tuple[int, int, int], alpha: np.ndarray) -> Image.Image:
    image = Image.new("RGBA", (32, 32), color)
    image.putalpha(Image.fromarray(alpha))
    return image


MODES = {
    "8 bit": LEFT * 255,
    "labels 0 and 1": LEFT,
    "1 bit": Image.fromarray(LEFT * 255).convert("1"),
    "16 bit": LEFT.astype(np.uint16) * 65535,
    "16 bit, written as 8": LEFT.astype(np.uint16) * 255,
    "RGB": Image.fromarray(LEFT * 255).convert("RGB"),
    "red on black": np.stack([LEFT * 255, LEFT * 0, LEFT * 0], -1),
    "palette of labels": palette([0, 0, 0, 128, 0, 0]),
    "grey palette": palette([0, 0, 0, 255, 255, 255]),
    "grey palette of labels": palette([0, 0, 0, 1, 1, 1]),
    "opaque RGBA": Image.fromarray(LEFT * 255).convert("RGBA"),
    "opaque LA": Image.fromarray(LEFT * 255).convert("LA"),
    "white cut out": layered((255, 255, 255), LEFT * 255),
    "black cut out": layered((0, 0, 0), LEFT * 255),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_masks(tmp_path: Path, mode: str):
    assert torch.equal(only_mask(tmp_path, MODES[mode]), torch.from_numpy(LEFT).float())


def test_masks_may_be_soft_and_overlap(tmp_path: Path):
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    assert torch.allclose(only_mask(tmp_path / "8", ramp), torch.from_numpy(ramp) / 255)
    sixteen = ramp.astype(np.uint16) * 257
    assert torch.allclose(
        only_mask(tmp_path / "16", sixteen), torch.from_numpy(ramp) / 255, atol=1e-6
    )
    (view,) = read_scene(
        scene(tmp_path / "two", img=picture(), mask0=LEFT * 255, mask1=np.full_like(LEFT, 128))
    ).load(32)
    assert torch.equal(view.masks[0], torch.from_numpy(LEFT).float()) and bool(
        (view.masks[1] == 128 / 255).all()
    )


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "16"])
def test_modes_of_images(tmp_path: Path, mode: str):
    suffix = "jpg" if mode == "CMYK" else "png"
    grey = np.full((32, 32), 200, np.uint8)
    grey[:, :8] = 0
    image = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "16"
        else Image.fromarray(grey).convert(mode)
    )
    image.save(tmp_path / f"img.{suffix}", quality=95)
    pixels = load_image(tmp_path / f"img.{suffix}", 32)
    assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.uint8
    if mode != "1":
        assert (pixels.float() - torch.from_numpy(grey)).abs().max() < 8


def test_what_is_transparent_in_an_image_is_white(tmp_path: Path):
    layered((255, 0, 0), LEFT * 255).save(tmp_path / "img.png")
    pixels = load_image(tmp_path / "img.png", 32)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0] and pixels[:, 0, -1].tolist() == [255] * 3


def test_image_and_masks_are_cropped_and_resized_together(tmp_path: Path):
    pixels, mask = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    pixels[16:32, 48:80] = 255  # in the crop, which begins at 16: columns 32 to 64
    mask[16:32, 48:80] = 255
    (view,) = read_scene(scene(tmp_path, img=pixels, mask0=mask)).load(16)
    expected = torch.zeros(16, 16)
    expected[4:8, 8:16] = 1
    assert torch.equal(view.masks[0], expected)
    assert torch.equal(view.pixels[0] > 127, expected.bool())
    (large,) = read_scene(tmp_path).load(128)
    assert torch.equal(large.masks[0], expected.repeat_interleave(8, 0).repeat_interleave(8, 1))
    assert large.pixels.shape == (3, 128, 128)


def test_one_pixel_fades_and_does_not_vanish(tmp_path: Path):
    mask = np.zeros((1024, 1024), np.uint8)
    mask[700, 300] = 255
    (view,) = read_scene(scene(tmp_path, img=picture(1024, 1024), mask0=mask)).load(16)
    assert view.masks[0].nonzero().tolist() == [[10, 4]]
    assert float(view.masks[0].sum()) == pytest.approx(1 / 64**2)


def test_orientation_is_read_from_exif(tmp_path: Path):
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:24, :, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored image is to be turned clockwise
    tmp_path.mkdir(exist_ok=True)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "img.jpg", exif=exif, quality=95)
    scene(tmp_path, mask0=(upright[..., 2] > 0).astype(np.uint8))
    (view,) = read_scene(tmp_path).load(32)
    assert torch.equal(view.pixels[2] > 127, view.masks[0] > 0.5)
    assert bool(view.masks[0][:16].all()) and not view.masks[0][16:].any()


def test_a_byte_order_mark_before_scene_json_is_no_matter(tmp_path: Path):
    said = {"subjects": [{"token": "<a>", "class": None}, {"token": "<b>", "class": "dog"}]}
    (plain(tmp_path) / "scene.json").write_text(json.dumps(said), encoding="utf-8-sig")
    assert [subject.class_word for subject in read_scene(tmp_path).subjects] == [None, "dog"]


def test_a_mask_file_of_no_bytes_is_said_to_be_empty(tmp_path: Path):
    (plain(tmp_path) / "mask0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="mask0.png cannot be read as an image .it is empty."):
        read_scene(tmp_path).load(32)


def test_scene_json_names_subjects_and_prompts_and_arguments_go_before_it(tmp_path: Path):
    said = {
        "subjects": [{"token": "<dog>", "class": "dog", "color": "red"}, {"token": "<cat>"}],
        "prompts": ["{tokens} on ice"],
    }
    (plain(tmp_path) / "scene.json").write_text(json.dumps(said))
    found = read_scene(tmp_path)
    assert found.subjects == [
        Subject("<dog>", "dog", "red"),
        Subject("<cat>"),
    ] and found.prompts == ["{tokens} on ice"]
    found = read_scene(tmp_path, ["<a>", "<b>"], ["wolf", "lynx"])
    assert found.subjects == [Subject("<a>", "wolf", "red"), Subject("<b>", "lynx")]


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=(r"no image at .*nowhere: " r"expected img.jpg with mask0.png")
    ):
        read_scene(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no image at .*masks: expected"):
        read_scene(scene(tmp_path / "masks", mask0=LEFT))
    with pytest.raises(FileNotFoundError, match=r"no mask for .*img.png: expected .*mask0.png"):
        read_scene(scene(tmp_path / "image", img=picture()))
    with pytest.raises(FileNotFoundError, match=r"no mask for .*img1.png"):
        read_scene(scene(tmp_path / "second", img0=picture(), img1=picture(), mask00=LEFT))


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (
            ("img", "mask0", "mask2"),
            ("no mask of subject 1, but one of subject 2: number them without gaps"),
        ),
        (("img0", "img1", "mask00", "mask12"), "no mask of subject 1, but one of subject 2"),
        (
            ("img0", "img2", "mask00", "mask20"),
            ("img0.png, img2.png: number the images from 0 without gaps"),
        ),
        (("img", "img0", "mask0"), "img.png beside numbered images"),
        (("img0", "img00", "mask00"), "both img0.png and img00.png: keep one"),
        (("img", "mask0", "mask"), "mask.png belongs to none of img.png"),
        (("img", "mask0", "mask01"), "mask01.png belongs to none of img.png"),
        (("img0", "mask0"), "mask0.png belongs to none of img0.png"),
        (("img0", "mask00", "mask10"), "mask10.png belongs to none of img0.png"),
    ],
)
def test_names_that_do_not_fit_together(tmp_path: Path, stems: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        read_scene(scene(tmp_path, **{stem: LEFT for stem in stems}))


def test_two_files_of_one_name(tmp_path: Path):
    picture().save(plain(tmp_path) / "img.jpg")
    with pytest.raises(ValueError, match="holds both img.jpg and img.png: keep one"):
        read_scene(tmp_path)
    (tmp_path / "img.jpg").unlink()
    picture().save(tmp_path / "mask1.jpg")
    with pytest.raises(ValueError, match="holds both mask1.jpg and mask1.png: keep one"):
        read_scene(tmp_path)


def test_masks_that_cannot_serve(tmp_path: Path):
    with pytest.raises(
        ValueError,
        match=(
            r"mask0.png has 16x32 pixels, img.png 32x32 .*: a "
            r"mask must have the size of its image"
        ),
    ):
        only_mask(tmp_path, LEFT[:, :16])
    with pytest.raises(ValueError, match=r"mask0.png is empty \(all zero\)"):
        only_mask(tmp_path, LEFT * 0)
    edge = np.zeros((32, 96), np.uint8)
    edge[:, :20] = 255
    with pytest.raises(ValueError, match=r"mask0.png lies outside the square centre of img.png"):
        read_scene(scene(tmp_path, img=picture(32, 96), mask0=edge)).load(32)


@pytest.mark.parametrize("name", ["img.png", "mask0.png"])
@pytest.mark.parametrize("content", ["text", "cut off"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str):
    path = plain(tmp_path, masks=1) / name
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(b"no image" if content == "text" else path.read_bytes()[:500])
    with pytest.raises(
        ValueError, match=(rf"{name} cannot be read as an " r"image \(.*\): save it again")
    ):
        read_scene(tmp_path).load(32)


@pytest.mark.parametrize(
    ("tokens", "classes", "message"),
    [
        (["<a>"], None, "masks of 2 subjects, but 1 token: give one for each mask"),
        (["<a>", "<b>", "<c>"], None, "masks of 2 subjects, but 3 tokens"),
        (None, ["dog"], "masks of 2 subjects, but 1 class word"),
        (["<a>", "<a>"], None, "the placeholders <a>, <a> are not all different"),
        (["<a>", "my dog"], None, "the placeholder 'my dog' of subject 1 is not one word"),
        (["", "<b>"], None, "the placeholder '' of subject 0 is not one word"),
    ],
)
def test_subjects_that_do_not_fit_the_masks(
    tmp_path: Path, tokens: list[str] | None, classes: list[str] | None, message: str
):
    with pytest.raises(ValueError, match=message):
        read_scene(plain(tmp_path), tokens, classes)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "scene.json is no JSON: "),
        ("", "scene.json is no JSON: it is empty"),
        ('{"subjects": [{"token": "<a>", "class": 5}]}', "has the subjects .*5.*: expected"),
        ('{"subjects": [{"token": "<a>", "color": ["red"]}]}', "has the subjects .*: expected"),
        ("[1]", r"scene.json holds \[1\]: expected"),
        ('{"subject": []}', r"scene.json holds \['subject'\]: expected"),
        ('{"subjects": [{"class": "dog"}]}', "scene.json has the subjects .*'dog'.*: expected"),
        ('{"subjects": null}', "scene.json has the subjects None: expected"),
        ('{"prompts": "one"}', "scene.json has the prompts 'one': expected"),
        (
            '{"subjects": [{"token": "<a>"}]}',
            ("masks of 2 subjects, but 1 subject in scene.json"),
        ),
    ],
)
def test_a_scene_json_that_cannot_serve(tmp_path: Path, said: str, message: str):
    (plain(tmp_path) / "scene.json").write_text(said)
    with pytest.raises(ValueError, match=message):
        read_scene(tmp_path)
