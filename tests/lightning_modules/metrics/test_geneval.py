from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from datamodules.formats.benchmarks import GENEVAL
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics import Detection, Target
from lightning_modules.metrics.functional import geneval_correct
from lightning_modules.metrics.geneval import (
    TASKS,
    GenEvalScorer,
    count_included,
    geneval_reasons,
    geneval_scores,
    read_requests,
    relations,
)


def seen(
    label: str,
    x: float = 50,
    y: float = 50,
    score: float = 0.95,
    color: str | None = None,
    half: float = 10,
) -> Detection:
    return Detection(label, (x - half, y - half, x + half, y + half), score, color=color)


def spec(tag: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), **more}


ONE = spec("single_object", {"class": "bench", "count": 1})
TWO = spec("two_object", {"class": "bench", "count": 1}, {"class": "sports ball", "count": 1})
THREE = spec("counting", {"class": "clock", "count": 3}, exclude=[{"class": "clock", "count": 4}])
RED = spec("colors", {"class": "car", "count": 1, "color": "red"})
LEFT = spec(
    "position",
    {"class": "dog", "count": 1},
    {"class": "cat", "count": 1, "position": ["left of", 0]},
)
BOTH = spec(
    "color_attr",
    {"class": "car", "count": 1, "color": "red"},
    {"class": "dog", "count": 1, "color": "black"},
)


def test_objects_must_be_there():
    assert geneval_correct([seen("bench")], ONE) and geneval_correct(
        [seen("bench"), seen("cat")], ONE
    )
    assert geneval_reasons([seen("cat")], ONE) == ["bench: wanted 1, found 0"]
    assert geneval_correct([seen("bench"), seen("sports ball")], TWO)
    assert geneval_reasons([], TWO) == [
        "bench: wanted 1, found 0",
        "sports ball: wanted 1, found 0",
    ]


@pytest.mark.parametrize(
    ("wanted", "threshold"), [(ONE, 0.3), (spec("counting", {"class": "bench", "count": 1}), 0.9)]
)
def test_scores_must_lie_above_the_threshold_of_the_task(wanted: dict, threshold: float):
    assert not geneval_correct([seen("bench", score=threshold)], wanted)
    assert geneval_correct([seen("bench", score=threshold + 1e-6)], wanted)
    assert geneval_correct(
        [seen("bench", score=threshold)], wanted, threshold=0.2, counting_threshold=0.8
    )


def test_counting_is_exact():
    def clocks(n: int) -> list[Detection]:
        return [seen("clock", 10 * i) for i in range(n)]

    assert [geneval_correct(clocks(n), THREE) for n in range(6)] == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    # An unsure fourth does not count
    assert geneval_correct([*clocks(3), seen("clock", score=0.9)], THREE)
    assert geneval_reasons(clocks(5), THREE) == ["clock: wanted fewer than 4, found 5"]
    # Two boxes in one place are two objects: nothing is merged.
    assert geneval_correct([seen("clock"), seen("clock"), seen("clock")], THREE)


def test_at_most_sixteen_of_a_class_are_looked_at():
    crowd = [seen("bird", i) for i in range(20)]
    assert geneval_correct(
        crowd,
        spec("crowd", {"class": "bird", "count": 16}, exclude=[{"class": "bird", "count": 17}]),
    )
    assert not geneval_correct(crowd, spec("crowd", {"class": "bird", "count": 17}))
    assert geneval_correct(crowd, spec("crowd", {"class": "bird", "count": 17}), most=17)
    # The limit is one of each class.
    assert geneval_correct(
        [*crowd, *(seen("cat", i) for i in range(16))], spec("crowd", {"class": "cat", "count": 16})
    )


