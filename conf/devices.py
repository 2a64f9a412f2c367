"""Which devices a machine has, as far as settings depend on it. Torch, which takes seconds to load,
is asked only where there is a driver."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

__all__ = ["has_driver", "runs_on_cpu"]


def runs_on_cpu(accelerator: str) -> bool:
    """Whether a trial with this ``trainer.accelerator`` computes on the CPU of this machine."""
    if accelerator in ("cpu", "gpu"):
        return accelerator == "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return sys.platform != "darwin" or not _torch_sees_gpu()
    return not ((has_driver() or sys.platform == "darwin") and _torch_sees_gpu())


def has_driver() -> bool:
    """Whether there is a driver of CUDA or ROCm."""
    for driver in ("libcuda.so.1", "libamdhip64.so", "nvcuda.dll"):
        with suppress(OSError):
            ctypes.CDLL(driver)
            return True
    return False


@cache
def _torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()
