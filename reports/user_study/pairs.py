"""Which images a study can ask about: those that two cells of a sweep drew for the same prompt on the same noise, and kept."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.study import Cell, ReportError, Study

__all__ = ["Pair", "Pictures", "common", "drawn", "fetched", "find_cell", "pixels", "same_pixels"]


@dataclass(frozen=True)
class Pair:
    """What both cells drew for one prompt on one noise. `images` and `masks` are artifact paths of the left= and the right= cell."""

    seed: int
    sample: str  # split/prompt#number of its image
    prompt: str
    images: tuple[str, str]
    masks: tuple[str | None, str | None]

    @property
    def split(self) -> str:
        return self.sample.partition("/")[0]


@dataclass(frozen=True)
class Pictures:
    """The files of a pair on this machine; `masks` is None unless both images have target masks."""

    pair: Pair
    images: tuple[Path, Path]
    masks: tuple[Path, Path] | None


def find_cell(study: Study, setting: str, word: str) -> Cell:
    """The cell of a name, or of a level or combination as the report shows it. Raises ReportError, which lists them, where none fits."""
    for cell in study.cells:
        if word.strip() in (cell.name, cell.label):
            return cell
    known = "; ".join(study.words(cell) for cell in study.cells)
    raise ReportError(f"{setting}={word}: no such cell in '{study.sweep}'; there are: {known}")


def common(study: Study, left: Cell, right: Cell) -> list[Pair]:
    """All pairs of two cells, by seed and in the order of the plan."""
    pairs = []
    for seed in sorted(left.trials.keys() & right.trials.keys()):
        first, second = left.trials[seed].samples, right.trials[seed].samples
        if first is None or second is None:
            continue
        places = {name: i for i, name in enumerate(second.ids)}
        for i, name in enumerate(first.ids):
            j = places.get(name)
            if j is None or first.prompts[i] != second.prompts[j] or first.noise[i] != second.noise[j]:
                continue
            one, other = first.images[i], second.images[j]
            if one is not None and other is not None:
                pairs.append(Pair(seed, name, first.prompts[i], (one, other), (first.masks[i], second.masks[j])))
    return pairs


def drawn(pairs: Sequence[Pair], rng: random.Random) -> list[Pair]:
    """All pairs in the order in which a study takes them: at random, from the splits in turn, a prompt again only after all others."""
    queues: dict[str, list[tuple[int, Pair]]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for pair in rng.sample(pairs, len(pairs)):
        queues.setdefault(pair.split, []).append((times[pair.split, pair.prompt], pair))
        times[pair.split, pair.prompt] += 1
    ordered = [sorted(queues[split], key=lambda entry: entry[0]) for split in sorted(queues)]  # stable: chance decides among equals
    return [queue[i][1] for i in range(max(map(len, ordered), default=0)) for queue in ordered if i < len(queue)]


def fetched(study: Study, left: Cell, right: Cell, pairs: Sequence[Pair]) -> Iterator[Pictures]:
    """The files of each pair in turn. Raises ReportError where the store lacks one that scores.parquet names."""
    for pair in pairs:
        trials = left.trials[pair.seed], right.trials[pair.seed]
        found = [study.fetch(trial, name) for trial, name in zip(trials, pair.images, strict=True)]
        masks = [study.fetch(trial, name) for trial, name in zip(trials, pair.masks, strict=True) if name]
        for trial, name, path in zip(trials, pair.images, found, strict=True):
            if path is None:
                raise ReportError(f"run {trial.run_id} lacks the artifact {name} that its scores.parquet names: run the sweep --fresh")
        one, other = found
        assert one is not None and other is not None
        both = [path for path in masks if path is not None]
        yield Pictures(pair, (one, other), (both[0], both[1]) if len(both) == 2 else None)


def pixels(path: Path) -> np.ndarray:
    """An image without anything else that its file says: uint8 [H, W, 3]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def same_pixels(pictures: Pictures) -> bool:
    one, other = (pixels(path) for path in pictures.images)
    return one.shape == other.shape and bool((one == other).all())
