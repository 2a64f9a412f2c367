"""Forward passes that end where nothing more is wanted: losses on attention maps need no
prediction, and the last layers of a UNet, which work at its highest resolution, are the most
expensive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_modules.attention.sites import Site

__all__ = ["stop_after", "block_order"]


class _EarlyExit(Exception):
    """All that was wanted has been computed."""


def block_order(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a UNet or a transformer in the order in which they run, by name."""
    if hasattr(model, "transformer_blocks"):
        blocks = {
            f"transformer_blocks.{i}": block for i, block in enumerate(model.transformer_blocks)
        }
        return blocks | {"norm_out": model.norm_out}
    down = {f"down_blocks.{i}": block for i, block in enumerate(model.down_blocks)}
    middle = {"mid_block": model.mid_block} if model.mid_block is not None else {}
    up = {f"up_blocks.{i}": block for i, block in enumerate(model.up_blocks)}
    last = (
        {"conv_norm_out": model.conv_norm_out}
        if model.conv_norm_out is not None
        else {"conv_out": model.conv_out}
    )
    return down | middle | up | last


@contextmanager
def stop_after(model: nn.Module, sites: Sequence[Site]) -> Iterator[None]:
    """Inside the block a forward pass of ``model`` ends, and the block with it, when the part with
    the last of ``sites`` has run: what the sites saw is there with its gradients, a prediction is
    not.

    The pass ends before anything of the next part has run: gradient checkpointing then has nothing
    of it to run again.
    """
    parts = block_order(model)
    names = list(parts)
    reached = max(
        names.index(next(name for name in names if site.name.startswith(f"{name}.")))
        for site in sites
    )

    def stop(module: nn.Module, arguments: Any) -> None:
        raise _EarlyExit

    hook = parts[names[reached + 1]].register_forward_pre_hook(stop)
    try:
        yield
    except _EarlyExit:
        pass
    finally:
        hook.remove()
