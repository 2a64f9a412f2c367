"""Hooks in a UNet: parity with the stock model, together, in any order, under gradient
checkpointing, and out again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw, run
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.hooks import ATTRIBUTE
from lightning_modules.attention.mask_tokens import ExtraTokens, MergedText

TOKENS = [[1, [2, 3]], [0]]


def gates_at(unet: Any, bias: float = 0.0, **filters: Any) -> Gates:
    torch.manual_seed(0)
    return Gates(select(sites(unet), **filters), Gate(width=8, bias=bias))


def extra_at(unet: Any, **kinds: Any) -> ExtraTokens:
    return ExtraTokens(select(sites(unet)), draw(5, 2, 3, unet.config.cross_attention_dim), **kinds)


def state(unet: Any) -> tuple:
    return (
        {name: id(processor) for name, processor in unet.attn_processors.items()},
        len(unet._forward_hooks),
        len(unet._forward_pre_hooks),
        ATTRIBUTE in unet.__dict__,
        {name: id(vars(m).get("_gradient_checkpointing_func")) for name, m in unet.named_modules()},
    )


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "text mask"])
def test_capture_at_every_site_leaves_output_and_gradients_bit_equal(any_unet: Any, masked: bool):
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    extra = {"encoder_attention_mask": mask} if masked else {}
    weight = any_unet.get_submodule(select(sites(any_unet))[0].name).to_k.weight.requires_grad_(
        True
    )
    stock = run(any_unet, **extra)
    (stock_grad,) = torch.autograd.grad(stock.square().mean(), weight)
    with Capture(sites(any_unet), TOKENS).attached(any_unet) as capture:
        out = run(any_unet, **extra)
        (grad,) = torch.autograd.grad(out.square().mean(), weight)
    weight.requires_grad_(False)
    assert torch.equal(out, stock) and torch.equal(grad, stock_grad)
    assert list(capture.maps.by_site) == [site.name for site in sites(any_unet)], (
        "in the order of the network"
    )


def test_hooks_leave_in_any_order_and_the_model_is_as_it_was(any_unet: Any):
    before, stock = state(any_unet), run(any_unet)
    gates, capture, extra = (
        gates_at(any_unet),
        Capture(select(sites(any_unet), stage="high"), TOKENS),
        extra_at(any_unet),
    )
    for hook in (gates, capture, extra):
        hook.attach(any_unet)
    everything = run(any_unet)
    gates.detach()
    no_gates = run(any_unet)
    capture.detach()
    assert torch.equal(run(any_unet), no_gates), "a capture changes nothing"
    extra.detach()
    extra.detach()
    assert state(any_unet) == before and torch.equal(run(any_unet), stock)
    different = [stock, everything, no_gates]
    assert all(
        not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(different) for b in different[:i]
    )


def test_everything_is_restored_after_an_exception(any_unet: Any):
    before = state(any_unet)
    any_unet.enable_gradient_checkpointing()
    during = state(any_unet)
    capture = Capture(select(sites(any_unet)), [[99], [1]])
    with (
        pytest.raises(ValueError, match="expected indices from 0 to 11"),
        capture.attached(any_unet),
    ):
        run(any_unet)
    assert state(any_unet) == during
    any_unet.disable_gradient_checkpointing()
    with (
        pytest.raises(KeyboardInterrupt),
        gates_at(any_unet).attached(any_unet),
        extra_at(any_unet).attached(any_unet),
    ):
        raise KeyboardInterrupt
    assert state(any_unet)[:4] == before[:4]


def gradients(
    unet: Any, checkpointing: bool, close_first: bool
) -> tuple[Tensor, list[Tensor], dict[str, list[float]]]:
    """Output, gradients of gates, extra tokens and a projection, and what the gates counted, of a
    loss on output and maps."""
    # Diffusers checkpoints whenever gradients are wanted; training mode is what users have
    unet.train()
    (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
    gates, extra, capture = gates_at(unet), extra_at(unet), Capture(sites(unet), TOKENS)
    assert extra.tokens is not None
    extra.tokens.requires_grad_(True)
    weight = unet.get_submodule(select(sites(unet))[-1].name).to_k.weight.requires_grad_(True)
    leaves = [*gates.parameters(), extra.tokens, weight]
    with (
        gates.attached(unet),
        extra.attached(unet),
        capture.attached(unet),
        gates.recording() as record,
    ):
        out = run(unet)
        maps = {name: m for name, m in capture.maps.by_site.items()}
        loss = out.square().mean() + sum(m.square().sum() for m in maps.values())
        # A second pass, on which the capture stands aside, must not be taken for the first one when
        # that is run again.
        capture.tokens = None
        loss = loss + run(unet).abs().mean()
        if not close_first:
            loss.backward()
        assert capture.maps.by_site == maps
    if close_first:
        loss.backward()
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(grads) == len(leaves)
    for leaf in leaves:
        leaf.grad = None
    weight.requires_grad_(False)
    unet.disable_gradient_checkpointing()
    unet.eval()
    return out.detach(), grads, {name: counted.tolist() for name, counted in record.counted.items()}


@pytest.mark.parametrize(
    "close_first", [False, True], ids=["backward inside", "backward after detaching"]
)
def test_gradient_checkpointing_gives_the_same_and_records_nothing_twice(
    any_unet: Any, close_first: bool
):
    out, grads, counted = gradients(any_unet, checkpointing=False, close_first=False)
    again, same, recounted = gradients(any_unet, checkpointing=True, close_first=close_first)
    assert torch.equal(again, out) and recounted == counted
    for a, b in zip(same, grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)


def test_a_foreign_processor_is_refused_and_one_put_in_later_stays(embedded: Any):
    unet = embedded.unet
    site = select(sites(unet))[0]
    layer, stock = unet.get_submodule(site.name), unet.get_submodule(site.name).processor

    class Foreign:
        def __call__(self, attn: Any, hidden_states: Tensor, **_: Any) -> Tensor:
            return hidden_states

    layer.set_processor(Foreign())
    with pytest.raises(
        ValueError,
        match=(
            r"attn2 has the processor Foreign: expected a stock " r"one; take out what put it there"
        ),
    ):
        Capture([site]).attach(unet)
    assert ATTRIBUTE not in unet.__dict__
    layer.set_processor(stock)
    later = Foreign()
    with Capture([site]).attached(unet):
        layer.set_processor(later)
    assert layer.processor is later


def test_a_hook_cannot_be_attached_twice_nor_two_of_a_kind_at_one_site(embedded: Any):
    gates = gates_at(embedded.unet, stage="high")
    gates.attach(embedded.unet)
    with pytest.raises(ValueError, match="Gates is attached already: detach it first"):
        gates.attach(embedded.unet)
    with pytest.raises(ValueError, match="attn2 has Gates already"):
        gates_at(embedded.unet, stage="all").attach(embedded.unet)
    gates_at(embedded.unet, stage="mid").attach(embedded.unet)  # There is room
    with (
        MergedText(select(sites(embedded.unet))).attached(embedded.unet),
        pytest.raises(ValueError, match="has MergedText already: expected none; detach it"),
    ):
        extra_at(embedded.unet).attach(embedded.unet)


def test_a_layer_called_by_itself_is_a_pass_of_its_own(embedded: Any):
    site = select(sites(embedded.unet))[0]
    layer = embedded.unet.get_submodule(site.name)
    hidden, text = draw(0, 1, 256, 48), draw(1, 1, 24, 192)
    stock = layer(hidden, text)
    with Capture([site], [[3]]).attached(embedded.unet) as capture:
        assert torch.equal(layer(hidden, text), stock)
        assert capture.maps.mean().shape == (1, 1, 16, 16)
        with pytest.raises(ValueError, match=r"attn2: 255 pixels are no map \(latents unknown\)"):
            layer(hidden[:, :255], text)
