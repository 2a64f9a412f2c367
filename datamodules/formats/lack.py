"""Why no image of a split has masks or boxes: what is the case, and the cure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from conf.describe import show_count
from datamodules.formats.index import Problems

# What became of annotations that are of images which are not read
UNCAPTIONED, UNUSABLE, BEYOND = (
    "of images without a caption that is read",
    "of images that cannot be read",
    "of images beyond the first {limit}",
)
CROWD = "crowd region"
CURES = {
    UNCAPTIONED: "give the captions of the images that have masks",
    UNUSABLE: "put the images that have masks where the others are",
    BEYOND: "read more images (data.train_images, data.eval_images)",
    CROWD: "annotate single objects, with iscrowd 0",
    "annotation of no image": "give the instances file of these images",
    "unknown category": "give the instances file with its list of categories",
    "size differs": "annotate the images in the size that their files have",
    "mask of another size": "annotate the images in the size that their files have",
    "no mask": "export the masks of the objects, too, not boxes alone, or set data.boxes=masks",
}
MEND = "mend the annotations that python -m datamodules.inspect lists"


class Lack(NamedTuple):
    """What is the case, as part of a sentence, and what to do."""

    fact: str
    cure: str


def explain_fates(
    source: str,
    given: int,
    fates: Mapping[str, int],
    problems: Problems,
    limit: int | None,
) -> Lack:
    """Of annotations of objects of which none is left: what became of all that are ``given`` in the
    files ``source``; ``fates`` are how many by the kind of problem."""
    if not given:
        return Lack(f"{source} has no annotation of an object", "add annotations with masks to it")
    parts = []
    for kind, count in sorted(fates.items(), key=lambda item: -item[1]):
        examples = problems.examples.get(kind)
        first = f" (first: {examples[0]})" if examples else ""
        parts.append(f"{count} × {kind.format(limit=limit)}{first}")
    most = max(fates, key=lambda kind: fates[kind], default="")
    of = show_count(given, "annotation")
    fact = f"of {of} of objects in {source} none serves: {'; '.join(parts)}"
    return Lack(fact, CURES.get(most, MEND))


def list_names(names: Iterable[str]) -> str:
    """At most four names, for a person."""
    names = list(names)
    more = [show_count(len(names) - 4, "more", "more")] if len(names) > 4 else []
    return ", ".join(names[:4] + more)
