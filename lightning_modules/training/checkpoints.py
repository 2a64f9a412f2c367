"""Checkpoints of a training that goes on after an interruption: each appears whole, the one before
is kept, and one that cannot be read is left out."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from conf.files import drop, is_damage, write_atomically

__all__ = ["LAST", "PREVIOUS", "KeptCheckpoints", "find_checkpoint"]

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
THEN = "training goes on from the one before, or from the start"


class KeptCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place; the one that was there becomes ``PREVIOUS``.

    Raises DiskFull, and leaves both as they were, where there is no room.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)

        def write(draft: Path) -> None:
            # In memory first: torch's own writer of files hides what the system says
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer)
            with draft.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                # Or a power failure leaves the name of a file whose content was never written
                os.fsync(file.fileno())
            if path.exists():
                path.replace(path.with_name(PREVIOUS))

        write_atomically(path, write)


def find_checkpoint(folder: Path, emit: Callable[[str, float], None]) -> Path | None:
    """The newest checkpoint in ``folder`` that can be read, None without one. Others are dropped,
    each with a line."""
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            with zipfile.ZipFile(path) as file:  # As torch writes them
                if broken := file.testzip():
                    raise zipfile.BadZipFile(f"{broken} has another check sum")
            content = torch.load(path, map_location="meta", weights_only=True, mmap=True)
            step = content["global_step"]
        except Exception as error:
            if not is_damage(error):
                raise
            drop(path, emit, _describe(path, error), THEN)
            continue
        emit(f"training: goes on from step {step}", 0.0)
        return path
    return None


def _describe(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "it is a folder"
    if path.stat().st_size == 0:
        return "it is empty"
    if isinstance(error, zipfile.BadZipFile) and not zipfile.is_zipfile(path):
        return "no whole checkpoint"
    return str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
