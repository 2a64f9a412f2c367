"""Annotations that msgspec reads are kept as those that the standard library reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from datamodules.formats.coco_entries import Annotation, ImagesById, keep
from datamodules.formats.index import Problems

TRIANGLE = [[1, 2.5, 30, 4, 5.25, 60]]
OBJECT = {"id": 5, "image_id": 7, "category_id": 18, "segmentation": TRIANGLE, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"id": "5", "image_id": "a", "category_id": None},
        {"segmentation": [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12.5]]},
        {"segmentation": [1, 2, 3, 4, 5, 6]},
        {"segmentation": [[1, 2, 3], [1, 2, 3, 4, 5, 6]]},
        {"segmentation": [[1, 2, None, 4, 5, 6], TRIANGLE[0]]},
        {"segmentation": [[True, 2, 3, 4, 5, 6]]},
        {"segmentation": [[2**70, 2, 3, 4, 5, 6]]},
        {"segmentation": [[10**400, 2, 3, 4, 5, 6]]},
        {"segmentation": []},
        {"segmentation": None, "bbox": None},
        {"segmentation": "x"},
        {"segmentation": {"size": [4, 4], "counts": [3, 13]}},
        {"segmentation": {"size": [4, 4], "counts": "é\\"}},
        {"segmentation": {"size": None}},
        {"bbox": [[1, 2], 3]},
        {"bbox": ["1", 2]},
        {"bbox": {"x": 1}},
        {"iscrowd": 1},
        {"is_crowd": "true"},
        {"iscrowd": None, "is_crowd": 1},
        {"iscrowd": [1]},
        {"attributes": {"color": "red"}},
        {"attributes": {"color": {"r": [1, 2.5]}}},
        {"attributes": [1]},
        {"caption": "a dog", "relation": "left of"},
        {"caption": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("without", [(), ("category_id",), ("segmentation", "bbox"), ("id",)])
def test_both_ways_keep_the_same(more: dict[str, Any], without: tuple[str, ...]):
    given = {key: value for key, value in (OBJECT | more).items() if key not in without}
    text = json.dumps(given)
    fast = keep(msgspec.json.decode(text, type=Annotation))
    slow = keep(json.loads(text), text)
    assert fast == slow and (fast.what, fast.key_json) == (slow.what, slow.key_json)
    if fast.outline is not None:
        assert fast.outline.ends == slow.outline.ends


def test_numbers_of_polygons_and_boxes_stay_as_they_are_written():
    text = (
        '{"id": 1, "category_id": 2, "bbox": [1.50, 2e1,\n 3, 4],'
        '"segmentation":[[ 1.10, 2,\n 3E0, 4, -0, 6 ]]}'
    )
    kept = keep(msgspec.json.decode(text, type=Annotation))
    assert kept.box == "[1.50,2e1,3,4]" and kept.outline is not None
    assert kept.outline.text == "[[1.10,2,3E0,4,-0,6]]"
    assert kept.outline.bounds == (0, 2, 3, 6) and kept.outline.ends == (3, 6)


def test_a_whole_number_with_a_point_is_an_id(tmp_path: Path) -> None:
    images, problems = ImagesById(), Problems("skip")
    record = images.add(1.0, "a.jpg", tmp_path / "f.json", problems)
    assert record is not None and record.id == 1 and images.find(1, "annotation 3") is record
    assert images.add(1.5, "b.jpg", tmp_path / "f.json", problems) is None
