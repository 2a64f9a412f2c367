"""Image files: which can be used, their sizes, how they are turned, their pixels.

A camera stores what its sensor saw and writes beside it, as EXIF orientation, how to turn that for
people. Viewers turn; most tools that annotate, and pycocotools, do not. So pixels and masks lie on
each other only if both are read in the same way: `lies_as_stored` says which way that is, and
`decode_image` is the one place that turns.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from conf.contents import FileFacts, file_state, is_settled, state_of
from datamodules.formats.index import DataError

# Of what `check_image` says: what another version said counts no more
VERSION = 1
# Images that are checked together
CHUNK, THREADS = 256, 8
# How much longer than it works a thread waits before others help it
WAITING = 4
# Facts of files that are kept together
KEPT_AT_ONCE = 2**13
# Bytes from the end of a file in which its end marker is looked for
TAIL = 4096
# Pixels above which Pillow may warn of an image
LARGE = 80_000_000
END = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
# What makes of the stored pixels those that are shown, by EXIF orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The way back, where it is another one
BACK = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


class ImageHeader(NamedTuple):
    """``width`` and ``height`` in pixels as they are stored, and the EXIF ``orientation``, 1 to
    8."""

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """(width, height) of the pixels as they are stored."""
        return self.width, self.height

    @property
    def shown(self) -> tuple[int, int]:
        """(width, height) of the image as viewers show it."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def check_image(path: str | Path, verify: str = "header") -> ImageHeader | str:
    """The header of an image, or in words why it cannot be used: missing, empty, no image,
    truncated.

    ``header`` opens the file and looks for the marker that ends a JPEG or PNG; where that is not
    near the end, or with ``full``, the image is decoded. Raises ValueError on another ``verify``.
    """
    if verify not in ("header", "full"):
        raise ValueError(f"verify={verify!r}: expected header or full")
    return _check_with_state(path, verify)[0]


def _check_with_state(path: str | Path, verify: str) -> tuple[ImageHeader | str, str]:
    """`check_image`, and the state in which the file was read (see `conf.contents.file_state`), ""
    where there is no file."""
    state = ""
    try:
        head, tail, state = _read_ends(path)
        if not head:
            return "empty", state
        if verify == "header" and END["JPEG"] in tail and (plain := _read_plain_jpeg(head)):
            return plain, state
        with open(path, "rb") as file:
            image = Image.open(file)
            header = _header(image)
            # Cameras append data of their own behind the end of an image: only decoding tells
            # whether something is missing.
            if verify == "full" or END.get(image.format or "", b"") not in tail:
                image.load()
            return header, state
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        reason = "missing"
    except Image.UnidentifiedImageError:
        reason = "no image"
    except Exception as error:
        # Pillow's decoders raise errors of any kind
        kind = "truncated" if "truncated" in str(error).lower() else "broken"
        reason = f"{kind} ({error})"
    return reason, state or file_state(str(path)) or ""


def _read_ends(path: str | Path) -> tuple[bytes, bytes, str]:
    """The first and the last bytes of a file, and its state before they were read."""
    file = os.open(path, os.O_RDONLY)
    try:
        facts = os.fstat(file)
        head = os.read(file, TAIL)
        size = facts.st_size
        tail = head if size <= TAIL else os.pread(file, TAIL, size - TAIL)
        return head, tail, state_of(facts)
    finally:
        os.close(file)


def _read_plain_jpeg(head: bytes) -> ImageHeader | None:
    """What Pillow finds in the first bytes of a JPEG, in a fifth of the time; None where only
    Pillow can tell: with EXIF data, with several pictures, with a header that is long or odd."""
    if head[:2] != b"\xff\xd8":
        return None
    at, found = 2, None
    while at + 10 < len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        body = head[at + 4 : at + 2 + length]
        if length < 3 or len(body) != length - 2:
            return None
        if marker == 0xDA:  # The picture begins
            return found
        if marker in (0xC0, 0xC1, 0xC2) and found is None and length >= 11:
            height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            if body[0] != 8 or body[5] not in (1, 3) or not 0 < width * height < LARGE:
                return None
            if length != 8 + 3 * body[5]:
                return None
            found = ImageHeader(width, height)
        elif marker == 0xDB:  # Tables of eight bits
            if len(body) % 65 or any(body[i] > 15 for i in range(0, len(body), 65)):
                return None
        elif marker not in (0xC4, 0xDD, 0xE0, 0xFE):
            return None
        at += 2 + length
    return None


def check_images(
    paths: Sequence[Path],
    verify: str = "header",
    emit: Callable[[str], None] | None = None,
    what: str = "images",
    kept: Path | None = None,
    states: list[str] | None = None,
) -> Iterator[ImageHeader | str]:
    """`check_image` of each path, in order. No more is read than is asked for, in chunks; several
    threads read where files do not come at once.

    ``emit`` gets a line after each chunk; ``kept`` is a database of `FileFacts`, for files that
    stay as they are. To ``states`` is added in which state each file is what is said of it, "" for
    one that is not there.
    """
    facts = FileFacts(kept, f"{verify} {VERSION}") if kept else None
    checks = _Checks(verify)
    folders: dict[str, bool] = {}
    fresh: dict[str, tuple[str, str]] = {}
    try:
        for start in range(0, len(paths), CHUNK):
            chunk = [str(path) for path in paths[start : start + CHUNK]]
            if facts:
                checked = _check_changed(chunk, checks, facts, folders, fresh)
            else:
                checked = checks.check(chunk)
            if states is not None:
                states += [state for _, state in checked]
            yield from (header for header, _ in checked)
            if facts and len(fresh) > KEPT_AT_ONCE:
                facts.keep(fresh)
                fresh.clear()
            if emit:
                emit(f"checking {what}: {min(start + CHUNK, len(paths))}/{len(paths)}")
    finally:
        if facts:
            facts.keep(fresh)


