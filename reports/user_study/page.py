"""Two cells of a sweep -> one self-contained page that asks people which image they prefer, and the key that says which is which.

The page knows images by random names only. What a name stands for is in the key, a file of its own that participants do not get.
The same study from the same MLflow content with the same settings gives the same page, so that a lost key can be made again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports.study import ReportError, Study
from reports.user_study.pairs import (
    Pair,
    Pictures,
    common,
    drawn,
    fetched,
    find_cell,
    pixels,
    same_pixels,
)

__all__ = ["KEY_FORMAT", "Page", "Wording", "build", "introduction", "outline", "write"]

KEY_FORMAT = "image study key 1"
SMALL = 256  # pixels: up to here an image is kept without loss, and its pixels stay visible; so fine may an outline be
SECONDS = 12  # that a question takes, as a guess for the introduction


@dataclass(frozen=True)
class Wording:
    """What participants are asked; the mask questions where both images have target masks. `consent` replaces the text on consent."""

    question: str = "Which image matches the text better?"
    rating: str = "How well does each image match the text?"
    mask_question: str = "In which image do the objects fill the outlines better?"
    mask_rating: str = "How well do the objects fill the outlines?"
    consent: str = ""


@dataclass(frozen=True)
class Page:
    """`html` for participants, `key` for the analysis."""

    html: str
    key: dict[str, Any]


def build(study: Study, left: str, right: str, items: int, checks: int, seed: int, largest: int, wording: Wording) -> Page:
    """The page of `items` pairs, or of as many as there are, and of `checks` attention checks: items that show one image twice.

    Pairs of equal pixels are left out, since a choice between them says nothing, and counted. Images of more than `largest` pixels a side
    are made smaller. Raises ReportError where the cells are unknown or the same, or have no pair.
    """
    one, other = find_cell(study, "left", left), find_cell(study, "right", right)
    if one is other:
        raise ReportError(f"left= and right= both name {study.words(one)}: a study compares two cells")
    names = f"{study.words(one)} and {study.words(other)} of '{study.sweep}'"
    everything = common(study, one, other)
    if not everything:
        raise ReportError(
            f"{names} have no kept image of the same prompt and noise: both need a finished trial of the same seed, with "
            "evaluation.keep_images above 0"
        )
    identity = json.dumps([seed, study.sweep, one.name, other.name, items, checks])
    rng = random.Random(hashlib.sha256(identity.encode()).digest())
    found, identical = _different(fetched(study, one, other, drawn(everything, rng)), items + checks)
    if not found:
        raise ReportError(f"{names} drew the same {identical} images, pixel by pixel: there is nothing to ask")
    chosen = found[:items]
    spare = (found[items:] + rng.choices(chosen, k=checks))[:checks]  # a check shows an image of its own, if there is one left

    images: dict[str, dict[str, Any]] = {}
    asked: dict[str, dict[str, Any]] = {}
    told: dict[str, dict[str, Any]] = {}
    for kind, pictures in [("pair", p) for p in chosen] + [("check", p) for p in spare]:
        sides = (0, 1) if kind == "pair" else (rng.randrange(2),) * 2
        item, *pair = (rng.randbytes(6).hex() for _ in range(3))
        images |= {name: _image(pictures, side, largest) for name, side in zip(pair, sides, strict=True)}
        masks = pictures.masks is not None
        asked[item] = {"id": item, "prompt": pictures.pair.prompt, "images": sorted(pair), "masks": masks}
        told[item] = _told(pictures.pair) | {"kind": kind, "masks": masks, "images": pair}
    shown = {
        "question": wording.question, "rating": wording.rating,
        "maskQuestion": wording.mask_question, "maskRating": wording.mask_rating,
        "intro": introduction(wording, [item["masks"] for item in asked.values()]),
        "items": [asked[name] for name in sorted(asked)],
        "images": {name: images[name] for name in sorted(images)},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]
    key = {
        "format": KEY_FORMAT, "study": digest, "sweep": study.sweep, "seed": seed,
        "cells": [{"setting": s, "name": c.name, "words": study.words(c)} for s, c in (("left", one), ("right", other))],
        "questions": {"text": wording.question, "mask": wording.mask_question},
        "counts": {"pairs": len(chosen), "checks": len(spare), "common": len(everything), "identical": identical},
        "items": told,
    }  # fmt: skip
    return Page(_html({"study": digest} | shown), key)


def write(page: Page, to: Path) -> Path:
    """Write the page to `to` and its key beside it; return the key's path.

    Raises ReportError where a key of another study is there: the answers to that study could no longer be read without it.
    """
    beside = to.with_suffix(".key.json")
    if beside.exists():
        try:
            there = json.loads(beside.read_text(encoding="utf-8"))["study"]
        except (ValueError, KeyError, TypeError):
            there = "unreadable"
        if there != page.key["study"]:
            raise ReportError(f"{beside} is the key of another study ({there}), whose answers need it: move it away, or give another to=")
    to.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(page.key, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    to.write_text(page.html, encoding="utf-8", newline="\n")
    return beside


def introduction(wording: Wording, masks: Sequence[bool]) -> list[str]:
    """The paragraphs that a participant reads before the first item; `masks` says of each item whether it has the mask question."""
    questions = len(masks) + sum(masks)
    minutes = math.ceil(questions * SECONDS / 60)
    drawing = " Then the same images may come with outlines, where the objects should be, and a question about these." if any(masks) else ""
    task = (
        f"You will see {_many(len(masks), 'pair')} of images that computer programs made from a short text, and answer: "
        f"“{wording.question}” Choose one of them, or “No difference”, and rate both from 1 to 5.{drawing} There is no right or wrong: "
        f"your own impression counts. It takes about {_many(minutes, 'minute')}; you can pause and go on later in the same browser."
    )
    if wording.consent:
        return [task, *(part.strip() for part in re.split(r"\n\s*\n", wording.consent) if part.strip())]
    return [
        task,
        "Taking part is voluntary; you can stop at any time and need not say why. What is kept are your answers, the time that each took, "
        "the order that you saw, and a random number in place of your name: nothing else about you or your device. This page sends "
        "nothing. Your answers stay in this browser until you save them and hand them over yourself.",
        "By starting you agree that your answers are used for research and may be published without anything that points to you.",
    ]


def outline(numbered: np.ndarray) -> str:
    """The rims of the objects of a mask picture [H, W], object i of value i, as an SVG path in pixels: every run of pixel edges a line."""
    parts = []
    for number in range(1, int(numbered.max(initial=0)) + 1):
        plane = np.pad((numbered == number).astype(np.int8), 1)
        upright = np.diff(plane, axis=1)[1:-1] != 0  # [H, W + 1]: between the pixels x - 1 and x
        level = (np.diff(plane, axis=0)[:, 1:-1] != 0).T  # [W, H + 1], read by rows as the other
        parts += [f"M{x} {y}v{n}" for x, y, n in _runs(upright.T)]
        parts += [f"M{x} {y}h{n}" for y, x, n in _runs(level.T)]
    return "".join(parts)


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(line, start, length) of each run of True along the rows of `edges`."""
    for line, row in enumerate(edges):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        for start, stop in zip(changes[::2], changes[1::2], strict=True):
            yield line, int(start), int(stop - start)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _different(source: Iterator[Pictures], most: int) -> tuple[list[Pictures], int]:
    """The first `most` pairs that differ in any pixel, and how many that do not were met on the way."""
    found: list[Pictures] = []
    identical = 0
    for pictures in source:
        if same_pixels(pictures):
            identical += 1
            continue
        found.append(pictures)
        if len(found) == most:
            break
    return found, identical


