"""An index of one split of a data set on disk: its images with all that the annotation files say of
them, and what was left out.

    <folder>/<digest of facts>.images          in which state images were found later, if in another
    <folder>/<digest of both>/records.jsonl   one image a line
                              /offsets.npy     where each line begins, and where the last one ends
                              /columns.json    ids and (file name, size) of the images, and which
                                               rows are read without their EXIF orientation
                              /paths.json      their files
                              /looked.json     the other images that were looked at, and a digest
                                               of the states in which all were then
                              /contents.json   digest of what these hold, once it was asked for
                              /manifest.json   what it was made of, how many images it holds,
                                               what was left out and why

Annotation files may take gigabytes in memory; an index takes none: each process parses a line when
it asks for its image.
"""

from __future__ import annotations

import gc
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from conf.contents import Emit, digest_contents, file_state, have_settled
from conf.describe import show_count
from conf.files import drop, named_when_full, read_json, write_atomically
from datamodules.batch import Caption

# Of the files: an index that another version wrote is made again
VERSION = 5
SIZES = "sizes.json"  # Bytes of the other files of an index
LOOKED = "looked.json"
compact_json: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":")).encode
# Places that are kept of each kind of problem
EXAMPLES = 20


class DataError(ValueError):
    """Data that cannot be used: one line that names the file."""


@dataclass
class Record:
    """One image, with everything that the annotation files say of it. Width and height are in
    pixels, as it is read: ``as_stored``, without its EXIF orientation, or as it is shown; before it
    was opened they are what the files say, 0 where unknown."""

    id: int | str
    path: Path
    width: int = 0
    height: int = 0
    captions: list[Caption] = field(default_factory=list)
    # While an index is made also of JSON, as text
    annotations: list[Any] = field(default_factory=list)
    as_stored: bool = False


class Written(str):
    """The JSON of a value, with no space in it."""


class Problems:
    """What was left out, and why: ``counts`` and the first ``examples`` of each kind; ``notes`` are
    other facts for the manifest, ``looked`` the states of the images that were looked at, by path
    (see `conf.contents.file_state`; "" where there is none). With ``on_error="raise"`` nothing may
    be left out.

    Raises ValueError on another ``on_error``.
    """

    def __init__(self, on_error: str = "skip") -> None:
        if on_error not in ("skip", "raise"):
            raise ValueError(f"on_error={on_error!r}: expected skip or raise")
        self.on_error = on_error
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.notes: dict[str, Any] = {}
        self.looked: dict[str, str] = {}

    def add(self, kind: str, where: str | Path, detail: str = "") -> None:
        """Counts one more. Raises DataError instead where nothing may be left out."""
        if self.on_error == "raise":
            raise DataError(": ".join(part for part in (str(where), kind, detail) if part))
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{where}: {detail}" if detail else str(where))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Kind -> count and examples. Fits into JSON."""
        return {
            kind: {"count": count, "examples": self.examples[kind]}
            for kind, count in self.counts.items()
        }

    def __str__(self) -> str:
        return "; ".join(
            f"{kind} {count} (first: {self.examples[kind][0]})"
            for kind, count in self.counts.items()
        )