class _Checks:
    """Checks images in this thread, or in several where it waits for files most of the time."""

    def __init__(self, verify: str) -> None:
        self.verify = verify
        # Decoding uses the cores
        self.threads = THREADS if verify == "full" else 1

    def check(self, paths: Sequence[str]) -> list[tuple[ImageHeader | str, str]]:
        """Header or reason, and state, of each."""
        if self.threads == 1:
            began, worked = time.monotonic(), time.thread_time()
            found = [_check_with_state(path, self.verify) for path in paths]
            worked = time.thread_time() - worked
            if time.monotonic() - began > WAITING * worked:
                self.threads = THREADS
            return found
        # No pool lives on between chunks: a generator that is given up would be closed by
        # whichever thread collects it, perhaps its own.
        shares = [paths[i :: self.threads] for i in range(self.threads)]
        headers: list[Any] = [None] * len(paths)
        with ThreadPoolExecutor(self.threads) as pool:
            checked = pool.map(
                lambda share: [_check_with_state(path, self.verify) for path in share], shares
            )
            for i, share in enumerate(checked):
                headers[i :: self.threads] = share
        return headers


def _check_changed(
    paths: Sequence[str],
    checks: _Checks,
    facts: FileFacts,
    folders: dict[str, bool],
    fresh: dict[str, tuple[str, str]],
) -> list[tuple[ImageHeader | str, str]]:
    """`_Checks.check`, in which files that are known in their present state are not opened.
    What becomes known is added to ``fresh``, and to ``folders`` whether anything was known of the
    files there."""
    places = [path if os.path.isabs(path) else os.path.abspath(path) for path in paths]
    for folder in {os.path.dirname(place) for place in places} - folders.keys():
        folders[folder] = facts.known(folder)
    asked = [place for place in places if folders[os.path.dirname(place)]]
    found: dict[str, str] = {}
    states = {place: file_state(place) for place in asked}
    if states:
        facts.find(states, found)
    checked = {place: (_parse_fact(fact), states[place] or "") for place, fact in found.items()}
    todo = [place for place in dict.fromkeys(places) if place not in checked]
    for place, (header, state) in zip(todo, checks.check(todo) if todo else (), strict=True):
        checked[place] = header, state
        if state and is_settled(state):
            fresh[place] = state, json.dumps(header)
    return [checked[place] for place in places]


def _parse_fact(fact: str) -> ImageHeader | str:
    header = json.loads(fact)
    return header if isinstance(header, str) else ImageHeader(*header)


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


def _header(image: Image.Image) -> ImageHeader:
    """Of an image that was just opened."""
    turn = orientation(image)
    # Of a TIFF, and of nothing else, Pillow gives the size as it is shown
    width, height = image.size[::-1] if image.format == "TIFF" and turn >= 5 else image.size
    return ImageHeader(width, height, turn)


def read_header(path: Path) -> ImageHeader:
    """The header of an image that is not decoded. Raises DataError where the file is none."""
    try:
        with open(path, "rb") as content, Image.open(content) as file:
            return _header(file)
    except Exception as error:
        raise DataError(f"{path}: no image ({error}): replace or delete it") from error


def lies_as_stored(header: ImageHeader, annotated: tuple[int, int] | None) -> bool:
    """Whether what was annotated on an image of the size ``annotated`` (width, height; None:
    unknown) lies on the pixels as they are stored: everywhere but where only the size that is shown
    fits."""
    return header.orientation > 1 and (annotated != header.shown or annotated == header.stored)


def decode_image(path: Path, as_stored: bool = False) -> tuple[Image.Image, str]:
    """(the decoded image in its own mode, its format), turned as its EXIF orientation says unless
    ``as_stored``. Raises DataError where it cannot be decoded."""
    try:
        # Not opened by its name: Pillow 13 would map an uncompressed TIFF that is to be turned into
        # memory and take its columns for rows
        with open(path, "rb") as content, Image.open(content) as file:
            turn, form = orientation(file), file.format or ""
            file.load()
            image: Image.Image = file
            # Pillow has turned a TIFF already
            if turn > 1 and as_stored == (form == "TIFF"):
                image = file.transpose(BACK.get(turn, TURNS[turn]) if as_stored else TURNS[turn])
            return image, form
    except Exception as error:
        raise DataError(
            f"{path}: image cannot be decoded ({error}): replace or delete it; verify=full "
            "finds all such files"
        ) from error


def read_image(path: Path, as_stored: bool = False) -> Image.Image:
    """The image in RGB, as it is shown or ``as_stored``; what is transparent lies on white. Raises
    DataError where it cannot be decoded."""
    image, _ = decode_image(path, as_stored)
    if image.mode.startswith("I"):
        # Pillow would clip sixteen bits at 255.
        image = Image.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
