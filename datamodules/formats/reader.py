"""The way from a folder of any layout to an index: a `Reader` lists the images of a split, and
`open_split` checks them and keeps what can be used."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from conf.contents import DATABASE, file_state
from conf.describe import show_count
from datamodules.batch import Caption
from datamodules.formats.images import ImageHeader, check_images, lies_as_stored
from datamodules.formats.index import DataError, Problems, Record, Records, build_index, full_path
from datamodules.formats.lack import BEYOND, UNCAPTIONED, UNUSABLE, Lack
from datamodules.phrases.tagger import LIGHT_TAGGER, Tagger

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# Folders below the root in which annotation files are looked for
DEPTH = 3
# Folders below its own in which an image is looked for: links may lead in circles
NESTED = 8


class Reader:
    """One split below ``root``; a subclass lists its records.

    ``notes`` are facts for the manifest, ``remarks`` sentences for a person. Captions of fewer than
    ``min_phrases`` noun phrases, as the ``tagger`` finds them, are left out, and images without any
    other. A change of ``version`` discards old indices.
    """

    version = 1
    # Whether `complete` adds the captions
    late_captions = False
    # Gets lines on the progress of `list_records`
    emit: Callable[[str], None] | None = None
    tagger: Tagger = LIGHT_TAGGER

    def __init__(self, root: str | Path, split: str, min_phrases: int = 0) -> None:
        self.root, self.split, self.min_phrases = Path(root), split, min_phrases
        self.notes: dict[str, Any] = {"split": split}
        self.remarks: list[str] = []
        # Captions of too few noun phrases, and images without any other
        self.poor = self.left_out = 0
        # Images whose EXIF orientation is left out: since the size of their annotations says so,
        # and since it does not say
        self.as_stored: dict[bool, list[Path]] = {True: [], False: []}
        # Why annotations are left out -> how many
        self.fates = Counter[str]()

    def facts(self) -> dict[str, Any]:
        """What the records depend on besides the settings, and the states of all files that they
        are made of, images included. Fits into JSON."""
        return {"states": digest_files([self.root])}

    def list_records(self, problems: Problems) -> list[Record]:
        """The images of the split in the order of the index, whether or not they are on disk.

        Raises DataError where nothing can be read; smaller problems are added to ``problems``.
        """
        raise NotImplementedError

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Adds to a record of the list what only its image tells; False leaves the image out."""
        known = record.width and record.height
        self.orient(record, header, (record.width, record.height) if known else header.shown)
        return True

    def orient(self, record: Record, header: ImageHeader, annotated: tuple[int, int]) -> None:
        """Says how the pixels of a record are read: as they are shown where nothing is annotated on
        them, else so that what was annotated on an image of the size ``annotated`` (width, height)
        lies right."""
        record.as_stored = bool(record.annotations) and lies_as_stored(header, annotated)
        record.width, record.height = header.stored if record.as_stored else header.shown
        if record.as_stored:
            self.as_stored[header.stored != header.shown].append(record.path)

    def describe_orientation(self) -> list[str]:
        """What a person should know of images whose EXIF orientation is left out."""
        remarks = []
        if paths := self.as_stored[True]:
            remarks.append(
                f"{_count(paths)} an EXIF orientation, but annotations of the size without it: "
                f"picture and masks are read as they are stored (first: {paths[0]})"
            )
        if paths := self.as_stored[False]:
            remarks.append(
                f"{_count(paths)} an EXIF orientation of which the size of the annotations does "
                "not tell whether they follow it (square, mirrored or upside down): picture and "
                f"masks are read as they are stored (first: {paths[0]}); look at the contact "
                "sheet of python -m datamodules.inspect, and save the pictures upright if the "
                "masks lie wrong"
            )
        return remarks

    def explain_lack(self, problems: Problems, limit: int | None) -> Lack | None:
        """Why none of the first ``limit`` images has masks or boxes; None where the reader does not
        know."""
        return None

    def rich_enough(self, captions: Sequence[Caption]) -> list[Caption]:
        """The captions of ``min_phrases`` noun phrases or more."""
        if not self.min_phrases:
            return list(captions)
        rich = [c for c in captions if len(self.tagger.spans(c.text)) >= self.min_phrases]
        self.poor += len(captions) - len(rich)
        self.left_out += bool(captions) and not rich
        return rich

    def describe_poor(self) -> list[str]:
        """What a person should know of captions of too few noun phrases."""
        if not self.poor:
            return []
        return [
            f"captions of fewer than data.min_phrases={self.min_phrases} noun phrases are left "
            f"out: {self.poor}, and with them images that have no other: {self.left_out}"
        ]