class Records(Sequence[Record]):
    """The images of an index. Holds only the last record: cheap to give to worker processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        self._keeper: _TemporaryFolder | None = None
        self._open: tuple[mmap.mmap, np.ndarray] | None = None
        self._last: tuple[int, Record] | None = None
        self._changed: bool | None = None

    def __len__(self) -> int:
        return int(self.manifest["count"])

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        row = range(len(self))[index]
        if self._last is None or self._last[0] != row:
            self._last = row, self._parse(row)
        return self._last[1]

    def columns(self) -> tuple[list[int | str], list[tuple[str, int]]]:
        """(ids, (file name, bytes when the index was made)) of all images, without parsing their
        records."""
        content = json.loads((self.folder / "columns.json").read_text())
        return content["ids"], [tuple(file) for file in content["files"]]

    def digest(self, emit: Emit | None = None) -> str:
        """Changes with all that the index holds (captions, annotations, order) and with the content
        of the images, wherever they lie."""
        names, images = self.manifest.get("categories"), self.digest_images(emit)
        facts = [self.manifest["records"], names, images]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def digest_images(self, emit: Emit | None = None) -> str:
        """Changes with names, order and content of the images. ``emit`` gets lines while many are
        read."""
        kept = self.folder / "contents.json"
        # An index is of the files in one state: what they held then stays true of it
        changed = self.images_changed()
        if changed or read_json(kept) is None:
            paths = json.loads((self.folder / "paths.json").read_text())
            files = {f"{row} {os.path.basename(path)}": path for row, path in enumerate(paths)}
            cache = None if self._keeper else self.folder.parent
            what = f"images of {self.manifest.get('split', self.folder)}"
            images = digest_contents(files, cache, what, emit)
            if changed or not have_settled(paths):
                return images
            write_atomically(kept, json.dumps(images))
        return json.loads(kept.read_text())

    def images_changed(self, again: bool = False) -> bool:
        """Whether an image that was looked at is not as it was when the index was made; then
        another index is made when it is opened the next time. Files are asked for their states
        once, or ``again``."""
        if again or self._changed is None:
            paths = json.loads((self.folder / "paths.json").read_text())
            looked = json.loads((self.folder / LOOKED).read_text())
            paths += looked["others"]
            now = _digest_states(paths, map(file_state, paths))
            self._changed = now != looked["states"]
            if self._changed:
                # Another one, beside this: other processes may read it
                write_atomically(self.folder.parent / looked["found_later"], now)
        return self._changed

    def rows_as_stored(self) -> list[int]:
        """The rows of images that are read without their EXIF orientation."""
        return json.loads((self.folder / "columns.json").read_text())["as_stored"]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_keeper": None, "_open": None, "_last": None}

    def _parse(self, row: int) -> Record:
        if self._open is None:
            with open(self.folder / "records.jsonl", "rb") as file:
                lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._open = lines, np.load(self.folder / "offsets.npy")
        lines, offsets = self._open
        content = json.loads(lines[offsets[row] : offsets[row + 1]])
        captions = [_read_caption(*said) for said in content["captions"]]
        width, height = content["size"]
        path, annotations = Path(content["path"]), content["annotations"]
        as_stored = content.get("as_stored", False)
        return Record(content["id"], path, width, height, captions, annotations, as_stored)


def _caption_content(caption: Caption) -> tuple[Any, ...]:
    """What an index keeps of a caption."""
    said = (caption.text, caption.relation)
    return (*said, caption.phrases) if caption.phrases else said


def _read_caption(text: str, relation: str | None, phrases: Sequence[Any] = ()) -> Caption:
    if not phrases:
        return Caption(text, relation)
    return Caption(text, relation, tuple((a, b, tuple(ids)) for a, b, ids in phrases))


class _TemporaryFolder:
    """A folder that exists as long as this object, in the process that made it: worker processes
    hold a copy of the object and end before it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="index-"))
        weakref.finalize(self, self._remove, self.path, os.getpid())

    @staticmethod
    def _remove(path: Path, maker: int) -> None:
        if os.getpid() == maker:
            shutil.rmtree(path, ignore_errors=True)


