"""A pass that ends early gives the maps, and their gradients, of a whole
one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.unet_inputs import run
from torch import Tensor

from lightning_modules.attention import nearest, select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.early_exit import block_order, stop_after
from lightning_modules.attention.hooks import ATTRIBUTE

TOKENS = [[1, [2, 3]], [0]]


def test_blocks_run_in_the_order_in_which_they_are_named(any_unet: Any):
    ran: list[str] = []
    blocks = block_order(any_unet)
    hooks = [
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, block in blocks.items()
    ]
    with torch.no_grad():
        run(any_unet)
    for hook in hooks:
        hook.remove()
    assert ran == list(blocks)
    assert all(any(site.name.startswith(f"{name}.") for name in blocks) for site in sites(any_unet))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("which", ["first", "nearest"])
def test_maps_and_gradients_are_those_of_a_whole_pass(
    any_unet: Any, which: str, checkpointing: bool
):
    cross = select(sites(any_unet))
    chosen = cross[:1] if which == "first" else nearest(cross, 8)
    weights = [
        any_unet.get_submodule(site.name).to_k.weight.requires_grad_(True) for site in chosen
    ]
    if checkpointing:
        any_unet.enable_gradient_checkpointing()
        any_unet.train()

    def found(early: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        capture = Capture(chosen, TOKENS)
        with capture.attached(any_unet):
            if early:
                with stop_after(any_unet, chosen):
                    run(any_unet)
                    raise AssertionError("the pass went to its end")
            else:
                run(any_unet)
            maps = capture.maps.mean()
            return maps.detach(), torch.autograd.grad(maps.square().sum(), weights)

    (maps, grads), (whole, expected) = found(True), found(False)
    assert torch.equal(maps, whole) and maps.abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))


def test_later_blocks_do_not_run_and_the_model_is_whole_afterwards(any_unet: Any):
    first, ran, blocks = select(sites(any_unet))[:1], [], block_order(any_unet)
    hooks = [
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, block in blocks.items()
    ]
    with torch.no_grad(), Capture(first, TOKENS).attached(any_unet), stop_after(any_unet, first):
        run(any_unet)
    assert (
        ran
        and ran == list(blocks)[: len(ran)]
        and len(ran) < len(blocks)
        and first[0].name.startswith(f"{ran[-1]}.")
    )
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        assert run(any_unet).shape[0] == 2
    assert ATTRIBUTE not in vars(any_unet) and not any(
        block._forward_pre_hooks for block in blocks.values()
    )


def test_what_goes_wrong_inside_comes_out(any_unet: Any):
    first = select(sites(any_unet))[:1]
    with pytest.raises(ZeroDivisionError), stop_after(any_unet, first):
        raise ZeroDivisionError
    assert not any(block._forward_pre_hooks for block in block_order(any_unet).values())
