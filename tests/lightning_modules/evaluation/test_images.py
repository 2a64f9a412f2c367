"""Images on disk: what they are keyed by, how drawing goes on after a kill and over processes, what
is observed meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from conf import load as conf
from conf.files import DiskFull
from conf.schema import Evaluation, Run
from lightning_modules.evaluation import evaluate as evaluation
from lightning_modules.evaluation import images as store
from lightning_modules.evaluation.evaluate import draw_missing
from lightning_modules.evaluation.images import ImageStore, image_facts
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics.detection import Target
from lightning_modules.training import contents

PROMPTS = [
    Prompt("val", i, i, f"a red circle number {i}", Target([("red", "circle")]), 100 + i)
    for i in range(10)
]


def images(root: Path, form: str = "png") -> ImageStore:
    return ImageStore(root, {"sampling": {"image_format": form}}, len(PROMPTS))


class Artist:
    """Images of one grey, the noise's; observes how many it drew at once."""

    resolution = 8

    def __init__(self, stats: bool = False) -> None:
        self.collects_stats, self.calls = stats, []  # type: ignore[var-annotated]

    @contextmanager
    def collect_stats(self, guidance: float) -> Any:
        found: dict[str, float] = {}
        yield found
        found["mean_noise"] = sum(map(sum, self.calls)) / max(sum(map(len, self.calls)), 1)

    def generate(
        self,
        prompts: list[str],
        noises: list[int],
        masks: Any,
        steps: int,
        guidance: float,
        batch: int,
    ) -> torch.Tensor:
        self.calls.append(noises)
        return torch.tensor(noises, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)


def drawn(artist: Artist, kept: ImageStore) -> list[list[int]]:
    draw_missing(artist, PROMPTS, Evaluation(batch=4), kept, lambda *_: None)  # type: ignore[arg-type]
    return artist.calls


@pytest.mark.parametrize("form", ["png", "webp"])
def test_images_come_back_as_they_were(tmp_path: Path, form: str):
    kept, picture = images(tmp_path, form), torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert kept.missing() == list(range(10))
    kept.save(3, picture)
    assert torch.equal(kept.load([3])[0], picture) and kept.missing() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert Image.open(kept.path(3)).format == form.upper() and not list(kept.folder.glob(".*"))


def test_what_is_there_is_not_drawn_again_and_batches_stay(tmp_path: Path):
    kept = images(tmp_path)
    assert drawn(Artist(), kept) == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109]]
    assert kept.load(range(10))[:, 0, 0, 0].tolist() == list(range(100, 110))
    assert drawn(Artist(), kept) == []
    kept.path(5).unlink()
    assert drawn(Artist(), kept) == [[104, 105, 106, 107]], (
        "rounding follows the batch: it is drawn as it was"
    )


def test_what_a_method_observes_is_of_all_images(tmp_path: Path):
    kept = images(tmp_path)
    drawn(Artist(stats=True), kept)
    assert kept.stats == {"mean_noise": 104.5}
    assert drawn(Artist(stats=True), kept) == [] and kept.stats == {"mean_noise": 104.5}
    kept.path(9).unlink()
    assert len(drawn(Artist(stats=True), kept)) == 3, (
        "half of the images would be observed otherwise"
    )


@pytest.mark.parametrize("first", [0, 1])
def test_processes_share_the_batches_and_what_they_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
):
    kept, calls = images(tmp_path), []
    told: list[list[int]] = []

    def once(work: Callable[[], list[int]]) -> list[int]:
        told.extend([] if told else [work()])
        return told[0]

    monkeypatch.setattr(evaluation, "distributed", SimpleNamespace(barrier=lambda: None, once=once))
    for stats in (False, True):
        told.clear()
        for rank in (first, 1 - first):  # One looks, before the other draws
            for module in (evaluation, store):
                monkeypatch.setattr(module, "ranks", lambda rank=rank: (rank, 2))
            calls += drawn(Artist(stats), kept)
        assert (
            sorted(sum(calls, [])) == list(range(100, 110))
            and len(calls) == 3
            and not kept.missing()
        )
        calls.clear()
    assert kept.stats == {"mean_noise": pytest.approx(104.5)}


def test_what_was_not_observed_to_the_end_is_drawn_again(tmp_path: Path):
    kept = images(tmp_path)
    drawn(Artist(), kept)
    assert kept.stats is None and not kept.missing(), (
        "as after a kill between the last image and what was observed"
    )
    assert len(drawn(Artist(stats=True), kept)) == 3 and kept.stats == {"mean_noise": 104.5}


def test_a_full_disk_is_said_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    artist = Artist()
    with pytest.raises(
        DiskFull,
        match=("10 images of 8 pixels: up to 0.0 GiB at .*, 0.0 GiB are free: make room"),
    ):
        drawn(artist, images(tmp_path))
    assert not artist.calls


