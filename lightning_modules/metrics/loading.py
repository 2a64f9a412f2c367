"""Models from the hub or a folder: what goes wrong while one is loaded is an error of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.constants import HF_HUB_OFFLINE
from safetensors import SafetensorError


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def one_line_errors(what: str, name: str, expected: str) -> Iterator[None]:
    """Turns what libraries raise inside the block into a FileNotFoundError of one line. ``what`` is
    loaded by its ``name``; ``expected`` says what the name may be."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        offline = HF_HUB_OFFLINE and not Path(name).is_dir()
        hint = f"; HF_HUB_OFFLINE is set: run `hf download {name}` where there is a network"
        raise FileNotFoundError(
            f"{what} {name!r} cannot be loaded ({first_line(error)}): expected {expected}"
            f"{hint if offline else ''}"
        ) from error