def open_split(
    reader: Reader,
    folder: Path | None = None,
    limit: int | None = None,
    verify: str = "header",
    on_error: str = "skip",
    emit: Callable[[str], None] | None = None,
) -> Records:
    """The first ``limit`` images of the reader's split that have a caption and can be used;
    ``folder`` keeps the index (see `build_index`).

    ``verify`` is that of `check_image`; ``emit`` gets lines on the progress. Raises DataError
    when no image remains, or with ``on_error="raise"`` when one is left out.
    """
    reader.emit = emit
    facts = {
        "reader": (type(reader).__name__, reader.version),
        "root": str(reader.root.absolute()),
        "split": reader.split,
        **reader.facts(),
        "limit": limit,
        "min_phrases": reader.min_phrases,
        "tagger": reader.tagger.identity if reader.min_phrases else None,
        "verify": verify,
    }

    def usable(records: list[Record], problems: Problems) -> Iterator[Record]:
        paths, what = [record.path for record in records], f"images of {reader.split}"
        states: list[str] = []
        reader.fates[BEYOND] = sum(len(record.annotations) for record in records)
        kept = folder and folder / DATABASE
        headers = check_images(paths, verify, emit, what, kept, states)
        for row, (record, header) in enumerate(zip(records, headers, strict=True)):
            problems.looked[full_path(record.path)] = states[row]
            reader.fates[BEYOND] -= len(record.annotations)
            if isinstance(header, str):
                reader.fates[UNUSABLE] += len(record.annotations)
                kind, _, detail = header.partition(" (")
                problems.add(kind, record.path, detail.removesuffix(")"))
            elif reader.complete(record, header, problems):
                yield record

    def make(problems: Problems) -> Iterator[Record]:
        records = reader.list_records(problems)
        notes = {"listed": len(records), "without_caption": 0, "with_masks": 0}
        if not reader.late_captions:
            for record in records:
                record.captions = reader.rich_enough(record.captions)
                reader.fates[UNCAPTIONED] += 0 if record.captions else len(record.annotations)
            records = [record for record in records if record.captions]
            notes["without_caption"] = notes["listed"] - len(records)
        count = captions = 0
        for record in islice(usable(records, problems), limit):
            count, captions = count + 1, captions + len(record.captions)
            notes["with_masks"] += bool(record.annotations)
            yield record
        remarks = reader.remarks + reader.describe_poor() + reader.describe_orientation()
        problems.notes |= {**reader.notes, **notes, "captions": captions, "notes": remarks}
        if not notes["with_masks"] and (lack := reader.explain_lack(problems, limit)):
            problems.notes["lack"] = lack._asdict()
        if not count:
            least = show_count(reader.min_phrases, "noun phrase")
            of = f" of {least} or more" if reader.min_phrases else ""
            facts_known = [f"{notes['listed']} listed, {notes['without_caption']} of them without"]
            facts_known += [str(problems)] if problems.counts else []
            raise DataError(
                f"split {reader.split!r} below {reader.root} has no image with a caption{of}: "
                f"{'; '.join(facts_known + remarks)}"
            )

    return build_index(folder, facts, make, on_error)


def _count(paths: Sequence[Path]) -> str:
    return "1 image has" if len(paths) == 1 else f"{len(paths)} images have"


