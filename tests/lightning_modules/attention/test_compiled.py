"""Compiled blocks do what they do uncompiled, whatever acts in their attention. The
compiler's own code is not tested: what is traced runs as it is (backend "eager"), so that
numbers are equal to the bit and no C++ compiler is needed."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw, run
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import nearest, select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.mask_tokens import ExtraTokens
from lightning_modules.backbone.acceleration import BLOCKS, compile_blocks

# Tracing takes seconds a model
pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("any_unet", ["sdxl", "pixart"], indirect=True),
]
TOKENS = [[1, [2, 3]], [0]]


@pytest.fixture
def compiled(any_unet: Any) -> Iterator[Any]:
    """A copy with compiled blocks."""
    torch._dynamo.reset()
    model = deepcopy(any_unet)
    compile_blocks(model, backend="eager")
    blocks = [module for module in model.modules() if type(module).__name__ in BLOCKS]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    yield model
    torch._dynamo.reset()


def outcome(unet: Any, checkpointing: bool = False) -> dict[str, Tensor]:
    """Output, maps and gradients with gates at all cross-attention, tokens added in the middle and
    maps read everywhere."""
    (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
    torch.manual_seed(0)
    gates = Gates(select(sites(unet)), Gate(width=8, bias=0.0))
    extra = ExtraTokens(
        select(sites(unet), stage="mid"),
        draw(5, 2, 3, unet.config.cross_attention_dim).requires_grad_(True),
    )
    capture = Capture(sites(unet), TOKENS)
    weight = unet.get_submodule(select(sites(unet))[-1].name).to_k.weight.requires_grad_(True)
    leaves = {"weight": weight, "tokens": extra.tokens} | dict(gates.named_parameters())
    with gates.attached(unet), extra.attached(unet), capture.attached(unet):
        out = run(unet)
        loss = out.square().mean() + sum(
            found.square().sum() for found in capture.maps.by_site.values()
        )
        grads = torch.autograd.grad(loss, list(leaves.values()))
    weight.requires_grad_(False)
    maps = {name: found.detach() for name, found in capture.maps.by_site.items()}
    return (
        {"out": out.detach()}
        | maps
        | {f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}
    )


def test_stock_passes_are_equal_before_and_after_something_was_at_work(
    any_unet: Any, compiled: Any
):
    with torch.no_grad():
        stock = run(any_unet)
        assert torch.equal(run(compiled), stock)
    outcome(compiled)
    with torch.no_grad():
        assert torch.equal(run(compiled), stock)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_gates_maps_and_tokens_act_and_learn_as_without(
    any_unet: Any, compiled: Any, checkpointing: bool
):
    expected, found = outcome(any_unet), outcome(compiled, checkpointing)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (
            torch.allclose(found[name], value, rtol=1e-4, atol=1e-7)
            if checkpointing
            else torch.equal(found[name], value)
        ), name


def test_a_pass_still_ends_where_nothing_more_is_wanted(any_unet: Any, compiled: Any):
    chosen = nearest(select(sites(any_unet)), 8)
    maps = []
    for model in (any_unet, compiled):
        with torch.no_grad(), Capture(chosen, TOKENS).attached(model) as capture:
            with stop_after(model, chosen):
                run(model)
                raise AssertionError("the pass went to its end")
            maps.append(capture.maps.mean())
    assert torch.equal(*maps) and maps[0].abs().sum() > 0
