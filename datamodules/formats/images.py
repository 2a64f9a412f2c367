"""Image files: which can be used, their sizes as they are shown, their pixels in RGB."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datamodules.formats.index import DataError

# Images that are checked together
CHUNK, THREADS = 256, 8
# Bytes from the end of a file in which its end marker is looked for
TAIL = 4096
END = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


def check_image(path: Path, verify: str = "header") -> tuple[int, int] | str:
    """(width, height) of an image as it is shown, or in words why it cannot be used: missing,
    empty, no image, truncated.

    ``header`` opens the file and looks for the marker that ends a JPEG or PNG; where that is not
    near the end, or with ``full``, the image is decoded. Raises ValueError on another ``verify``.
    """
    if verify not in ("header", "full"):
        raise ValueError(f"verify={verify!r}: expected header or full")
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            if not size:
                return "empty"
            file.seek(max(0, size - TAIL))
            tail = file.read()
            file.seek(0)
            image = Image.open(file)
            width, height = image.size
            if orientation(image) >= 5:
                width, height = height, width
            # Cameras append data of their own behind the end of an image: only decoding tells
            # whether something is missing.
            if verify == "full" or END.get(image.format or "", b"") not in tail:
                image.load()
            return width, height
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return "missing"
    except Image.UnidentifiedImageError:
        return "no image"
    except Exception as error:
        # Pillow's decoders raise errors of any kind
        return f"{'truncated' if 'truncated' in str(error).lower() else 'broken'} ({error})"


def check_images(
    paths: Sequence[Path],
    verify: str = "header",
    emit: Callable[[str], None] | None = None,
    what: str = "images",
) -> Iterator[tuple[int, int] | str]:
    """`check_image` of each path, in order, by several threads. No more is read than is asked for,
    in chunks.

    ``emit`` gets a line after each chunk.
    """
    for start in range(0, len(paths), CHUNK):
        # No pool lives on between chunks: a generator that is given up would be closed by whichever
        # thread collects it, perhaps its own.
        with ThreadPoolExecutor(THREADS) as pool:
            chunk = paths[start : start + CHUNK]
            sizes = list(pool.map(lambda path: check_image(path, verify), chunk))
        yield from sizes
        if emit:
            emit(f"checking {what}: {min(start + CHUNK, len(paths))}/{len(paths)}")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that was just opened, 1 to 8. Asking Pillow for that of a
    PNG would decode it."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF data do not make the pixels unusable
        return 1
    return value if value in range(1, 9) else 1


def read_image(path: Path) -> Image.Image:
    """The image as it is shown, in RGB; what is transparent lies on white. Raises DataError where
    it cannot be decoded."""
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file) if orientation(file) > 1 else file
            if image.mode.startswith("I"):
                # Pillow would clip sixteen bits at 255.
                image = Image.fromarray(
                    (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                )
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except Exception as error:
        raise DataError(
            f"{path}: image cannot be decoded ({error}): replace or delete it; verify=full "
            "finds all such files"
        ) from error
