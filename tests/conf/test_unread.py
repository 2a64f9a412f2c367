"""Settings of data that nothing would read are refused, for every data set."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from conf import load as conf
from conf.describe import describe
from conf.schema import Data, Run
from conf.spec import data_sets
from conf.unread import check_read, explain_unread

COMPOSED = {"objects": 3, "concept_draw": "batch", "joins": ["and"], "article": "none"}
# Data set -> settings that it does not read, with values other than their defaults
UNREAD: dict[str, dict[str, Any]] = {
    "shapes": {
        **{"layout": "coco2017", "train_split": "nope", "split_by": "all", "detokenise": True},
        "subjects": 3,
    },
    "coco": {"split_by": "all", "detokenise": True, "subjects": 3},
    "flickr30k": {"subjects": 3},
    "prompts": {
        **{"train_split": "val", "split_by": "all", "detokenise": True, "singular": "all"},
        **{"verify": "full", "mask_share": 0.1, "flip": True, "subjects": 3},
    },
    "scene": {
        **{"train_split": "val", "min_phrases": 2, "tagger": "en_core_web_sm", "singular": "one"},
        **{"layout": "coco", "on_error": "raise", "verify": "full", "mask_share": 0.1},
        **{"subjects": 3, "split_by": "all", "detokenise": True},
    },
}


def run_of(data: str, **settings: Any) -> Run:
    return Run(data=Data(name=data, root="/data", **settings))


@pytest.mark.parametrize(
    ("data", "name", "value"),
    [(data, *pair) for data, one in UNREAD.items() for pair in (one | COMPOSED).items()],
)
def test_a_setting_that_nothing_reads_is_refused(data: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"data\.{name}=.* with data.*nothing reads it there"):
        check_read([run_of(data, **{name: value})])
    check_read([run_of(data)])


def test_every_data_set_is_looked_at() -> None:
    assert data_sets().keys() == UNREAD.keys()
    names = {field.name for field in dataclasses.fields(Data)}
    for name, spec in data_sets().items():
        config = run_of(name)
        assert {*spec.unread(config)} == {*UNREAD[name]} <= names


def test_what_is_read_or_has_its_default_passes() -> None:
    concepts = {**COMPOSED, "concepts": ["red ring", "blue cross"]}
    assert explain_unread(run_of("prompts", layout="geneval", **concepts)) == {}
    assert explain_unread(run_of("coco", train_split="train2017", min_phrases=2)) == {}
    scene = Run(data=Data(name="scene", root="auto", subjects=3))
    assert explain_unread(scene) == {}
    for key in describe(Run).settings:
        assert key not in explain_unread(Run())


def test_one_run_that_reads_it_is_enough() -> None:
    composed = run_of("shapes", objects=3, concepts=["red ring", "blue cross", "cyan ring"])
    captions = conf.replace(composed, {"data.concepts": []})
    check_read([captions, composed])
    with pytest.raises(ValueError, match=r"data\.objects=3 with data\.concepts=\[\]"):
        check_read([captions])