def build_index(
    folder: Path | None,
    facts: dict[str, Any],
    make: Callable[[Problems], Iterable[Record]],
    on_error: str = "skip",
) -> Records:
    """The index of the records that ``make`` yields, kept in ``folder`` under the digest of
    ``facts``: all that the records depend on.

    One of the processes that ask for it makes it, once; without a folder it is in a temporary one,
    which is removed with the records. Raises DataError with ``on_error="raise"`` where something
    was left out.
    """
    problems = Problems(on_error)
    if folder is None:
        keeper = _TemporaryFolder()
        records = build_index(keeper.path, facts, make, on_error)
        records._keeper = keeper
        return records
    text = json.dumps([VERSION, facts], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    later = folder / f"{digest}.images"
    if later.is_file():
        digest = hashlib.sha256(f"{digest} {later.read_text()}".encode()).hexdigest()[:16]
    target = folder / digest
    if not target.is_dir() or _find_damage(target):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{digest}.lock"):
            if damage := _find_damage(target):
                drop(target, None, damage, "made again")
            if not target.is_dir():
                draft = folder / f".{digest}.draft"
                # Of a process that was killed
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                try:
                    with named_when_full(target), _collection_paused():
                        _write(draft, facts, make(problems), problems, later.name)
                    draft.rename(target)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    records = Records(target)
    if on_error == "raise" and records.manifest["problems"]:
        # It was made with on_error="skip"
        kind, problem = next(iter(records.manifest["problems"].items()))
        raise DataError(f"{problem['examples'][0]}: {kind}")
    return records


def _find_damage(folder: Path) -> str:
    """What is wrong with a kept index, "" where nothing is or none is there."""
    if not (folder / SIZES).is_file():  # Older ones have none
        return ""
    try:
        for name, size in json.loads((folder / SIZES).read_text()).items():
            if (found := (folder / name).stat().st_size) != size:
                return f"{name} has {show_count(found, 'byte')} of {size:,}"
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


def full_path(path: Path) -> str:
    """The path as it is kept, from the root of the file system on."""
    text = str(path)
    return text if os.path.isabs(text) else str(path.absolute())


def _digest_states(paths: Iterable[str], states: Iterable[str | None]) -> str:
    lines = [f"{path} {state or ''}" for path, state in zip(paths, states, strict=True)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def _collection_paused() -> Iterator[None]:
    """No look for circles of garbage: among millions of objects that all stay it takes as long as
    the reading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(
    folder: Path,
    facts: dict[str, Any],
    records: Iterable[Record],
    problems: Problems,
    found_later: str,
) -> None:
    offsets, as_stored = [0], []
    ids: list[Any] = []
    files: list[Any] = []
    paths: list[Any] = []
    digest = hashlib.sha256()
    with open(folder / "records.jsonl", "wb") as out:
        for record in records:
            captions = [_caption_content(caption) for caption in record.captions]
            annotations = ",".join(
                one if isinstance(one, Written) else compact_json(one) for one in record.annotations
            )
            rest = (
                f'"id":{compact_json(record.id)},"size":[{record.width},{record.height}],'
                f'"captions":{compact_json(captions)},"annotations":[{annotations}]'
            )
            if record.as_stored:
                as_stored.append(len(ids))
                rest += ',"as_stored":true'
            path = str(record.path)
            name = record.path.name
            paths.append(full_path(record.path))
            # Of what the files say, not of where they lie
            digest.update(f"{name} {{{rest}}}\n".encode(errors="surrogateescape"))
            line = f'{{"path":{compact_json(paths[-1])},{rest}}}\n'.encode()
            out.write(line)
            offsets.append(offsets[-1] + len(line))
            ids.append(record.id)
            try:
                size = os.stat(path).st_size
            except OSError:
                size = -1
            files.append((name, size))
    np.save(folder / "offsets.npy", np.asarray(offsets, np.int64))
    columns = {"ids": ids, "files": files, "as_stored": as_stored}
    (folder / "columns.json").write_text(json.dumps(columns))
    (folder / "paths.json").write_text(json.dumps(paths))
    kept, seen = set(paths), problems.looked
    others = [path for path in seen if path not in kept]
    every = [*paths, *others]
    states = _digest_states(every, (seen[p] if p in seen else file_state(p) for p in every))
    looked = {"states": states, "others": others, "found_later": found_later}
    (folder / LOOKED).write_text(json.dumps(looked))
    manifest = {
        **problems.notes,
        "facts": facts,
        "count": len(ids),
        "records": digest.hexdigest()[:16],
        "problems": problems.summary(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str))
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / SIZES).write_text(json.dumps(sizes))
