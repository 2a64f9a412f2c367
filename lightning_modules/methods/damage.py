"""Whether the files of an adapter folder are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf.files import is_damage
from lightning_modules.methods.adapter_file import CARD, TENSORS, file_digest

__all__ = ["find_damage"]


def find_damage(folder: Path) -> tuple[Path, str] | None:
    """The file of an adapter folder that is missing, was cut off or is another than when its card
    was written, and what is wrong with it; None where all are whole."""
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or "method" not in card:
            return path, "no card of an adapter"
        path = folder / TENSORS
        _check_tensors(path, card)
    except FileNotFoundError:
        return path, "missing"
    except Exception as error:
        if not is_damage(error):
            raise
        return path, str(error)
    return None


def _check_tensors(path: Path, card: dict[str, Any]) -> None:
    from safetensors import safe_open

    digest = file_digest(path)
    with safe_open(path, "pt") as tensors:  # Compares the header with the size
        tensors.keys()
    if card.get("sha256", digest) != digest:
        raise ValueError("its content is not what was trained")
