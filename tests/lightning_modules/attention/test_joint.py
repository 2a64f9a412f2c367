"""Joint attention: with hooks that change nothing the output is the stock one; maps are those of
the softmax over image and text, and carry its gradient."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.joint_architectures import build_joint_transformer
from helpers.unet_inputs import draw
from torch import Tensor

from lightning_modules.attention import functional, select, sites
from lightning_modules.attention.capture import Capture, PixelCapture
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.hooks import GateHook
from lightning_modules.attention.joint import RELATIONS, RelationCapture
from lightning_modules.attention.mask_tokens import ExtraTokens
from lightning_modules.attention.sites import Site
from lightning_modules.backbone.acceleration import BLOCKS, compile_blocks

TOKENS, SIDE = 7, 4  # Text, and patches along one side
WORDS = [[[1], [2, 3]], [[4]]]


@pytest.fixture(scope="module", params=["sd3", "sd35_medium", "flux_dev"])
def model(request: pytest.FixtureRequest) -> Any:
    return build_joint_transformer(request.param).requires_grad_(False)


def is_flux(model: Any) -> bool:
    return hasattr(model, "single_transformer_blocks")


def inputs(model: Any, batch: int = 2, scale: float = 1.0) -> dict[str, Any]:
    config = model.config
    given = {
        "encoder_hidden_states": scale * draw(1, batch, TOKENS, config.joint_attention_dim),
        "pooled_projections": draw(2, batch, config.pooled_projection_dim),
        "timestep": torch.tensor([900.0, 20.0][:batch]),
    }
    if not is_flux(model):
        return given | {"hidden_states": draw(3, batch, config.in_channels, 8, 8)}
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    places = torch.stack([torch.zeros_like(row), row, column], -1).flatten(0, 1).float()
    return given | {
        "hidden_states": draw(3, batch, SIDE**2, config.in_channels),
        "timestep": given["timestep"] / 1000,
        "guidance": torch.full((batch,), 3.5),
        "txt_ids": torch.zeros(TOKENS, 3),
        "img_ids": places,
    }


def joint_sites(model: Any) -> list[Site]:
    return select(sites(model, 8))


class Closing(GateHook):
    """Gates that are the same at each site: ``open`` [T] or [N, T]."""

    def __init__(self, at: list[Site], gate: Tensor, rule: str = "exact") -> None:
        self.sites, self.gate, self.rule = at, gate, rule

    def weight(self, site: Site, hidden: Tensor, context: Tensor, forward: Any) -> Tensor:
        assert hidden.shape[1] == SIDE**2 and context.shape[1] == TOKENS
        return self.gate.expand(len(hidden), SIDE**2, TOKENS)


class Recorder:
    """Queries and keys of every call of scaled-dot-product attention in a stock pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        stock = torch.nn.functional.scaled_dot_product_attention

        def attend(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
            self.calls.append((query, key, value))
            return stock(query, key, value, **rest)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)


def stock_maps(model: Any, monkeypatch: pytest.MonkeyPatch, given: Any) -> dict[str, Tensor]:
    """[B, heads, L, L] of each joint site, multiplied out in the order of the stock processor, and
    then with the image first."""
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        with torch.no_grad():
            model(**given)
    layers = [s for s in sites(model, 8)]
    assert len(layers) == len(recorder.calls)
    order = torch.arange(SIDE**2 + TOKENS)
    if is_flux(model):
        order = torch.cat([order[TOKENS:], order[:TOKENS]])
    found = {}
    for site, (query, key, _) in zip(layers, recorder.calls, strict=True):
        if site.is_joint:
            p = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
            found[site.name] = p[:, :, order][..., order]
    return found


# --- sites ----------------------------------------------------------------------------------------


def test_sites_of_each_layer(model: Any):
    found = sites(model, 8)
    joint = [site for site in found if site.is_joint]
    dual = [site for site in found if not site.is_joint]
    if is_flux(model):
        assert [site.name for site in joint] == [
            *(f"transformer_blocks.{i}.attn" for i in range(2)),
            *(f"single_transformer_blocks.{i}.attn" for i in range(2)),
        ]
    else:
        assert [site.name for site in joint] == [f"transformer_blocks.{i}.attn" for i in range(3)]
    assert {site.kind for site in joint} == {"cross"} and {s.resolution for s in found} == {SIDE}
    names = [site.name for site in dual]
    medium = list(model.config.get("dual_attention_layers", ()))
    assert names == [f"transformer_blocks.{i}.attn2" for i in medium]
    assert all(site.kind == "self" for site in dual)
    assert {site.stage for site in joint} == {"high", "mid", "low"}
    assert all(site.context == site.width == 32 for site in joint)


# --- output ---------------------------------------------------------------------------------------