def test_only_the_surest_are_judged():
    red, blue = seen("car", color="red", score=0.8), seen("car", color="blue", score=0.9)
    assert not geneval_correct([red, blue], RED) and not geneval_correct([blue, red], RED)
    assert geneval_correct([seen("car", color="red", score=0.91), blue], RED)
    two = spec("colors", {"class": "car", "count": 2, "color": "red"})
    assert geneval_reasons([red, blue, red], two) == ["car: wanted red, found 1 blue, 1 red"]
    left, right = seen("cat", 10, score=0.8), seen("cat", 90, score=0.9)
    assert not geneval_correct([left, right, seen("dog", 50)], LEFT)
    assert geneval_correct([left, seen("cat", 90, score=0.7), seen("dog", 50)], LEFT)


def test_colors():
    assert geneval_correct([seen("car", color="Red")], RED)
    assert geneval_reasons([seen("car")], RED) == ["car: wanted red, found 1 no colour"]
    assert geneval_correct(
        [seen("car", color="grey")], spec("colors", {"class": "car", "count": 1, "color": "gray"})
    )
    assert geneval_correct([seen("car", color="red"), seen("dog", color="black")], BOTH)
    swapped = geneval_reasons([seen("car", color="black"), seen("dog", color="red")], BOTH)
    assert swapped == ["car: wanted red, found 1 black", "dog: wanted black, found 1 red"]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (100, 0, {"right of"}),
        (-100, 0, {"left of"}),
        (0, 100, {"below"}),
        (0, -100, {"above"}),
        (100, -100, {"right of", "above"}),  # (96, -96) of a length of 141: 0.68 each
        (100, 50, {"right of"}),  # (96, 46) of 112: 0.86 and 0.41
        # (56, 34) of 71.02: 0.479 down, though 0.519 if the length were the shortened offset's
        (60, 38, {"right of"}),
        (4, 0, set()),  # A tenth of the sides, 40, is no offset
        (4.0005, 0, set()),  # Nor is less than 0.001
        (5, 0, set()),  # 1 of a length of 5
        (9, 0, {"right of"}),  # 5 of 9
        (8, 0, set()),  # 4 of 8 is not beyond a half
        (0, 0, set()),
    ],
)
def test_relations(x: float, y: float, expected: set[str]):
    assert relations((x - 10, y - 10, x + 10, y + 10), (-10, -10, 10, 10)) == expected


def test_large_objects_need_larger_offsets():
    assert relations((30, 0, 50, 20), (0, 0, 20, 20)) == {"right of"}
    # The same 30 to the right, sides of 200
    assert relations((-60, 0, 140, 20), (-90, 0, 110, 20)) == set()


def test_positions():
    dog = seen("dog", 50)
    assert geneval_correct([dog, seen("cat", 10)], LEFT)
    assert geneval_reasons([dog, seen("cat", 90)], LEFT) == [
        "cat: wanted left of dog, found right of"
    ]
    assert geneval_reasons([dog, seen("cat", 50)], LEFT) == [
        ("cat: wanted left of dog, found neither side")
    ]
    assert geneval_reasons([seen("cat", 10)], LEFT) == [
        "dog: wanted 1, found 0",
        ("cat: wanted left of a thing that is wrong itself"),
    ]
    # Every one of a kind beside every one of the other.
    many = spec(
        "own",
        {"class": "dog", "count": 2},
        {"class": "cat", "count": 2, "position": ["left of", 0]},
    )
    dogs, cats = [seen("dog", 50), seen("dog", 80)], [seen("cat", 10), seen("cat", 20)]
    assert geneval_correct([*dogs, *cats], many)
    assert not geneval_correct([*dogs, cats[0], seen("cat", 65)], many)
    # A dog in the wrong colour is none that a cat could stand beside.
    red = spec(
        "own",
        {"class": "dog", "count": 1, "color": "red"},
        {"class": "cat", "count": 1, "position": ["left of", 0]},
    )
    assert len(geneval_reasons([dog, seen("cat", 10)], red)) == 2


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("computer mouse", "mouse"),
        ("tv remote", "remote"),
        ("computer keyboard", "keyboard"),
        ("tv", "tvmonitor"),
        ("couch", "sofa"),
        ("dining table", "diningtable"),
        ("potted plant", "pottedplant"),
        ("airplane", "aeroplane"),
        ("motorcycle", "motorbike"),
        ("Traffic light", "traffic_light"),
    ],
)
def test_classes_by_their_other_names(asked: str, found: str):
    assert geneval_correct([seen(found)], spec("single_object", {"class": asked, "count": 1}))
    assert not geneval_correct([seen(found)], spec("own", {"class": "cat", "count": 1}))
    assert not geneval_correct(
        [seen(found)],
        spec("own", {"class": asked, "count": 1}, exclude=[{"class": asked, "count": 1}]),
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"tag": "own"}, "includes nothing"),
        (spec("own", {"count": 1}), "expected a class"),
        (spec("own", {"class": "cat", "count": 0}), "a count from 1 on"),
        (
            spec("own", {"class": "cat"}, {"class": "dog", "position": ["near", 0]}),
            "'near' has no rule in GenEval: .* left of",
        ),
        (spec("own", {"class": "cat", "position": ["above", 0]}), "earlier thing"),
        (
            spec("own", {"class": "cat"}, {"class": "dog", "position": ["above", 1]}),
            "earlier thing",
        ),
    ],
)
def test_specs_that_cannot_be_judged(wanted: dict, message: str):
    with pytest.raises(ValueError, match=message):
        geneval_correct([seen("cat")], wanted)