def _told(pair: Pair) -> dict[str, Any]:
    return {"prompt": pair.prompt, "split": pair.split, "sample": pair.sample, "seed": pair.seed}


def _image(pictures: Pictures, side: int, largest: int) -> dict[str, Any]:
    """One image as the page holds it; nothing of the file but its pixels."""
    from PIL import Image

    image = Image.fromarray(pixels(pictures.images[side]))
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small = max(image.size) <= SMALL
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "WEBP", quality=92, method=6)
    source = f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
    told: dict[str, Any] = {"src": source, "width": image.width, "height": image.height, "outline": None}
    if pictures.masks is not None:
        with Image.open(pictures.masks[side]) as mask:
            mask.thumbnail((SMALL, SMALL), Image.Resampling.NEAREST)
            numbered = np.asarray(mask)
        told["outline"] = {"width": numbered.shape[1], "height": numbered.shape[0], "path": outline(numbered)}
    return told


def _html(shown: dict[str, Any]) -> str:
    """The template with style, script and data in it. No text of the data can end the element that it stands in."""
    here = Path(__file__).parent
    parts = {
        "style": (here / "page.css").read_text(encoding="utf-8").strip(),
        "script": (here / "page.js").read_text(encoding="utf-8").strip(),
        "data": json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (here / "page.html").read_text(encoding="utf-8"))
