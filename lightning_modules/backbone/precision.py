"""In which precision the denoiser computes while it draws."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from conf.schema import Evaluation

__all__ = ["cpu_has_bfloat16", "resolve_precision"]


def resolve_precision(evaluation: Evaluation, device_type: str, dtype: torch.dtype) -> str:
    """``32-true`` or ``bf16-mixed``: what ``evaluation.precision`` means for a backbone of
    ``dtype`` on a device.

    ``auto`` takes bfloat16 for a float32 backbone on a CPU that has instructions for it, and
    float32 elsewhere: a CPU without them imitates them, many times slower. A backbone in half
    precision computes in that.
    """
    if dtype != torch.float32:
        return "32-true"
    if evaluation.precision != "auto":
        return evaluation.precision
    return "bf16-mixed" if device_type == "cpu" and cpu_has_bfloat16() else "32-true"


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 (AVX-512 or AMX)."""
    if hasattr(torch.cpu, "get_capabilities"):  # Torch 2.11
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(ask and ask())
