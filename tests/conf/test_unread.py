"""Settings of data that nothing would read are refused, for every data set."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from conf import load as conf
from conf.conditions import check_read, find_unread, list_changed_data
from conf.data.shapes import Careless
from conf.describe import describe
from conf.schema import Data, Run
from conf.spec import data_sets

COMPOSED = {"objects": 3, "concept_draw": "batch", "joins": ["and"], "article": "none"}
# Data set -> settings that it does not read, with values other than their defaults
UNREAD: dict[str, dict[str, Any]] = {
    "shapes": {
        **{"layout": "coco2017", "train_split": "nope", "split_by": "all", "detokenise": True},
        **{"subjects": 3, "singular": "none"},
    },
    "coco": {"split_by": "all", "detokenise": True, "subjects": 3},
    "flickr30k": {"subjects": 3},
    "imagefolder": {"split_by": "all", "detokenise": True, "subjects": 3},
    "prompts": {
        **{"train_split": "val", "split_by": "all", "detokenise": True, "singular": "all"},
        **{"verify": "full", "mask_share": 0.1, "flip": True, "subjects": 3},
    },
    "scene": {
        **{"train_split": "val", "min_phrases": 2, "tagger": "en_core_web_sm", "singular": "one"},
        **{"layout": "coco", "on_error": "raise", "verify": "full", "mask_share": 0.1},
        **{"subjects": 3, "split_by": "all", "detokenise": True},
        **{"train_images": 7, "eval_images": 7},
    },
}


def run_of(data: str, **settings: Any) -> Run:
    return Run(data=Data(name=data, root="/data", **settings))


def unread_data(config: Run) -> dict[str, Any]:
    return find_unread(config, list_changed_data(config))


@pytest.mark.parametrize(
    ("data", "name", "value"),
    [(data, *pair) for data, one in UNREAD.items() for pair in (one | COMPOSED).items()],
)
def test_a_setting_that_nothing_reads_is_refused(data: str, name: str, value: Any) -> None:
    config, key = run_of(data, **{name: value}), f"data.{name}"
    with pytest.raises(ValueError, match=rf"data\.{name}=.* with data.*: nothing reads it"):
        check_read([config], [key])
    # Whoever has set it; a default of other data is no such value
    assert (key in list_changed_data(config)) != bool(describe(Run).settings[key].embedded)
    assert unread_data(run_of(data)) == {}


def test_every_data_set_is_looked_at() -> None:
    assert data_sets().keys() == UNREAD.keys()
    names = {field.name for field in dataclasses.fields(Data)}
    for name, spec in data_sets().items():
        config = run_of(name)
        rendered = {"zipf", "careless"} if name != "shapes" else set()
        assert {*spec.unread(config)} == {*UNREAD[name]} | rendered <= names


def test_what_is_read_or_has_its_default_passes() -> None:
    concepts = {**COMPOSED, "concepts": ["red ring", "blue cross"]}
    assert unread_data(run_of("prompts", layout="geneval", **concepts)) == {}
    assert unread_data(run_of("coco", train_split="train2017", min_phrases=2)) == {}
    scene = Run(data=Data(name="scene", root="auto", subjects=3))
    assert unread_data(scene) == {}
    for key in describe(Run).settings:
        assert key not in unread_data(Run())


@pytest.mark.parametrize("data", ["coco", "flickr30k", "imagefolder", "prompts", "scene"])
def test_only_rendered_captions_are_careless(data: str) -> None:
    changes = {"zipf": 1.0, "careless": Careless(left_out=0.1)}
    for name, key in {"zipf": "data.zipf", "careless": "data.careless.left_out"}.items():
        with pytest.raises(ValueError, match=rf"{key}=.* with data={data}: nothing reads it"):
            check_read([run_of(data, **{name: changes[name]})], [key])
        check_read([run_of("shapes", **{name: changes[name]})], [key])


def test_one_run_that_reads_it_is_enough() -> None:
    composed = run_of("shapes", objects=3, concepts=["red ring", "blue cross", "cyan ring"])
    captions = conf.replace(composed, {"data.concepts": []})
    check_read([captions, composed], ["data.objects"])
    with pytest.raises(ValueError, match=r"data\.objects=3 with data\.concepts=\[\]"):
        check_read([captions], ["data.objects"])
