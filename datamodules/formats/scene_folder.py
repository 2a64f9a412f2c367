"""Scene folders, laid out as the examples of Break-A-Scene and of MCGM-Styler are: images, and a
mask of each subject in each image.

    img.jpg   mask0.png   mask1.png      one image, any number of subjects
    img0.jpg  mask00.png  mask01.png     several images: mask<image><subject>, ten subjects at most
    img1.jpg  mask11.png                 subject 0 is not in this image
    scene.json                           optional: {"subjects": [{"token": "<asset0>", "class":
                                         "dog"}, …], "prompts": ["{tokens} on ice"]}

Images and masks may have any size and any mode of PIL; a mask has the size of its image. What a
mask's values mean follows from the file (`mask_files`). Of an image with an EXIF orientation, its
masks may show the pixels as they are stored, or as viewers show them: their size tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from conf.describe import show_count
from datamodules.formats.images import ImageHeader, decode_image, read_header
from datamodules.formats.index import DataError
from datamodules.formats.mask_files import find_doubts, read_mask_image
from datamodules.formats.unreadable import explain_unreadable

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# Of images and arrays that are not read
OTHERS = (".npy", ".npz", ".pt", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".exr", ".json")
NAMES = (
    "img.jpg with mask0.png, mask1.png, … or img0.jpg, img1.jpg, … with mask<image><subject>.png"
)


@dataclass(frozen=True)
class Subject:
    """A subject of the scene: its placeholder, and the words for what it is, where they are
    known."""

    token: str
    class_word: str | None = None
    color: str | None = None
    shape: str | None = None


class View(NamedTuple):
    """One image of the scene: ``pixels`` uint8 [3, H, W], and the masks of the subjects in it,
    float32 [H, W] in [0, 1], by number; of what kind the values of each file were, and what a
    person should know of how the files were read."""

    pixels: Tensor
    masks: dict[int, Tensor]
    kinds: Mapping[int, str] = {}
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SceneFolder:
    """The files of a scene: ``masks[j]`` are those of ``images[j]``, by the number of their
    subject; ``prompts`` are templates to try the subjects with."""

    subjects: list[Subject]
    images: list[Path]
    masks: list[dict[int, Path]]
    prompts: list[str]

    def load(self, resolution: int) -> list[View]:
        """The images and their masks, centre-cropped and resized to ``resolution`` pixels. Raises
        ValueError on files that do not serve."""
        return [
            _view(image, masks, resolution)
            for image, masks in zip(self.images, self.masks, strict=True)
        ]


def read_scene(
    folder: Path, tokens: Sequence[str] | None = None, classes: Sequence[str] | None = None
) -> SceneFolder:
    """The files of a scene; ``tokens`` and ``classes`` (one for each subject) take precedence over
    scene.json.

    Raises FileNotFoundError when there is no image or no mask, ValueError on names, numbers or a
    scene.json that do not fit together.
    """
    images = _numbered_images(folder)
    masks = _masks(folder, images)
    numbers = {subject for of_image in masks for subject in of_image}
    if missing := set(range(max(numbers) + 1)) - numbers:
        raise ValueError(
            f"{folder} has no mask of subject {min(missing)}, but one of subject "
            f"{max(numbers)}: number them without gaps"
        )
    description = read_description(folder / "scene.json")
    entries = description.get("subjects")
    subjects = _subjects(folder, len(numbers), entries, tokens, classes)
    return SceneFolder(subjects, list(images.values()), masks, description.get("prompts", []))


def load_image(path: Path, resolution: int) -> Tensor:
    """uint8 [3, resolution, resolution]: the centre crop, on white where it is transparent. Raises
    ValueError on an unreadable file."""
    return _pixels(_open(path)[0], resolution)


# --- names ----------------------------------------------------------------------------------------


def _numbered_images(folder: Path) -> dict[str, Path]:
    """The images by the number in their name, "" for none, in ascending order without gaps."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() in OTHERS and re.fullmatch(r"(img|mask)\d*", path.stem):
            raise ValueError(f"{path} is in a format that is not read here: save it as PNG")
        match = re.fullmatch(r"img(\d*)", path.stem)
        if match is None or path.suffix.lower() not in SUFFIXES:
            continue
        number = str(int(match[1])) if match[1] else ""
        if number in images:
            raise ValueError(
                f"{folder} holds both {images[number].name} and {path.name}: keep one of them"
            )
        images[number] = path
    if not images:
        raise FileNotFoundError(f"no image at {folder}: expected {NAMES}")
    if "" in images and len(images) > 1:
        raise ValueError(
            f"{folder} holds {images[''].name} beside numbered images: name all of them "
            "img0, img1, …, or keep one"
        )
    if "" not in images and images.keys() != {str(i) for i in range(len(images))}:
        names = ", ".join(path.name for path in images.values())
        raise ValueError(f"{folder} holds {names}: number the images from 0 without gaps")
    return {number: images[number] for number in sorted(images, key=lambda n: int(n or 0))}


