"""JSON that is read in parts is what `json.loads` reads, wherever the parts end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
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


class Wanted(msgspec.Struct):
    id: Any = None
    text: Any = None
    inner: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


ODD = [
    {"id": 1, "text": "plain", "inner": [{"a": 1}, {"b": 2}]},
    {"id": 2, "text": "}, {", "more": {"id": 7}},
    {"id": 10**30, "text": -0.0, "inner": {"a": [1e-9, 1e22]}},
    {"id": float("nan"), "text": float("inf")},
    {"id": 3, "text": "\ud800"},
    None,
    {"text": "no id"},
    [{"id": 4}, {"id": 5}],
    {"id": "x", "text": "😀\\", "inner": None},
    {},
    *({"id": i, "text": str(i)} for i in range(20)),
]


@pytest.mark.parametrize("part", [1, 7, 64, 300, 2**20])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("entries", [ODD, ODD[10:], ODD[:3], [], [1, 2], [None]])
def test_entries_of_a_kind_are_those_that_json_reads(
    tmp_path: Path, part: int, indent: int | None, entries: list[Any], monkeypatch: Any
):
    monkeypatch.setattr(json_stream, "PART", part)
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": entries, "last": [1]}, indent=indent))
    found: list[Any] = []

    def take(name: str, number: int, entry: Any, text: str) -> None:
        assert name == "images" and number == len(found)
        assert bool(text) != isinstance(entry, Wanted)
        found.append(entry)

    kinds = {"images": Wanted}
    rest = read_object(path, take, ("images",), lambda done: None, kinds)
    assert rest == {"images": [], "last": [1]}
    for entry, expected in zip(found, json.loads(path.read_text())["images"], strict=True):
        if isinstance(entry, Wanted):
            given = isinstance(entry.inner, msgspec.Raw)
            inner = json.loads(bytes(entry.inner)) if given else None
            one = {"id": entry.id, "text": entry.text, "inner": inner}
            assert repr(one) == repr({key: expected.get(key) for key in one})
        else:
            assert repr(entry) == repr(expected)
    odd = [entry for entry in found if not isinstance(entry, Wanted)]
    # NaN, half a surrogate pair, and what is no object
    assert len(odd) == (4 if entries is ODD else len(entries) if entries in ([1, 2], [None]) else 0)


def test_many_entries_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": ODD[10:] * 50}))
    scanned: list[Any] = []
    real = json_stream._Source.value

    def value(source: Any) -> Any:
        scanned.append(real(source))
        return scanned[-1]

    monkeypatch.setattr(json_stream._Source, "value", value)
    found: list[Any] = []
    take = lambda name, number, entry, text: found.append(entry)  # noqa: E731
    read_object(path, take, ("images",), lambda done: None, {"images": Wanted})
    assert len(found) == 1000 and len(scanned) < 10


@pytest.mark.parametrize(
    "text", ['[{"id": 1}, {"id": 01}, {"id": 2}]', '[{"id": 1}, {"id": 2} {}]']
)
def test_what_is_no_json_among_entries_of_a_kind_is_refused(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(f'{{"images": {text}}}')
    ignore = lambda *given: None  # noqa: E731
    with pytest.raises(ValueError, match="character [0-9]+"):
        read_object(tmp_path / "x.json", ignore, ("images",), ignore, {"images": Wanted})
