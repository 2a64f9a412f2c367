"""Images on disk: what they are keyed by, how drawing goes on after a kill and over processes, what
is observed meanwhile."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from conf import load as conf
from conf.files import DiskFull
from conf.schema import Evaluation, Run
from datamodules.batch import Phrase
from lightning_modules.evaluation import evaluate as evaluation
from lightning_modules.evaluation.evaluate import draw_missing
from lightning_modules.evaluation.images import ImageStore, image_facts, image_keys
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics.detection import Target
from lightning_modules.training import contents

PROMPTS = [
    Prompt("val", i, i, f"a red circle number {i}", Target([("red", "circle")]), 100 + i)
    for i in range(10)
]


def images(root: Path, form: str = "png") -> ImageStore:
    return ImageStore(root, {"sampling": {"image_format": form}}, image_keys(PROMPTS))


class Artist:
    """Images of one grey, the noise's; observes how many it drew at once."""

    resolution = 8

    def __init__(self, stats: bool = False) -> None:
        self.collects_stats, self.calls = stats, []  # type: ignore[var-annotated]

    @contextmanager
    def collect_stats(self, guidance: float) -> Any:
        found: dict[str, Any] = {}
        yield found
        found["mean_noise"] = [(noise, 1) for noise in self.calls[-1]]

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


def drawn(
    artist: Artist, kept: ImageStore, prompts: list[Prompt] = PROMPTS, batch: int = 4
) -> list[list[int]]:
    draw_missing(artist, prompts, Evaluation(batch=batch), kept, lambda *_: None)  # type: ignore[arg-type]
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
    assert drawn(Artist(stats=True), kept) == [[108, 109]], "what is known of the others stays"
    assert kept.stats == {"mean_noise": 104.5}


def test_more_prompts_and_other_splits_find_what_is_there(tmp_path: Path):
    def of(prompts: list[Prompt]) -> ImageStore:
        facts = {"sampling": {"image_format": "png"}}
        return ImageStore(tmp_path, facts, image_keys(prompts))

    few = PROMPTS[:4]
    assert drawn(Artist(stats=True), of(few), few) == [[100, 101, 102, 103]]
    before = {path: path.stat().st_mtime_ns for path in of(few).folder.glob("*.png")}
    assert drawn(Artist(stats=True), of(PROMPTS), PROMPTS) == [[104, 105, 106, 107], [108, 109]]
    assert before.items() <= {p: p.stat().st_mtime_ns for p in of(few).folder.iterdir()}.items()
    assert of(PROMPTS).stats == {"mean_noise": 104.5}
    # Fewer again, or some of each, is a look at what is there; the mean is over these alone
    assert of(few).stats == {"mean_noise": 101.5}
    assert drawn(Artist(stats=True), of(PROMPTS[3:6]), PROMPTS[3:6]) == []
    assert of(PROMPTS[3:6]).stats == {"mean_noise": 104}


def test_the_first_prompts_of_all_splits_are_drawn_first(tmp_path: Path):
    prompts = [
        Prompt(split, i, i, f"{split} {i}", Target([]), 100 * k + i, place=i)
        for k, split in enumerate(("val", "heldout"))
        for i in range(6)
    ]
    facts = {"sampling": {"image_format": "png"}}
    whole = drawn(Artist(), ImageStore(tmp_path / "once", facts, image_keys(prompts)), prompts)
    assert whole == [[0, 100, 1, 101], [2, 102, 3, 103], [4, 104, 5, 105]]
    few = [prompt for prompt in prompts if prompt.place < 2]
    steps = drawn(Artist(), ImageStore(tmp_path / "twice", facts, image_keys(few)), few)
    steps += drawn(Artist(), ImageStore(tmp_path / "twice", facts, image_keys(prompts)), prompts)
    assert steps == whole