def test_overall_is_the_mean_of_tasks_not_of_images():
    results = [(0, "single_object", right) for right in (True, True, True, False)]
    results += [(1, "two_object", False), (1, "two_object", True)]
    results += [(prompt, TASKS[prompt], False) for prompt in range(2, 6)]
    scores = geneval_scores(results)
    assert [scores[f"task/{task}"] for task in TASKS] == [0.75, 0.5, 0, 0, 0, 0]
    assert scores["overall"] == pytest.approx(1.25 / 6) and scores["images_right"] == 4 / 10
    assert scores["prompts_right"] == 2 / 6
    assert (scores["n_images"], scores["n_prompts"], scores["n_tasks"]) == (10, 6, 6)
    with pytest.raises(ValueError, match="no image"):
        geneval_scores([])


def test_a_task_is_a_mean_over_images():
    results = [(0, "single_object", True), *[(1, "single_object", False)] * 3]
    scores = geneval_scores(results)
    assert scores["task/single_object"] == scores["tasks_mean"] == 0.25 and scores["n_tasks"] == 1
    assert scores["prompts_right"] == 0.5
    assert "overall" not in scores, "GenEval's score is that of all its tasks"


def prompt(index: int, wanted: dict | None, split: str = "mine") -> Prompt:
    return Prompt(split, index, index, "", Target([]), index, wanted=wanted)


class Fixed:
    """A detector that finds what it is given."""

    name, facts = "fixed", {"detector": "fixed"}

    def __init__(self, *rows: list[Detection]) -> None:
        self.rows = list(rows)

    def detect(self, images: torch.Tensor, names: Any = None) -> list[list[Detection]]:
        return self.rows


def test_the_scorer_counts_by_split_and_what_it_cannot_judge():
    near = {
        "tag": "spatial",
        "include": [{"class": "cat"}, {"class": "dog", "position": ["near", 0]}],
    }
    far = {"tag": "own", "include": [{"class": "cat"}, {"class": "dog", "position": ["far", 0]}]}
    prompts = [
        prompt(0, ONE),
        prompt(1, near),
        prompt(0, RED, "other"),
        prompt(2, far),
        prompt(3, None),
    ]
    requests = read_requests(prompts, "fixed")
    assert list(requests.specs) == [("mine", 0), ("other", 0)]
    assert list(requests.spatial) == [("mine", 1)] and requests.unjudged == 1
    scorer = GenEvalScorer(Fixed([seen("bench")], [], [seen("car")], [], []), requests)
    columns = scorer.add(prompts, torch.zeros(5, 3, 8, 8, dtype=torch.uint8), list("abcde"))
    assert columns == {"success": [True, None, False, None, None]}
    values = scorer.finish()
    assert (values["success"], values["success_mine"], values["success_other"]) == (0.5, 1, 0)
    # By class alone: the car is there, in no colour
    assert values["at_least_1"] == 1 and "at_least_2" not in values
    assert scorer.columns["at_least_1"] == [True, None, True, None, None]
    facts = scorer.facts["success"]
    assert facts["detector"] == "fixed" and facts["prompts_not_judged"] == 1
    assert facts["tasks"] == ["single_object", "colors"] and "counting" in facts["missing_tasks"]


