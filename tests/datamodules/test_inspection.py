"""What `python -m datamodules.inspect` says and draws, of every kind of dataset."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import (
    listed,
    objects,
    picture,
    rectangle,
    write_captioned_split,
    write_captions,
    write_instances,
)
from helpers.flickr_files import CAPTIONS, write_entities, write_images, write_token
from PIL import Image
from torch.utils.data import Dataset

from datamodules import CocoDataModule, Flickr30kDataModule, PromptDataModule
from datamodules.formats import masks
from datamodules.inspect import main
from datamodules.inspection import report
from datamodules.loading import PairedDataModule
from datamodules.shapes.scene import ShapesSceneDataModule

ROOT = Path(__file__).resolve().parents[2]


def lines(datamodule: Any, folder: Path, images: int = 2) -> tuple[list[str], dict[str, Any]]:
    """(what is said, what is written)."""
    said: list[str] = []
    datamodule.prepare_data()
    datamodule.setup()
    found = report(datamodule, folder, images, said.append)
    assert json.loads((folder / "inspect.json").read_text()) == json.loads(
        json.dumps(found, default=str)
    )
    return [line.strip() for line in said], found


def test_the_embedded_world_by_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        "data=shapes",
        "data.train_images=6",
        "data.eval_images=3",
        f"output={tmp_path}",
        "evaluation.splits=[val]",
        "images=4",
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "train: 6 samples" in out and "val: 3 samples" in out and "problems: none" in out
    assert (
        "width 64 / 64 / 64, height 64 / 64 / 64 pixels (least / median / most), all of one size"
    ) in out
    assert "captions with a linked phrase: 100%" in out and "masks that vanish on a map" in out
    for split in ("train", "val"):
        path = tmp_path / "inspect" / "shapes" / f"{split}.png"
        assert str(path) in out and Image.open(path).width > 800
    found = json.loads((tmp_path / "inspect" / "shapes" / "inspect.json").read_text())
    assert set(found) == {"splits", "manifest"} and found["splits"]["val"]["samples"] == 3


def test_wrong_settings_and_data_are_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["imgaes=3"]) == 2
    assert capsys.readouterr().err == (
        "error: imgaes=3 (command line): no such setting; the top level holds "
    ) + (
        "backbone, method, data, trainer, evaluation, evaluate_with, seed, init_seed, "
        "data_seed, timestep_seed, sampling_seed, prompt_seed, fresh, "
        "output, images; did you mean images?\n"
    )
    assert main(["data=coco", f"data.root={tmp_path / 'nowhere'}", f"output={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: data.root={tmp_path / 'nowhere'}")


@pytest.mark.slow
def test_help_loads_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "-m", "datamodules.inspect", "--help"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "images=12" in ran.stdout and "data.root" in ran.stdout
    assert not any(
        f" {heavy}\n" in ran.stderr for heavy in ("torch", "lightning", "diffusers", "pycocotools")
    )


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Six images: two without objects, one empty file, one with an object outside the crop."""
    images = listed([1, 2, 3, 4, 5, 6])
    for image in images:
        picture(tmp_path / "some" / image["file_name"])
    images[5] |= {"width": 64, "height": 200}
    picture(tmp_path / "some" / images[5]["file_name"], size=(64, 200))
    (tmp_path / "some" / images[3]["file_name"]).write_bytes(b"")
    more = [{"id": 900, "image_id": 2, "caption": "a sixth"}]
    write_captions(tmp_path / "annotations", "some", images, more=more)
    annotations = [
        objects(1, key=1),
        objects(1, key=2, segmentation=rectangle(40, 16, 3, 3), bbox=[40, 16, 3, 3]),
        objects(3, key=3, segmentation=rectangle(0, 0, 10, 10), bbox=[0, 0, 10, 10]),
        objects(5, key=4),
    ]
    write_instances(tmp_path / "annotations", "some", images, annotations)
    return tmp_path


def test_words_that_are_left_out_are_counted_with_the_reason(tmp_path: Path):
    images = listed(range(1, 4))
    for image in images:
        picture(tmp_path / "some" / image["file_name"])
    texts = ["A dog by a dog house.", "A dog beside a hot dog.", "A dog barks."]
    spoken = [
        {"id": k, "image_id": image["id"], "caption": text}
        for k, (image, text) in enumerate(zip(images, texts, strict=True))
    ]
    write_captions(tmp_path / "annotations", "some", images, each=0, more=spoken)
    places = [(1, 0), (2, 0), (3, 0), (3, 48)]
    dogs = [
        objects(image, key=k, segmentation=rectangle(x + 16, 16, 16, 24), bbox=[x + 16, 16, 16, 24])
        for k, (image, x) in enumerate(places)
    ]
    write_instances(tmp_path / "annotations", "some", images, dogs)
    said, found = lines(CocoDataModule(tmp_path, 64, "some", ()), tmp_path / "out", images=0)
    left_out = found["splits"]["some"]["phrases"]["left_out"]
    assert {reason: words["count"] for reason, words in left_out.items()} == {
        "before another noun of its phrase": 1,
        "part of another expression": 1,
        "a singular among several objects": 1,
    }
    assert "words left out: 1 × a singular among several objects, data.singular=one (dog)" in said


