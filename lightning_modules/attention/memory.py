"""What captured maps take, said before a forward pass begins: they are kept to its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch

from lightning_modules.attention.sites import Site

__all__ = ["check_free", "map_bytes"]

SMALL = 2**28  # Bytes that are not worth a look
FLOAT = 4


def map_bytes(
    sites: Sequence[Site], samples: int, objects: int | None = None, keep_heads: bool = False
) -> int:
    """Bytes of the float32 maps of so many samples and objects at ``sites``; without ``objects``
    each pixel is one."""
    total = 0
    for site in sites:
        pixels = site.resolution**2
        columns = pixels if objects is None else objects
        total += FLOAT * samples * pixels * columns * (site.heads if keep_heads else 1)
    return total


def check_free(needed: Iterable[int], device: torch.device) -> None:
    """Raises ValueError where maps of so many bytes together do not fit into what is free on the
    ``device``."""
    total = sum(needed)
    if total <= SMALL or (free := _free(device)) is None or total <= free:
        return
    raise ValueError(
        f"the maps to be captured take {total / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free "
        f"on {device.type}: capture fewer sites, samples or words, heads='mean' instead of 'keep', "
        "or maps of pixels at coarser sites"
    )


def _free(device: torch.device) -> int | None:
    """Bytes; None where nothing says it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return free + reserved - used
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