def test_named_things_are_counted_by_class_and_count_alone():
    """A cat right of a dog that should be left of it; two clocks of three."""
    assert count_included([seen("cat", 20), seen("dog", 80)], LEFT) == 2
    assert count_included([seen("dog"), seen("cat", score=0.2)], LEFT) == 1
    assert count_included([seen("clock", 10 * i) for i in range(2)], THREE) == 0
    assert count_included([seen("clock", 10 * i) for i in range(4)], THREE) == 1
    images = [[seen("bench"), seen("sports ball")], [seen("bench")], []]
    requests = read_requests([prompt(i, TWO) for i in range(3)], "fixed")
    scorer = GenEvalScorer(Fixed(*images), requests)
    scorer.add([prompt(i, TWO) for i in range(3)], torch.zeros(3, 3, 8, 8).byte(), list("abc"))
    values = scorer.finish()
    assert (values["at_least_1"], values["at_least_2"]) == (2 / 3, 1 / 3)


def test_prompts_that_ask_for_nothing_are_refused():
    with pytest.raises(ValueError, match="no prompt says what it wants"):
        read_requests([prompt(0, None)], "fixed")
    with pytest.raises(ValueError, match="wants what can be judged"):
        read_requests([prompt(0, {"tag": "own", "include": [{"count": 1}]})], "fixed")
    with pytest.raises(ValueError, match="has no tag"):
        read_requests([prompt(0, {"include": [{"class": "cat"}]})], "fixed")


@pytest.mark.parametrize("left_out", [None, "counting"])
def test_a_score_without_a_task_is_not_called_geneval(left_out: str | None):
    specs = [ONE, TWO, THREE, RED, LEFT, BOTH]
    asked = [
        dataclasses.replace(prompt(i, wanted), benchmark=GENEVAL, stratum=(wanted["tag"],))
        for i, wanted in enumerate(specs)
        if wanted["tag"] != left_out
    ]
    # Prompts of one's own beside them are in the mean of tasks, not in GenEval's
    asked.append(prompt(9, spec("pets", {"class": "cat", "count": 1})))
    scorer = GenEvalScorer(
        Fixed(*[[seen("bench")] for _ in asked[:-1]], [seen("cat")]), read_requests(asked, "fixed")
    )
    scorer.add(asked, torch.zeros(len(asked), 3, 8, 8, dtype=torch.uint8), ["x"] * len(asked))
    values = scorer.finish()
    number = len(asked)
    assert values["tasks_mean"] == pytest.approx(2 / number)
    facts = scorer.facts["success"]
    if left_out is None:
        assert values["overall"] == pytest.approx(1 / 6)
        assert "6 of 553 prompts" in facts["prompts_from"]
    else:
        assert math.isnan(values["overall"])
        assert scorer.facts["overall"]["undefined"] == "no prompts of counting"
        assert "no score is called GenEval's: no prompts of counting" in facts["prompts_from"]
        assert facts["missing_tasks"] == ["counting"]


def test_the_rules_over_other_prompts_are_not_called_geneval():
    specs = [ONE, TWO, THREE, RED, LEFT, BOTH]
    asked = [prompt(i, wanted) for i, wanted in enumerate(specs)]
    scorer = GenEvalScorer(Fixed(*[[] for _ in asked]), read_requests(asked, "fixed"))
    scorer.add(asked, torch.zeros(6, 3, 8, 8, dtype=torch.uint8), ["x"] * 6)
    values = scorer.finish()
    assert values["tasks_mean"] == 0 and "overall" not in values
    assert scorer.facts["tasks_mean"]["prompts_from"] == "6 prompts of no benchmark"
