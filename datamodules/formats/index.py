"""An index of a dataset on disk: what its annotation files say and which of its images can be used,
found out once.

    <folder>/<digest of facts>/records.jsonl   one image a line
                              /offsets.npy     where each line begins, and where the last one ends
                              /columns.json    ids, and (file name, size) of the images
                              /manifest.json   what it was made of, how many images it holds, what was left out and why

Annotation files may take gigabytes in memory. An index takes none: a line is parsed when its image
is asked for, in whichever process.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps

from datamodules.batch import Caption

VERSION = 1  # of the files: what another version wrote is made anew
EXAMPLES = 20  # places that are kept of each kind of problem
PARSED = 16  # records that each process keeps
CHUNK, THREADS = 256, 8  # images that are looked at together
TAIL = 4096  # bytes from the end of a file in which its end marker is looked for
END = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}


class DataError(ValueError):
    """Data that cannot be used: one line that names the file."""


@dataclass
class Record:
    """One image of the index, with everything that the annotation files say of it. Width and height
    are in pixels, as it is shown."""

    id: int | str
    path: Path
    width: int
    height: int
    captions: list[Caption] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


class Problems:
    """What was left out, and why: ``counts`` and the first ``examples`` of each kind. With
    ``on_error="raise"`` nothing may be left out.

    ``notes`` are other things that the manifest is to say. Raises ValueError on another
    ``on_error``.
    """

    def __init__(self, on_error: str = "skip") -> None:
        if on_error not in ("skip", "raise"):
            raise ValueError(f"on_error={on_error!r}: expected skip or raise")
        self.on_error = on_error
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        self.notes: dict[str, Any] = {}

    def add(self, kind: str, where: str | Path, detail: str = "") -> None:
        """Counts one more. Raises DataError instead where nothing may be left out."""
        if self.on_error == "raise":
            raise DataError(": ".join(part for part in (str(where), kind, detail) if part))
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{where}: {detail}" if detail else str(where))

    def note(self, key: str, value: Any) -> None:
        """``value``, which must fit into JSON, stands in the manifest under ``key``."""
        self.notes[key] = value

    def summary(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {"count": count, "examples": self.examples[kind]}
            for kind, count in self.counts.items()
        }


# --- images --------------------------------------------------------------------------------


def check_image(path: Path, verify: str = "header") -> tuple[int, int] | str:
    """(width, height) of an image as it is shown, or in words why it cannot be used: missing,
    empty, no image, truncated.

    ``header`` opens the file and looks for the marker that ends a JPEG or PNG; where that is not
    near the end, or with ``full``, the image is decoded. Raises ValueError on another ``verify``.
    """
    if verify not in ("header", "full"):
        raise ValueError(f"verify={verify!r}: expected header or full")
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            if not size:
                return "empty"
            file.seek(max(0, size - TAIL))
            tail = file.read()
            file.seek(0)
            image = Image.open(file)
            width, height = image.size
            if orientation(image) >= 5:
                width, height = height, width
            # Cameras append data of their own behind the end of an image: only decoding tells
            # whether something is missing.
            if verify == "full" or END.get(image.format or "", b"") not in tail:
                image.load()
            return width, height
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return "missing"
    except Image.UnidentifiedImageError:
        return "no image"
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever their format makes them stumble over
        return f"{'truncated' if 'truncated' in str(error).lower() else 'broken'} ({error})"


def check_images(
    paths: Sequence[Path | None],
    verify: str = "header",
    emit: Callable[[str], None] | None = None,
    what: str = "images",
) -> Iterator[tuple[int, int] | str]:
    """`check_image` of each path, in order, by several threads; None is missing. No more is read
    than is asked for, in chunks.

    ``emit`` is told after each chunk how far it is.
    """
    for start in range(0, len(paths), CHUNK):
        # No pool lives on between chunks: a generator that is given up would be closed by whichever
        # thread collects it, perhaps its own.
        with ThreadPoolExecutor(THREADS) as pool:
            chunk = paths[start : start + CHUNK]
            found = list(
                pool.map(
                    lambda path: "missing" if path is None else check_image(path, verify), chunk
                )
            )
        yield from found
        if emit:
            emit(f"checking {what}: {min(start + CHUNK, len(paths))}/{len(paths)}")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image that was just opened, 1 to 8. Asking Pillow for that of a
    PNG would decode it."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF data do not make the pixels unusable
        return 1
    return value if value in range(1, 9) else 1


def read_image(path: Path) -> Image.Image:
    """The image as it is shown, in RGB; what is transparent lies on white. Raises DataError where
    it cannot be decoded."""
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file) if orientation(file) > 1 else file
            if image.mode.startswith("I"):
                # Pillow would clip sixteen bits at 255.
                image = Image.fromarray(
                    (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                )
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except Exception as error:  # as above
        raise DataError(
            f"{path}: image cannot be decoded ({error}): replace or delete it; verify=full "
            "finds all such files"
        ) from error


# --- the index --------------------------------------------------------------------------------


class Records(Sequence[Record]):
    """The images of an index, in its order or, as a `view`, some of them. Holds no record: cheap to
    give to worker processes."""

    def __init__(self, folder: Path, rows: Sequence[int] | np.ndarray | None = None) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        self.rows = None if rows is None else np.asarray(rows, np.int64)
        self._keeper: _Temporary | None = None
        self._open: tuple[mmap.mmap, np.ndarray] | None = None
        self._parsed: dict[int, Record] = {}

    def __len__(self) -> int:
        return int(self.manifest["count"]) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self.view(range(len(self))[index])
        row = range(len(self))[index]
        if self.rows is not None:
            row = int(self.rows[row])
        record = self._parsed.get(row)
        if record is None:
            while len(self._parsed) >= PARSED:
                self._parsed.pop(next(iter(self._parsed)), None)
            record = self._parsed[row] = self._parse(row)
        return record

    def view(self, rows: Sequence[int]) -> Records:
        """Some of the images, in that order."""
        chosen = np.asarray(rows, np.int64)
        found = Records(self.folder, chosen if self.rows is None else self.rows[chosen])
        found._keeper = self._keeper
        return found

    def columns(self) -> tuple[list[int | str], list[tuple[str, int]]]:
        """(ids, (file name, bytes when the index was made)) of all images, without parsing their
        records."""
        content = json.loads((self.folder / "columns.json").read_text())
        rows = range(len(content["ids"])) if self.rows is None else self.rows.tolist()
        return [content["ids"][row] for row in rows], [tuple(content["files"][row]) for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_keeper": None, "_open": None, "_parsed": {}}

    def _parse(self, row: int) -> Record:
        if self._open is None:
            with open(self.folder / "records.jsonl", "rb") as file:
                self._open = (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
                    np.load(self.folder / "offsets.npy"),
                )
        lines, offsets = self._open
        content = json.loads(lines[offsets[row] : offsets[row + 1]])
        captions = [Caption(text, relation) for text, relation in content["captions"]]
        width, height = content["size"]
        return Record(
            content["id"], Path(content["path"]), width, height, captions, content["annotations"]
        )


class _Temporary:
    """A folder that is there as long as this object is."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="index-"))
        weakref.finalize(self, _remove, self.folder, os.getpid())


