"""Which image files can be used, and their pixels as they are shown."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.coco_files import ROTATED, picture
from PIL import Image

from conf.contents import file_state
from datamodules.formats import images
from datamodules.formats.images import (
    ImageHeader,
    check_image,
    check_images,
    orientation,
    read_image,
)
from datamodules.formats.index import DataError


@pytest.mark.parametrize("verify", ["header", "full"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_good_images_have_a_size_and_bad_ones_a_reason(tmp_path: Path, suffix: str, verify: str):
    good = picture(tmp_path / f"a.{suffix}")
    assert check_image(good, verify) == (96, 64, 1)
    content = good.read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "page").write_text("<html>404</html>")
    (tmp_path / "more").write_bytes(content + bytes(9000))
    if suffix != "webp" or verify == "full":
        assert str(check_image(tmp_path / "cut", verify)).startswith(("truncated", "broken"))
    assert (
        check_image(tmp_path / "none", verify) == "empty"
        and check_image(tmp_path / "page", verify) == "no image"
    )
    assert (
        check_image(tmp_path / "nowhere" / "x", verify)
        == "missing"
        == check_image(tmp_path, verify)
    )
    assert check_image(tmp_path / "more", verify) == (96, 64, 1), "what cameras append is no damage"
    with pytest.raises(ValueError, match="verify='fast': expected header or full"):
        check_image(good, "fast")


def test_damage_in_the_middle_is_found_by_decoding(tmp_path: Path):
    content = picture(tmp_path / "a.png").read_bytes()
    place = content.index(b"IDAT") + 8
    (tmp_path / "b.png").write_bytes(content[:place] + b"\0" * 12 + content[place + 12 :])
    assert check_image(tmp_path / "b.png") == (96, 64, 1)
    assert str(check_image(tmp_path / "b.png", "full")).startswith("broken")
    with pytest.raises(DataError, match=r"b.png: image cannot be decoded .*verify=full finds all"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_read_as_they_are_shown(tmp_path: Path, suffix: str, turn: int):
    path = picture(tmp_path / f"a.{suffix}", turn=turn)
    shown = (64, 96) if turn >= 5 else (96, 64)
    with Image.open(path) as file:
        assert orientation(file) == turn
    image = read_image(path)
    header = check_image(path)
    assert isinstance(header, ImageHeader) and header == (96, 64, turn) and header.shown == shown
    assert image.size == shown and image.mode == "RGB"
    bright_first = {1: False, 2: True, 3: True, 4: False, 5: False, 6: False, 7: True, 8: True}[
        turn
    ]
    assert (image.getpixel((0, 0)) > (128,) * 3) == bright_first
    assert ROTATED == 6


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("1", "png"), ("LA", "png"), ("RGBA", "png")],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str):
    image = read_image(picture(tmp_path / f"a.{suffix}", mode))
    assert (
        image.mode == "RGB"
        and max(image.getpixel((0, 0))) < 60
        and min(image.getpixel((95, 63))) > 180
    )


def test_sixteen_bits_are_not_clipped_and_what_is_transparent_is_white(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_many_images_are_checked_in_order_and_no_thread_waits_in_between(tmp_path: Path):
    good, said = picture(tmp_path / "a.png"), []
    paths = [tmp_path / "missing.png" if i % 3 else good for i in range(300)]
    before = threading.active_count()
    found = check_images(paths, emit=said.append, what="pictures")
    assert next(found) == (96, 64, 1) and threading.active_count() == before and not said
    assert list(found) == [(96, 64, 1) if path == good else "missing" for path in paths[1:]]
    assert said == ["checking pictures: 256/300", "checking pictures: 300/300"]


def test_threads_help_where_files_do_not_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good = picture(tmp_path / "a.png")
    paths = [good, tmp_path / "missing.png"] * 300
    names: set[str] = set()
    real = images._check_with_state

    def spy(path: str, verify: str) -> tuple[ImageHeader | str, str]:
        names.add(threading.current_thread().name)
        return real(path, verify)

    monkeypatch.setattr(images, "_check_with_state", spy)
    states: list[str] = []
    for waiting, several in ((1e9, False), (0, True)):
        monkeypatch.setattr(images, "WAITING", waiting)
        names.clear()
        states.clear()
        assert list(check_images(paths, states=states)) == [(96, 64, 1), "missing"] * 300
        assert states == [file_state(str(good)), ""] * 300
        assert (len(names) > 1) == several
