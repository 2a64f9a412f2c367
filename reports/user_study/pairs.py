"""Which images a study can ask about: two cells drew them for one prompt on one noise, and kept."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports import prose
from reports.mistyped import nearest
from reports.results import CellResults, ReportError, SweepResults, Trial

__all__ = [
    "ImagePair",
    "PairFiles",
    "fetch_pairs",
    "find_cell",
    "list_pairs",
    "read_pixels",
    "shuffle_pairs",
]


@dataclass(frozen=True)
class ImagePair:
    """What both cells drew for one prompt on one noise; paths of the left= and the right= cell."""

    seed: int
    sample: str  # split/prompt#number of its image
    prompt: str
    images: tuple[str, str]
    masks: tuple[str | None, str | None]

    @property
    def split(self) -> str:
        return self.sample.partition("/")[0]


@dataclass(frozen=True)
class PairFiles:
    """The files of a pair on this machine; ``masks`` is None unless both images have targets."""

    pair: ImagePair
    images: tuple[Path, Path]
    masks: tuple[Path, Path] | None

    def have_equal_pixels(self) -> bool:
        left, right = (read_pixels(path) for path in self.images)
        return np.array_equal(left, right)


def find_cell(results: SweepResults, setting: str, word: str) -> CellResults:
    """The cell of a name, or of a level or combination as the report shows it.

    Raises ReportError, which lists the cells, where none fits.
    """
    for cell in results.cells:
        if word.strip() in (cell.name, cell.label):
            return cell
    names = [prose.name_cell(results, cell) for cell in results.cells]
    known, near = "; ".join(names), nearest(word, names)
    raise ReportError(
        f"{setting}={word}: no such cell in '{results.sweep}'; there are: {known}{near}"
    )


def list_pairs(left: CellResults, right: CellResults) -> list[ImagePair]:
    """All pairs of two cells, by seed and in the order of the plan."""
    pairs = []
    for seed in sorted(left.trials.keys() & right.trials.keys()):
        first, second = left.trials[seed].samples, right.trials[seed].samples
        if first is None or second is None:
            continue
        index = {name: j for j, name in enumerate(second.ids)}
        for i, name in enumerate(first.ids):
            j = index.get(name)
            if j is None or first.prompts[i] != second.prompts[j]:
                continue
            one, other, masks = first.images[i], second.images[j], (first.masks[i], second.masks[j])
            if first.noise[i] == second.noise[j] and one is not None and other is not None:
                pairs.append(ImagePair(seed, name, first.prompts[i], (one, other), masks))
    return pairs


def shuffle_pairs(pairs: Sequence[ImagePair], rng: random.Random) -> list[ImagePair]:
    """All pairs in a random order, splits in turn, a prompt again only after all others."""
    queues: dict[str, list[tuple[int, ImagePair]]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for pair in rng.sample(pairs, len(pairs)):
        place = pair.split, pair.prompt
        queues.setdefault(pair.split, []).append((times[place], pair))
        times[place] += 1
    # A stable sort: chance decides among equals
    ordered = [sorted(queues[split], key=lambda entry: entry[0]) for split in sorted(queues)]
    longest = max(map(len, ordered), default=0)
    return [queue[i][1] for i in range(longest) for queue in ordered if i < len(queue)]


def fetch_pairs(
    results: SweepResults, left: CellResults, right: CellResults, pairs: Sequence[ImagePair]
) -> Iterator[PairFiles]:
    """The files of each pair in turn. Raises ReportError where the store lacks one, or a part."""
    for pair in pairs:
        trials = left.trials[pair.seed], right.trials[pair.seed]
        images, masks = [], []
        for trial, image, mask in zip(trials, pair.images, pair.masks, strict=True):
            path = _fetch_whole(results, trial, image)
            if path is None:
                lacks = f"run {trial.run_id} lacks the artifact {image}"
                raise ReportError(f"{lacks} that its scores.parquet names: run the sweep --fresh")
            images.append(path)
            masks.append(_fetch_whole(results, trial, mask) if mask else None)
        one, other = masks
        both = (one, other) if one is not None and other is not None else None
        yield PairFiles(pair, (images[0], images[1]), both)


def _fetch_whole(results: SweepResults, trial: Trial, name: str) -> Path | None:
    """A picture of a trial, None where it has none. Raises ReportError for one that was cut off."""
    results.read(trial, name, read_pixels)
    if damaged := results.damaged.get((trial.run_id, name)):
        raise ReportError(damaged)
    return results.fetch(trial, name)


def read_pixels(path: Path) -> np.ndarray:
    """An image without anything else that its file says: uint8 [H, W, 3]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