# --- folders --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """What is in one folder, not below it: files that are no images, images, folders, by name."""

    path: Path
    files: tuple[str, ...]
    images: tuple[str, ...]
    folders: tuple[str, ...]


def is_image(name: str) -> bool:
    """Whether a file is named as images are."""
    return name.lower().endswith(SUFFIXES)


def survey(root: Path, skip: Sequence[str] = ()) -> list[Folder]:
    """The folders down to `DEPTH` below ``root``, the shallowest first, without hidden ones and
    those named in ``skip``."""
    tree, level = [], [root]
    for _ in range(DEPTH + 1):
        folders = [_look(path, skip) for path in level]
        tree += folders
        level = [folder.path / name for folder in folders for name in folder.folders]
    return tree


def _look(path: Path, skip: Sequence[str]) -> Folder:
    files: list[str] = []
    images: list[str] = []
    folders: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                folders += [entry.name] if entry.name not in skip else []
            else:
                (images if is_image(entry.name) else files).append(entry.name)
    return Folder(path, *(tuple(sorted(names)) for names in (files, images, folders)))


def listing(tree: Sequence[Folder]) -> str:
    """What the folders hold, in a few words for a person."""
    parts = []
    for folder in tree:
        name = "." if folder is tree[0] else f"{folder.path.relative_to(tree[0].path)}/"
        content = [show_count(len(folder.images), "image")] if folder.images else []
        content += folder.files[:4]
        if len(folder.files) > 4:
            content.append(show_count(len(folder.files) - 4, "more file"))
        if content:
            parts.append(f"{name} ({', '.join(content)})")
    if not parts:
        folders = ", ".join(tree[0].folders[:8])
        return f"only the folders {folders}" if folders else "nothing"
    more = [show_count(len(parts) - 8, "more folder")] if len(parts) > 8 else []
    return ", ".join(parts[:8] + more)


def walk(folder: str | Path, depth: int = NESTED) -> Iterator[tuple[str, str, str]]:
    """(path, name, state) of the files below a folder, hidden ones left out (see
    `conf.contents.file_state`)."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_file():
                yield entry.path, name, file_state(entry) or ""
            elif depth and entry.is_dir():
                yield from walk(entry.path, depth - 1)


def list_folders(folder: str | Path, depth: int = NESTED) -> Iterator[tuple[str, str, list[str]]]:
    """(path, state, lines) of a folder and of those below it, hidden ones left out; lines are name,
    NUL and inode of each file, in order. No file is asked for its own state."""
    lines, folders = [], []
    # Before it is listed: what changes meanwhile is seen the next time
    state = file_state(str(folder)) or ""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            if entry.is_file():
                lines.append(f"{name}\0{entry.inode()}")
            elif depth and entry.is_dir():
                folders.append(entry.path)
    lines.sort()
    yield str(folder), state, lines
    for path in sorted(folders):
        yield from list_folders(path, depth - 1)


# Of each folder, those in it: see `list_folders`
Listed = Sequence[tuple[str, Sequence[tuple[str, str, list[str]]]]]


def digest_listed(listed: Listed) -> str:
    """Changes with every file below folders that is added, removed, renamed or replaced by another
    one, wherever the folders lie; no file was asked for its own state."""
    digest = hashlib.sha256()
    for folder, inner in listed:
        for path, state, lines in inner:
            text = f"{path[len(folder) :]} {state}\n" + "\n".join(lines) + "\n\n"
            digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def digest_files(paths: Sequence[Path | None]) -> str:
    """Changes with every file, of these and below these folders, that is added, removed, replaced
    or written to, and also where its content stays: for indices, not for keys."""
    facts = []
    for path in filter(None, paths):
        if path.is_dir():
            facts += [(path, state) for path, _, state in sorted(walk(path))]
        elif path.is_file():
            facts.append((str(path), file_state(str(path)) or ""))
    text = repr(facts).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]
