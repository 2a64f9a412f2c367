"""Two cells of a sweep -> one self-contained page that asks which image is better, and its key.

The page knows images by random names only. What a name stands for is in the key, a file of its own
that participants do not get. The same study from the same MLflow content with the same settings
gives the same page, so that a lost key can be made again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reports import prose
from reports.files import drafting, publish
from reports.results import ReportError, SweepResults
from reports.typeset import write_text
from reports.user_study.pairs import (
    PairFiles,
    fetch_pairs,
    find_cell,
    list_pairs,
    read_pixels,
    shuffle_pairs,
)

__all__ = [
    "KEY_FORMAT",
    "StudyPage",
    "Wording",
    "build_page",
    "introduce",
    "trace_outline",
    "write_page",
]

KEY_FORMAT = "image study key 1"
SMALL = 256  # Pixels: up to here an image is kept without loss; so fine may an outline be
SECONDS = 12  # That a question takes, as a guess for the introduction
CONSENT = """\
Taking part is voluntary; you can stop at any time and need not say why. What is kept are your \
answers, the time that each took, the order that you saw, and a random number in place of your \
name: nothing else about you or your device. This page sends nothing. Your answers stay in this \
browser until you save them and hand them over yourself.

By starting you agree that your answers are used for research and may be published without \
anything that points to you."""


@dataclass(frozen=True)
class Wording:
    """What participants are asked; the mask questions where both images have target masks."""

    question: str = "Which image matches the text better?"
    rating: str = "How well does each image match the text?"
    mask_question: str = "In which image do the objects fill the outlines better?"
    mask_rating: str = "How well do the objects fill the outlines?"
    consent: str = CONSENT  # Paragraphs with an empty line between them


@dataclass(frozen=True)
class StudyPage:
    """``html`` for participants, ``key`` for the analysis."""

    html: str
    key: dict[str, Any]


def build_page(
    results: SweepResults,
    left: str,
    right: str,
    *,
    items: int = 30,
    checks: int = 1,
    seed: int = 0,
    largest: int = 768,
    wording: Wording | None = None,
) -> StudyPage:
    """The page of ``items`` pairs, or of as many as there are, and of ``checks`` attention checks.

    A check shows one image twice. Pairs of equal pixels are left out, since a choice between them
    says nothing, and counted. Images of more than ``largest`` pixels a side are made smaller.
    Raises ReportError where the cells are unknown or the same, or have no pair.
    """
    wording = wording or Wording()
    cells = one, other = find_cell(results, "left", left), find_cell(results, "right", right)
    words = [prose.name_cell(results, cell) for cell in cells]
    if one is other:
        raise ReportError(f"left= and right= both name {words[0]}: a study compares two cells")
    names = f"{words[0]} and {words[1]} of '{results.sweep}'"
    everything = list_pairs(one, other)
    if not everything:
        needs = "both need a finished trial of the same seed, with evaluation.keep_images above 0"
        raise ReportError(f"{names} have no kept image of the same prompt and noise: {needs}")
    identity = json.dumps([seed, results.sweep, one.name, other.name, items, checks])
    rng = random.Random(hashlib.sha256(identity.encode()).digest())
    different: list[PairFiles] = []
    identical = 0
    for files in fetch_pairs(results, one, other, shuffle_pairs(everything, rng)):
        if files.have_equal_pixels():
            identical += 1
            continue
        different.append(files)
        if len(different) == items + checks:
            break
    if not different:
        same = f"drew the same in {prose.count(identical, 'pair')}, pixel by pixel"
        raise ReportError(f"{names} {same}: there is nothing to ask")
    pairs = different[:items]
    # A check shows an image of its own, if there is one left
    spare = (different[items:] + rng.choices(pairs, k=checks))[:checks]

    images: dict[str, dict[str, Any]] = {}
    public: dict[str, dict[str, Any]] = {}
    secret: dict[str, dict[str, Any]] = {}
    for kind, files in [("pair", p) for p in pairs] + [("check", p) for p in spare]:
        sides = (0, 1) if kind == "pair" else (rng.randrange(2),) * 2
        item, *both = (rng.randbytes(6).hex() for _ in range(3))
        for name, side in zip(both, sides, strict=True):
            images[name] = embed_image(files, side, largest)
        pair, masks = files.pair, files.masks is not None
        public[item] = {"id": item, "prompt": pair.prompt, "images": sorted(both), "masks": masks}
        sample = {"sample": pair.sample, "seed": pair.seed, "kind": kind}
        about = {"prompt": pair.prompt, "split": pair.split, **sample}
        secret[item] = about | {"masks": masks, "images": both}
    shown = {
        "question": wording.question,
        "rating": wording.rating,
        "maskQuestion": wording.mask_question,
        "maskRating": wording.mask_rating,
        "intro": introduce(wording, [item["masks"] for item in public.values()]),
        "items": [public[name] for name in sorted(public)],
        "images": {name: images[name] for name in sorted(images)},
    }
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]
    counts = {"pairs": len(pairs), "checks": len(spare)}
    key = {
        "format": KEY_FORMAT,
        "study": digest,
        "sweep": results.sweep,
        "seed": seed,
        "cells": [
            {"setting": setting, "name": cell.name, "words": text}
            for setting, cell, text in zip(("left", "right"), cells, words, strict=True)
        ],
        "questions": {"text": wording.question, "mask": wording.mask_question},
        "counts": counts | {"common": len(everything), "identical": identical},
        "items": secret,
    }
    return StudyPage(_fill_template({"study": digest} | shown), key)


def write_page(page: StudyPage, to: Path) -> Path:
    """Write the page to ``to`` and its key beside it; return the key's path.

    Raises ReportError where a key of another study is there: the answers to that study could no
    longer be read without it.
    """
    beside = to.with_suffix(".key.json")
    if beside.exists():
        try:
            there = json.loads(beside.read_text(encoding="utf-8"))["study"]
        except (ValueError, KeyError, TypeError):
            there = "unreadable"
        if there != page.key["study"]:
            other = f"{beside} is the key of another study ({there}), whose answers need it"
            raise ReportError(f"{other}: move it away, or give another to=")
    with drafting(to.parent) as draft:
        write_text(draft / beside.name, json.dumps(page.key, indent=1, ensure_ascii=False) + "\n")
        write_text(draft / to.name, page.html)
        publish(draft, [beside.name, to.name])
    return beside


def introduce(wording: Wording, masks: Sequence[bool]) -> list[str]:
    """What a participant reads first; ``masks``: whether each item has a mask question."""
    minutes = math.ceil((len(masks) + sum(masks)) * SECONDS / 60)
    outlines = ""
    if any(masks):
        outlines = (
            " Then the same images may come with outlines, where the objects should be, and a "
            "question about these."
        )
    task = (
        f"You will see {prose.count(len(masks), 'pair')} of images that computer programs made "
        f"from a short text, and answer: “{wording.question}” Choose one of them, or “No "
        f"difference”, and rate both from 1 to 5.{outlines} There is no right or wrong: your own "
        f"impression counts. It takes about {prose.count(minutes, 'minute')}; you can pause and go "
        "on later in the same browser."
    )
    paragraphs = (part.strip() for part in re.split(r"\n\s*\n", wording.consent))
    return [task, *filter(None, paragraphs)]


def trace_outline(numbered: np.ndarray) -> str:
    """The rims of a mask picture [H, W], object i of value i, as an SVG path in pixels.

    Every run of pixel edges is a line.
    """
    parts = []
    for number in range(1, int(numbered.max(initial=0)) + 1):
        plane = np.pad((numbered == number).astype(np.int8), 1)
        upright = np.diff(plane, axis=1)[1:-1] != 0  # [H, W + 1]: between pixels x - 1 and x
        level = np.diff(plane, axis=0)[:, 1:-1] != 0  # [H + 1, W]
        parts += [f"M{x} {y}v{n}" for x, y, n in _find_runs(upright.T)]
        parts += [f"M{x} {y}h{n}" for y, x, n in _find_runs(level)]
    return "".join(parts)


def _find_runs(edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(line, start, length) of each run of True along the rows of ``edges``."""
    for line, row in enumerate(edges):
        position = 0
        for is_edge, run in itertools.groupby(row.tolist()):
            length = len(list(run))
            if is_edge:
                yield line, position, length
            position += length


def embed_image(files: PairFiles, side: int, largest: int) -> dict[str, Any]:
    """One image as the page holds it; nothing of the file but its pixels."""
    from PIL import Image

    image = Image.fromarray(read_pixels(files.images[side]))
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    kind = "png" if max(image.size) <= SMALL else "webp"
    how = {"optimize": True} if kind == "png" else {"quality": 92, "method": 6}
    image.save(out, kind, **how)
    source = f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
    outline = None
    if files.masks is not None:
        with Image.open(files.masks[side]) as mask:
            mask.thumbnail((SMALL, SMALL), Image.Resampling.NEAREST)
            path = trace_outline(np.asarray(mask))
            outline = {"width": mask.width, "height": mask.height, "path": path}
    return {"src": source, "width": image.width, "height": image.height, "outline": outline}


def _fill_template(data: dict[str, Any]) -> str:
    """The page with style, script and data; no text of the data can end the element it is in."""
    here = Path(__file__).parent
    parts = {
        "style": (here / "page.css").read_text(encoding="utf-8").strip(),
        "script": (here / "page.js").read_text(encoding="utf-8").strip(),
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
    }
    template = (here / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)
