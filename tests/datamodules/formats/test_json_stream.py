"""JSON that is read in parts is what `json.loads` reads, wherever the parts end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.formats import json_stream
from datamodules.formats.json_stream import read_object

CONTENT = {
    "info": {"year": 2017, "images": [1, 2], "share": -1.5e-7},
    "annotations": [
        {"id": i, "text": f'“é” ]}}, \\" {i} 😀', "points": [0.1 * i]} for i in range(9)
    ],
    "empty": [],
    "images": [1.25, -3, None, True, "x", [[]], float("inf")],
    "categories": None,
    "last": 12345.5,
}


def read(path: Path, lists: tuple[str, ...] = ("images", "annotations", "categories")) -> Any:
    found: dict[str, list[Any]] = {}

    def take(name: str, number: int, entry: Any, text: str) -> None:
        assert number == len(found.setdefault(name, [])) and json.loads(text) == entry
        found[name].append(entry)

    content = read_object(path, take, lists, lambda done: None)
    return content | found if isinstance(content, dict) else content


@pytest.mark.parametrize("part", [1, 2, 3, 7, 64, 2**20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_parts_of_any_size_in_any_encoding(
    tmp_path: Path, part: int, encoding: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_stream, "PART", part)
    path = tmp_path / "x.json"
    for indent, ascii_only in ((None, True), (2, False)):
        path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=ascii_only), encoding)
        assert read(path) == CONTENT


@pytest.mark.parametrize("text", ["[]", "null", "{}", ' {"images": []}\n', "[1, 2]", "3.5"])
def test_other_values(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    assert read(tmp_path / "x.json") == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", '{"images": [1, 2', '{"images": [1, ]}', '{"images": [1 2]}', '{"images" [1]}'),
        *('{"a": 1,}', '{"a": tru}', '{"a": 1} x', '{"images": [{"a": }]}', "{a: 1}", '{"a": 1'),
    ],
)
@pytest.mark.parametrize("part", [1, 2**20])
def test_what_is_no_json_is_refused(
    tmp_path: Path, text: str, part: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(json_stream, "PART", part)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError, match="character [0-9]+"):
        read(tmp_path / "x.json")
