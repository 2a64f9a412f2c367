"""Files of prompts in the forms and sizes of published benchmarks, sorted as these are."""

from __future__ import annotations

import json
from pathlib import Path

# As published (arXiv 2310.11513, evaluation_metadata.jsonl)
GENEVAL_TASKS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}
THINGS = (
    *("bench", "cow", "bicycle", "clock", "carrot", "suitcase", "fork", "surfboard", "cup", "sink"),
    *("microwave", "giraffe", "donut", "toaster", "zebra", "bus", "car", "train", "truck", "boat"),
    *("bird", "cat", "dog", "horse", "sheep", "bear", "backpack", "refrigerator"),
)
COLORS = (
    *("red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "black", "white"),
)


def write_geneval(path: Path, tasks: dict[str, int] = GENEVAL_TASKS) -> Path:
    """``tasks``: how many prompts of each, one task after another."""
    lines = []
    for tag, count in tasks.items():
        for i in range(count):
            one, other = THINGS[i % len(THINGS)], THINGS[(i * 5 + 7 + i // 28) % len(THINGS)]
            color, second = COLORS[i % 10], COLORS[(i * 3 + 1) % 10]
            first: dict = {"class": one, "count": 1}
            also: dict = {"class": other, "count": 1}
            text, include = f"a photo of a {one} {i}", [first]
            more: dict = {}
            if tag == "two_object":
                text, include = f"a photo of a {one} and a {other} {i}", [first, also]
            elif tag == "counting":
                first["count"] = 2 + i % 3
                text = f"a photo of {first['count']} {one}s {i}"
                more = {"exclude": [{"class": one, "count": first["count"] + 1}]}
            elif tag == "colors":
                first["color"] = color
                text = f"a photo of a {color} {one} {i}"
            elif tag == "position":
                relation = ("left of", "right of", "above", "below")[i % 4]
                also["position"] = [relation, 0]
                text, include = f"a photo of a {other} {relation} a {one} {i}", [first, also]
            elif tag == "color_attr":
                first["color"], also["color"] = color, second
                text = f"a photo of a {color} {one} and a {second} {other} {i}"
                include = [first, also]
            lines.append({"tag": tag, "include": include, **more, "prompt": text})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_color_val(path: Path, seen: int = 200, unseen: int = 100) -> Path:
    """T2I-CompBench's color_val.txt: combinations that its training prompts have, then others;
    CRLF; five of the unseen ones stand there twice, as in the published file."""

    def sentences(kind: str, count: int) -> list[str]:
        letters = "abcdefghijklmnopqrstuvwxyz"
        names = [f"{kind}{letters[i // 26]}{letters[i % 26]}" for i in range(count)]
        return [f"a {COLORS[i % 10]} {n} and a {COLORS[i % 7]} bowl" for i, n in enumerate(names)]

    once = sentences("unseen", unseen - 5)
    lines = [*sentences("seen", seen), *once, *once[:5]]
    path.write_bytes("\r\n".join(lines).encode())
    return path
