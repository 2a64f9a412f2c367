"""What a run on subjects and masks refuses before anything is loaded, and what may change after its
training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from conf.schema import Run
from lightning_modules.training.checks import check
from lightning_modules.training.run import run, training_key

SCENE = {"data.name": "scene"}
TWO = {**SCENE, "method.subjects.tokens": ["<a>", "<b>"]}


def masked(base: Run, changes: dict[str, Any]) -> Run:
    return conf.replace(base, {"method.name": "mcgm", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method.name": "maskattn", **SCENE},
            ("method=maskattn with data=scene: a scene is for break_a_scene, mcgm"),
        ),
        (
            {"method.subjects.tokens": ["<a>"]},
            (
                r"tokens=\['<a>'\] with data=shapes: placeholders are learnt "
                r"from a scene; set data=scene"
            ),
        ),
        (
            {
                "method.subjects.tokens": ["<a>"],
                "data.name": "coco",
                "data.root": "/x",
                "evaluation.prompts": 0,
            },
            r"tokens=\['<a>'\] with data=coco: placeholders",
        ),
        (
            {**TWO, "method.subjects.classes": ["dog"]},
            (r"classes=\['dog'\]: 1 classes for 2 tokens; " r"give one word for each"),
        ),
        (
            {"method.subjects.schedule": "tokens_only"},
            ("schedule=tokens_only with data=shapes: there are no tokens; set data=scene"),
        ),
        (
            {"method.weights.trainable": "none", "method.masks.trained": False},
            ("weights.trainable=none with data=shapes: nothing would be trained"),
        ),
        (
            {**SCENE, "backbone.resolution": 512},
            ("backbone.resolution=512 with data=scene: the embedded world has 64 pixels"),
        ),
        (
            {**SCENE, "data.root": "/x"},
            (
                "evaluation.detector=judge with data.name='scene': the judge knows only the "
                "embedded world"
            ),
        ),
        (
            {"evaluate_with": {"method.weights.rank": 4}},
            ("method.weights.rank cannot change after training"),
        ),
        (
            {**TWO, "evaluate_with": {"method.subjects.tokens": ["<c>", "<d>"]}},
            ("method.subjects.tokens cannot change after training"),
        ),
    ],
)
@pytest.mark.parametrize("name", ["mcgm", "break_a_scene"])
def test_what_does_not_go_together_is_said_before_anything_is_written(
    base: Run, tmp_path: Path, name: str, changes: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message) as caught:
        run(masked(base, {"method.name": name} | changes), tmp_path / "trial")
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "trial").exists()


@pytest.mark.parametrize("setting", ["encoder", "text_binding"])
def test_tokens_of_trained_masks_cannot_change(base: Run, setting: str):
    value = {"encoder": "conv", "text_binding": "none"}[setting]
    changes = {"method.masks.token_scale": 1.0, f"method.masks.{setting}": value}
    with pytest.raises(ValueError, match=f"^method.masks.{setting} cannot change after training"):
        check(masked(base, {"evaluate_with": changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        SCENE,
        {**TWO, "method.subjects.classes": ["dog", ""]},
        {**SCENE, "method.subjects.classes": ["dog", "cat"]},
        {**TWO, "method.subjects.schedule": "tokens_only"},
        {**SCENE, "data.root": "/x", "evaluation.prompts": 0, "backbone.resolution": 512},
        {**SCENE, "method.name": "untouched"},
        {**SCENE, "data.train_images": 1},
        {**SCENE, "method.name": "break_a_scene"},
    ],
)
def test_what_goes_together_passes(base: Run, changes: dict[str, Any]):
    check(masked(base, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"method.masks.token_scale": 1.0},
        {"method.masks.mask_scope": "everywhere"},
        {"evaluation.follow_masks": True, "evaluation.masks": "wrong"},
        {"evaluation.turn": 45.0, "evaluation.mirror": True, "method.masks.token_scale": 0.0},
    ],
)
def test_use_may_change_after_training_and_shares_the_adapter(base: Run, changes: dict[str, Any]):
    plain, later = masked(base, {}), masked(base, {"evaluate_with": changes})
    check(later)
    assert training_key(later) == training_key(plain)
    used = conf.to_dict(conf.with_eval_overrides(later))
    for key, value in changes.items():
        found: Any = used
        for part in key.split("."):
            found = found[part]
        assert found == value
    assert conf.with_eval_overrides(later).method.weights == plain.method.weights


@pytest.mark.parametrize(
    "changes",
    [
        {"method.masks.lambda_m": 0.5},
        {"method.masks.token_scale": 1.0},
        {"method.masks.dropout": 0.9},
    ],
)
def test_training_with_other_masks_makes_another_adapter(base: Run, changes: dict[str, Any]):
    assert training_key(masked(base, changes)) != training_key(masked(base, {}))
