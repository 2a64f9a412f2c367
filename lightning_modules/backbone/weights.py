"""Digests of weights, in files and in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.contents import Emit, digest_contents, list_files
from conf.schema import SHIPPED

ASSETS = Path(__file__).parents[1] / "embedded" / "assets"
# Settings of schedulers and tokenizers change images as weights do.
KINDS = (".safetensors", ".json", ".txt", ".model")


def shipped_folder(path: str) -> Path | None:
    """Where the weights lie of a backbone that comes with the package; None for all others."""
    return ASSETS / SHIPPED[path] if path in SHIPPED else None


def weights_digest(
    path: str, cache: Path | None = None, revision: str | None = None, emit: Emit | None = None
) -> str | None:
    """Digest of the content of the weight files below a local folder (or a shipped one),
    wherever it lies. Of a hub id: the commit that was downloaded, None where none was.

    ``cache`` and ``emit`` are those of `conf.contents.digest_contents`.
    """
    folder = shipped_folder(path) or Path(path)
    if not folder.is_dir():
        return hub_commit(path, revision)
    files = list_files(folder, KINDS)
    if (parts := _parts(folder)) is not None:
        # Beside them lie the same weights in other forms, which no pipeline opens
        files = {n: p for n, p in files.items() if n.partition("/")[0] in parts}
    return digest_contents(files, cache, f"weights of {path}", emit)


def _parts(folder: Path) -> Sequence[str] | None:
    """The files and folders that a diffusers pipeline is read from; None for other folders."""
    index = folder / "model_index.json"
    if not index.is_file():
        return None
    try:
        return [index.name, *json.loads(index.read_text(encoding="utf-8"))]
    except ValueError:
        return None


def hub_commit(name: str, revision: str | None = None) -> str | None:
    """The commit of a hub id that was downloaded last, None where none was. A branch (``main``
    without ``revision``) moves on."""
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return None
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    home = os.environ.get("HF_HOME", os.path.expanduser("~/.cache/huggingface"))
    hub = os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))
    reference = Path(hub, f"models--{name.replace('/', '--')}", "refs", revision or "main")
    return reference.read_text().strip()[:16] if reference.is_file() else None


def modules_digest(facts: str, *modules: Any) -> str:
    """Digest of ``facts`` and of the values in the modules' state dicts."""
    digest = hashlib.sha256(facts.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            # In float32, into which some autoencoders are turned when they are first used.
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
