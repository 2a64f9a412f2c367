"""Images that lie in other files, parquet or Arrow tables and tar shards, as files of their own.

They are written once into a folder that the states of the shards name, with a line for each in
``listed.jsonl``: images are opened by path, again and again, in any order.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from conf.contents import file_state
from conf.describe import show_count
from conf.files import create_folder
from datamodules.formats.index import DataError
from datamodules.formats.listed import CAPTIONS, IMAGES, find_key
from datamodules.formats.reader import is_image

__all__ = ["LISTED", "has_images", "unpack"]

LISTED = "listed.jsonl"
VERSION = 1
EVERY = 1000  # Images after which progress is said
Emit = Callable[[str], None]


def has_images(path: Path) -> bool:
    """Whether a table has a column of images, as bytes, and one of captions."""
    import pyarrow as pa

    try:
        schema = _schema(path)
    except (pa.ArrowException, OSError):
        return False
    return _image_column(schema) is not None and find_key(schema.names, CAPTIONS) is not None


def unpack(shards: Sequence[Path], root: Path, emit: Emit | None = None) -> Path:
    """The folder of the images of some shards, below ``root``. Raises DataError for a shard that
    cannot be read."""
    states = [(path.name, file_state(str(path)) or "") for path in shards]
    name = hashlib.sha256(repr((VERSION, states)).encode()).hexdigest()[:16]
    folder = root / name
    if (folder / LISTED).is_file():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with create_folder(folder) as draft, open(draft / LISTED, "w", encoding="utf-8") as listed:
        count = 0
        for path in shards:
            read = _read_tar if path.suffix == ".tar" else _read_table
            for content, image in read(path):
                file = f"{count // EVERY:04d}/{count:08d}{_suffix(image)}"
                (draft / file).parent.mkdir(exist_ok=True)
                (draft / file).write_bytes(image)
                row = {**content, "file_name": file, "place": f"{path}:{content['place']}"}
                listed.write(json.dumps(row, default=str) + "\n")
                count += 1
                if emit and count % EVERY == 0:
                    emit(f"unpacking images: {count}, of {path.name}")
        if not count:
            raise DataError(
                f"{shards[0]}: no image with a caption in {show_count(len(shards), 'file')}"
            )
    return folder


def _suffix(image: bytes) -> str:
    try:
        with Image.open(io.BytesIO(image)) as file:
            return {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}.get(file.format or "", ".img")
    except Exception:  # Pillow's decoders raise errors of any kind; the check of images says which
        return ".jpg"


# --- tables ---------------------------------------------------------------------------------------


def _schema(path: Path) -> Any:
    from pyarrow import ipc, parquet

    if path.suffix == ".parquet":
        return parquet.read_schema(path)
    with open(path, "rb") as source:
        return ipc.open_stream(source).schema


def _image_column(schema: Any) -> str | None:
    import pyarrow as pa

    def holds(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    named = [field.name for field in schema if holds(field.type)]
    return find_key(named, (*IMAGES, "jpg", "png", "webp", "pixels")) or next(iter(named), None)


def _batches(path: Path) -> Iterator[Any]:
    from pyarrow import ipc, parquet

    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=64)
    else:
        with open(path, "rb") as source:
            yield from ipc.open_stream(source)


def _read_table(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    import pyarrow as pa

    try:
        column = _image_column(_schema(path))
        if column is None:
            raise DataError(f"{path}: no column of images (bytes)")
        number = 0
        for batch in _batches(path):
            for row in batch.to_pylist():
                number += 1
                image = row.pop(column)
                image = image.get("bytes") if isinstance(image, dict) else image
                known = {key: value for key, value in row.items() if value is not None}
                for key in IMAGES:  # Names that images had before
                    known.pop(key, None)
                if isinstance(image, bytes):
                    yield known | {"place": number}, image
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({said}): download it again") from error


# --- tar ------------------------------------------------------------------------------------------


def _read_tar(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """WebDataset's: files of one name without endings are one sample, its members follow each
    other."""
    try:
        with tarfile.open(path) as shard:
            key = ""
            parts: dict[str, bytes] = {}
            for member in shard:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                sample = f"{folder}/{stem}"
                if sample != key:
                    yield from _sample(key, parts)
                    key, parts = sample, {}
                file = shard.extractfile(member)
                parts[ending.lower()] = file.read() if file else b""
            yield from _sample(key, parts)
    except (tarfile.TarError, OSError, EOFError) as error:
        said = str(error).splitlines()[0].rstrip(":") or type(error).__name__
        raise DataError(f"{path}: cannot be read ({said}): download it again") from error


def _sample(key: str, parts: Mapping[str, bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    images = [ending for ending in parts if is_image(f".{ending}")]
    if not images:
        return
    content: dict[str, Any] = {}
    if "json" in parts:
        try:
            found = json.loads(parts["json"])
        except ValueError:
            found = None
        content = found if isinstance(found, dict) else {}
    for ending in ("txt", "caption", "text"):
        if ending in parts:
            content["text"] = parts[ending].decode("utf-8", "replace").strip()
    for name in IMAGES:
        content.pop(name, None)
    yield content | {"place": key.removeprefix("/")}, parts[images[0]]
