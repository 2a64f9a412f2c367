"""Gates on cross-attention: the forward pass, the gradient that lets them open again, and what they record."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.attention import select, sites
from lightning_modules.attention.gate import GateHead, Gates, binary_gate, gated_attention


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem() -> tuple[torch.Tensor, ...]:
    """query [2, 3, 5, 4], key and value [2, 3, 6, 4], and a random gate [2, 5, 6] with token 0 open."""
    gate = (draw(4, 2, 5, 6) > 0).float()
    gate[..., 0] = 1
    return draw(1, 2, 3, 5, 4), draw(2, 2, 3, 6, 4), draw(3, 2, 3, 6, 4), gate


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Eq. 4 as it stands: -inf where the gate is closed, then a softmax; in float64."""
    logits = query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5
    return torch.where(gate.unsqueeze(1) > 0.5, logits, -torch.inf).softmax(-1) @ value.double()


def relaxed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """G exp(l) / sum G exp(l) for any real G, in float64."""
    weight = gate.double().unsqueeze(1) * (query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5).exp()
    return weight / weight.sum(-1, keepdim=True) @ value.double()


# --- the attention itself ---------------------------------------------------------------------------------------------------------


def test_closed_gates_are_minus_infinity():
    query, key, value, gate = problem()
    with torch.no_grad():
        out = gated_attention(query, key, value, gate)
    assert torch.allclose(out.double(), reference(query, key, value, gate), atol=1e-6)
    # What a closed token holds cannot matter.
    gate[:, :, 3] = 0
    other = value.clone()
    other[:, :, 3] = 1e6
    with torch.no_grad():
        assert torch.equal(gated_attention(query, key, value, gate), gated_attention(query, key, other, gate))


def test_training_and_sampling_give_the_same():
    query, key, value, gate = problem()
    with torch.no_grad():
        sampling = gated_attention(query, key, value, gate)
    training = gated_attention(query, key, value, gate.requires_grad_())
    assert training.requires_grad and torch.allclose(training, sampling, atol=1e-6)
    one = torch.ones_like(gate)
    training = gated_attention(query, key, value, one.clone().requires_grad_())
    assert torch.allclose(training, gated_attention(query, key, value, one), atol=1e-6)


def test_open_gates_are_the_stock_attention_bit_by_bit():
    query, key, value, gate = problem()
    stock = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert torch.equal(gated_attention(query, key, value, torch.ones_like(gate)), stock)


def test_gradient_by_the_gate_is_that_of_the_relaxed_function_also_where_it_is_closed():
    query, key, value, gate = problem()
    direction = draw(5, *value.shape[:2], gate.shape[1], value.shape[3]).double()
    gate.requires_grad_()
    (gated_attention(query, key, value, gate).double() * direction).sum().backward()
    assert gate.grad is not None

    step, base = 1e-6, gate.detach().double()
    numeric = torch.zeros_like(base)
    for index in range(base.numel()):
        shift = torch.zeros_like(base).flatten()
        shift[index] = step
        shift = shift.view_as(base)
        change = relaxed(query, key, value, base + shift) - relaxed(query, key, value, base - shift)
        numeric.view(-1)[index] = (change * direction).sum() / (2 * step)
    assert torch.allclose(gate.grad.double(), numeric, atol=1e-5)

    # d out / d G_t = exp(l_t) / Z (v_t - out), summed over heads.
    exp = (query.double() @ key.double().transpose(-1, -2) / 2).exp()
    out = relaxed(query, key, value, base)
    mixed = torch.einsum("bhtd,bhnd->bhnt", value.double(), direction) - (out * direction).sum(-1, keepdim=True)
    closed_form = (exp / (base.unsqueeze(1) * exp).sum(-1, keepdim=True) * mixed).sum(1)
    assert torch.allclose(gate.grad.double(), closed_form, atol=1e-5)
    assert bool((gate.grad[base == 0].abs() > 1e-3).any()), "closed gates must get a gradient"


def test_gradients_by_query_key_and_value_are_those_of_the_reference():
    *inputs, gate = problem()
    mine, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    gated_attention(*mine, gate.clone().requires_grad_()).square().sum().backward()
    reference(*theirs, gate).square().sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None and b.grad is not None and torch.allclose(a.grad, b.grad.float(), atol=1e-5)


