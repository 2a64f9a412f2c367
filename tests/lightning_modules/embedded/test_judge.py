from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from datamodules.shapes.rendering import render
from datamodules.shapes.scenes import Scene, Thing
from datamodules.shapes.vocabulary import COLORS, HELD_OUT, PATTERNS, SHAPES
from lightning_modules.embedded.judge import ASSET, MEASURES, REWARDS, Judge
from lightning_modules.embedded.judge_card import exact, rates
from lightning_modules.embedded.judge_data import (
    damages,
    fresh_scenes,
    kinds_of_scenes,
    to_images,
)
from lightning_modules.metrics.detection import Target
from lightning_modules.metrics.functional import frechet_distance
from lightning_modules.metrics.masks import masked_similarity

SEED = 77  # Neither the judge's training nor its card used it

RED_CIRCLE = Thing("red", "circle", 18, 20, 9)
BLUE_RING = Thing("blue", "ring", 45, 42, 9)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """120 scenes, half of them with held-out combinations."""
    return [
        s
        for objects in (1, 2, 3)
        for heldout in (False, True)
        for s in fresh_scenes(20, objects, heldout, SEED)
    ]


def picture(*things: Thing, background: int = 100) -> torch.Tensor:
    return to_images([Scene(things, background)])


@pytest.mark.parametrize("name", [MEASURES, REWARDS])
def test_both_judges_are_right_on_fresh_renders(name):
    scenes = [s for kind in kinds_of_scenes(8, SEED).values() for s in kind]
    assert any((t.color, t.shape) in HELD_OUT for s in scenes for t in s.things)
    judge, images = Judge.load(name), to_images(scenes)
    shares = rates(judge, images, scenes)
    assert shares.keys() == {"exact", "size", "pattern", "relation"}
    assert min(shares.values()) >= 0.98
    assert sum(exact(judge, damages()["blur 1"](images), scenes)) / len(scenes) >= 0.95


def test_the_judges_are_of_different_kinds():
    first, second = Judge.load(MEASURES), Judge.load(REWARDS)
    assert first.config["architecture"] != second.config["architecture"]
    facts = [
        json.loads((ASSET.parent / name / "training.json").read_text())
        for name in (MEASURES, REWARDS)
    ]
    assert facts[0]["seed"] != facts[1]["seed"]


@pytest.mark.parametrize("name", [MEASURES, REWARDS])
def test_patterns_are_told_and_spoil_no_color(name):
    things = [
        Thing(color, shape, 30, 33, 11.5, pattern)
        for color in COLORS
        for shape in SHAPES
        for pattern in PATTERNS
    ]
    found = Judge.load(name).detect(torch.cat([picture(thing) for thing in things]))
    said = [[(d.color, d.label, d.pattern) for d in detections] for detections in found]
    wanted = [[(t.color, t.shape, t.pattern)] for t in things]
    assert sum(a == b for a, b in zip(said, wanted, strict=True)) >= len(things) - 1


def test_rates_say_what_is_wrong(judge):
    scene = Scene((RED_CIRCLE, BLUE_RING), 100, "left of")
    images = to_images([scene, scene])
    above = replace(scene, relation="above")
    larger = replace(scene, things=(replace(RED_CIRCLE, radius=14, pattern="dotted"), BLUE_RING))
    assert rates(judge, images, [scene, above]) == {
        "exact": 1,
        "size": 1,
        "pattern": 1,
        "relation": 0.5,
    }
    wrong = rates(judge, images, [scene, larger])
    assert (wrong["exact"], wrong["size"], wrong["pattern"]) == (1, 0.5, 0.5)


def test_a_judge_of_another_version_is_refused():
    with pytest.raises(ValueError, match="architecture None.*fine_coarse.*train it again"):
        Judge({"width": 48, "deep": 96, "threshold": 0.5})


def test_exact_is_strict(judge):
    scene = Scene((RED_CIRCLE, BLUE_RING), 100)
    images = to_images([scene])
    assert exact(judge, images, [scene]) == [True]
    assert exact(judge, images, [Scene((RED_CIRCLE,), 100)]) == [False]  # One too many
    # One missing
    assert exact(
        judge, images, [Scene((RED_CIRCLE, BLUE_RING, replace(BLUE_RING, x=15)), 100)]
    ) == [False]
    assert exact(judge, images, [Scene((RED_CIRCLE, replace(BLUE_RING, color="red")), 100)]) == [
        False
    ]
    # Four pixels off
    assert exact(judge, images, [Scene((RED_CIRCLE, replace(BLUE_RING, x=49)), 100)]) == [False]


def test_detection_has_box_in_pixels(judge):
    (found,) = judge.detect(picture(RED_CIRCLE))
    assert [(d.color, d.label) for d in found] == [("red", "circle")]
    assert found[0].box == pytest.approx(RED_CIRCLE.box, abs=1.0)
    assert 0.9 < found[0].score <= 1