def test_captions_that_were_made_up_or_left_out_are_said(tmp_path: Path):
    images = listed(range(1, 4))
    for image in images:
        picture(tmp_path / "some" / image["file_name"])
    dogs = [objects(1, key=1), objects(1, 1, key=2), objects(2, key=3), objects(3, key=4)]
    write_instances(tmp_path / "annotations", "some", images, dogs)
    with pytest.warns(UserWarning, match="captions are made"):
        said, found = lines(
            CocoDataModule(tmp_path, 64, "some", (), min_phrases=2), tmp_path / "out", images=0
        )
    made, few = found["manifest"]["notes"]
    assert "captions are made of the names of the objects" in made
    assert "left out: 2, and with them images that have no other: 2" in few
    assert {f"note: {made}", f"note: {few}"} <= set(said)


def test_a_note_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = listed(range(1, 4))
    for image in images:
        picture(tmp_path / "some" / image["file_name"])
    write_instances(tmp_path / "annotations", "some", images, [objects(i, key=i) for i in (1, 2)])
    words = ["data=coco", f"data.root={tmp_path}", "data.train_split=some", "data.min_phrases=0"]
    words += ["evaluation.splits=[some]", "images=0", f"output={tmp_path / 'out'}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert main(words) == 0
    assert "".join(capsys.readouterr()).count("captions are made of the names") == 1


def test_photographs_with_problems(coco: Path, tmp_path: Path):
    module = CocoDataModule(coco, 64, "some", ())
    with pytest.warns(UserWarning, match="split '"):
        said, found = lines(module, tmp_path / "out", images=3)
    facts = found["splits"]["some"]
    assert facts["samples"] == 5 and facts["sizes"] == {
        "width": [64, 96, 96],
        "height": [64, 64, 200],
        "different": 2,
    }
    assert facts["captions_per_image"] == {"5": 4, "6": 1} and facts["masks_per_image"] == {
        "0": 2,
        "1": 2,
        "2": 1,
    }
    # "caption 0 of 1" names nothing.
    assert facts["phrases"]["per_caption"] == {"0": 5} and facts["phrases"]["1_or_more"] == 0
    assert facts["vanished"]["64"] == {"objects": 4, "empty": 0, "outside": 1, "vanished": 0}
    assert facts["vanished"]["8"] == {"objects": 4, "empty": 0, "outside": 1, "vanished": 1}
    assert (
        "masks that vanish on a map, with data.mask_share=0.5: 64x64 0 (0%), 32x32 0 (0%), "
        "16x16 0 (0%), 8x8 1 (33%)"
    ) in said
    assert "problem: empty, 1 time" in said and any(
        line.endswith("000000000004.jpg") for line in said
    )
    assert any(line.startswith("source: ") and "layout coco" in line for line in said)
    assert found["manifest"]["train"]["problems"]["empty"]["count"] == 1 and any(
        line.startswith("note: split 'some'") for line in said
    )


def test_each_mask_is_decoded_once(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module, decoded = CocoDataModule(coco, 64, "some", (), flip=True), []

    def decode(annotation: dict[str, Any], width: int, height: int) -> Any:
        decoded.append(annotation["id"])
        return masks.decode(annotation, width, height)

    monkeypatch.setattr("datamodules.coco.decode", decode)
    with pytest.warns(UserWarning, match="split '"):
        lines(module, tmp_path / "out", images=9)
    assert sorted(decoded) == [1, 2, 3, 4]


def test_images_that_cannot_be_decoded_are_said_and_left_out_of_the_sheet(
    coco: Path, tmp_path: Path
):
    module = CocoDataModule(coco, 64, "some", ())
    with pytest.warns(UserWarning, match="split '"):
        module.setup()
    path = coco / "some" / "000000000005.jpg"
    path.write_bytes(path.read_bytes()[:400])  # since it was indexed
    said, found = lines(module, tmp_path / "out", images=9)
    (broken,) = found["splits"]["some"]["cannot_be_decoded"]
    assert "000000000005.jpg: image cannot be decoded" in broken and f"problem: {broken}" in said
    four = Image.open(tmp_path / "out" / "some.png").size
    lines(CocoDataModule(coco, 64, "some", (), train_images=3), tmp_path / "three", images=9)
    assert four[0] > Image.open(tmp_path / "three" / "some.png").size[0]


def test_flickr(tmp_path: Path):
    write_images(tmp_path / "flickr30k-images")
    write_token(tmp_path / "results_20130124.token")
    module = Flickr30kDataModule(tmp_path, 64, "all", (), split_by="all")
    said, found = lines(module, tmp_path / "out")
    facts = found["splits"]["all"]
    assert (
        facts["samples"] == len(CAPTIONS)
        and facts["captions_per_image"] == {"5": 4}
        and "vanished" not in facts
    )
    assert (tmp_path / "out" / "all.png").is_file() and any("split by all" in line for line in said)
    assert any("no masks or boxes: there is no Sentences and no Annotations" in s for s in said)


def test_boxes_of_flickr_are_no_lack_of_masks(tmp_path: Path):
    write_images(tmp_path / "flickr30k-images")
    write_token(tmp_path / "results_20130124.token")
    write_entities(tmp_path)
    module = Flickr30kDataModule(tmp_path, 64, "all", (), split_by="all")
    said, found = lines(module, tmp_path / "out", 0)
    facts = found["splits"]["all"]
    assert "masks_per_image" not in facts and "lack" not in facts
    assert facts["boxed_things_per_image"] == {"0": 2, "1": 1, "4": 1}
    assert "boxed things per image: 0 ×2, 1 ×1, 4 ×1" in said


def test_a_scene(tmp_path: Path):
    said, found = lines(
        ShapesSceneDataModule(tmp_path / "scene", 2, 0, 8, batch=1, length=20), tmp_path / "out"
    )
    assert found["splits"]["train"]["masks_per_image"] == {"2": 1} and len(found["splits"]) == 2
    assert (
        found["manifest"]["train"] == 20
        and list(found["manifest"]["evaluation"]) == list(found["splits"])[1:]
    )
    assert all((tmp_path / "out" / f"{name}.png").is_file() for name in found["splits"])


def test_prompts_are_written_out(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("a red cat and a dog\nan owl\n")
    said, found = lines(
        PromptDataModule([tmp_path / "mine.txt", "attend_and_excite"], eval_prompts=2),
        tmp_path / "out",
    )
    assert found["splits"]["mine"]["phrases"] == {
        "of": 2,
        "per_caption": {"1": 1, "2": 1},
        "1_or_more": 1.0,
        "2_or_more": 0.5,
    }
    assert (
        "0: a red cat and a dog" in said
        and "phrases: red cat | dog" in said
        and any(line.startswith("wanted: {") for line in said)
    )
    assert found["splits"]["mine"]["categories"] == {"mine": 2} and "problems: none" in said
    assert not list((tmp_path / "out").glob("*.png"))


class Many(Dataset):
    """More samples than are looked at, with as many phrases as their number's last digit."""

    def __len__(self) -> int:
        return 1000

    def caption(self, index: int) -> Any:
        return type("Caption", (), {"text": f"prompt {index}"})

    def phrases(self, index: int) -> list[Any]:
        return [type("Phrase", (), {"text": "x"})] * (index % 10)


def test_of_many_samples_some_are_looked_at_evenly(tmp_path: Path):
    module = PairedDataModule()
    module.train_set, module.eval_sets = Many(), {}
    said: list[str] = []
    facts = report(module, tmp_path, 0, said.append)["splits"]["train"]
    assert facts["phrases"]["of"] == 200 and facts["phrases"]["per_caption"] == {"0": 100, "5": 100}
    assert any("(of 200 captions, evenly spread)" in line for line in said)


@pytest.mark.parametrize(
    ("word", "cure"),
    [("data.detokenise=true", "data=flickr30k"), ("data.joins=[and]", "data.concepts")],
)
def test_a_setting_that_nothing_reads_is_refused(
    capsys: pytest.CaptureFixture[str], word: str, cure: str
) -> None:
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert word.partition("=")[0] in error and "nothing reads it" in error and cure in error


def test_masks_without_a_pixel_do_not_lie_outside_the_crop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    images = listed([1, 2])
    for image in images:
        picture(tmp_path / "train" / image["file_name"])
    write_captions(tmp_path / "annotations", "train", images)
    path = [(10 + 2 * i, 10) for i in range(15)] + [(38, 10 + 2 * i) for i in range(15)]
    there_and_back = [[n for point in [*path, *path[::-1]] for n in point]]
    masks = [
        objects(1, segmentation=there_and_back, key=7),
        objects(1, segmentation=[[10, 10, 50, 10, 30, 10]], key=8),
        objects(2, segmentation=rectangle(0, 10, 5, 20), key=9),
    ]
    write_instances(tmp_path / "annotations", "train", images, masks)
    args = ["data=coco", f"data.root={tmp_path}", "data.train_split=train", "images=0"]
    assert main([*args, "data.min_phrases=0", f"output={tmp_path}/out"]) == 0
    said = capsys.readouterr().out
    assert "masks of 2 images: 2, of which 1 lie outside the crop and 1 have no pixel" in said
    problem = said.partition("problem: polygon without area, 1 time")[2].splitlines()[1]
    assert problem.endswith("000000000001.jpg: image 1, annotation 8")


def test_why_no_image_has_masks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_captioned_split(tmp_path, ["A dog sleeps."] * 2, masked=0)
    args = ["data=coco", f"data.root={tmp_path}", "data.train_split=train", "images=0"]
    assert main([*args, "data.min_phrases=0", f"output={tmp_path}/out"]) == 0
    assert "no masks or boxes: there is no instances file" in capsys.readouterr().out
