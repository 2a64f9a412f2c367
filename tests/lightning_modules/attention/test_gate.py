"""Gates on cross-attention: the forward pass, the gradient that lets them open again, and what they record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from unet_inputs import draw

from lightning_modules.attention import select, sites
from lightning_modules.attention.gate import GateHead, Gates, binary_gate

# --- heads and binary gates -------------------------------------------------------------------------------------------------------


def test_gates_are_exactly_binary_with_the_gradient_of_the_sigmoid():
    logits = draw(0, 2, 7, 5).requires_grad_()
    gate = binary_gate(logits, 0.5, protect_first=True)
    assert set(gate.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(gate[..., 1:] == 1, logits[..., 1:] > 0)
    weight = draw(1, 2, 7, 5)
    (gate * weight).sum().backward()
    slope = logits.detach().sigmoid() * (1 - logits.detach().sigmoid())
    assert logits.grad is not None and torch.allclose(logits.grad, slope * weight, atol=1e-7)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_the_threshold_is_on_the_probability_and_itself_closed(threshold: float):
    logits = torch.logit(torch.tensor([[[0.9, threshold - 0.01, threshold + 0.01]]]))
    assert binary_gate(logits, threshold, protect_first=True).tolist() == [[[1, 0, 1]]]
    assert binary_gate(torch.zeros(1, 1, 2), 0.5, protect_first=True).tolist() == [[[1, 0]]]


def test_a_protected_first_token_is_never_closed():
    logits = torch.full((2, 3, 4), -50.0)
    assert binary_gate(logits, 0.5, protect_first=True).tolist() == [[[1, 0, 0, 0]] * 3] * 2


def test_without_protection_an_empty_location_opens_its_likeliest_gate_and_no_other_location_changes():
    logits = torch.tensor([[[-3.0, -1.0, -2.0], [-3.0, 1.0, -2.0], [-1.0, -1.0, -1.0]]])
    assert binary_gate(logits, 0.5, protect_first=False).tolist() == [[[0, 1, 0], [0, 1, 0], [1, 0, 0]]]


def test_head_is_the_scaled_product_of_two_normalised_projections():
    torch.manual_seed(0)
    head = GateHead(width=10, context=6, hidden=16, bias=1.5)
    features, tokens = draw(0, 2, 9, 10), draw(1, 2, 5, 6)
    logits = head(features, tokens)
    expected = torch.einsum("bnh,bth->bnt", head.feature(features), head.token(tokens)) / 4 + 1.5
    assert logits.shape == (2, 9, 5) and torch.allclose(logits, expected, atol=1e-6)
    # Normalised: neither scale nor offset of its inputs matters.
    assert torch.allclose(head(3 * features + 2, 5 * tokens - 1), logits, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gate_logits_stay_float32(dtype: torch.dtype):
    head = GateHead(10, 6, 16, 0.0)
    features, tokens = draw(0, 1, 9, 10), draw(1, 1, 5, 6)
    with torch.autocast("cpu", dtype=dtype):
        inside = head(features, tokens)
    assert inside.dtype == torch.float32 and torch.equal(inside, head(features, tokens))
    # Half-precision features of a half-precision backbone are widened first.
    assert torch.equal(head(features.to(dtype), tokens.to(dtype)), head(features.to(dtype).float(), tokens.to(dtype).float()))


# --- in a UNet --------------------------------------------------------------------------------------------------------------------


def inputs(backbone: Any, batch: int = 2) -> dict[str, Any]:
    text = backbone.encode_prompts(["a red circle above a white ring", "a green cross"][:batch])
    return {"latents": draw(9, batch, *backbone.latent_shape), "timesteps": torch.tensor([900, 20][:batch]), "text": text, "resolution": 64}


def gates_for(backbone: Any, bias: float, protect_first: bool = True, **filters: Any) -> Gates:
    torch.manual_seed(0)
    return Gates(select(sites(backbone.unet), **filters), hidden=16, bias=bias, threshold=0.5, protect_first=protect_first)


@pytest.fixture(params=["embedded", "sd1"])
def backbone(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_open_gates_leave_the_whole_unet_bit_equal_and_come_out_again(backbone: Any):
    given = inputs(backbone)
    with torch.no_grad():
        stock = backbone.predict(**given)
        processors = dict(backbone.unet.attn_processors)
        gates = gates_for(backbone, bias=50.0)
        gates.attach(backbone.unet)
        installed = backbone.unet.attn_processors
        assert torch.equal(backbone.predict(**given), stock)
        gates.detach()
        with gates_for(backbone, bias=-50.0).attached(backbone.unet):
            assert not torch.allclose(backbone.predict(**given), stock, atol=1e-3)
        assert torch.equal(backbone.predict(**given), stock)
    assert {name for name in processors if installed[name] is not processors[name]} == {site.processor for site in gates.sites}
    assert all(backbone.unet.attn_processors[name] is processor for name, processor in processors.items())


def test_only_bos_acts_where_everything_else_is_closed(embedded: Any):
    gates_for(embedded, bias=-50.0).attach(embedded.unet)
    given = inputs(embedded)
    other = given["text"].hidden.clone()
    other[:, 1:] = 0
    with torch.no_grad():
        one = embedded.predict(**given)
        given["text"].hidden = other
        assert torch.equal(embedded.predict(**given), one)


def test_the_training_pass_gives_what_sampling_gives(embedded: Any):
    gates_for(embedded, bias=0.0).attach(embedded.unet)
    given = inputs(embedded)
    with torch.no_grad():
        sampling = embedded.predict(**given)
    training = embedded.predict(**given)
    assert training.requires_grad and torch.allclose(training, sampling, atol=1e-4)


@pytest.mark.parametrize("bias", [2.0, -5.0], ids=["open", "closed"])
def test_every_gate_parameter_gets_a_gradient_and_no_backbone_weight(backbone: Any, bias: float):
    gates = gates_for(backbone, bias)
    gates.attach(backbone.unet)
    backbone.predict(**inputs(backbone)).square().mean().backward()
    for name, parameter in gates.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()) and bool(parameter.grad.abs().sum() > 0), name
    frozen = [backbone.unet, backbone.vae, *backbone.text_encoders]
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_records_count_free_gates_site_by_site(embedded: Any):
    gates = gates_for(embedded, bias=50.0, stage="high")
    gates.attach(embedded.unet)
    given = inputs(embedded)
    tokens = given["text"].hidden.shape[1]
    with torch.no_grad(), gates.recording() as record:
        embedded.predict(**given)
        embedded.predict(**given)
    assert gates.record is None and record.share_closed() == 0 and not record.maps
    assert record.counted == {site.name: 2 * 2 * 256 * (tokens - 1) for site in gates.sites} and len(record.counted) == 3
    with torch.no_grad(), gates.recording(conditional_half=True) as half:
        embedded.predict(**given)
    assert half.counted == {site.name: 256 * (tokens - 1) for site in gates.sites}


def test_records_share_and_mean_maps(embedded: Any):
    gates = gates_for(embedded, bias=0.0, protect_first=False, placement="bridge")
    gates.attach(embedded.unet)
    first, second = inputs(embedded), inputs(embedded)
    second["latents"] = draw(10, *second["latents"].shape)
    shares, maps = [], []
    with torch.no_grad():
        for given in (first, second):
            with gates.recording(keep_maps=True) as one:
                embedded.predict(**given)
            shares.append(one.share_closed())
            maps.append(one.maps[gates.sites[0].name])
        with gates.recording(conditional_half=True, keep_maps=True) as half:
            embedded.predict(**first)
        with gates.recording(keep_maps=True) as both:
            embedded.predict(**first)
            embedded.predict(**second)
    name = gates.sites[0].name
    assert 0 < shares[0] < 1 and both.share_closed() == pytest.approx(sum(shares) / 2) and both.calls[name] == 2
    assert maps[0].shape == (2, 64, 24) and set(maps[0].flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(both.maps[name], (maps[0] + maps[1]) / 2) and not torch.equal(maps[0], maps[1])
    assert shares[0] == pytest.approx(float(1 - maps[0].mean()))
    assert torch.equal(half.maps[name], maps[0][1:]) and not torch.equal(maps[0][1:], maps[0][:1])


def test_a_recording_ends_also_when_the_block_fails(embedded: Any):
    gates = gates_for(embedded, bias=0.0)
    with pytest.raises(RuntimeError), gates.recording():
        raise RuntimeError
    assert gates.record is None