def _remove(folder: Path, maker: int) -> None:
    # Worker processes hold a copy of the object, and end before it does.
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def build_index(
    folder: Path | None,
    facts: dict[str, Any],
    make: Callable[[Problems], Iterable[Record]],
    on_error: str = "skip",
) -> Records:
    """The index of the records that ``make`` gives, kept in ``folder`` under the digest of
    ``facts``: all that the records depend on.

    Made once, by one of the processes that ask for it; without a folder in a temporary one, which
    goes with the records. Raises DataError with ``on_error="raise"`` where something was left out.
    """
    problems = Problems(on_error)
    if folder is None:
        keeper = _Temporary()
        records = build_index(keeper.folder, facts, make, on_error)
        records._keeper = keeper
        return records
    digest = hashlib.sha256(
        json.dumps([VERSION, facts], sort_keys=True, default=str).encode()
    ).hexdigest()[:16]
    place = folder / digest
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{digest}.lock"):
            if not place.is_dir():
                draft = folder / f".{digest}.draft"
                shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
                draft.mkdir()
                try:
                    _write(draft, facts, make(problems), problems)
                    draft.rename(place)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    records = Records(place)
    if on_error == "raise" and records.manifest["problems"]:
        # It was made by someone who did not mind.
        kind, found = next(iter(records.manifest["problems"].items()))
        raise DataError(f"{found['examples'][0]}: {kind}")
    return records


def _write(
    folder: Path, facts: dict[str, Any], records: Iterable[Record], problems: Problems
) -> None:
    offsets, ids, files = [0], [], []
    with open(folder / "records.jsonl", "wb") as out:
        for record in records:
            captions = [(c.text, c.relation) for c in record.captions]
            content = {
                "id": record.id,
                "path": str(record.path.absolute()),
                "size": (record.width, record.height),
                "captions": captions,
                "annotations": record.annotations,
            }
            line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
            out.write(line)
            offsets.append(offsets[-1] + len(line))
            ids.append(record.id)
            files.append(
                (record.path.name, record.path.stat().st_size if record.path.exists() else -1)
            )
    np.save(folder / "offsets.npy", np.asarray(offsets, np.int64))
    (folder / "columns.json").write_text(json.dumps({"ids": ids, "files": files}))
    manifest = {**problems.notes, "facts": facts, "count": len(ids), "problems": problems.summary()}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str))
