"""Masks to tokens: shapes, blank masks, what must not depend on what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.mask_encoder import KINDS, MaskEncoder


def masks() -> Tensor:
    """[2, 3, 16, 16]: three masks, and one with two blank ones behind it."""
    found = torch.zeros(2, 3, 16, 16)
    found[0, 0, 2:6, 3:9] = found[0, 1, 8:, 8:] = found[0, 2, 5:7] = found[1, 0, :4, :4] = 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_tokens_and_a_blank_mask_gives_zeros(kind: str):
    torch.manual_seed(0)
    encoder = MaskEncoder(kind, 32, 16, 10)
    tokens, said = encoder(masks())
    count = {"per_mask": 3, "conv": 3, "union": 1, "merged": 10}[kind]
    assert tokens.shape == (2, count, 32) and said.shape == (2, count) and said.dtype == torch.bool
    assert bool(said[0].all()) and (tokens[0].abs().sum(1) > 0).all()
    if kind in ("per_mask", "conv"):
        assert said[1].tolist() == [True, False, False] and not tokens[1, 1:].any()
    nothing, silent = encoder(torch.zeros(1, 2, 16, 16))
    assert not nothing.any() and not silent.any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter(kind: str):
    torch.manual_seed(0)
    encoder = MaskEncoder(kind, 32, 16, 10)
    if kind == "merged":  # which lets nothing of a mask through at the start
        torch.nn.init.normal_(encoder.mix.weight)
    tokens, said = encoder(masks())
    result = encoder.merge(torch.randn(2, 10, 32), tokens, said) if kind == "merged" else tokens
    result.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("kind", ["per_mask", "conv"])
def test_a_masks_token_depends_on_that_mask_alone(kind: str):
    torch.manual_seed(0)
    encoder, given = MaskEncoder(kind, 32, 16, 10), masks()
    together = encoder(given)[0][0]
    alone = torch.cat([encoder(given[:1, i : i + 1])[0][0] for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-6) and not torch.allclose(
        together[0], together[1]
    )


def test_a_shifted_mask_gives_another_token():
    torch.manual_seed(0)
    for kind in ("per_mask", "conv"):
        encoder, given = MaskEncoder(kind, 32, 16, 10), masks()[:1, :1]
        assert not torch.allclose(encoder(given)[0], encoder(given.roll(5, 3))[0], atol=1e-3)


def test_merging_starts_as_the_text_and_leaves_it_where_the_mask_is_blank():
    torch.manual_seed(0)
    encoder, text = MaskEncoder("merged", 32, 16, 10), torch.randn(2, 10, 32)
    tokens, said = encoder(torch.cat([masks()[:1], torch.zeros(1, 3, 16, 16)]))
    assert torch.allclose(encoder.merge(text, tokens, said), text, atol=1e-6)
    with torch.no_grad():
        encoder.mix.weight.normal_()
    mixed = encoder.merge(text, tokens, said)
    assert not torch.allclose(mixed[0], text[0]) and torch.equal(mixed[1], text[1])


def test_the_released_encoder_has_its_count_of_parameters():
    assert sum(p.numel() for p in MaskEncoder("per_mask", 1024, 64, 77).parameters()) == 4_195_328
    assert MaskEncoder("per_mask", 8, 128, 77).side == 64, (
        "latents of 128 places are brought to the released 64"
    )


def test_a_mask_is_brought_to_its_side_by_area_or_by_the_nearest_pixel():
    given = masks()[:1, :1]
    torch.manual_seed(0)
    encoder = MaskEncoder("per_mask", 32, given.shape[-1] // 4, 10)
    torch.manual_seed(0)
    released = MaskEncoder("per_mask", 32, given.shape[-1] // 4, 10, "nearest")
    picked = given[..., ::4, ::4]
    assert torch.equal(released(given)[0], encoder(picked)[0])
    odd = given.roll(1, -1)  # An edge off the grid
    assert not torch.allclose(released(odd)[0], encoder(odd)[0])


def test_a_blank_mask_may_be_encoded_as_in_the_released_code():
    encoder = MaskEncoder("per_mask", 32, 16, 10, encode_blank=True)
    tokens, shown = encoder(torch.zeros(2, 3, 16, 16))
    assert torch.allclose(tokens, encoder.project.bias.expand(2, 3, 32)) and not shown.any()


def test_masks_of_any_size_and_none_at_all_pass():
    encoder = MaskEncoder("per_mask", 32, 16, 10)
    big = masks().repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(encoder(big)[0], encoder(masks())[0], atol=1e-5)
    for kind in KINDS:
        tokens, _ = MaskEncoder(kind, 32, 16, 10)(torch.zeros(2, 0, 64, 64))
        assert len(tokens) == 2 and not tokens.any()


def test_another_kind_is_refused():
    with pytest.raises(
        ValueError,
        match=("mask encoder 'pooled' is unknown: expected one of per_mask, union, merged, conv"),
    ):
        MaskEncoder("pooled", 32, 16, 10)
