"""A backbone without a file in ``conf/backbone/`` (``backbone=/my/model``, ``backbone=org/model``):
its settings, read from the model's own config."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

__all__ = [
    "NO_MODEL",
    "describe_widening",
    "is_custom",
    "is_hub_id",
    "is_listed",
    "read_backbone",
]

STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
NO_MODEL = "no such folder, and no id of the hub (org/model)"
DENOISERS = ("unet", "transformer")
SIDES = {"FluxTransformer2DModel": 128}  # Of latents, where the config does not say it


def is_custom(name: Any) -> bool:
    """Whether ``name``, which is no file of ``conf/backbone/``, looks like a folder or a hub id."""
    return isinstance(name, str) and ("/" in name or os.sep in name or Path(name).is_dir())


def is_hub_id(name: str) -> bool:
    """Whether ``name`` may be the id of a model of the hub."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None


def is_listed(name: str) -> bool:
    """Whether ``conf/backbone/`` has a file of that name."""
    return (Path(__file__).parent / "backbone" / f"{name}.yaml").is_file()


def read_backbone(name: str) -> dict[str, Any]:
    """Dotted settings: the image side in pixels that the model was trained with, and the dtype that
    its weights are stored in.

    Raises ValueError in one line where there is no diffusers model, or none downloaded yet.
    """
    folder = _folder(name)
    part = next((part for part in DENOISERS if (folder / part / "config.json").is_file()), None)
    kinds = "expected a Stable Diffusion 1.x, 2.x, XL, 3 or 3.5, a PixArt, or a FLUX.1"
    if part is None or not (folder / "vae" / "config.json").is_file():
        raise ValueError(
            f"{folder} is no diffusers model with a {' or '.join(DENOISERS)} and a vae"
            f"{_describe_class(folder)}: {kinds}"
        )
    denoiser, vae = (_read_config(folder / one / "config.json") for one in (part, "vae"))
    own = SIDES.get(str(denoiser.get("_class_name")))
    side, levels = denoiser.get("sample_size", own), vae.get("block_out_channels")
    if not isinstance(side, int) or not isinstance(levels, list):
        lacks = (
            f"{part}/config.json has no sample_size"
            if not isinstance(side, int)
            else "vae/config.json has no block_out_channels"
        )
        raise ValueError(
            f"{folder}/{lacks}{_describe_class(folder)}: {kinds}; for one of these write "
            "conf/backbone/<name>.yaml with the resolution"
        )
    pixels = side * 2 ** (len(levels) - 1)
    short = Path(name).name if Path(name).is_dir() else name.rpartition("/")[2]
    return {
        "backbone.name": short,
        "backbone.path": name,
        "backbone.resolution": pixels,
        "backbone.dtype": _stored(folder / part),
    }


def describe_widening(path: str, dtype: str, cpu: bool) -> str | None:
    """A line where the weights of ``path`` are stored in a narrow format and compute in float32 on
    a ``cpu``; None elsewhere."""
    if dtype != "float32" or not cpu or not is_custom(path):
        return None
    try:
        folder = _folder(path)
        part = next(folder / part for part in DENOISERS if (folder / part).is_dir())
        stored = _stored(part)
    except (ValueError, OSError, StopIteration):
        return None
    if stored == "float32":
        return None
    return (
        f"backbone.dtype=float32: {path} is stored in {stored}, which a CPU computes in much more "
        f"slowly; backbone.dtype={stored} asks for it"
    )


def _read_config(path: Path) -> dict[str, Any]:
    """Raises ValueError for a file that was cut off."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): get the model again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings: get the model again")
    return content


def _describe_class(folder: Path) -> str:
    """The pipeline's class in brackets, "" where nothing says it."""
    try:
        name = _read_config(folder / "model_index.json").get("_class_name")
    except (ValueError, OSError):
        return ""
    return f" (it is a {name})" if isinstance(name, str) else ""


def _folder(name: str) -> Path:
    """The folder of a model: itself, or that of a hub id in the hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise ValueError(NO_MODEL)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{name} is not downloaded yet, and its files say its image size: first do "
            f"`hf download {name}`"
        ) from None


def _stored(folder: Path) -> str:
    """The dtype of most weights; float32 where no safetensors file tells it."""
    file = next(
        (file for file in sorted(folder.glob("*.safetensors")) if "fp16" not in file.name), None
    )
    if file is None:
        return "float32"
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is no safetensors file, or a part of one")
        head = json.loads(opened.read(length))
    kinds = [entry["dtype"] for key, entry in head.items() if key != "__metadata__"]
    return STORED.get(max(set(kinds), key=kinds.count), "float32")
