"""Forward passes that end early: losses on attention maps need no prediction, and the last layers
of a UNet, which work at its highest resolution, are the most expensive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_modules.attention.sites import Site

__all__ = ["block_order", "stop_after"]


class _EarlyExit(Exception):
    """All that is needed has been computed."""


def block_order(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a UNet or a transformer in the order in which they run, by name, and the layer
    behind the last of them."""
    if hasattr(model, "transformer_blocks"):
        blocks = {
            f"transformer_blocks.{i}": block for i, block in enumerate(model.transformer_blocks)
        }
        for i, block in enumerate(getattr(model, "single_transformer_blocks", ())):
            blocks[f"single_transformer_blocks.{i}"] = block
        return blocks | {"norm_out": model.norm_out}
    blocks = {f"down_blocks.{i}": block for i, block in enumerate(model.down_blocks)}
    if model.mid_block is not None:
        blocks["mid_block"] = model.mid_block
    blocks |= {f"up_blocks.{i}": block for i, block in enumerate(model.up_blocks)}
    last = "conv_out" if model.conv_norm_out is None else "conv_norm_out"
    return blocks | {last: getattr(model, last)}


@contextmanager
def stop_after(model: nn.Module, sites: Sequence[Site]) -> Iterator[None]:
    """Inside the ``with`` block a forward pass of ``model`` ends, and the ``with`` block with it,
    behind the last of ``sites``: what the sites saw is there with its gradients, a prediction is
    not.

    The pass ends before anything of the next block has run: gradient checkpointing then has nothing
    of it to run again.
    """
    blocks = block_order(model)
    names = list(blocks)
    last = max(
        names.index(next(name for name in names if site.name.startswith(f"{name}.")))
        for site in sites
    )

    def stop(module: nn.Module, arguments: Any) -> None:
        raise _EarlyExit

    handle = blocks[names[last + 1]].register_forward_pre_hook(stop)
    try:
        yield
    except _EarlyExit:
        pass
    finally:
        handle.remove()
