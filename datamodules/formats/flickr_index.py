"""The index of a split of Flickr30k: which images it has, their captions, and the phrases and boxes
of Entities where these are there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.batch import Caption
from datamodules.formats.entities import (
    Sentence,
    carry,
    detokenise,
    parse_sentence,
    read_regions,
    read_sentences,
    read_unrelated,
)
from datamodules.formats.flickr_layouts import (
    LAYOUTS,
    NAMES_SPLITS,
    Entry,
    Layout,
    find,
    is_image,
    read_captions,
    read_ids,
    recognise,
    stem,
)
from datamodules.formats.index import (
    DataError,
    Problems,
    Record,
    Records,
    build_index,
    check_images,
)
from datamodules.phrases.nouns import noun_phrases

VERSION = 1  # of how the files are read: an index that another one made is made anew
SPLITS_BY = ("karpathy", "entities", "all")


def open_split(
    folder: Path | None,
    root: Path,
    split: str,
    layout: str = "auto",
    split_by: str = "karpathy",
    limit: int | None = None,
    min_phrases: int = 0,
    as_written: bool = False,
    verify: str = "header",
    on_error: str = "skip",
    emit: Callable[[str], None] | None = None,
) -> Records:
    """The first ``limit`` images of a split, by ascending id, that have a caption and can be used;
    ``folder`` keeps the index.

    ``as_written`` detokenises captions. Those of fewer than ``min_phrases`` noun phrases are left
    out. In a record's annotations {"chain", "boxes"} is a region, in pixels of the image, and
    {"caption", "start", "end", "chain", "types"} a phrase of a caption. Raises DataError when no
    image remains or nothing says which images the split has; ValueError on an unknown ``layout`` or
    ``split_by``.
    """
    if split_by not in SPLITS_BY:
        raise ValueError(f"data.split_by={split_by!r}: expected {', '.join(SPLITS_BY)}")
    place = find(root, layout)
    files = (place.captions, place.split_file, *place.split_lists.values(), place.unrelated)
    facts = {
        "reader": VERSION,
        "root": str(root.absolute()),
        "layout": place.name,
        "split": split,
        "split_by": split_by,
        "files": [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p],
        "folders": [
            (str(p), _contents(p)) for p in (place.images, place.sentences, place.boxes) if p
        ],
        "limit": limit,
        "min_phrases": min_phrases,
        "detokenise": as_written,
        "verify": verify,
    }

    def make(problems: Problems) -> Iterator[Record]:
        entries = (
            {} if place.name == "entities" else read_captions(place.captions, place.name, problems)
        )
        if place.name == "entities":
            entries = {path.stem: Entry() for path in place.captions.glob("*.txt")}
        names = sorted(
            name for name in os.listdir(place.images) if is_image(name) and not name.startswith(".")
        )
        on_disk = {stem(name): place.images / name for name in names}
        notes, chosen = _chosen(root, place, split, split_by, entries, on_disk, problems)
        texts = _Texts(place, as_written, min_phrases, problems)
        count = captions = regions = 0
        for record in islice(
            _checked(chosen, entries, on_disk, place, texts, verify, problems, emit), limit
        ):
            count, captions = count + 1, captions + len(record.captions)
            regions += sum("boxes" in annotation for annotation in record.annotations)
            yield record
        for key, value in {
            **notes,
            "captions": captions,
            "regions": regions,
            **texts.counts,
        }.items():
            problems.note(key, value)
        if not count:
            of = f" of {min_phrases} noun phrases or more" if min_phrases else ""
            said = [
                f"{len(chosen)} listed",
                *(
                    (f"{k} {n} (first: {problems.examples[k][0]})")
                    for k, n in problems.counts.items()
                ),
            ]
            raise DataError(
                f"split {split!r} below {root} has no image with a caption{of}: {'; '.join(said)}"
            )

    return build_index(folder, facts, make, on_error)


def _contents(folder: Path) -> str:
    """Changes with every file that is added, removed or replaced."""
    with os.scandir(folder) as entries:
        facts = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.is_file()]
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()[:16]


def _chosen(
    root: Path,
    place: Layout,
    split: str,
    split_by: str,
    entries: dict[str, Entry],
    on_disk: dict[str, Path],
    problems: Problems,
) -> tuple[dict[str, Any], list[str]]:
    """(what the manifest says of the split, the images of the split by ascending id, on disk or
    not)."""
    there = entries.keys() | on_disk.keys()
    notes: dict[str, Any] = {
        "layout": place.name,
        "captions_from": str(place.captions.relative_to(root)),
        "images_in": str(place.images.relative_to(root)),
        "split": split,
        "split_by": "all" if split == "all" else split_by,
    }
    names: dict[str, str] = dict.fromkeys(there, split)
    if notes["split_by"] != "all":
        names, sources = _named(root, place, split_by, entries, problems)
        counts = Counter(names.values())
        if split not in counts:
            has = ", ".join(f"{name} ({count} images)" for name, count in counts.items()) or "none"
            raise DataError(
                f"no split {split!r} in {sources} below {root}, which has {has}: set "
                "data.train_split and evaluation.splits"
            )
        notes |= {"split_from": sources, "split_counts": dict(counts)}
    notes["leaves_out"] = len(there - names.keys())
    chosen = sorted((name for name, its in names.items() if its == split), key=_order)
    return notes | {"listed": len(chosen)}, chosen


def _named(
    root: Path, place: Layout, split_by: str, entries: dict[str, Entry], problems: Problems
) -> tuple[dict[str, str], str]:
    """(the split of each image, which files say so). Raises DataError where none does."""
    path = place.split_file
    if split_by == "entities" and place.split_lists:
        files = place.split_lists
        return {i: s for s, p in files.items() for i in read_ids(p)}, ", ".join(
            str(p.relative_to(root)) for p in files.values()
        )
    if split_by == "karpathy" and path is not None:
        said = (
            entries
            if path == place.captions
            else read_captions(path, recognise(path) or NAMES_SPLITS[0], problems)
        )
        if found := {image: entry.split for image, entry in said.items() if entry.split}:
            return found, str(path.relative_to(root))
    wanted = {
        "karpathy": " or ".join(LAYOUTS[name] for name in NAMES_SPLITS),
        "entities": ("train.txt, val.txt and test.txt of Entities"),
    }
    raise DataError(
        f"nothing below {root} says which images a split by {split_by} has ({place.captions.name} does not): put {wanted[split_by]} there, "
        "or take all images with data.split_by=all"
    )


def _order(name: str) -> tuple[bool, int, str]:
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _checked(
    chosen: Sequence[str],
    entries: dict[str, Entry],
    on_disk: dict[str, Path],
    place: Layout,
    texts: _Texts,
    verify: str,
    problems: Problems,
    emit: Callable[[str], None] | None,
) -> Iterator[Record]:
    """The images that can be used, in order."""
    paths = [on_disk.get(name, place.images / f"{name}.jpg") for name in chosen]
    for name, path, size in zip(
        chosen, paths, check_images(paths, verify, emit, "images of Flickr30k"), strict=True
    ):
        if isinstance(size, str):
            kind, _, detail = size.partition(" (")
            problems.add(kind, path, detail.removesuffix(")"))
            continue
        if sentences := texts.read(name, path, entries.get(name, Entry())):
            captions = [Caption(sentence.text) for sentence in sentences]
            identity = int(name) if name.isdecimal() else name
            yield Record(
                identity, path, *size, captions, list(texts.regions(name, size, sentences))
            )


class _Texts:
    """Captions and regions of one image after another. ``counts`` says what was made of them."""

    def __init__(
        self, place: Layout, as_written: bool, min_phrases: int, problems: Problems
    ) -> None:
        self.place, self.as_written, self.min_phrases, self.problems = (
            place,
            as_written,
            min_phrases,
            problems,
        )
        # Without boxes the sentences say nothing that the captions do not.
        self.entities = place.sentences if place.boxes or place.name == "entities" else None
        self.unrelated = read_unrelated(place.unrelated) if place.unrelated else set()
        self.counts: dict[str, Any] = {
            "entities": self.entities is not None,
            "unrelated": 0,
            "reworded": 0,
            "too_few_phrases": 0,
        }

    def read(self, name: str, path: Path, entry: Entry) -> list[Sentence]:
        """The captions that are kept. Where Entities words one in another way than the caption
        file, its wording is taken."""
        numbered = {
            number: Sentence(" ".join(text.split()))
            for number, text in enumerate(entry.captions, 1)
        }
        marked = self._marked(name)
        if marked:
            known = {_squeezed(sentence.text): sentence.text for sentence in numbered.values()}
            for number, sentence in marked.items():
                text = known.get(_squeezed(sentence.text))
                self.counts["reworded"] += (
                    bool(known) and text is None and (name, number) not in self.unrelated
                )
                marked[number] = sentence if text is None else carry(sentence, text)
        elif not numbered:
            self.problems.add("image without captions", path)
        kept = []
        for number, sentence in (marked or numbered).items():
            if not sentence.text:
                self.problems.add(
                    "blank caption", path, (f"caption {number} in {self.place.captions.name}")
                )
            elif (name, number) in self.unrelated:
                self.counts["unrelated"] += 1
            else:
                kept.append(detokenise(sentence) if self.as_written else sentence)
        enough = [
            s for s in kept if not self.min_phrases or len(noun_phrases(s.text)) >= self.min_phrases
        ]
        self.counts["too_few_phrases"] += len(kept) - len(enough)
        return enough

    def _marked(self, name: str) -> dict[int, Sentence]:
        """The sentences of Entities by their number from 1; none of those that cannot be read."""
        marked: dict[int, Sentence] = {}
        if self.entities is None:
            return marked
        path = self.entities / f"{name}.txt"
        try:
            lines = read_sentences(path)
        except (OSError, ValueError) as error:
            self.problems.add(*_wrong("sentences of Entities", path, error))
            return marked
        for number, line in lines:
            try:
                marked[number] = parse_sentence(line)
            except ValueError as error:
                self.problems.add(
                    "sentence that cannot be read", f"{path}, line {number}", str(error)
                )
        return marked

    def regions(
        self, name: str, size: tuple[int, int], sentences: Sequence[Sentence]
    ) -> Iterator[dict[str, Any]]:
        """The chains that captions speak of and that have boxes, and the phrases that mean them."""
        if self.place.boxes is None or self.entities is None:
            return
        path = self.place.boxes / f"{name}.xml"
        try:
            found = read_regions(path, size)
        except (OSError, ValueError) as error:
            self.problems.add(*_wrong("boxes of Entities", path, error))
            return
        for box in found.empty:
            self.problems.add("box outside the image", path, f"{box} in {size[0]}x{size[1]} pixels")
        spans = [
            (i, span)
            for i, sentence in enumerate(sentences)
            for span in sentence.spans
            if span.chain in found.boxes
        ]
        for chain in dict.fromkeys(span.chain for _, span in spans):
            yield {"chain": chain, "boxes": found.boxes[chain]}
        for i, span in spans:
            yield {
                "caption": i,
                "start": span.start,
                "end": span.end,
                "chain": span.chain,
                "types": span.types,
            }


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _wrong(what: str, path: Path, error: Exception) -> tuple[str, Path, str]:
    missing = isinstance(error, FileNotFoundError)
    return f"{what} missing" if missing else f"{what} unusable", path, "" if missing else str(error)