def test_a_closed_logit_far_above_the_open_ones_gives_a_finite_gradient():
    query, key, value = torch.ones(1, 1, 1, 1), torch.tensor([0.0, 300.0]).view(1, 1, 2, 1), torch.tensor([0.0, 1.0]).view(1, 1, 2, 1)
    gate = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    out = gated_attention(query, key, value, gate)
    out.sum().backward()
    assert out.item() == 0 and gate.grad is not None and bool(gate.grad.isfinite().all()) and gate.grad[0, 0, 1] > 1e6


def test_a_closed_gate_opens_again_when_the_loss_asks_for_it():
    # One location, three tokens; the target is what attention gives with all gates open, and token 2 starts closed.
    query, key, value = draw(0, 1, 1, 1, 4), draw(1, 1, 1, 3, 4), torch.eye(3).view(1, 1, 3, 3)
    target = gated_attention(query, key, value, torch.ones(1, 1, 3))
    logits = torch.tensor([[[2.0, 2.0, -1.0]]], requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    losses = []
    for _ in range(60):
        loss = (gated_attention(query, key, value, binary_gate(logits, 0.5, True)) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.01 and losses[-1] < 1e-9 and logits[0, 0, 2] > 0


def test_autocast_does_not_round_the_logits():
    # 100.4 against 100: in bfloat16 both are 100, and attention would be half and half.
    query, key = torch.full((1, 1, 1, 1), 100.0), torch.tensor([1.0, 1.004]).view(1, 1, 2, 1)
    value, gate = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1), torch.ones(1, 1, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = gated_attention(query, key, value, gate)
    assert out.item() == pytest.approx(0.5987, abs=0.005)


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
        before = gates.install(backbone.unet)
        installed = backbone.unet.attn_processors
        assert torch.equal(backbone.predict(**given), stock)
        closing = gates_for(backbone, bias=-50.0)
        closing.install(backbone.unet)
        assert not torch.allclose(backbone.predict(**given), stock, atol=1e-3)
        backbone.unet.set_attn_processor(before)
        assert torch.equal(backbone.predict(**given), stock)
    assert {name for name in processors if installed[name] is not processors[name]} == {site.processor for site in gates.sites}
    assert all(backbone.unet.attn_processors[name] is processor for name, processor in processors.items())


def test_only_bos_acts_where_everything_else_is_closed(embedded: Any):
    gates_for(embedded, bias=-50.0).install(embedded.unet)
    given = inputs(embedded)
    other = given["text"].hidden.clone()
    other[:, 1:] = 0
    with torch.no_grad():
        one = embedded.predict(**given)
        given["text"].hidden = other
        assert torch.equal(embedded.predict(**given), one)


def test_the_training_pass_gives_what_sampling_gives(embedded: Any):
    gates_for(embedded, bias=0.0).install(embedded.unet)
    given = inputs(embedded)
    with torch.no_grad():
        sampling = embedded.predict(**given)
    training = embedded.predict(**given)
    assert training.requires_grad and torch.allclose(training, sampling, atol=1e-4)


@pytest.mark.parametrize("bias", [2.0, -5.0], ids=["open", "closed"])
def test_every_gate_parameter_gets_a_gradient_and_no_backbone_weight(backbone: Any, bias: float):
    gates = gates_for(backbone, bias)
    gates.install(backbone.unet)
    backbone.predict(**inputs(backbone)).square().mean().backward()
    for name, parameter in gates.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()) and bool(parameter.grad.abs().sum() > 0), name
    frozen = [backbone.unet, backbone.vae, *backbone.text_encoders]
    assert all(p.grad is None for module in frozen for p in module.parameters())


def test_records_count_free_gates_site_by_site(embedded: Any):
    gates = gates_for(embedded, bias=50.0, stage="high")
    gates.install(embedded.unet)
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
    gates.install(embedded.unet)
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


def test_gates_refuse_self_attention_and_masks(embedded: Any):
    gates = gates_for(embedded, bias=0.0)
    gates.install(embedded.unet)
    layer = embedded.unet.get_submodule(gates.sites[0].name)
    with pytest.raises(ValueError, match=r"attn2: gates take cross-attention without an attention mask"):
        layer(draw(0, 1, 256, 48))
    with pytest.raises(ValueError, match="without an attention mask"):
        layer(draw(0, 1, 256, 48), draw(1, 1, 24, 192), attention_mask=torch.zeros(1, 1, 24))