def _masks(folder: Path, images: dict[str, Path]) -> list[dict[int, Path]]:
    """The masks of each image, by the number of their subject."""
    masks: dict[str, dict[int, Path]] = {number: {} for number in images}
    pattern = r"mask()(0|[1-9]\d*)" if "" in images else r"mask(0|[1-9]\d*)(\d)"
    for path in sorted(folder.iterdir()):
        if not path.stem.startswith("mask") or path.suffix.lower() not in SUFFIXES:
            continue
        match = re.fullmatch(pattern, path.stem)
        if match is None or match[1] not in masks:
            names = ", ".join(image.name for image in images.values())
            raise ValueError(f"{path} belongs to none of {names}: expected {NAMES}")
        of_image, subject = masks[match[1]], int(match[2])
        if subject in of_image:
            raise ValueError(
                f"{folder} holds both {of_image[subject].name} and {path.name}: keep one of them"
            )
        of_image[subject] = path
    for number, of_image in masks.items():
        if not of_image:
            raise FileNotFoundError(f"no mask for {images[number]}: expected {NAMES}")
    return [dict(sorted(of_image.items())) for of_image in masks.values()]


# --- subjects -------------------------------------------------------------------------------------


def read_description(path: Path) -> dict[str, Any]:
    """The content of a scene.json, {} where there is none. Raises ValueError on any other form."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is no JSON: {explain_unreadable(path, error, 'write it again')}"
        ) from error
    form = (
        'expected {"subjects": [{"token": "<asset0>", "class": "dog"}, …], "prompts": '
        '["{tokens} at the beach", …]}'
    )
    if not isinstance(content, dict) or not content.keys() <= {"subjects", "prompts", "made"}:
        keys = list(content) if isinstance(content, dict) else repr(content)
        raise ValueError(f"{path} holds {keys}: {form}")
    subjects, prompts = content.get("subjects", []), content.get("prompts", [])
    if not isinstance(subjects, list) or not all(
        isinstance(subject, dict)
        and isinstance(subject.get("token"), str)
        and all(isinstance(subject.get(key) or "", str) for key in ("class", "color", "shape"))
        for subject in subjects
    ):
        raise ValueError(f"{path} has the subjects {subjects!r}: {form}")
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"{path} has the prompts {prompts!r}: {form}")
    return content


def _subjects(
    folder: Path,
    count: int,
    entries: list[dict[str, str]] | None,
    tokens: Sequence[str] | None,
    classes: Sequence[str] | None,
) -> list[Subject]:
    for one, many, given in (
        ("subject in scene.json", "subjects in scene.json", entries),
        ("token", "tokens", tokens),
        ("class word", "class words", classes),
    ):
        if given is not None and len(given) != count:
            raise ValueError(
                f"{folder} has masks of {show_count(count, 'subject')}, but "
                f"{show_count(len(given), one, many)}: give one for each mask"
            )
    entries = entries or [{"token": f"<asset{i}>"} for i in range(count)]
    tokens = [entry["token"] for entry in entries] if tokens is None else tokens
    words = [entry.get("class") for entry in entries] if classes is None else classes
    for i, token in enumerate(tokens):
        if not re.fullmatch(r"\S+", token):
            raise ValueError(
                f"the placeholder {token!r} of subject {i} is not one word: expected "
                f"something like '<asset{i}>'"
            )
    if len(set(tokens)) < count:
        raise ValueError(
            f"the placeholders {', '.join(tokens)} are not all different: give each subject its own"
        )
    return [
        Subject(token, word, entry.get("color"), entry.get("shape"))
        for token, word, entry in zip(tokens, words, entries, strict=True)
    ]


# --- pixels ---------------------------------------------------------------------------------------


def _view(path: Path, mask_paths: dict[int, Path], resolution: int) -> View:
    headers = {number: _read_header(mask_path) for number, mask_path in mask_paths.items()}
    as_stored, turned_masks, notes = _orient(path, _read_header(path), mask_paths, headers)
    image, _ = _open(path, as_stored)
    masks: dict[int, Tensor] = {}
    kinds: dict[int, str] = {}
    planes: dict[int, np.ndarray] = {}
    for number, mask_path in mask_paths.items():
        mask, form = _open(mask_path, number not in turned_masks)
        try:
            values, kinds[number], remarks = read_mask_image(mask, form)
        except ValueError as error:
            raise ValueError(f"{mask_path} {error}") from error
        if not values.any():
            raise ValueError(
                f"{mask_path} is empty (all zero): paint the subject white, or drop the "
                "mask of a subject that is not there"
            )
        same = [other for other, plane in planes.items() if np.array_equal(plane, values)]
        doubts = find_doubts(values) + [f"shows the same as {mask_paths[i].name}" for i in same]
        notes += [f"{mask_path}: {remark}" for remark in remarks]
        notes += [f"{mask_path} {doubt}" for doubt in doubts]
        planes[number] = values
        # Boxes: each pixel is the mean of what it covers, so that a mask of a few pixels fades and
        # does not vanish.
        square = _square(Image.fromarray(values), resolution, Image.Resampling.BOX)
        masks[number] = torch.from_numpy(np.array(square)).clamp(0, 1)
        if not masks[number].any():
            raise ValueError(
                f"{mask_path} lies outside the square centre of {path.name}: crop the image "
                "and its masks around the subjects"
            )
    return View(_pixels(image, resolution), masks, kinds, notes)


def _orient(
    path: Path, image: ImageHeader, paths: dict[int, Path], masks: dict[int, ImageHeader]
) -> tuple[bool, set[int], list[str]]:
    """(whether the image is read as it is stored, which masks are read as they are shown, notes).

    Where all files have the same EXIF orientation, all are read as they are shown. Else sizes
    decide; where both ways fit, nothing is turned. Raises ValueError where no way fits.
    """
    turns = {image.orientation, *(mask.orientation for mask in masks.values())}
    if len(turns) == 1 and all(mask.stored == image.stored for mask in masks.values()):
        return False, set(masks), []

    def ways(mask: ImageHeader, size: tuple[int, int]) -> list[str]:
        fitting = [way for way in ("stored", "shown") if getattr(mask, way) == size]
        return fitting[: 1 if mask.orientation == 1 else 2]

    # Of the image -> of each mask
    fits = {
        way: fitting
        for way in ("stored", "shown")
        if all(fitting := [ways(mask, getattr(image, way)) for mask in masks.values()])
    }
    if not fits:
        wrong = next(n for n, mask in masks.items() if not ways(mask, image.stored))
        sizes = [
            "{}x{}".format(*header.stored)
            + (" (turned by EXIF: {}x{})".format(*header.shown) if header.orientation > 1 else "")
            for header in (masks[wrong], image)
        ]
        raise ValueError(
            f"{paths[wrong]} has {sizes[0]} pixels, {path.name} {sizes[1]} pixels: a mask must "
            "have the size of its image"
        )
    way, of_masks = next(iter(fits.items()))
    undecided = (image.orientation > 1 and len(fits) > 1) or any(len(w) > 1 for w in of_masks)
    notes = []
    if undecided:
        notes.append(
            f"{path}: the image or its masks have an EXIF orientation, and the masks fit with and "
            "without it (square, mirrored or upside down): none is turned; look at the contact "
            "sheet, and save the files upright if the masks lie wrong"
        )
    elif way == "stored" and image.orientation > 1:
        notes.append(
            f"{path} has an EXIF orientation, but masks of the size without it: both are read as "
            "they are stored"
        )
    turned = {n for n, of_mask in zip(masks, of_masks, strict=True) if of_mask[0] == "shown"}
    return way == "stored", turned, notes


def _open(path: Path, as_stored: bool = False) -> tuple[Image.Image, str]:
    with _readable(path):
        return decode_image(path, as_stored)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises ValueError with the cure where a file of the scene cannot be read."""
    try:
        yield
    except DataError as error:
        why = error.__cause__ if path.stat().st_size else "it is empty"
        raise ValueError(
            f"{path} cannot be read as an image ({why}): save it again as PNG or JPEG"
        ) from error


def _read_header(path: Path) -> ImageHeader:
    with _readable(path):
        return read_header(path)


def _pixels(image: Image.Image, resolution: int) -> Tensor:
    return torch.from_numpy(
        np.array(_square(_rgb(image), resolution, Image.Resampling.BICUBIC))
    ).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # PIL would cut 16 bits off at 255.
        return Image.fromarray(
            (np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, resolution: int, resampling: Image.Resampling) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == resolution else square.resize((resolution, resolution), resampling)
