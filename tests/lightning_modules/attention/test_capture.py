"""Maps of chosen tokens, against attention materialised by diffusers' own classic processor."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from helpers.unet_inputs import draw, run
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import hooks, nearest, select, sites
from lightning_modules.attention.capture import Capture, token_weights
from lightning_modules.attention.functional import token_maps
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.mask_tokens import ExtraTokens


class Materialised(AttnProcessor):
    """The classic processor; keeps its whole probabilities [B, heads, N, T]."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = (
            attn.head_to_batch_dim(attn.to_q(hidden_states)),
            attn.head_to_batch_dim(attn.to_k(context)),
        )
        self.kept = attn.get_attention_scores(query, key).unflatten(0, (-1, attn.heads))
        return super().__call__(attn, hidden_states, encoder_hidden_states)


def materialised(unet: Any, **given: Any) -> dict[str, Tensor]:
    stock = dict(unet.attn_processors)
    unet.set_attn_processor({name: Materialised() for name in stock})
    with torch.no_grad():
        run(unet, **given)
    kept = {name.removesuffix(".processor"): p.kept for name, p in unet.attn_processors.items()}
    unet.set_attn_processor(stock)
    return kept


def test_maps_are_those_of_the_materialised_attention_at_every_site(any_unet: Any):
    kept = materialised(any_unet)
    tokens = [[1, [2, 3]], [0]]
    with (
        torch.no_grad(),
        Capture(sites(any_unet), tokens).attached(any_unet) as mean,
        Capture(sites(any_unet), tokens, heads="keep").attached(any_unet) as heads,
    ):
        run(any_unet)
    assert mean.maps.present.tolist() == [[True, True], [True, False]]
    for site in sites(any_unet):
        p, side = kept[site.name], site.resolution
        assert p.shape[1] == site.heads and p.shape[2] == side * side
        expected = torch.zeros(2, 2, site.heads, side * side)
        expected[0, 0], expected[0, 1], expected[1, 0] = (
            p[0, ..., 1],
            p[0, ..., 2:4].mean(-1),
            p[1, ..., 0],
        )
        found = heads.maps.by_site[site.name]
        assert found.shape == (2, 2, site.heads, side, side) and torch.allclose(
            found.flatten(-2), expected, atol=1e-5
        )
        assert torch.allclose(mean.maps.by_site[site.name].flatten(-2), expected.mean(2), atol=1e-5)


def test_a_guidance_batch_gives_the_maps_of_its_conditional_half(any_unet: Any):
    kept = materialised(any_unet, batch=4)
    chosen = select(sites(any_unet))
    with torch.no_grad(), Capture(chosen, [[1], [2]]).attached(any_unet) as capture:
        run(any_unet, batch=4)
        for name, found in capture.maps.by_site.items():
            assert torch.allclose(found[0, 0].flatten(), kept[name][2, ..., 1].mean(0), atol=1e-5)
            assert torch.allclose(found[1, 0].flatten(), kept[name][3, ..., 2].mean(0), atol=1e-5)
        with pytest.raises(
            ValueError,
            match=(
                "a batch of 3 samples: expected 2, one for each list of tokens, or twice as many"
            ),
        ):
            run(any_unet, batch=3)


