"""What prompts of the embedded world ask of their images."""

from __future__ import annotations

import pytest

from conf.data.shapes import SPLITS
from datamodules.shapes.captions import draw_prompt
from datamodules.shapes.scenes import sample_scene
from datamodules.shapes.vocabulary import PLAIN
from lightning_modules.embedded.targets import read_target
from lightning_modules.metrics.detection import Detection, judge_image


@pytest.mark.parametrize("split", SPLITS)
def test_an_image_is_right_for_its_own_prompt_in_everything(split: str):
    for i in range(20):
        scene = sample_scene(split, i)
        shown = [
            Detection(
                t.shape, t.box, 1.0, color=t.color, size=t.size or "medium", pattern=t.pattern
            )
            for t in scene.things
        ]
        target = read_target(draw_prompt(split, i, scene).text)
        verdict = judge_image(shown, target)
        assert verdict.success and verdict.extra == 0
        assert False not in (verdict.relation, verdict.size, verdict.pattern, verdict.count)
        assert (verdict.size is None) == (not any(t.size for t in scene.things))
        assert (verdict.count is None) == all(len(group) == 1 for group in scene.groups)
        if any(t.pattern != PLAIN for t in scene.things):
            assert verdict.pattern


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        ([("red", "large", "plain"), ("blue", "medium", "dotted")], (True, True, True)),
        ([("red", "medium", "plain"), ("blue", "medium", "dotted")], (True, False, True)),
        ([("red", "large", "plain"), ("blue", "medium", "striped")], (True, True, False)),
        ([("red", "large", "plain")], (False, True, False)),
        ([], (False, False, False)),
    ],
)
def test_sizes_and_patterns_are_judged_apart(seen: list, right: tuple):
    target = read_target("a large red ring and a dotted blue ring")
    shown = [
        Detection("ring", (0, 0, 9, 9), 1.0, color=color, size=size, pattern=pattern)
        for color, size, pattern in seen
    ]
    verdict = judge_image(shown, target)
    assert (verdict.success, verdict.size, verdict.pattern) == right


def test_a_number_is_right_where_there_are_so_many_and_no_more():
    target = read_target("two red rings and a blue cross")
    assert target.objects == [("red", "ring"), ("red", "ring"), ("blue", "cross")]
    for rings, success, count in ((1, False, False), (2, True, True), (3, True, False)):
        shown = [Detection("ring", (0, 0, 9, 9), 1.0, color="red")] * rings
        shown += [Detection("cross", (0, 0, 9, 9), 1.0, color="blue")] * 2
        verdict = judge_image([Detection(**vars(one)) for one in shown], target)
        assert (verdict.success, verdict.count) == (success, count)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a circle and a red ring", "'circle' in the prompt .* has no colour"),
        ("some red rings", "'red rings' in the prompt .* has no number"),
    ],
)
def test_what_cannot_be_judged_is_refused(prompt: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_target(prompt)
