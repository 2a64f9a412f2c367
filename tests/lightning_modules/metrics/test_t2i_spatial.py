from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from datamodules.formats.benchmarks import t2i_compbench
from datamodules.formats.prompt_forms import spatial
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics import Detection, Target
from lightning_modules.metrics.functional import spatial_score
from lightning_modules.metrics.geneval import read_requests
from lightning_modules.metrics.t2i_spatial import (
    NEAR,
    RELEASED_NEAR,
    SpatialScorer,
    box_iou,
    t2i_spatial,
)

MIDDLE = (200.0, 200.0, 300.0, 300.0)
TURNS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def moved(x: float, y: float) -> tuple[float, float, float, float]:
    return (MIDDLE[0] + x, MIDDLE[1] + y, MIDDLE[2] + x, MIDDLE[3] + y)


@pytest.mark.parametrize("relation", TURNS)
def test_directions(relation: str):
    for other, (x, y) in TURNS.items():
        assert spatial_score(moved(120 * x, 120 * y), MIDDLE, relation) == (other == relation)
    x, y = TURNS[relation]
    # Just the greater offset
    assert spatial_score(moved(120 * x + 119 * y, 120 * y + 119 * x), MIDDLE, relation) == 1
    # A diagonal is no direction
    assert spatial_score(moved(120 * x + 120 * y, 120 * y + 120 * x), MIDDLE, relation) == 0
    assert spatial_score(MIDDLE, MIDDLE, relation) == 0


def test_overlap_costs():
    assert spatial_score(moved(-90, 0), MIDDLE, "left of") == 1  # IoU 1000 / 19000
    half = spatial_score(moved(-50, 0), MIDDLE, "left of")  # IoU 5000 / 15000
    assert half == pytest.approx(0.3) and spatial_score(moved(50, 0), MIDDLE, "left of") == 0
    limit = 1000 * 2 / 11  # IoU 0.1 exactly: 1 by either rule
    assert spatial_score(moved(0, 100 - limit / 10), MIDDLE, "below") == pytest.approx(1)


def test_iou():
    assert box_iou(MIDDLE, MIDDLE) == 1 and box_iou(MIDDLE, moved(100, 0)) == 0
    assert box_iou(MIDDLE, moved(50, 50)) == pytest.approx(2500 / 17500)
    assert box_iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0  # No + 1 that would make an area of a point
    assert box_iou(MIDDLE, moved(300, 300)) == 0  # Two negative overlaps are none


@pytest.mark.parametrize("relation", ["near", "next to", "on side of", "Next to"])
def test_nearness(relation: str):
    for x, y, released, mended in (
        (149, 149, 1, 1),
        (150, 150, 1, 1),  # The limit over itself
        (300, 200, 0.5, 0.5),
        (200, 300, 0.5, 0.5),
        (300, 0, 1, 0.5),  # The released code calls the whole row near
        (0, -300, 1, 0.5),
    ):
        assert spatial_score(moved(x, y), MIDDLE, relation) == pytest.approx(released)
        assert spatial_score(moved(x, y), MIDDLE, relation, released=False) == pytest.approx(mended)
    assert spatial_score(moved(299, 299), MIDDLE, relation, size=1024) == 1
    assert spatial_score(moved(300, 400), MIDDLE, relation, size=1024) == pytest.approx(0.75)
    assert (
        spatial_score(moved(155, 155), MIDDLE, relation)
        < 1
        == spatial_score(moved(155, 155), MIDDLE, relation, near=RELEASED_NEAR)
    )


def test_directions_do_not_depend_on_size():
    assert spatial_score(moved(-50, 0), MIDDLE, "left of", size=64) == spatial_score(
        moved(-50, 0), MIDDLE, "left of", size=4096
    )


def test_words_of_the_benchmark():
    for words, relation in (
        ("on the left of", "left of"),
        ("on the right of", "right of"),
        ("on the bottom of", "below"),
    ):
        x, y = TURNS[relation]
        assert spatial_score(moved(120 * x, 120 * y), MIDDLE, words) == 1
    top = moved(0, -120)
    assert (
        spatial_score(top, MIDDLE, "on the top of") == 1
        and spatial_score(top, MIDDLE, "above") == 1
    )
    assert (
        spatial_score(top, MIDDLE, "on top of") == 0
        and spatial_score(top, MIDDLE, "on top of", released=False) == 1
    )
    for words in ("behind", "in front of", "hidden by", "under"):
        with pytest.raises(
            ValueError, match=(f"'{words}' has no score in the plane: expected one of left of")
        ):
            spatial_score(top, MIDDLE, words)
        with pytest.raises(ValueError, match="no score in the plane"):
            t2i_spatial([], ("cat", words, "dog"))
    with pytest.raises(ValueError, match="size = 0"):
        spatial_score(top, MIDDLE, "above", size=0)


CAT, DOG = Detection("cat", moved(-120, 0), 0.8), Detection("dog", MIDDLE, 0.6)
LEFT = ("cat", "on the left of", "dog")