def test_captures_of_one_kind_share_their_arithmetic_and_have_their_own_maps(
    any_unet: Any, monkeypatch: pytest.MonkeyPatch
):
    chosen = select(sites(any_unet))
    wanted = [
        ([[1, [2, 3]], [0]], "mean"),
        ([[4], [5, 6]], "mean"),
        ([[], []], "mean"),
        ([[4], [5]], "keep"),
        ([[4]] * 4, "mean"),
    ]
    alone = []
    with torch.no_grad():
        for tokens, heads in wanted:
            with Capture(chosen, tokens, heads).attached(any_unet) as capture:
                run(any_unet, batch=4)
            alone.append(capture.maps)
    calls: list[tuple[int, ...]] = []

    def counted(query: Tensor, key: Tensor, select: Tensor, *rest: Any) -> Tensor:
        calls.append(tuple(select.shape[::2]))
        return token_maps(query, key, select, *rest)

    monkeypatch.setattr(hooks, "token_maps", counted)
    together = [Capture(chosen, tokens, heads) for tokens, heads in wanted]
    with torch.no_grad(), ExitStack() as attached:
        for capture in together:
            attached.enter_context(capture.attached(any_unet))
        run(any_unet, batch=4)
    assert calls == [(2, 4), (2, 1), (4, 1)] * len(chosen)
    for capture, expected in zip(together, alone, strict=True):
        assert torch.equal(capture.maps.present, expected.present) and list(
            capture.maps.by_site
        ) == list(expected.by_site)
        for name, found in capture.maps.by_site.items():
            assert found.shape == expected.by_site[name].shape and torch.allclose(
                found, expected.by_site[name], atol=1e-6
            )


def test_token_weights_average_and_know_objects_without_tokens():
    found = token_weights([[[1, 1, 3], []], [[0]], []], 4)
    assert found.shape == (3, 4, 2)
    assert (
        torch.allclose(found[0, :, 0], torch.tensor([0, 2 / 3, 0, 1 / 3]))
        and not found[0, :, 1].any()
    )
    assert (
        found[1, :, 0].tolist() == [1, 0, 0, 0] and not found[1, :, 1].any() and not found[2].any()
    )
    assert token_weights([], 4).shape == (0, 4, 0) and token_weights([[], []], 4).shape == (2, 4, 0)


