from __future__ import annotations

import pytest

from lightning_modules.metrics.detection import (
    Detection,
    Target,
    at_least_columns,
    at_least_rates,
    composition_rates,
    judge_image,
    match,
    relation_holds,
    smallest_of_best_assignment,
    why_not_at_least,
)


def seen(color: str, shape: str, x: float = 20, y: float = 20, score: float = 0.9) -> Detection:
    return Detection(shape, (x - 5, y - 5, x + 5, y + 5), score, color=color)


RED_LEFT_OF_BLUE = Target([("red", "circle"), ("blue", "square")], "left of")


def test_all_right():
    verdict = judge_image([seen("blue", "square", 50), seen("red", "circle", 20)], RED_LEFT_OF_BLUE)
    assert verdict.success and verdict.relation is True
    assert (verdict.objects, verdict.colors, verdict.shapes, verdict.extra) == (2, 2, 2, 0)


def test_swapped_colors_keep_color_and_shape_rates():
    verdict = judge_image([seen("blue", "circle"), seen("red", "square")], RED_LEFT_OF_BLUE)
    assert not verdict.success
    counts = (verdict.objects, verdict.colors, verdict.shapes, verdict.extra)
    assert counts == (0, 2, 2, 2) and verdict.relation is False


def test_wrong_color_is_one_missing_and_one_extra():
    verdict = judge_image([seen("red", "circle"), seen("green", "square")], RED_LEFT_OF_BLUE)
    counts = (verdict.objects, verdict.colors, verdict.shapes, verdict.extra)
    assert counts == (1, 1, 2, 1) and verdict.relation is False


def test_extra_objects_do_not_spoil_success():
    verdict = judge_image(
        [seen("red", "circle", 50), seen("blue", "square", 20), seen("red", "ring")],
        RED_LEFT_OF_BLUE,
    )
    assert verdict.success and verdict.extra == 1 and verdict.relation is False


def test_empty_image():
    verdict = judge_image([], RED_LEFT_OF_BLUE)
    assert (verdict.success, verdict.objects, verdict.extra) == (False, 0, 0)
    assert verdict.relation is False


def test_one_detection_serves_one_wanted_object():
    twice = Target([("red", "circle"), ("red", "circle")])
    assert not judge_image([seen("red", "circle")], twice).success
    verdict = judge_image([seen("red", "circle")], twice)
    assert (verdict.objects, verdict.colors, verdict.shapes) == (1, 1, 1)
    assert judge_image([seen("red", "circle"), seen("red", "circle", 50)], twice).success


def test_the_surest_detection_is_taken():
    weak, strong = seen("red", "circle", 10, score=0.6), seen("red", "circle", 50, score=0.8)
    assert match([weak, strong], [("red", "circle")]) == [strong]
    assert match([weak, strong], [("red", "circle"), ("red", "circle"), ("red", "circle")]) == [
        strong,
        weak,
        None,
    ]


@pytest.mark.parametrize(
    ("relation", "first", "holds"),
    [
        ("left of", (10, 22), True),
        ("left of", (30, 20), False),
        ("right of", (30, 20), True),
        ("above", (22, 10), True),
        ("above", (20, 30), False),
        ("below", (20, 30), True),
        ("left of", (15, 40), False),  # A little left, but mostly below
        ("below", (15, 40), True),
        ("left of", (10, 10), False),  # Exactly diagonal is neither
        ("left of", (20, 20), False),
    ],
)
def test_relation(relation, first, holds):
    assert relation_holds(first, (20, 20), relation) is holds


def test_borders_are_checked():
    with pytest.raises(ValueError, match="'under' is unknown"):
        relation_holds((0, 0), (1, 1), "under")
    with pytest.raises(ValueError, match="without objects"):
        judge_image([], Target([]))
    with pytest.raises(ValueError, match="needs two objects"):
        judge_image([], Target([("red", "circle")], "above"))


def test_best_assignment():
    # 0.2 and 0.8 beat 0.9 and 0.1
    assert smallest_of_best_assignment([[0.9, 0.2], [0.8, 0.1]]) == 0.2
    assert smallest_of_best_assignment([[0.3, 0.7, 0.1]]) == 0.7
    assert smallest_of_best_assignment([[0.9], [0.9]]) == 0.0
    assert smallest_of_best_assignment([[]]) == 0.0
    with pytest.raises(ValueError, match="no wanted object"):
        smallest_of_best_assignment([])


ONE = Target([("green", "cross")])
CASES = [
    ([seen("red", "circle", 10), seen("blue", "square", 40)], RED_LEFT_OF_BLUE),  # Right
    ([seen("red", "circle", 40), seen("blue", "square", 10)], RED_LEFT_OF_BLUE),  # Wrong relation
    # Colour and shape of one each, two extra
    ([seen("red", "square", 40), seen("white", "ring", 10)], RED_LEFT_OF_BLUE),
    ([seen("green", "cross")], ONE),
]


def test_rates_over_images():
    verdicts = [judge_image(*case) for case in CASES]
    assert composition_rates(verdicts) == {
        "success": 3 / 4,
        "object_rate": 5 / 7,
        "color_rate": 6 / 7,
        "shape_rate": 6 / 7,
        "extra_objects": 2 / 4,
        "at_least_1": 3 / 4,
        "at_least_2": 2 / 3,  # Of the images that should show two
        "n_images": 4.0,
        "relation_rate": 1 / 3,  # A missing object counts as wrong
        "relation_given_success": 1 / 2,  # but not here
    }
    assert "relation_rate" not in composition_rates(verdicts[3:])
    none_right = composition_rates(verdicts[2:3])
    assert none_right["relation_rate"] == 0 and "relation_given_success" not in none_right
    with pytest.raises(ValueError, match="no image"):
        composition_rates([])


def test_in_how_many_images_so_many_of_the_named_objects_are_found():
    """MultiGen: four images of three objects, of which 3, 2, 2 and 0 are there, one of a single
    object, one that nobody judged."""
    counts = [(3, 3), (2, 3), (2, 3), (0, 3), (1, 1), None]
    assert at_least_rates(counts) == {"at_least_1": 4 / 5, "at_least_2": 3 / 4, "at_least_3": 1 / 4}
    assert at_least_columns(counts)["at_least_2"] == [True, True, True, False, None, None]
    assert at_least_rates([None]) == {} and "at_least_6" not in at_least_rates([(7, 7)])
    assert why_not_at_least([3, 1]) == {
        "at_least_4": "no prompt names 4 objects or more",
        "at_least_5": "no prompt names 5 objects or more",
    }
