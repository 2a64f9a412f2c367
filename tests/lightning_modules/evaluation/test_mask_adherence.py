"""Target masks in an evaluation: what is asked for, what a method is given, how images are judged
by it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conf import load as conf
from conf.schema import Evaluation, Masks, Run, Trainer
from conf.schema import Method as MethodConfig
from datamodules.build import build_data
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded.judge import Judge
from lightning_modules.evaluation.evaluate import evaluate
from lightning_modules.evaluation.mask_adherence import mask_guidance, target_masks
from lightning_modules.evaluation.plan import Prompt, plan, real_images
from lightning_modules.methods.mask_targets import read_masks, rotate_mask
from lightning_modules.metrics.mask_adherence import measure_adherence

ASKED = Evaluation(["val", "heldout"], prompts=4, steps=2, keep_images=0, follow_masks=True)
KEYS = {
    "mask_iou",
    "found",
    "centre_error",
    "turn_error",
    "identity",
    "mask_iou_val",
    "mask_iou_heldout",
}


@pytest.fixture(scope="module")
def world(base: Run) -> Any:
    return build_data(base, lambda text, share: None)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def real(world: Any, prompts: list[Prompt]) -> Tensor:
    """The image that each prompt was written of."""
    return torch.stack([world.eval_sets[prompt.split].pixels(prompt.index) for prompt in prompts])


# --- what is asked for and given ------------------------------------------------------------------


def test_targets_are_the_real_masks_mirrored_and_turned(world: Any):
    prompts = plan(world, ASKED, 0)
    masks = [[phrase.mask for phrase in prompt.phrases] for prompt in prompts]
    assert all(masks) and max(map(len, masks)) > 1
    for changes, change in (
        ({}, lambda mask: mask),
        ({"mirror": True}, lambda mask: mask.flip(-1)),
        ({"turn": 45.0}, lambda mask: rotate_mask(mask, 45.0)),
        ({"turn": -30.0, "mirror": True}, lambda mask: rotate_mask(mask.flip(-1), -30.0)),
    ):
        found = target_masks(prompts, replace(ASKED, **changes))
        for sample, known in zip(found, masks, strict=True):
            assert [mask.dtype for mask in sample] == [torch.bool] * len(known)
            assert all(
                torch.equal(mask, change(was)) for mask, was in zip(sample, known, strict=True)
            )


def test_soft_masks_are_taken_where_they_are_above_a_half(world: Any):
    prompt = plan(world, ASKED, 0)[0]
    sharp = [phrase.mask for phrase in prompt.phrases]
    soft = replace(
        prompt,
        phrases=tuple(
            phrase._replace(mask=0.3 + 0.4 * phrase.mask.float()) for phrase in prompt.phrases
        ),
    )
    assert all(
        torch.equal(a, b) for a, b in zip(target_masks([soft], ASKED)[0], sharp, strict=True)
    )


def test_a_method_is_given_the_targets_blank_ones_wrong_ones_or_none(world: Any):
    prompts = plan(world, ASKED, 0)
    targets = target_masks(prompts, ASKED)
    assert mask_guidance(prompts, targets, replace(ASKED, masks="none")) is None
    for which in ("target", "blank", "wrong"):
        given = mask_guidance(prompts, targets, replace(ASKED, masks=which))
        assert given is not None
        for prompt, entry, sample in zip(prompts, given, targets, strict=True):
            assert [prompt.text[a:b] for (a, b), _ in entry] == [
                phrase.text for phrase in prompt.phrases
            ]
            for (_, mask), target in zip(entry, sample, strict=True):
                other = {"target": target, "blank": target & False, "wrong": target.flip(0, 1)}[
                    which
                ]
                assert torch.equal(mask, other)
        # It is what `generate` reads.
        read = read_masks(given, [prompt.text for prompt in prompts], 64)
        assert [[target.phrases for target in sample] for sample in read] == [
            [(what,) for what, _ in entry] for entry in given
        ]


# --- how images follow ----------------------------------------------------------------------------


def test_exact_images_fill_their_masks_and_show_the_same_subjects(world: Any, judge: Judge):
    prompts = plan(world, ASKED, 0)
    images = real(world, prompts)
    values = measure_adherence(judge, images, images, prompts, target_masks(prompts, ASKED))
    assert KEYS <= set(values) <= KEYS | {"orientation_error"}
    assert (
        all(values[key] > 0.97 for key in ("mask_iou", "mask_iou_val", "mask_iou_heldout"))
        and values["identity"] > 0.99
    )
    assert values["found"] == 1 and values["centre_error"] < 0.5


def test_images_that_follow_a_mirrored_target_are_measured_by_it(world: Any, judge: Judge):
    prompts = plan(world, ASKED, 0)
    images = real(world, prompts)
    mirrored = target_masks(prompts, replace(ASKED, mirror=True))
    followed, ignored = (
        measure_adherence(judge, shown, images, prompts, mirrored)
        for shown in (images.flip(-1), images)
    )
    assert (
        followed["mask_iou"] > 0.97 > 0.6 > ignored["mask_iou"]
        and followed["centre_error"] < 0.5 < 5 < ignored["centre_error"]
    )
    # Who they are has nothing to do with where they are.
    assert ignored["identity"] > 0.99 and followed["identity"] > 0.9


def test_images_of_other_scenes_fill_no_mask(world: Any, judge: Judge):
    prompts = plan(world, ASKED, 0)
    images = real(world, prompts)
    values = measure_adherence(
        judge, images.roll(1, 0), images, prompts, target_masks(prompts, ASKED)
    )
    assert values["mask_iou"] < 0.3 and values["found"] < 1
    empty = torch.full_like(images, 100)
    values = measure_adherence(judge, empty, images, prompts, target_masks(prompts, ASKED))
    assert values == {"mask_iou": 0, "found": 0, "mask_iou_val": 0, "mask_iou_heldout": 0}


def test_a_target_that_was_turned_out_of_the_image_is_left_out(world: Any, judge: Judge):
    prompts = plan(world, ASKED, 0)
    images, targets = real(world, prompts), target_masks(prompts, ASKED)
    images[0] = 100  # Nothing is there, and with its targets gone nothing was asked for
    missed = measure_adherence(judge, images, images, prompts, targets)
    targets[0] = [mask & False for mask in targets[0]]
    values = measure_adherence(judge, images, images, prompts, targets)
    assert missed["found"] < 1 and values["found"] == 1 and values["mask_iou_val"] > 0.97
    half = [
        [mask & False for mask in sample] if prompt.split == "val" else sample
        for prompt, sample in zip(prompts, targets, strict=True)
    ]
    assert "mask_iou_val" not in measure_adherence(judge, images, images, prompts, half)
    assert (
        measure_adherence(
            judge,
            images,
            images,
            prompts,
            [[mask & False for mask in sample] for sample in targets],
        )
        == {}
    )


# --- the evaluation -------------------------------------------------------------------------------


class Perfect(SimpleNamespace):
    """A method that draws the real image of each prompt and remembers the masks that it was
    given."""

    def __init__(self, world: Any, config: Evaluation, takes_masks: bool) -> None:
        prompts = plan(world, config, 0)
        images = dict(zip([p.noise for p in prompts], real(world, prompts), strict=True))
        backbone = SimpleNamespace(
            device=torch.device("cpu"), dtype=torch.float32, guider=None, precision="32-true"
        )
        super().__init__(
            takes_masks=takes_masks,
            takes_objects=False,
            collects_stats=False,
            resolution=64,
            backbone=backbone,
            given=[],
            images=images,
        )

    def collect_stats(self, guidance: float) -> Any:
        return nullcontext({})

    def diagnostics(self, *_: Any) -> dict[str, float]:
        return {}

    def generate(self, prompts: list[str], seeds: list[int], masks: Any, *rest: Any) -> Tensor:
        self.given.append(masks)
        return torch.stack([self.images[seed] for seed in seeds])


def measured(method: Any, world: Any, config: Evaluation, folder: Path) -> dict[str, float]:
    return evaluate(
        method,
        world,
        Run(evaluation=config, output=str(folder)),
        "some adapter",
        folder,
        lambda text, share: None,
    ).metrics


def test_several_noises_are_each_compared_with_their_own_real_image(world: Any, tmp_path: Path):
    config = replace(ASKED, noise_seeds=2, batch=3, keep_images=1)
    method: Any = Perfect(world, config, True)
    metrics = measured(method, world, config, tmp_path)
    # Another pairing would show other subjects.
    assert (
        metrics["eval/identity"] > 0.99
        and metrics["eval/mask_iou"] > 0.97
        and metrics["eval/success"] == 1
    )
    prompts = plan(world, config, 0)
    targets = [phrase.mask > 0.5 for phrase in prompts[0].phrases]
    numbered = torch.from_numpy(np.array(Image.open(tmp_path / "samples" / "0-00000-0-mask.png")))
    assert torch.equal(numbered == len(targets), targets[-1]), "target i has the value i + 1"
    assert torch.equal(numbered > 0, torch.stack(targets).any(0))
    given = [entry for masks in method.given for entry in masks]
    assert [len(masks) for masks in method.given] == [3, 3, 3, 3, 3, 1]
    drawn = sorted(prompts, key=lambda prompt: prompt.place)
    for prompt, entry in zip(drawn, given, strict=True):
        assert all(
            torch.equal(mask, phrase.mask)
            for (_, mask), phrase in zip(entry, prompt.phrases, strict=True)
        )
    assert len(real_images(world, prompts)) == 8


@pytest.mark.parametrize(
    ("takes", "changes", "expected"),
    [
        (False, {}, None),
        (True, {"masks": "none"}, None),
        (True, {"follow_masks": False}, None),
        (True, {"masks": "blank"}, False),
        (True, {"turn": 90.0}, True),
    ],
)
def test_who_is_given_masks_and_when(
    world: Any, tmp_path: Path, takes: bool, changes: dict[str, Any], expected: bool | None
):
    config = replace(ASKED, **changes)
    method: Any = Perfect(world, config, takes)
    metrics = measured(method, world, config, tmp_path)
    assert ("eval/mask_iou" in metrics) == config.follow_masks
    if expected is None:
        assert method.given == [None]
    else:
        assert all(bool(mask.any()) == expected for entry in method.given[0] for _, mask in entry)


def test_images_are_drawn_again_where_other_masks_are_given(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(ASKED, masks="wrong")
    method: Any = Perfect(world, config, True)
    for draws in (1, 1):
        measured(method, world, config, tmp_path)
        assert len(method.given) == draws
    # As after a change of the code that makes them
    monkeypatch.setattr(
        "lightning_modules.evaluation.evaluate.mask_guidance",
        lambda prompts, masks, config: [
            [((p.start, p.end), mask.rot90()) for p, mask in zip(prompt.phrases, of, strict=True)]
            for prompt, of in zip(prompts, masks, strict=True)
        ],
    )
    measured(method, world, config, tmp_path)
    assert len(method.given) == 2


@pytest.mark.parametrize("name", [pytest.param("untouched", marks=pytest.mark.slow), "mcgm"])
def test_every_method_is_measured_by_the_same_masks(
    embedded: Backbone, world: Any, tmp_path: Path, name: str
):
    from lightning_modules import MCGM, Untouched

    config = replace(ASKED, prompts=2)
    method = {"untouched": Untouched, "mcgm": MCGM}[name](
        embedded, MethodConfig(name, masks=Masks()), Trainer(), 64
    )
    metrics = measured(method, world, config, tmp_path)
    # An untrained backbone draws no shapes: nothing may be found.
    assert {"eval/mask_iou", "eval/found", "eval/mask_iou_val", "eval/mask_iou_heldout"} <= set(
        metrics
    )
    assert 0 <= metrics["eval/mask_iou"] < 0.5


def test_placeholders_of_a_rendered_scene_are_looked_for_by_what_they_are(base: Run, judge: Judge):
    config = conf.replace(
        base, {"data.name": "scene", "method.name": "mcgm", "method.subjects.prior_weight": 0.0}
    )
    scene = build_data(config, lambda text, share: None)
    asked = replace(ASKED, splits=list(scene.eval_sets), prompts=3)
    prompts = plan(scene, asked, 0)
    assert any("<asset0>" in prompt.text for prompt in prompts)
    assert all(
        "<" not in name and len(name.split()) == 2 for prompt in prompts for name in prompt.names
    )
    images = real(scene, prompts)
    values = measure_adherence(judge, images, images, prompts, target_masks(prompts, asked))
    assert values["mask_iou"] > 0.97 and values["identity"] > 0.99
