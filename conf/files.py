"""Files and folders that appear as a whole: a reader sees the old or the new one, never a part."""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["create_folder", "to_json", "write_atomically"]


def write_atomically(path: Path | str, content: str | bytes | Callable[[Path], object]) -> None:
    """Writes text (UTF-8), bytes, or what the function ``content`` writes to the path it is given.

    Missing parent folders are created. When writing fails, an old file stays as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        if callable(content):
            content(draft)
        elif isinstance(content, str):
            draft.write_text(content, encoding="utf-8")
        else:
            draft.write_bytes(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """A draft folder that becomes ``path`` when the block ends without an error.

    Where another process was quicker, its folder stays and the draft goes.
    """
    draft = _draft(path)
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def to_json(content: Any) -> str:
    """Plain containers as JSON that any reader takes: NaN and infinity, which JSON does not have,
    are null."""
    return json.dumps(_without_undefined(content), indent=1, allow_nan=False)


def _without_undefined(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_undefined(item) for key, item in value.items()}
    return (
        [_without_undefined(item) for item in value] if isinstance(value, list | tuple) else value
    )


def _draft(path: Path) -> Path:
    """A new name beside ``path``, with its suffix: some writers derive the format from it."""
    return path.with_name(f".{secrets.token_hex(4)}-{path.name}")