def test_hooks_that_change_nothing_leave_the_stock_output(model: Any):
    given, at = inputs(model), joint_sites(model)
    with torch.no_grad():
        stock = model(**given).sample
        for hook in (
            Capture(at, WORDS),
            Capture([*at, *[s for s in sites(model, 8) if not s.is_joint]][:2], WORDS),
            PixelCapture(at, 2),
        ):
            with hook.attached(model):
                assert torch.equal(model(**given).sample, stock)
        for hook in (
            Closing(at, torch.ones(TOKENS)),
            ExtraTokens(at, torch.ones(2, 1, 32), scale=0.0),
        ):
            with hook.attached(model):
                found = model(**given).sample
            assert torch.allclose(found, stock, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(**given).sample, stock)


def test_a_closed_token_is_as_if_it_were_not_there_for_pixels_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch
):
    """In the first layer: pixels are given what they would get without the token's key."""
    given, at = inputs(model), joint_sites(model)[:1]
    gate = torch.ones(TOKENS)
    gate[2] = 0
    seen: dict[str, Any] = {}
    layer = model.get_submodule(at[0].name)

    def look(name: str, _: Any, arguments: Any, output: Any) -> None:
        seen[name] = output

    for name in ("stock", "gated"):
        handle = layer.register_forward_hook(partial(look, name))
        with torch.no_grad(), monkeypatch.context() as patch:
            recorder = Recorder(patch)
            if name == "stock":
                model(**given)
                query, key, value = recorder.calls[0]
            else:
                with Closing(at, gate).attached(model):
                    model(**given)
        handle.remove()
    image, text = seen["gated"]
    assert torch.allclose(text, seen["stock"][1], rtol=1e-4, atol=1e-5), "text asks as before"
    first = TOKENS if is_flux(model) else 0
    keep = [i for i in range(key.shape[2]) if i != (2 if is_flux(model) else SIDE**2 + 2)]
    rows = query[:, :, first : first + SIDE**2]
    out = torch.nn.functional.scaled_dot_product_attention(rows, key[:, :, keep], value[:, :, keep])
    expected = layer.to_out[0](out.transpose(1, 2).flatten(2))
    assert torch.allclose(image, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(image, seen["stock"][0], atol=1e-3)


def test_an_extra_token_weighs_as_a_token(model: Any):
    """Of scale 2 a token is two: pixels alone look at it."""
    given, at = inputs(model), joint_sites(model)
    token = draw(5, 2, 1, 32)
    with torch.no_grad():
        with ExtraTokens(at, torch.cat([token, token], dim=1)).attached(model):
            twice = model(**given).sample
        with ExtraTokens(at, token, scale=2.0).attached(model):
            assert torch.allclose(model(**given).sample, twice, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(**given).sample, twice, atol=1e-3)


# --- maps -----------------------------------------------------------------------------------------


def test_maps_of_words_are_those_of_the_joint_softmax(model: Any, monkeypatch: pytest.MonkeyPatch):
    given, at = inputs(model), joint_sites(model)
    stock = stock_maps(model, monkeypatch, given)
    for heads in ("mean", "keep"):
        with torch.no_grad(), Capture(at, WORDS, heads).attached(model) as capture:
            model(**given)
        assert list(capture.maps.by_site) == [site.name for site in at]
        for name, maps in capture.maps.by_site.items():
            p = stock[name][..., : SIDE**2, SIDE**2 :]  # [B, heads, N, T]
            words = torch.stack([p[..., [1]].mean(-1), p[..., [2, 3]].mean(-1)], 1)
            first = words[0] if heads == "keep" else words[0].mean(1)
            assert torch.allclose(maps[0].flatten(-2), first, rtol=1e-4, atol=1e-6)
            only = p[1, ..., 4] if heads == "keep" else p[1, ..., 4].mean(0)
            assert torch.allclose(maps[1, 0].flatten(-2), only, rtol=1e-4, atol=1e-6)
            assert not maps[1, 1].any(), "the second sample has one object"


@pytest.mark.parametrize("relation", RELATIONS)
def test_all_relations_of_a_site(model: Any, monkeypatch: pytest.MonkeyPatch, relation: str):
    given, at = inputs(model), joint_sites(model)
    stock = stock_maps(model, monkeypatch, given)
    keys = [[[0], [2, 3]], [[5]]]
    with torch.no_grad(), RelationCapture(at, keys, relation).attached(model) as capture:
        model(**given)
    parts = {"image": slice(0, SIDE**2), "text": slice(SIDE**2, None)}
    asks, asked = (parts[part] for part in relation.split("_"))
    for site in at:
        p = stock[site.name].mean(1)[:, asks, asked]  # [B, queries, keys]
        maps = capture.by_site[site.name]
        assert maps.shape == (2, p.shape[1], 2)
        assert torch.allclose(maps[0, :, 1], p[0][:, [2, 3]].mean(-1), rtol=1e-4, atol=1e-6)
        assert torch.allclose(maps[1, :, 0], p[1][:, 5], rtol=1e-4, atol=1e-6)


def test_pixels_and_words_share_one_softmax(model: Any):
    given, at = inputs(model), joint_sites(model)
    pixels, words = PixelCapture(at, 2), Capture(at, [[[t] for t in range(TOKENS)]] * 2)
    with torch.no_grad(), pixels.attached(model), words.attached(model):
        model(**given)
    for site in at:
        total = pixels.by_site[site.name].sum(-1)
        total = total + words.maps.by_site[site.name].sum(1).flatten(1)
        assert torch.allclose(total, torch.ones_like(total), rtol=1e-4)


def test_guidance_reads_the_conditional_half(model: Any):
    alone, at = inputs(model), joint_sites(model)
    single = {
        key: value[1:] if key not in ("txt_ids", "img_ids") else value
        for key, value in alone.items()
    }
    tokens = [[[1], [4]]]
    with torch.no_grad():
        with Capture(at, tokens).attached(model) as one:
            model(**single)
        with Capture(at, tokens).attached(model) as both:
            model(**alone)
    for name, maps in one.maps.by_site.items():
        assert torch.allclose(both.maps.by_site[name], maps, rtol=1e-4, atol=1e-6)


def gradient(model: Any, checkpointing: bool = False, last: bool = False) -> tuple[Tensor, Tensor]:
    """Of a loss on all maps by the latents, and the maps of the last site."""
    given, at = inputs(model), joint_sites(model)
    latents = given["hidden_states"].requires_grad_()
    model.train(checkpointing)
    if checkpointing:
        model.enable_gradient_checkpointing()
    try:
        capture = Capture(at, WORDS)
        with capture.attached(model):
            if last:
                with stop_after(model, at):
                    model(**given)
            else:
                model(**given)
            # A weight for each pixel, since maps of a softmax hardly move in the mean
            places = draw(9, SIDE, SIDE)
            loss = sum((m * places).sum() for m in capture.maps.by_site.values())
        loss.backward()
    finally:
        model.eval()
        model.disable_gradient_checkpointing()
    return latents.grad, capture.maps.by_site[at[-1].name].detach()


def test_gradients_are_those_of_the_softmax(model: Any, monkeypatch: pytest.MonkeyPatch):
    found, _ = gradient(model)

    # The same loss on maps that are multiplied out with autograd's own softmax
    def plain(query: Tensor, key: Tensor, weights: Tensor, *_: Any, **__: Any) -> Tensor:
        p = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return p.mean(1) @ weights

    monkeypatch.setattr("lightning_modules.attention.joint.token_maps", plain)
    expected, _ = gradient(model)
    assert expected.abs().max() > 0
    assert torch.allclose(
        found, expected, rtol=1e-3, atol=1e-6 * float(expected.abs().max()) + 1e-7
    )


def test_checkpointing_and_an_early_end_give_the_same_gradients(model: Any):
    plain, maps = gradient(model)
    for case in ({"checkpointing": True}, {"last": True}):
        found, again = gradient(model, **case)
        assert torch.allclose(found, plain, rtol=1e-4, atol=1e-7) and torch.allclose(again, maps)


def test_autocast_keeps_maps_in_float32(model: Any):
    given, at = inputs(model), joint_sites(model)
    with torch.no_grad(), Capture(at, WORDS).attached(model) as exact:
        model(**given)
    half = torch.autocast("cpu", torch.bfloat16)
    with torch.no_grad(), half, Capture(at, WORDS).attached(model) as capture:
        model(**given)
    assert {maps.dtype for maps in capture.maps.by_site.values()} == {torch.float32}
    first = at[0].name  # Behind it inputs differ, too
    assert torch.allclose(capture.maps.by_site[first], exact.maps.by_site[first], atol=0.05)


def test_no_slice_of_the_maps_is_larger_than_the_limit(model: Any, monkeypatch: pytest.MonkeyPatch):
    """The same maps and gradients where a slice holds few pixels."""
    whole, maps = gradient(model)
    heads = joint_sites(model)[0].heads
    monkeypatch.setattr(functional, "CHUNK", 2 * heads * (SIDE**2 + TOKENS) * 3)
    found, again = gradient(model)
    assert torch.allclose(found, whole, rtol=1e-4, atol=1e-7)
    assert torch.allclose(again, maps, rtol=1e-5, atol=1e-7)


def test_sums_of_the_softmax_give_the_same_maps(model: Any, monkeypatch: pytest.MonkeyPatch):
    """From the kernel that computes the output, in slices, and multiplied out."""
    found, maps = gradient(model)
    monkeypatch.setattr("lightning_modules.attention.joint.attend_with_total", lambda *_: None)
    monkeypatch.setattr(functional, "CHUNK", 1000)
    sliced, again = gradient(model)
    monkeypatch.setattr("lightning_modules.attention.joint.log_totals", lambda *_: None)
    whole, exact = gradient(model)
    for other, own in ((sliced, again), (whole, exact)):
        assert torch.allclose(other, found, rtol=1e-4, atol=1e-7)
        assert torch.allclose(own, maps, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_compiled_blocks_do_what_they_do_uncompiled(model: Any):
    """Traced, and run as they are: equal to the bit."""
    torch._dynamo.reset()
    compiled = deepcopy(model)
    compile_blocks(compiled, backend="eager")
    blocks = [m for m in compiled.modules() if type(m).__name__ in BLOCKS]
    assert len(blocks) == len(joint_sites(model))
    gate = torch.ones(TOKENS)
    gate[2] = 0
    outcomes = []
    for one in (model, compiled):
        given, at = inputs(one), joint_sites(one)
        with torch.no_grad():
            stock = one(**given).sample
            with Closing(at, gate).attached(one), Capture(at, WORDS).attached(one) as capture:
                gated = one(**given).sample
            after = one(**given).sample
        outcomes.append([stock, gated, after, *capture.maps.by_site.values()])
        assert torch.equal(stock, after) and not torch.equal(stock, gated)
    assert all(map(torch.equal, *outcomes))
    torch._dynamo.reset()


# --- what cannot be -------------------------------------------------------------------------------


def test_fused_projections_and_other_relations_are_refused(model: Any):
    at = joint_sites(model)
    with pytest.raises(ValueError, match="relation='words' is unknown: expected one of image_text"):
        RelationCapture(at, WORDS, "words")
    if dual := [site for site in sites(model, 8) if not site.is_joint]:
        with pytest.raises(ValueError, match="attn2 is no joint attention"):
            RelationCapture(dual, WORDS, "image_image")
    if is_flux(model):
        for layer in [model.get_submodule(site.name) for site in at]:
            layer.fused_projections = True
        try:
            with pytest.raises(ValueError, match=r"FusedFlux.*unfuse_qkv_projections\(\)"):
                Capture(at, WORDS).attach(model)
        finally:
            for layer in [model.get_submodule(site.name) for site in at]:
                layer.fused_projections = False


def test_other_backends_are_asked_through_the_dispatcher(
    model: Any, monkeypatch: pytest.MonkeyPatch
):
    """Where torch's own kernel is not what diffusers would ask; maps stay the same."""
    from diffusers.models import attention_dispatch

    given, at, asked = inputs(model), joint_sites(model), []
    with torch.no_grad(), Capture(at, WORDS).attached(model) as native:
        expected = model(**given).sample
    stock = attention_dispatch.dispatch_attention_fn

    def dispatch(*parts: Any, backend: Any = None, **rest: Any) -> Tensor:
        asked.append(backend)
        return stock(*parts, backend=backend, **rest)

    monkeypatch.setattr(attention_dispatch, "dispatch_attention_fn", dispatch)
    with torch.no_grad(), Capture(at, WORDS).attached(model) as capture:
        with attention_dispatch.attention_backend("_native_math"):
            found = model(**given).sample
        assert asked == [None] * len(at)
        processors = [model.get_submodule(site.name).processor for site in at]
        if is_flux(model):
            asked.clear()
            for processor in processors:
                processor._attention_backend = "_native_math"
            model(**given)
            assert asked == ["_native_math"] * len(at)
            for processor in processors:
                processor._attention_backend = None
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    for name, maps in native.maps.by_site.items():
        assert torch.allclose(capture.maps.by_site[name], maps, rtol=1e-3, atol=1e-5)


def test_maps_that_do_not_fit_are_refused_before_the_pass(
    model: Any, monkeypatch: pytest.MonkeyPatch
):
    at = [replace(site, resolution=64) for site in joint_sites(model)]
    whole = PixelCapture(at, 8)
    assert whole.count_bytes() == len(at) * 8 * 4096 * 4096 * 4
    heads = Capture(at, [[[1], [2]], [[3]]], heads="keep")
    assert heads.count_bytes() == sum(2 * 2 * 4096 * 4 * site.heads for site in at)
    monkeypatch.setattr("lightning_modules.attention.memory._free", lambda device: 2**30)
    with whole.attached(model), pytest.raises(ValueError, match=r"take .* GiB and 1\.0 GiB are"):
        model(**inputs(model))
    assert not whole.by_site