def test_nothing_is_found_on_empty_ground(judge):
    ground = torch.full((3, 3, 64, 64), 90, dtype=torch.uint8)
    ground[1:] += torch.randint(
        0, 20, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert judge.detect(ground) == [[], [], []]


def test_no_images(judge):
    none = torch.zeros(0, 3, 64, 64, dtype=torch.uint8)
    assert judge.detect(none) == []
    assert judge.features(none).shape == (0, 52)
    assert judge.target_scores(none, []).shape == (0,)


def test_features_are_deterministic_and_independent_of_the_batch(judge, scenes):
    images = to_images(scenes[:20])
    features = judge.features(images)
    assert features.dtype == torch.float32 and features.shape == (20, 52)
    assert torch.equal(features, judge.features(images))
    alone = torch.cat([judge.features(image[None]) for image in images])
    torch.testing.assert_close(features, alone, atol=1e-4, rtol=0)


def test_features_are_standardised_on_clean_renders(judge, scenes):
    features = judge.features(to_images(scenes))
    assert features.mean(0).abs().max() < 0.5
    assert features.std(0).min() > 0.6 and features.std(0).max() < 1.6


def test_features_know_content_layout_and_quality(judge, scenes):
    reference = [
        s
        for objects in (1, 2, 3)
        for heldout in (False, True)
        for s in fresh_scenes(20, objects, heldout, SEED + 1)
    ]
    clean, images = judge.features(to_images(reference)), to_images(scenes)

    def distance(changed: torch.Tensor) -> float:
        return float(frechet_distance(clean, judge.features(changed)))

    same = distance(images)
    blurred = distance(damages()["blur 1.5"](images))
    moved = distance(to_images([_squeezed(s) for s in scenes]))
    content = distance(
        to_images(
            [replace(s, things=tuple(replace(t, color="red") for t in s.things)) for s in scenes]
        )
    )
    assert min(blurred, moved, content) > 1.5 * same


def _squeezed(scene: Scene) -> Scene:
    """All things in the upper half of the image."""
    return replace(scene, things=tuple(replace(t, y=t.radius + 1 + t.y / 5) for t in scene.things))


def test_target_scores_are_graded(judge):
    pair = Target([("red", "circle"), ("blue", "ring")])
    swapped = Target([("blue", "circle"), ("red", "ring")])
    both = picture(RED_CIRCLE, BLUE_RING)
    missing = picture(RED_CIRCLE)
    scores = judge.target_scores(
        torch.cat([both, both, missing, both]), [pair, swapped, pair, Target([("blue", "ring")])]
    )
    assert scores.dtype == torch.float32
    assert scores[0] > 0.9 and scores[3] > 0.9
    assert scores[1] < 0.05 and scores[2] < 0.05


def test_a_faint_object_scores_between(judge):
    full, empty = picture(RED_CIRCLE).float(), torch.full((1, 3, 64, 64), 100.0)
    images = (
        torch.cat([empty + (full - empty) * share for share in (0.1, 0.3, 0.45, 0.6, 1.0)])
        .round()
        .to(torch.uint8)
    )
    scores = judge.target_scores(images, [Target([("red", "circle")])] * 5)
    assert scores[0] < 0.1 and scores[-1] > 0.9
    assert bool((scores.diff() > -0.02).all())


def test_one_object_does_not_serve_two_wishes(judge):
    twice = Target([("red", "circle"), ("red", "circle")])
    images = torch.cat([picture(RED_CIRCLE), picture(RED_CIRCLE, replace(RED_CIRCLE, x=45, y=45))])
    scores = judge.target_scores(images, [twice, twice])
    assert scores[0] < 0.05 and scores[1] > 0.9


def test_extra_objects_cost_no_score(judge):
    images = picture(RED_CIRCLE, BLUE_RING, Thing("green", "cross", 48, 14, 9))
    assert judge.target_scores(images, [Target([("red", "circle")])])[0] > 0.9


def test_targets_must_match_images(judge):
    with pytest.raises(ValueError, match="1 image but 2 targets"):
        judge.target_scores(picture(RED_CIRCLE), [Target([("red", "circle")])] * 2)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 3, 64, 64),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 64, 64).byte(),
    ],
)
def test_other_images_are_refused(judge, images):
    with pytest.raises(ValueError, match=r"uint8 images of shape \[N, 3, 64, 64\]"):
        judge.detect(images)


def test_training_mode_gradients_and_autocast_do_not_reach_it(judge):
    parent = torch.nn.ModuleDict({"judge": judge})
    parent.train()
    assert not any(module.training for module in judge.modules())
    assert not any(p.requires_grad for p in judge.parameters())
    assert sum(p.numel() for p in judge.parameters()) < 1_000_000
    images = picture(RED_CIRCLE, BLUE_RING)
    with torch.autocast("cpu", torch.bfloat16):
        features = judge.features(images)
    assert features.dtype == torch.float32 and torch.equal(features, judge.features(images))


def test_save_and_load(judge, tmp_path):
    judge.save(tmp_path)
    again = Judge.load(tmp_path)
    images = picture(RED_CIRCLE, BLUE_RING)
    assert torch.equal(again.features(images), judge.features(images))
    assert (
        (tmp_path / "model.safetensors").stat().st_size
        == (ASSET / "model.safetensors").stat().st_size
        < 1_000_000
    )
    with pytest.raises(FileNotFoundError, match="train_judge --output"):
        Judge.load(tmp_path / "nowhere")


def single(
    color: str, shape: str, x: float, y: float, background: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, masks = render(Scene((Thing(color, shape, x, y, 11),), background))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None], torch.from_numpy(masks)


def test_local_features_know_a_subject_again(judge: Judge):
    image, mask = single("blue", "ring", 22, 24)
    maps = judge.local_features(image)
    assert maps.shape == (1, 48, 16, 16) and maps.dtype == torch.float32

    def like(color: str, shape: str) -> float:
        other, where = single(color, shape, 41, 38, 120)
        return float(masked_similarity(maps, mask, judge.local_features(other), where))

    same, shape, color = like("blue", "ring"), like("blue", "square"), like("orange", "ring")
    assert same > 0.9 and same > shape + 0.02 and shape > color + 0.1