def test_maps_keep_the_shape_of_oblong_images(any_unet: Any):
    kept = materialised(any_unet, latents=(8, 24))
    with (
        torch.no_grad(),
        Capture(select(sites(any_unet), stage="high"), [[1], [2]]).attached(any_unet) as capture,
    ):
        run(any_unet, latents=(8, 24))
    for name, found in capture.maps.by_site.items():
        height, width = found.shape[-2:]
        assert width == 3 * height
        assert torch.allclose(found[1, 0].flatten(), kept[name][1, ..., 2].mean(0), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_maps_are_float32_under_autocast_and_their_output_that_of_the_stock_model(
    embedded: Any, dtype: torch.dtype
):
    unet = embedded.unet
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        stock = run(unet)
        with Capture(select(sites(unet)), [[1, 2], [3]]).attached(unet) as capture:
            assert torch.equal(run(unet), stock)
    assert all(m.dtype == torch.float32 for m in capture.maps.by_site.values())
    kept = materialised(unet)
    for name, found in capture.maps.by_site.items():
        assert torch.allclose(found[0, 0].flatten(), kept[name][0, ..., 1].mean(0), atol=0.02)


def test_maps_of_gated_attention_and_extra_tokens_sum_to_one_and_are_what_the_layer_does(
    embedded: Any,
):
    unet = embedded.unet
    site = select(sites(unet), stage="high")[0]
    torch.manual_seed(0)
    gates = Gates([site], Gate(width=8, bias=0.0))
    extra = ExtraTokens([site], draw(5, 2, 3, 192), scale=2.0)
    every = Capture([site], [list(range(15))] * 2, heads="keep")
    layer, hidden, text = unet.get_submodule(site.name), draw(0, 2, 256, 48), draw(1, 2, 12, 192)
    with (
        torch.no_grad(),
        gates.attached(unet),
        extra.attached(unet),
        every.attached(unet),
        gates.recording(keep_maps=True) as record,
    ):
        out = layer(hidden, text)
    p = every.maps.by_site[site.name].flatten(-2)  # [B, T, heads, N]
    closed = record.maps[site.name].transpose(1, 2) == 0  # [B, T, N]
    assert closed.any() and not p[:, :12].masked_select(closed.unsqueeze(2)).any(), (
        "closed tokens have no probability"
    )
    assert torch.allclose(p.sum(1), torch.ones(2, site.heads, 256), atol=1e-5)
    value = layer.to_v(torch.cat([text, extra.tokens], 1)).unflatten(-1, (site.heads, -1))  # type: ignore[list-item]
    expected = layer.to_out[0](torch.einsum("bthn,bthd->bnhd", p, value).flatten(2))
    assert torch.allclose(out, expected, atol=1e-5)


def test_only_the_latest_pass_is_kept_and_none_captures_nothing(embedded: Any):
    unet = embedded.unet
    with (
        torch.no_grad(),
        Capture(select(sites(unet), stage="low"), [[1], [1]]).attached(unet) as capture,
    ):
        with pytest.raises(ValueError, match="no map was captured"):
            capture.maps.mean()
        run(unet)
        first = capture.maps
        capture.tokens = [[2], []]
        run(unet)
        second = capture.maps
        capture.tokens = None
        run(unet)
        assert capture.maps is second and first is not second
        capture.tokens = [[], []]
        run(unet)
        assert capture.maps.mean().shape[:2] == capture.maps.present.shape == (2, 0)
    assert second.present.tolist() == [[True], [False]] and not second.mean()[1].any()
    assert not torch.equal(first.mean()[0], second.mean()[0])


def test_the_mean_over_levels_is_at_the_finest_or_the_size_asked_for(embedded: Any):
    unet = embedded.unet
    with torch.no_grad(), Capture(select(sites(unet)), [[1], [2]]).attached(unet) as capture:
        run(unet)
    fine = [m for m in capture.maps.by_site.values() if m.shape[-1] == 16]
    coarse = [m for m in capture.maps.by_site.values() if m.shape[-1] == 8]
    up = [
        torch.nn.functional.interpolate(m, (16, 16), mode="bilinear", align_corners=False)
        for m in coarse
    ]
    down = [m.unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).mean((-3, -1)) for m in fine]
    assert (len(fine), len(coarse)) == (3, 4)
    assert torch.allclose(capture.maps.mean(), sum(fine + up) / 7, atol=1e-6)
    assert torch.allclose(capture.maps.mean(8), sum(coarse + down) / 7, atol=1e-6)
    with (
        torch.no_grad(),
        Capture(select(sites(unet)), [[1], [2]], heads="keep").attached(unet) as capture,
    ):
        run(unet)
    with pytest.raises(ValueError, match="sites with 2 and 4 heads have no mean by head"):
        capture.maps.mean()
    with pytest.raises(ValueError, match="heads='max' is unknown: expected 'mean' or 'keep'"):
        Capture([], heads="max")


@pytest.mark.parametrize(
    ("tokens", "found"), [([[12], []], r"\[12\]"), ([[1], [-1]], r"\[-1\]"), ([[[]], []], r"\[\]")]
)
def test_token_indices_that_the_text_does_not_have_are_named(
    embedded: Any, tokens: list, found: str
):
    with (
        pytest.raises(
            ValueError,
            match=(
                rf"tokens {found} of object 0 in sample " r"[01]: expected indices from 0 to 11"
            ),
        ),
        Capture(select(sites(embedded.unet)), tokens).attached(embedded.unet),
    ):
        run(embedded.unet)


def test_the_nearest_level_is_taken_and_another_one_is_said(
    embedded: Any, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        assert {s.resolution for s in nearest(select(sites(embedded.unet)))} == {
            16
        } and not caplog.records
        # SDXL at 1024 pixels has 64 and 32, at 512 pixels 32 and 16.
        assert {s.resolution for s in nearest(select(sites(embedded.unet, latent_size=64)))} == {32}
    assert (
        "no attention maps of 16×16 here (sides: 64, 32): those of 32×32 are taken"
    ) in caplog.text
    assert {s.resolution for s in nearest(select(sites(embedded.unet, latent_size=32)), 24)} == {
        32
    }, "of two equally near, the finer"
    with pytest.raises(ValueError, match="no site to choose from"):
        nearest([])
