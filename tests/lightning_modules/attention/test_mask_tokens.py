"""Extra tokens behind the text: as a longer text, with a scale, for the sites, samples and
regions that have them; merged text."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw, run

from lightning_modules.attention import select, sites
from lightning_modules.attention.mask_tokens import ExtraTokens, MergedText


def test_they_are_as_if_the_text_were_longer(any_unet: Any):
    width = any_unet.config.cross_attention_dim
    tokens = draw(5, 2, 3, width)
    longer = torch.cat([draw(1, 2, 12, width), tokens], dim=1)
    with torch.no_grad():
        expected = run(any_unet, text=longer)
        with ExtraTokens(select(sites(any_unet)), tokens).attached(any_unet):
            assert torch.equal(run(any_unet), expected)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_layers_share_the_longer_text_and_tokens_get_their_gradient(
    embedded: Any, checkpointed: bool
):
    """Layers that train their projections keep their input for the backward pass: one of their own
    each would be most of the memory."""
    width = embedded.unet.config.cross_attention_dim
    tokens, seen = draw(5, 2, 3, width).requires_grad_(), list[torch.Tensor]()
    chosen = select(sites(embedded.unet))
    inside = torch.zeros(2, 3, 16, 16)
    inside[:, :, :7] = 1
    hooks = [
        embedded.unet.get_submodule(site.name).to_k.register_forward_pre_hook(
            lambda _, given: seen.append(given[0])
        )
        for site in chosen
    ]
    if checkpointed:
        embedded.unet.enable_gradient_checkpointing()
        embedded.unet.train()
    with ExtraTokens(chosen, tokens, 0.5, region=inside).attached(embedded.unet):
        run(embedded.unet).square().mean().backward()
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(chosen) * (1 + checkpointed) and all(text is seen[0] for text in seen)
    found, tokens.grad = tokens.grad, None
    embedded.unet.disable_gradient_checkpointing()
    embedded.unet.eval()
    with ExitStack() as apart:  # A hook for each layer shares nothing
        for site in chosen:
            apart.enter_context(
                ExtraTokens([site], tokens, 0.5, region=inside).attached(embedded.unet)
            )
        run(embedded.unet).square().mean().backward()
    assert found is not None and tokens.grad is not None and found.abs().sum() > 0
    assert torch.allclose(found, tokens.grad, rtol=1e-4, atol=1e-9)


def test_a_text_mask_lets_them_through(any_unet: Any):
    width = any_unet.config.cross_attention_dim
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 7:] = False
    tokens, text = draw(5, 2, 3, width), draw(1, 2, 12, width)
    # The second sample without its masked tokens, the extra ones right behind the rest.
    short = torch.cat([text[1:, :7], tokens[1:]], dim=1)
    with torch.no_grad(), ExtraTokens(select(sites(any_unet)), tokens).attached(any_unet):
        out = run(any_unet, encoder_attention_mask=mask)
    with torch.no_grad():
        alone = run(any_unet, text=torch.cat([short, short]))
    assert torch.allclose(out[1], alone[1], atol=1e-4)


def test_scale_zero_or_absence_is_as_if_they_were_not_there(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 3, any_unet.config.cross_attention_dim)
    present = torch.tensor([[True, False, False], [True, True, True]])
    with torch.no_grad():
        stock, extra = run(any_unet), ExtraTokens(chosen, tokens, scale=0.0)
        with extra.attached(any_unet):
            assert torch.allclose(run(any_unet), stock, atol=1e-5)
            extra.set(None)
            assert torch.equal(run(any_unet), stock)
            extra.set(tokens, present=present)
            some = run(any_unet)
            extra.set(tokens[:, :1])
            first = run(any_unet)
            extra.set(tokens)
            every = run(any_unet)
    assert torch.allclose(some[0], first[0], atol=1e-5) and torch.allclose(
        some[1], every[1], atol=1e-5
    )
    assert not torch.allclose(some[0], every[0], atol=1e-3)


def test_scale_two_counts_a_token_twice(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 2, any_unet.config.cross_attention_dim)
    scale = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    with torch.no_grad(), ExtraTokens(chosen, tokens, scale).attached(any_unet) as extra:
        out = run(any_unet)
        extra.set(
            torch.cat([tokens[:, :1], tokens], dim=1),
            present=torch.tensor([[True, True, True], [False, True, True]]),
        )
        assert torch.allclose(run(any_unet), out, atol=1e-5)


def test_the_unconditional_half_gets_zero_tokens(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 3, any_unet.config.cross_attention_dim)
    with torch.no_grad(), ExtraTokens(chosen, tokens).attached(any_unet) as extra:
        guided = run(any_unet, batch=4)
        extra.set(torch.cat([torch.zeros_like(tokens), tokens]))
        assert torch.equal(run(any_unet, batch=4), guided)
        with pytest.raises(ValueError, match="extra tokens for 4 samples in a batch of 3"):
            run(any_unet, batch=3)


def test_what_does_not_fit_is_said(embedded: Any):
    chosen = select(sites(embedded.unet))
    with pytest.raises(
        ValueError,
        match=(r"scale \(2, 2\) does not fit tokens " r"\(2, 3, 192\): expected \(2, 3\)"),
    ):
        ExtraTokens(chosen, draw(5, 2, 3, 192), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"present \(3,\) does not fit"):
        ExtraTokens(chosen, draw(5, 2, 3, 192), present=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="scale=-1.0 is negative: expected 0"):
        ExtraTokens(chosen, draw(5, 2, 3, 192), -1.0)
    with (
        pytest.raises(ValueError, match="extra tokens of width 8: this site's text has 192"),
        ExtraTokens(chosen, draw(5, 2, 3, 8)).attached(embedded.unet),
    ):
        run(embedded.unet)


# --- regions --------------------------------------------------------------------------------


def corner(batch: int = 2) -> torch.Tensor:
    """[B, 2, 32, 32]: the upper left quarter for the first token, nothing for the second."""
    region = torch.zeros(batch, 2, 32, 32)
    region[:, 0, :16, :16] = 1
    return region


def test_a_token_acts_inside_its_mask_alone(any_unet: Any):
    """At the first site whatever it is told, so that pixels hear nothing of each other."""
    chosen, tokens = (
        select(sites(any_unet, 16))[:1],
        draw(5, 2, 2, any_unet.config.cross_attention_dim),
    )
    seen: list[torch.Tensor] = []
    any_unet.get_submodule(chosen[0].name).register_forward_hook(
        lambda _, args, out: seen.append(out)
    )
    side = chosen[0].resolution
    inside = (
        torch.nn.functional.interpolate(corner()[:1, :1], (side, side), mode="area").flatten() > 0
    )
    with (
        torch.no_grad(),
        ExtraTokens(chosen, tokens, 3.0, region=corner()).attached(any_unet) as extra,
    ):
        run(any_unet)
        extra.set(tokens[:, :1], 3.0)
        run(any_unet)
        extra.set(None)
        run(any_unet)
    # [B, N, C]
    limited, everywhere, stock = (
        out.flatten(2).transpose(1, 2) if out.dim() == 4 else out for out in seen
    )
    assert inside.any() and not inside.all()
    assert torch.allclose(limited[:, ~inside], stock[:, ~inside], atol=1e-5)
    assert torch.allclose(limited[:, inside], everywhere[:, inside], atol=1e-5)
    assert not torch.allclose(limited[:, inside], stock[:, inside], atol=1e-3)


def test_a_mask_that_covers_a_quarter_of_a_pixel_quarters_the_scale(embedded: Any):
    chosen, tokens = select(sites(embedded.unet)), draw(5, 2, 2, 192)
    with (
        torch.no_grad(),
        ExtraTokens(chosen, tokens, 2.0, region=torch.full((2, 2, 32, 32), 0.25)).attached(
            embedded.unet
        ) as extra,
    ):
        out = run(embedded.unet)
        stripes = torch.zeros(2, 2, 64, 64)
        stripes[..., ::4] = 1  # a quarter of each pixel of 16 x 16 and of 8 x 8
        extra.set(tokens, 2.0, region=stripes)
        assert torch.allclose(run(embedded.unet), out, atol=1e-5)
        extra.set(tokens, 0.5)
        assert torch.allclose(run(embedded.unet), out, atol=1e-5)
        extra.set(tokens, 2.0)
        assert not torch.allclose(run(embedded.unet), out, atol=1e-3)


def test_a_full_region_is_as_none_and_an_empty_one_as_no_tokens(
    any_unet: Any,
):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 2, any_unet.config.cross_attention_dim)
    with torch.no_grad(), ExtraTokens(chosen, tokens).attached(any_unet) as extra:
        expected = run(any_unet)
        extra.set(tokens, region=torch.ones(2, 2, 8, 8))
        assert torch.allclose(run(any_unet), expected, atol=1e-5)
        extra.set(tokens, region=torch.zeros(2, 2, 8, 8))
        nowhere = run(any_unet)
        extra.set(tokens[:, :0], region=torch.zeros(2, 0, 8, 8))
        none = run(any_unet)
        extra.set(None)
        stock = run(any_unet)
    assert torch.allclose(nowhere, stock, atol=1e-5) and torch.allclose(none, stock, atol=1e-5)


def test_with_a_mask_the_unconditional_half_has_no_tokens_at_all(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 2, any_unet.config.cross_attention_dim)
    with (
        torch.no_grad(),
        ExtraTokens(chosen, tokens, 5.0, region=corner()).attached(any_unet) as extra,
    ):
        guided = run(any_unet, batch=4)
        extra.set(None)
        stock = run(any_unet, batch=4)
    assert torch.allclose(guided[:2], stock[:2], atol=1e-5) and not torch.allclose(
        guided[2:], stock[2:], atol=1e-3
    )


def test_regions_may_differ_from_sample_to_sample_and_passes_a_gradient(embedded: Any):
    chosen, tokens = select(sites(embedded.unet)), draw(5, 2, 2, 192).requires_grad_()
    region = corner()
    region[1, 0] = 0  # The second sample has its second token alone
    region[1, 1] = 1
    with ExtraTokens(chosen, tokens, region=region).attached(embedded.unet):
        run(embedded.unet).square().sum().backward()
    assert tokens.grad is not None
    assert [[bool(row.any()) for row in sample] for sample in tokens.grad] == [
        [True, False],
        [False, True],
    ]
    with pytest.raises(
        ValueError,
        match=(
            r"region \(2, 1, 8, 8\) does not fit tokens "
            r"\(2, 2, 192\): expected \(2, 2\) \+ \(H, W\)"
        ),
    ):
        ExtraTokens(chosen, tokens, region=torch.ones(2, 1, 8, 8))


# --- text in the text's place ---------------------------------------------------------------------


def test_merged_text_is_as_if_the_text_were_another(any_unet: Any):
    text = draw(1, 2, 12, any_unet.config.cross_attention_dim)
    with torch.no_grad(), MergedText(select(sites(any_unet))).attached(any_unet) as extra:
        stock = run(any_unet)
        extra.samples, extra.merge = 2, lambda states: states.flip(1) * 2
        merged = run(any_unet)
        extra.merge = None
        assert torch.equal(run(any_unet), stock)
    with torch.no_grad():
        assert torch.equal(run(any_unet), stock) and torch.equal(
            run(any_unet, text=text.flip(1) * 2), merged
        )
    assert not torch.allclose(merged, stock, atol=1e-3)


def test_merging_leaves_the_unconditional_half_and_a_text_mask_as_they_are(any_unet: Any):
    text, mask = (
        draw(1, 4, 12, any_unet.config.cross_attention_dim),
        torch.ones(4, 12, dtype=torch.bool),
    )
    mask[1, 7:] = mask[3, 5:] = False
    with torch.no_grad(), MergedText(select(sites(any_unet))).attached(any_unet) as extra:
        extra.samples, extra.merge = 2, lambda states: states * 2
        guided = run(any_unet, batch=4, encoder_attention_mask=mask)
        with pytest.raises(
            ValueError,
            match=("masks of 2 samples in a batch of 3: expected as many, or half with guidance"),
        ):
            run(any_unet, batch=3)
    with torch.no_grad():
        assert torch.equal(
            run(
                any_unet,
                text=torch.cat([text[:2], text[2:] * 2]),
                batch=4,
                encoder_attention_mask=mask,
            ),
            guided,
        )
