"""Digests of weights, in files and in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

EMBEDDED = Path(__file__).parents[1] / "embedded" / "assets" / "backbone"
LARGE = 64 * 2**20  # Bytes; larger files count by size and time of change alone


def weights_digest(path: str) -> str | None:
    """Digest of the weight files below a local folder (or the embedded one), None for a hub id,
    whose revision says the same.

    Files of more than 64 MiB count by size and time of change alone: reading gigabytes would take
    longer than it is worth.
    """
    folder = EMBEDDED if path == "embedded" else Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    # Settings of schedulers and tokenizers change images as weights do.
    kinds = (".safetensors", ".json", ".txt", ".model")
    for file in sorted(path for path in folder.rglob("*") if path.suffix in kinds):
        stat = file.stat()
        digest.update(f"{file.relative_to(folder)} {stat.st_size} ".encode())
        large = stat.st_size > LARGE
        digest.update(str(stat.st_mtime_ns).encode() if large else file.read_bytes())
    return digest.hexdigest()[:16]


def modules_digest(facts: str, *modules: Any) -> str:
    """Digest of ``facts`` and of the values in the modules' state dicts."""
    digest = hashlib.sha256(facts.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            # In float32, into which some autoencoders are turned when they are first used.
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