def test_score_of_an_image():
    assert t2i_spatial([DOG, CAT], LEFT) == pytest.approx(0.8 / 4 + 0.6 / 4 + 1 / 2)
    assert t2i_spatial([CAT, DOG], ("dog", "on the left of", "cat")) == 0  # 0.35 alone is below 0.5
    sure = [Detection("cat", CAT.box, 1.0), Detection("dog", DOG.box, 1.0)]
    assert t2i_spatial(sure, ("dog", "on the left of", "cat")) == 0.5  # Which 0.5 is not
    assert t2i_spatial(sure[:1], LEFT) == t2i_spatial([], LEFT) == 0
    part = Detection("cat", moved(-50, 0), 0.7)  # 0.7 / 4 + 0.6 / 4 + 0.3 / 2
    assert t2i_spatial([part, DOG], LEFT) == 0
    assert t2i_spatial([Detection("cat", moved(-50, 0), 0.9), DOG], LEFT) == pytest.approx(
        0.9 / 4 + 0.6 / 4 + 0.15
    )


def test_the_surest_of_a_class_is_taken_above_the_threshold():
    wrong = Detection("cat", moved(120, 0), 0.79)
    assert t2i_spatial([wrong, CAT, DOG], LEFT) == t2i_spatial([CAT, DOG], LEFT)
    assert t2i_spatial([Detection("cat", moved(120, 0), 0.81), CAT, DOG], LEFT) == 0
    unsure = Detection("dog", MIDDLE, 0.5)
    assert t2i_spatial([CAT, unsure], LEFT) == 0
    assert t2i_spatial([CAT, unsure], LEFT, threshold=0.3) == pytest.approx(0.8 / 4 + 0.5 / 4 + 0.5)


def test_specs_of_sentences():
    said = spatial("a cat on the left of a dog")
    assert (
        said is not None
        and t2i_spatial([CAT, DOG], said.wanted) == t2i_spatial([CAT, DOG], LEFT) > 0.5
    )
    turned = spatial("a dog on the left of a cat")
    assert turned is not None and t2i_spatial([CAT, DOG], turned.wanted) == 0
    with pytest.raises(ValueError, match="states no relation"):
        t2i_spatial([CAT], {"tag": "own", "include": [{"class": "cat", "count": 1}]})


@pytest.mark.parametrize("word", ["girl", "boy", "man", "Woman"])
def test_people_are_persons(word: str):
    person = Detection("person", CAT.box, 0.9)
    assert t2i_spatial([person, DOG], (word, "on the left of", "dog")) == pytest.approx(
        0.9 / 4 + 0.6 / 4 + 0.5
    )
    assert (
        t2i_spatial([Detection("sofa", CAT.box, 0.9), DOG], ("couch", "on the left of", "dog"))
        > 0.5
    )


def test_two_of_one_class():
    left, right = Detection("person", CAT.box, 0.6), Detection("person", DOG.box, 0.9)
    for relation in ("on the left of", "on the right of"):
        words = ("boy", relation, "girl")
        # The released code lays one of them beside itself
        assert t2i_spatial([left, right], words) == 0
        assert t2i_spatial([left, right], words, released=False) == pytest.approx(
            0.6 / 4 + 0.9 / 4 + 0.5
        )
    assert t2i_spatial([left, right], ("boy", "on the top of", "girl"), released=False) == 0
    assert t2i_spatial([right], ("boy", "near", "girl")) == pytest.approx(0.95)
    assert t2i_spatial([right], ("boy", "near", "girl"), released=False) == 0


def test_the_scorer_scores_spatial_prompts_alone():
    asked = spatial("a cat on the left of a dog")
    assert asked is not None
    prompts = [
        Prompt("mine", i, i, "", Target([]), i, wanted=wanted)
        for i, wanted in enumerate([asked.wanted, {"tag": "own", "include": [{"class": "cat"}]}])
    ]
    detector = SimpleNamespace(
        name="fixed", facts={"detector": "fixed"}, detect=lambda *_: [[CAT, DOG], []]
    )
    scorer = SpatialScorer(detector, read_requests(prompts, "fixed"))
    columns = scorer.add(prompts, torch.zeros(2, 3, 512, 512, dtype=torch.uint8), ["a", "b"])
    assert columns == {"spatial": [pytest.approx(0.85), None]}
    assert scorer.finish() == {"spatial_other": pytest.approx(0.85)}, "not the benchmark's prompts"
    facts = scorer.facts["spatial_other"]
    assert facts["near_px"] == 150 == NEAR * 512 and facts["released"] and facts["images"] == 1


def test_only_the_benchmarks_validation_prompts_bear_its_name():
    asked = spatial("a cat on the left of a dog")
    assert asked is not None
    prompts = [
        Prompt("spatial_val", i, i, "", Target([]), i, wanted=asked.wanted, benchmark=benchmark)
        for i, benchmark in enumerate([t2i_compbench("spatial_val"), t2i_compbench("spatial")])
    ]
    detector = SimpleNamespace(name="fixed", facts={}, detect=lambda *_: [[CAT, DOG], []])
    scorer = SpatialScorer(detector, read_requests(prompts, "fixed"))
    scorer.add(prompts, torch.zeros(2, 3, 512, 512, dtype=torch.uint8), ["a", "b"])
    assert scorer.finish() == {"spatial": pytest.approx(0.85), "spatial_other": 0}
    assert "1 of 300 prompts" in scorer.facts["spatial"]["prompts_from"]
    assert scorer.facts["spatial_other"]["prompts_from"] == "1 prompt of no benchmark"