def key(
    changes: dict[str, Any],
    prompts: list[Prompt] = PROMPTS,
    trained: str | None = "k",
    masks: list[list[Any]] | None = None,
) -> str:
    return conf.digest(image_facts(conf.replace(Run(), changes), prompts, trained, masks))


@pytest.mark.parametrize(
    "changes",
    [
        {"method.gate.threshold": 0.7},
        {"evaluation.steps": 5},
        {"evaluation.guidance": 2.0},
        {"evaluation.image_format": "webp"},
        {"backbone.dtype": "bfloat16"},
    ],
    ids=str,
)
def test_images_depend_on_how_they_are_made(changes: dict[str, Any]):
    assert key(changes) != key({})
    assert key(changes) == key(
        changes
        | {"evaluation.precision_recall_k": 5, "evaluation.keep_images": 1, "evaluation.batch": 3}
    )


def test_images_depend_on_the_judge_where_its_layouts_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(contents.ASSETS / "judge", tmp_path / "judge")
    oracle, output = {"method.gate.supervision": "oracle"}, {"output": str(tmp_path / "runs")}
    before = key(oracle), key({})
    monkeypatch.setattr(contents, "ASSETS", tmp_path)
    (tmp_path / "judge" / "README.md").write_text("Of another training")
    assert (key(oracle | output), key({} | output)) == before
    (tmp_path / "judge" / "model.safetensors").write_bytes(b"Of another training")
    assert key(oracle | output) != before[0] and key(output) == before[1]


def test_images_depend_on_the_masks_that_the_method_is_told_and_on_how():
    told = {"method": "mcgm", "evaluation.follow_masks": True}
    masks = [[((0, 1), torch.zeros(8, 8, dtype=torch.bool))] for _ in PROMPTS]
    other = [[(span, mask.clone()) for span, mask in of_prompt] for of_prompt in masks]
    other[3][0][1][2, 2] = True
    keys = {key(told), key(told, masks=masks), key(told, masks=other)}
    assert len(keys | {key(told | {"evaluation.masks": "blank"}, masks=masks)}) == 4
    # Who is told nothing draws the same
    assert key(told) == key({"method": "mcgm"}) == key(told | {"evaluation.masks": "blank"})
    assert key(told, masks=masks) == key(told | {"data.root": "/elsewhere"}, masks=masks)


def test_images_depend_on_adapter_and_prompts_but_those_of_the_untouched_backbone_on_no_recipe():
    assert key({}, trained="other") != key({}) != key({}, PROMPTS[:9])
    untouched = {"method": "untouched"}
    assert key(untouched, trained=None) == key(
        untouched | {"trainer.steps": 7, "method.gate.threshold": 0.9, "seed": 3}, trained=None
    )
    learning = {"method": "separate_enhance", "method.separate.test_time": 5}
    assert key(learning, trained=None) != key(learning | {"trainer.lr": 1e-4}, trained=None)
    assert key(learning, trained=None) == key(learning | {"trainer.devices": 2}, trained=None)


@pytest.mark.parametrize("form", ["png", "webp"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_an_image_that_was_cut_off_is_drawn_again_with_a_line(
    tmp_path: Path, form: str, share: float
):
    kept, lines = images(tmp_path, form), []
    drawn(Artist(), kept)
    whole = kept.path(5).read_bytes()
    kept.path(5).write_bytes(whole[: int(share * len(whole))])
    again = Artist()
    draw_missing(again, PROMPTS, Evaluation(batch=4), kept, lambda text, _: lines.append(text))  # type: ignore[arg-type]
    assert again.calls == [[104, 105, 106, 107]] and kept.path(5).read_bytes() == whole
    assert sum(str(kept.path(5)) in line for line in lines) == 1


def test_an_image_that_is_damaged_inside_is_named_and_drawn_by_the_next_run(tmp_path: Path):
    kept = images(tmp_path)
    drawn(Artist(), kept)
    whole = kept.path(3).read_bytes()
    kept.path(3).write_bytes(whole[:41] + b"\0" * 8 + whole[49:])
    with pytest.raises(ValueError, match=f"{kept.path(3)} cannot be decoded.*draws it again"):
        kept.load(range(10))
    assert kept.missing() == [3]


@pytest.mark.parametrize("content", ["", '{"images"'])
def test_facts_and_statistics_that_were_cut_off_are_made_again(tmp_path: Path, content: str):
    kept, artist = images(tmp_path), Artist(stats=True)
    drawn(artist, kept)
    stats = kept.stats
    (kept.folder / "stats-0.json").write_text(content)
    (kept.folder / "facts.json").write_text(content)
    assert images(tmp_path).stats is None
    assert drawn(Artist(stats=True), kept) == artist.calls and kept.stats == stats
    assert json.loads((kept.folder / "facts.json").read_text())
