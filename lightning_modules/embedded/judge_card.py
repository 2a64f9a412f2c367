"""How often a judge of the embedded world is right, and the card that says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from datamodules.shapes.scenes import Scene, Thing
from lightning_modules.embedded.judge import MEASURES, REWARDS, Judge
from lightning_modules.embedded.judge_data import damages, kinds_of_scenes, to_images
from lightning_modules.metrics.detection import Detection, Target, judge_image

NEAR = 3.0  # Pixels by which a found centre may be off
SEEN_WITH_EYES = "## Errors, looked at"  # This section of the card is written by hand
DAMAGED = ("1 held-out", "2 held-out", "3 held-out", "4 seen", "5 seen", "small", "striped")
# What else is told of the objects
DETAILS = ("size", "pattern", "relation")


class Tables(NamedTuple):
    """Shares of renders: {kind: {figure: share}} of clean ones, and {damage: {kind: share}} of
    exact answers on damaged ones."""

    clean: dict[str, dict[str, float]]
    damaged: dict[str, dict[str, float]]


def exact(judge: Judge, images: Tensor, scenes: Sequence[Scene]) -> list[bool]:
    """Per image: the detected (color, shape) are those of the scene, no more and no fewer, and
    every centre is within ``NEAR`` pixels."""
    pairs = zip(judge.detect(images), scenes, strict=True)
    return [_is_exact(detections, scene) for detections, scene in pairs]


def _is_exact(detections: Sequence[Detection], scene: Scene) -> bool:
    free = list(detections)
    for thing in scene.things:
        hit = next(
            (d for d in free if (d.color, d.label) == thing.combination and _near(d.centre, thing)),
            None,
        )
        if hit is None:
            return False
        free.remove(hit)
    return not free


def _near(centre: tuple[float, float], thing: Thing) -> bool:
    return (centre[0] - thing.x) ** 2 + (centre[1] - thing.y) ** 2 <= NEAR**2


def rates(judge: Judge, images: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Shares of the scenes: ``exact`` answers; those in which every size, every pattern is told
    right, and those in which the relation is, of the scenes that have one (absent where none
    has)."""
    detected = judge.detect(images)
    verdicts = [judge_image(d, _as_target(s)) for d, s in zip(detected, scenes, strict=True)]
    shares = {
        "exact": sum(map(_is_exact, detected, scenes)) / len(scenes),
    }
    for key in DETAILS:
        told = [held for verdict in verdicts if (held := getattr(verdict, key)) is not None]
        if told:
            shares[key] = sum(told) / len(told)
    return shares


def _as_target(scene: Scene) -> Target:
    return Target(
        [thing.combination for thing in scene.things],
        scene.relation,
        [thing.size or "medium" for thing in scene.things],
        [thing.pattern for thing in scene.things],
    )


def measure(judge: Judge, count: int) -> Tables:
    """What a judge gets right on ``count`` fresh renders of each kind."""
    tables = Tables({}, {name: {} for name in damages()})
    for kind, scenes in kinds_of_scenes(count).items():
        images = to_images(scenes)
        tables.clean[kind] = rates(judge, images, scenes)
        if kind in DAMAGED:
            for name, damage in damages().items():
                tables.damaged[name][kind] = sum(exact(judge, damage(images), scenes)) / count
    return tables


CARD = """# {title}

A centre-point detector for 64-pixel scenes of coloured shapes: which shape, which colour, which
pattern, how large, where.

{purpose}

- made by: `{command}`
- network `{architecture}`: {parameters:,} parameters, stored as float16
- {steps} steps of {batch} images, {cpu_minutes:.1f} CPU minutes on {threads} thread{plural}
- trained on {pool} renders of all {combinations} combinations (half of them spoilt on purpose),
  freshly augmented at each step; seed {seed}, also of the renders
- loss of the last batch {loss:.3f}

Shares of {count} fresh clean renders a row. Exact: every colour-shape pair found, none too many,
every centre within {near:g} pixels. Size, pattern: those of all objects told right. Relation: told
right, of the scenes that have one.

{clean}

Shares of exact answers on {count} damaged renders an entry. Gaussian blur and noise by their sigma
in pixels and in grey levels of 255; lost resolution by the side in between, of 64.

{damaged}
"""
PURPOSES = {
    MEASURES: (
        "Judge of the embedded world",
        "It measures: no method is trained on its verdicts. Its features serve FID and precision /"
        "\nrecall of the embedded world; they say nothing about photographs.",
    ),
    REWARDS: (
        "Judge of the embedded world, for rewards",
        "It is for what is trained on a judge's verdicts; `judge`, of another network, seed and\n"
        "renders, then measures.",
    ),
}


def write_card(folder: Path, facts: dict[str, Any], tables: Tables, count: int) -> None:
    """README.md of the asset: what it is, how it was made, and how often it is right. The sections
    behind that, of what people saw (``SEEN_WITH_EYES``, `judge_labels`), are kept."""
    card = folder / "README.md"
    _, heading, rest = card.read_text().partition("\n## ") if card.exists() else ("", "", "")
    title, purpose = PURPOSES.get(folder.name, PURPOSES[MEASURES])
    text = CARD.format(
        **facts,
        title=title,
        purpose=purpose,
        cpu_minutes=facts["cpu_seconds"] / 60,
        plural="s" * (facts["threads"] > 1),
        near=NEAR,
        count=count,
        clean=_as_table("renders", ("exact", *DETAILS), tables.clean),
        damaged=_as_table("damage", DAMAGED, tables.damaged),
    )
    card.write_text(text + heading + rest)


def _as_table(corner: str, columns: Sequence[str], table: dict[str, dict[str, float]]) -> str:
    rows = [[corner, *columns], ["---"] * (1 + len(columns))]
    for name, shares in table.items():
        rows.append([name, *(f"{shares[key]:.4f}" if key in shares else "-" for key in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
