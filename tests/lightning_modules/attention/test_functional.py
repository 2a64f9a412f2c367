"""Attention with gates and maps of chosen tokens, as pure functions: against float64 references and
finite differences."""

from __future__ import annotations

import pytest
import torch
from helpers.attention_problem import probability, problem
from helpers.unet_inputs import draw

from lightning_modules.attention import functional
from lightning_modules.attention.functional import RULES, gated_attention, token_maps


def reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor
) -> torch.Tensor:
    """Eq. 4 as it stands: -inf where the gate is closed, then a softmax; in float64."""
    logits = query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5
    return torch.where(gate.unsqueeze(1) > 0.5, logits, -torch.inf).softmax(-1) @ value.double()


def relaxed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gate: torch.Tensor
) -> torch.Tensor:
    """G exp(l) / sum G exp(l) for any real G, in float64."""
    weight = (
        gate.double().unsqueeze(1)
        * (query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5).exp()
    )
    return weight / weight.sum(-1, keepdim=True) @ value.double()


# --- the attention itself -------------------------------------------------------------------------


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
        assert torch.equal(
            gated_attention(query, key, value, gate), gated_attention(query, key, other, gate)
        )


def test_training_and_sampling_give_the_same():
    query, key, value, gate = problem()
    with torch.no_grad():
        sampling = gated_attention(query, key, value, gate)
    training = gated_attention(query, key, value, gate.requires_grad_())
    assert training.requires_grad and torch.allclose(training, sampling, atol=1e-6)
    one = torch.ones_like(gate)
    training = gated_attention(query, key, value, one.clone().requires_grad_())
    assert torch.allclose(training, gated_attention(query, key, value, one), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_open_gates_are_the_stock_attention_bit_by_bit(rule: str, biased: bool, dtype: torch.dtype):
    *inputs, gate = problem()
    query, key, value = (t.to(dtype) for t in inputs)
    bias = draw(7, 2, 1, 1, 6).to(dtype) if biased else None
    stock = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    one = torch.ones_like(gate)
    with torch.no_grad():
        assert torch.equal(gated_attention(query, key, value, one, bias, rule), stock)
    assert torch.equal(gated_attention(query, key, value, one.requires_grad_(), bias, rule), stock)


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
    mixed = torch.einsum("bhtd,bhnd->bhnt", value.double(), direction) - (out * direction).sum(
        -1, keepdim=True
    )
    closed_form = (exp / (base.unsqueeze(1) * exp).sum(-1, keepdim=True) * mixed).sum(1)
    assert torch.allclose(gate.grad.double(), closed_form, atol=1e-5)
    assert bool((gate.grad[base == 0].abs() > 1e-3).any()), "closed gates must get a gradient"


def test_gradients_by_query_key_and_value_are_those_of_the_reference():
    *inputs, gate = problem()
    mine, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    gated_attention(*mine, gate.clone().requires_grad_()).square().sum().backward()
    reference(*theirs, gate).square().sum().backward()
    for a, b in zip(mine, theirs, strict=True):
        assert (
            a.grad is not None
            and b.grad is not None
            and torch.allclose(a.grad, b.grad.float(), atol=1e-5)
        )


def test_a_closed_logit_far_above_the_open_ones_gives_a_finite_gradient():
    query, key, value = (
        torch.ones(1, 1, 1, 1),
        torch.tensor([0.0, 300.0]).view(1, 1, 2, 1),
        torch.tensor([0.0, 1.0]).view(1, 1, 2, 1),
    )
    gate = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    out = gated_attention(query, key, value, gate)
    out.sum().backward()
    assert (
        out.item() == 0
        and gate.grad is not None
        and bool(gate.grad.isfinite().all())
        and gate.grad[0, 0, 1] > 1e6
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast_gives_the_gradients_of_float32_arithmetic(
    dtype: torch.dtype,
):
    *inputs, gate = problem()
    narrow = [t.to(dtype) for t in inputs]
    mine, wide = gate.clone().requires_grad_(), gate.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        out = gated_attention(*narrow, mine)
    assert out.dtype == dtype
    grad = draw(6, *out.shape).to(dtype)
    with torch.autocast("cpu", dtype=dtype):  # some loops call backward inside of autocast
        out.backward(grad)
    gated_attention(*(t.float() for t in narrow), wide).backward(grad.float())
    assert mine.grad is not None and wide.grad is not None and mine.grad.dtype == torch.float32
    assert torch.allclose(mine.grad, wide.grad, atol=1e-6)


def test_a_bias_is_added_to_the_logits_in_both_passes():
    query, key, value, gate = problem()
    bias = draw(7, 2, 1, 1, 6)
    bias[0, :, :, 2] = -torch.inf
    logits = query.double() @ key.double().transpose(-1, -2) / 2 + bias
    expected = torch.where(gate.unsqueeze(1) > 0.5, logits, -torch.inf).softmax(-1) @ value.double()
    with torch.no_grad():
        assert torch.allclose(
            gated_attention(query, key, value, gate, bias).double(), expected, atol=1e-6
        )
    weight = gate.double().requires_grad_()
    p = weight.unsqueeze(1) * logits.exp()
    (p / p.sum(-1, keepdim=True) @ value.double()).square().sum().backward()
    gate.requires_grad_()
    gated_attention(query, key, value, gate, bias).square().sum().backward()
    assert (
        gate.grad is not None
        and weight.grad is not None
        and torch.allclose(gate.grad.double(), weight.grad, atol=1e-5)
    )
    assert not gate.grad[0, :, 2].any(), "a token of weight exp(-inf) cannot be let in"


def test_weights_between_and_above_scale_how_much_a_token_counts():
    query, key, value, _ = problem()
    weight = draw(8, 2, 5, 6).exp()
    expected = relaxed(query, key, value, weight)
    with torch.no_grad():
        assert torch.allclose(
            gated_attention(query, key, value, weight).double(), expected, atol=1e-6
        )
    one_row = weight[:, :1]
    with torch.no_grad():
        assert torch.allclose(
            gated_attention(query, key, value, one_row).double(),
            relaxed(query, key, value, one_row),
            atol=1e-6,
        )
    mine, theirs = one_row.clone().requires_grad_(), one_row.double().requires_grad_()
    gated_attention(query, key, value, mine).square().sum().backward()
    relaxed(query, key, value, theirs).square().sum().backward()
    assert (
        mine.grad is not None
        and theirs.grad is not None
        and torch.allclose(mine.grad.double(), theirs.grad, atol=1e-5)
    )


@pytest.mark.parametrize("rule", RULES)
def test_slices_of_both_passes_change_nothing(monkeypatch: pytest.MonkeyPatch, rule: str):
    *inputs, gate = problem()
    select = draw(9, 2, 6, 3)

    def gradients() -> list[torch.Tensor]:
        leaves = [t.clone().requires_grad_() for t in (*inputs, gate)]
        loss = gated_attention(*leaves, rule=rule).square().sum()
        loss = loss + token_maps(leaves[0], leaves[1], select, leaves[3], rule=rule).square().sum()
        loss.backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    whole = gradients()
    # Two locations at a time, the last alone
    monkeypatch.setattr(functional, "CHUNK", 2 * 2 * 3 * 6)
    for a, b in zip(gradients(), whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


# --- maps of chosen tokens ------------------------------------------------------------------------


def reference_maps(
    query: torch.Tensor,
    key: torch.Tensor,
    select: torch.Tensor,
    gate: torch.Tensor | None,
    keep: bool,
    rule: str,
) -> torch.Tensor:
    free = torch.ones(query.shape[0], query.shape[2], key.shape[2])
    p = probability(query, key, free if gate is None else gate, rule)  # [B, heads, N, T]
    return p @ select.double().unsqueeze(1) if keep else p.mean(1) @ select.double()


@pytest.mark.parametrize("keep", [False, True], ids=["mean", "heads"])
@pytest.mark.parametrize("rule", [None, "exact", "released", "post_softmax"])
def test_maps_and_their_gradients_are_those_of_the_whole_softmax(keep: bool, rule: str | None):
    gated, rule = rule is not None, rule or "exact"
    query, key, _, gate = problem()
    select = torch.zeros(2, 6, 2)
    select[0, 1, 0] = select[1, 4, 0] = 1
    select[0, 2:4, 1] = 0.5  # a phrase of two tokens; the second sample has no second object
    direction = draw(3, *((2, 3, 5, 2) if keep else (2, 5, 2)))
    mine = [t.clone().requires_grad_() for t in (query, key, gate)]
    theirs = [t.double().requires_grad_() for t in (query, key, gate)]
    maps = token_maps(
        mine[0], mine[1], select, mine[2] if gated else None, keep_heads=keep, rule=rule
    )
    expected = reference_maps(
        theirs[0], theirs[1], select, theirs[2] if gated else None, keep, rule
    )
    assert (
        maps.shape == expected.shape
        and maps.dtype == torch.float32
        and torch.allclose(maps.double(), expected, atol=1e-6)
    )
    assert not maps[1, ..., 1].any()
    (maps * direction).sum().backward()
    (expected * direction).sum().backward()
    for a, b in zip(mine[: 3 if gated else 2], theirs, strict=False):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(
            a.grad.double(), b.grad, rtol=1e-4, atol=1e-6 * max(1, float(b.grad.abs().max()))
        )
    if rule == "released" and mine[2].grad is not None:
        assert not mine[2].grad[gate == 0].any()


def test_maps_are_float32_inside_autocast():
    query, key, _, _ = problem()
    select = torch.eye(6).expand(2, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = token_maps(query.bfloat16(), key.bfloat16(), select)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, token_maps(query.bfloat16().float(), key.bfloat16().float(), select))
    assert torch.allclose(maps.sum(-1), torch.ones(2, 5), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("what", ["maps", "gates"])
def test_nothing_of_the_size_of_the_logits_is_kept_for_the_backward_pass(what: str, rule: str):
    query, key, value = (draw(i, 2, 8, n, 4).requires_grad_() for i, n in enumerate((64, 32, 32)))
    gate = (draw(4, 2, 64, 32) > -1).float().requires_grad_()
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if what == "maps":
            token_maps(query, key, torch.zeros(2, 32, 2), rule=rule).sum()
        else:
            gated_attention(query, key, value, gate, rule=rule).sum()
    assert kept and max(kept) <= gate.numel() < 2 * 8 * 64 * 32
