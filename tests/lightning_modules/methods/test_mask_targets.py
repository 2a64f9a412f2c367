"""What people hand to `generate` as masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_modules.methods.mask_targets import read_mask, read_masks, rotate_mask


def box() -> torch.Tensor:
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:8, 4:12] = True
    return mask


def test_a_mask_may_be_a_tensor_an_array_an_image_or_a_file(tmp_path: Path):
    picture = Image.fromarray(box().numpy().astype(np.uint8) * 255)
    picture.save(tmp_path / "mask.png")
    picture.convert("RGB").save(tmp_path / "rgb.png")
    forms: list[Any] = [box(), box().float(), box().numpy(), picture, picture.convert("1")]
    forms += [
        tmp_path / "mask.png",
        str(tmp_path / "rgb.png"),
        box().to(torch.uint8),
        box().to(torch.uint8) * 255,
    ]
    for form in forms:
        assert torch.equal(read_mask(form, 16), box().float()), type(form)
    assert torch.equal(read_mask(box(), 8, resize="nearest"), box().float()[::2, ::2])
    small = read_mask(box(), 8)
    assert small.shape == (8, 8) and small[1, 2] == 1 and small.sum() == box().sum() / 4


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(3, 16, 16), "has the shape (3, 16, 16): expected a plane"),
        (torch.zeros(8, 16), "is 16 wide and 8 high: images are square here"),
        (torch.full((16, 16), 2.0), "has values from 2 to 2: expected 0 to 1"),
        ("nowhere.png", "cannot be read as an image"),
    ],
)
def test_what_is_no_mask_is_refused(mask: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_mask(mask, 16)
    assert len(str(caught.value).splitlines()) == 1


def test_labels_are_no_shades_of_grey(tmp_path: Path):
    label = box().to(torch.uint8) * 3
    picture = Image.fromarray(label.numpy())
    picture.save(tmp_path / "mask.png")
    palette = Image.frombytes("P", (16, 16), (box() * 1).to(torch.uint8).numpy().tobytes())
    palette.putpalette([0, 0, 0, 128, 0, 0])
    forms: list[Any] = [label, label.numpy(), label.long(), picture, tmp_path / "mask.png", palette]
    for form in forms:
        with pytest.warns(UserWarning, match="its one value (3|128) means there"):
            assert torch.equal(read_mask(form, 16), box().float())
    several = label.clone()
    several[0, 0:2] = torch.tensor([1, 2])
    for form in (several, several.long(), Image.fromarray(several.numpy())):
        with pytest.raises(ValueError, match="the dog holds the values 0, 1, 2, 3, as a label map"):
            read_mask(form, 16, "the dog")


def test_a_file_is_read_as_viewers_show_it(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(box().numpy()).astype(np.uint8) * 255
    Image.fromarray(turned).save(tmp_path / "mask.png", exif=exif)
    assert torch.equal(read_mask(tmp_path / "mask.png", 16), box().float())


def test_each_prompt_has_an_entry_and_phrases_may_share_a_mask():
    prompts = ["a dog and a cat", "a hat", "a red hat", "a man"]
    read = read_masks(
        [{"dog": box(), ("dog", "cat"): box()}, None, [((2, 5), box())], {None: box()}], prompts, 16
    )
    assert [[target.phrases for target in sample] for sample in read] == [
        [("dog",), ("dog", "cat")],
        [],
        [((2, 5),)],
        [()],
    ]
    assert read_masks(None, prompts, 16) == [[], [], [], []]
    for given, message in (
        ({"dog": box()}, "a single mapping for 4 prompts"),
        ([None], "1 entry for 4 prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            read_masks(given, prompts, 16)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=re.escape("masks: [2, 5] names no words; expected a phrase")
    ):
        read_masks([[([2, 5], box())]], prompts[:1], 16)


def test_masks_turn_about_their_centre():
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[10:14, 6:20] = True  # a bar that lies
    upright = rotate_mask(mask, 90)
    rows, columns = upright.any(1).nonzero(), upright.any(0).nonzero()
    assert len(rows) == 14 and len(columns) == 4 and abs(int(upright.sum()) - int(mask.sum())) <= 2
    assert (
        abs(float(rows.float().mean()) - 11.5) < 1 and abs(float(columns.float().mean()) - 12.5) < 1
    )
    assert torch.equal(rotate_mask(mask, 360), mask) and torch.equal(
        rotate_mask(mask & False, 45), mask & False
    )
    corner = torch.zeros(32, 32, dtype=torch.bool)
    corner[8:21, 10:13] = corner[8:11, 10:21] = True  # an L whose foot is up

    def cut(plane: torch.Tensor) -> torch.Tensor:
        rows, columns = plane.any(1).nonzero(), plane.any(0).nonzero()
        return plane[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    assert torch.equal(cut(rotate_mask(corner, 90)), cut(corner.rot90(1))), "counter-clockwise"
