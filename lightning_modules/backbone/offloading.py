"""Models whose weights are kept elsewhere than they compute (accelerate's offloading)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["execution_device", "refuse_offloaded"]


def execution_device(model: nn.Module) -> torch.device:
    """Where a model computes: where its weights are, or where they are brought for it."""
    device = _hook_device(model)
    first = next(model.parameters())
    if device is None and first.is_meta:  # Offloaded layer by layer: each has a hook of its own
        found = (_hook_device(module) for module in model.modules())
        device = next((device for device in found if device is not None), None)
    return first.device if device is None else torch.device(device)


def refuse_offloaded(model: nn.Module) -> None:
    """Raises ValueError on a model whose weights are brought to it layer by layer: they can be
    neither read nor replaced."""
    first = next(model.parameters(), None)
    if first is not None and first.is_meta and any(hasattr(m, "_hf_hook") for m in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is offloaded layer by layer: its weights cannot be read or "
            "replaced; call the pipeline's remove_all_hooks() first, or offload whole models "
            "(enable_model_cpu_offload)"
        )


def _hook_device(module: nn.Module) -> torch.device | str | int | None:
    return getattr(getattr(module, "_hf_hook", None), "execution_device", None)
