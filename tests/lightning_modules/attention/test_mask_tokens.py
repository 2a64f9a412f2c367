"""Extra tokens behind the text: the same as a longer text, with a strength, for the sites and samples that have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from unet_inputs import draw, run

from lightning_modules.attention import select, sites
from lightning_modules.attention.mask_tokens import ExtraTokens


def test_they_are_as_if_the_text_were_longer(any_unet: Any):
    width = any_unet.config.cross_attention_dim
    tokens = draw(5, 2, 3, width)
    longer = torch.cat([draw(1, 2, 12, width), tokens], dim=1)
    with torch.no_grad():
        expected = run(any_unet, text=longer)
        with ExtraTokens(select(sites(any_unet)), tokens).attached(any_unet):
            assert torch.equal(run(any_unet), expected)


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


def test_strength_zero_or_absence_is_as_if_they_were_not_there(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 3, any_unet.config.cross_attention_dim)
    present = torch.tensor([[True, False, False], [True, True, True]])
    with torch.no_grad():
        stock, part = run(any_unet), ExtraTokens(chosen, tokens, strength=0.0)
        with part.attached(any_unet):
            assert torch.allclose(run(any_unet), stock, atol=1e-5)
            part.set(None)
            assert torch.equal(run(any_unet), stock)
            part.set(tokens, present=present)
            some = run(any_unet)
            part.set(tokens[:, :1])
            first = run(any_unet)
            part.set(tokens)
            every = run(any_unet)
    assert torch.allclose(some[0], first[0], atol=1e-5) and torch.allclose(some[1], every[1], atol=1e-5)
    assert not torch.allclose(some[0], every[0], atol=1e-3)


def test_strength_two_counts_a_token_twice(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 2, any_unet.config.cross_attention_dim)
    strength = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    with torch.no_grad(), ExtraTokens(chosen, tokens, strength).attached(any_unet) as part:
        out = run(any_unet)
        part.set(torch.cat([tokens[:, :1], tokens], dim=1), present=torch.tensor([[True, True, True], [False, True, True]]))
        assert torch.allclose(run(any_unet), out, atol=1e-5)


def test_the_unconditional_half_gets_zero_tokens(any_unet: Any):
    chosen, tokens = select(sites(any_unet)), draw(5, 2, 3, any_unet.config.cross_attention_dim)
    with torch.no_grad(), ExtraTokens(chosen, tokens).attached(any_unet) as part:
        guided = run(any_unet, batch=4)
        part.set(torch.cat([torch.zeros_like(tokens), tokens]))
        assert torch.equal(run(any_unet, batch=4), guided)
        with pytest.raises(ValueError, match="extra tokens for 4 samples in a batch of 3"):
            run(any_unet, batch=3)


def test_only_the_chosen_sites_have_them(embedded: Any):
    stock = run(embedded.unet)
    outs = []
    for stage in ("high", "low"):
        with ExtraTokens(select(sites(embedded.unet), stage=stage), draw(5, 2, 3, 192)).attached(embedded.unet):
            outs.append(run(embedded.unet))
    assert not torch.equal(outs[0], outs[1]) and all(not torch.equal(out, stock) for out in outs)


def test_what_does_not_fit_is_said(embedded: Any):
    chosen = select(sites(embedded.unet))
    with pytest.raises(ValueError, match=r"strength \(2, 2\) does not fit tokens \(2, 3, 192\): expected \(2, 3\)"):
        ExtraTokens(chosen, draw(5, 2, 3, 192), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"present \(3,\) does not fit"):
        ExtraTokens(chosen, draw(5, 2, 3, 192), present=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="strength=-1.0 is negative: expected 0"):
        ExtraTokens(chosen, draw(5, 2, 3, 192), -1.0)
    with pytest.raises(ValueError, match="extra tokens of width 8: this site's text has 192"), \
            ExtraTokens(chosen, draw(5, 2, 3, 8)).attached(embedded.unet):
        run(embedded.unet)