def test_a_batch_that_was_stopped_is_drawn_as_it_was_begun(tmp_path: Path):
    few, kept = PROMPTS[:8], images(tmp_path)
    begun = ImageStore(tmp_path, {"sampling": {"image_format": "png"}}, image_keys(few))

    class Stopped(Artist):
        def generate(self, *args: Any) -> torch.Tensor:
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().generate(*args)

    with pytest.raises(KeyboardInterrupt):
        drawn(Stopped(), begun, few, 3)
    begun.path(1).unlink()
    begun.save(4, torch.zeros(3, 8, 8, dtype=torch.uint8))
    again = drawn(Artist(), kept, batch=3)
    assert sorted(again) == [[100, 101, 102], [103, 104, 105], [106, 107], [108, 109]]
    assert kept.load([4]).max() == 0, "what is there stays"
    # But not in a batch that is too large by now
    kept.path(0).unlink()
    kept.path(2).unlink()
    assert drawn(Artist(), kept, batch=1) == [[100], [102]]


def test_prompts_that_come_twice_are_drawn_once(tmp_path: Path):
    twice = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    kept = ImageStore(tmp_path, {"sampling": {"image_format": "png"}}, image_keys(twice))
    assert drawn(Artist(), kept, twice) == [[100, 101]] and not kept.missing()
    assert kept.load(range(3))[:, 0, 0, 0].tolist() == [100, 101, 100]


@pytest.mark.parametrize("first", [0, 1])
def test_processes_share_the_batches_and_what_they_observed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
):
    kept, calls = images(tmp_path), []
    told: list[Any] = []

    def once(work: Callable[[], Any]) -> Any:
        told.extend([] if told else [work()])
        return told[0]

    monkeypatch.setattr(evaluation, "distributed", SimpleNamespace(barrier=lambda: None, once=once))
    for stats in (False, True):
        told.clear()
        for rank in (first, 1 - first):  # One looks, before the other draws
            monkeypatch.setattr(evaluation, "ranks", lambda rank=rank: (rank, 2))
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
    trained: str | None = "k",
    masks: list[list[Any]] | None = None,
) -> str:
    facts = image_facts(conf.replace(Run(), changes), trained, masks is not None)
    return conf.digest({"facts": facts, "images": image_keys(PROMPTS, masks)})


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
    assert key({}, trained="other") != key({})
    untouched = {"method": "untouched"}
    assert key(untouched, trained=None) == key(
        untouched | {"trainer.steps": 7, "method.gate.threshold": 0.9, "seed": 3}, trained=None
    )
    learning = {"method": "separate_enhance", "method.separate.test_time": 5}
    assert key(learning, trained=None) != key(learning | {"trainer.lr": 1e-4}, trained=None)
    assert key(learning, trained=None) == key(learning | {"trainer.devices": 2}, trained=None)


def test_an_image_is_named_by_what_it_shows_alone():
    masks = [[((0, 1), torch.zeros(8, 8, dtype=torch.bool))] for _ in PROMPTS]
    nowhere = torch.zeros(0)
    objects = [[Phrase("red", 2, 5, nowhere)], *([[Phrase("circle", 6, 12, nowhere)]] * 9)]
    every = [image_keys(PROMPTS), image_keys(PROMPTS, masks), image_keys(PROMPTS, None, objects)]
    assert len({*sum(every, [])}) == 30
    for given in ({}, {"masks": masks[4:7]}, {"objects": objects[4:7]}):
        whole = {"masks": masks} if "masks" in given else {"objects": objects} if given else {}
        assert image_keys(PROMPTS[4:7], **given) == image_keys(PROMPTS, **whole)[4:7]  # type: ignore[arg-type]
    moved = replace(PROMPTS[0], index=7, split="other", place=3)
    assert image_keys([moved]) == image_keys(PROMPTS[:1])
    assert image_keys([replace(moved, noise=1)]) != image_keys([moved])
    assert image_keys([replace(moved, text="a hill")]) != image_keys([moved])


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
    for path in (kept.folder / "batches").iterdir():
        path.write_text(content)
    (kept.folder / "facts.json").write_text(content)
    assert images(tmp_path).stats is None
    assert drawn(Artist(stats=True), kept) == artist.calls and kept.stats == stats
    assert json.loads((kept.folder / "facts.json").read_text())


def test_a_share_of_nothing_is_undefined(tmp_path: Path):
    kept = images(tmp_path)
    kept.write_stats(range(10), {"closed": [(0, 0)] * 10, "none": [], "some": [(1, 2)] * 10})
    assert kept.stats == {
        "closed": pytest.approx(math.nan, nan_ok=True),
        "none": pytest.approx(math.nan, nan_ok=True),
        "some": 0.5,
    }
