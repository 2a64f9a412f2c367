"""Tensors that are computed once and read again: latents, embeddings, features."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def cached(folder: Path, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``compute`` gives, kept in ``folder``/``key``.safetensors. The key must change with everything that the content depends on.

    Raises ValueError, and keeps nothing, when a tensor holds a value that is not finite (a float16 VAE that overflowed, say).
    """
    path = folder / f"{key}.safetensors"
    if not path.exists():
        content = compute()
        for name, tensor in content.items():
            if not tensor.isfinite().all():
                bad = int((~tensor.reshape(len(tensor), -1).isfinite().all(1)).sum())
                raise ValueError(f"{bad} of {len(tensor)} rows of {name!r} are not finite: encode in float32 or bfloat16 (backbone.dtype)")
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{key}.{os.getpid()}"
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, draft)
        draft.replace(path)
    return load_file(path)
