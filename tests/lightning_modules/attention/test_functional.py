"""Attention with gates and maps of some tokens, as pure functions: against float64 references and
finite differences."""

from __future__ import annotations

import pytest
import torch
from helpers.attention_problem import probability, problem
from helpers.unet_inputs import draw

from lightning_modules.attention import functional
from lightning_modules.attention.functional import RULES, gated_attention, token_maps
from lightning_modules.attention.gates import decide


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


def test_what_a_closed_token_holds_cannot_matter():
    query, key, value, gate = problem()
    gate[:, :, 3] = 0
    other = value.clone()
    other[:, :, 3] = 1e6
    with torch.no_grad():
        assert torch.equal(
            gated_attention(query, key, value, gate), gated_attention(query, key, other, gate)
        )


def test_a_token_that_the_bias_takes_out_cannot_be_let_in():
    query, key, value, gate = problem()
    bias = draw(7, 2, 1, 1, 6)
    bias[0, :, :, 2] = -torch.inf
    gate.requires_grad_()
    gated_attention(query, key, value, gate, bias).square().sum().backward()
    assert gate.grad is not None and bool(gate.grad.isfinite().all())
    assert not gate.grad[0, :, 2].any() and gate.grad[1, :, 2].any()


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
    # Two pixels at a time, the last alone
    monkeypatch.setattr(functional, "CHUNK", 2 * 2 * 3 * 6)
    for a, b in zip(gradients(), whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


# --- rules --------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(
    ("rule", "soft"),  # the released rule is defined for binary gates alone
    [
        ("exact", False),
        ("exact", True),
        ("released", False),
        ("post_softmax", False),
        ("post_softmax", True),
    ],
)
def test_every_rule_is_its_formula_in_value_and_in_all_gradients(
    rule: str, soft: bool, biased: bool
):
    query, key, value, gate = problem()
    gate = torch.where(gate > 0, draw(8, 2, 5, 6).sigmoid(), gate) if soft else gate
    bias = draw(7, 2, 1, 5, 6) if biased else None
    direction = draw(5, *value.shape[:2], gate.shape[1], value.shape[3])
    mine = [t.clone().requires_grad_() for t in (query, key, value, gate)]
    theirs = [t.double().requires_grad_() for t in (query, key, value, gate)]
    expected = probability(theirs[0], theirs[1], theirs[3], rule, bias) @ theirs[2]
    with torch.no_grad():
        assert torch.allclose(
            gated_attention(query, key, value, gate, bias, rule).double(), expected, atol=1e-6
        )
    out = gated_attention(*mine, bias, rule)
    assert torch.allclose(out.double(), expected, atol=1e-6)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, a, b in zip(("query", "key", "value", "gate"), mine, theirs, strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(
            a.grad.double(), b.grad, rtol=1e-4, atol=1e-5 * float(b.grad.abs().max())
        ), name
    closed = gate == 0
    assert mine[3].grad is not None and bool(closed.any())
    if rule == "released":
        assert not mine[3].grad[closed].any(), "exactly zero at closed gates"
    else:
        assert bool((mine[3].grad[closed] != 0).all())


@pytest.mark.parametrize("rule", ["exact", "finite_difference", "released"])
def test_a_closed_gate_opens_again_when_the_loss_asks_for_it_and_cannot_under_the_released_rule(
    rule: str,
):
    # One pixel, three tokens; the target is what attention gives with all gates open, and token
    # 2 starts closed.
    query, key, value = draw(0, 1, 1, 1, 4), draw(1, 1, 1, 3, 4), torch.eye(3).view(1, 1, 3, 3)
    target = gated_attention(query, key, value, torch.ones(1, 1, 3))
    logits = torch.tensor([[[2.0, 2.0, -1.0]]], requires_grad=True)
    # The released gradient is ten thousand times too steep: its steps are that much shorter.
    optimizer = torch.optim.SGD([logits], lr=1e-4 if rule == "released" else 1.0)
    losses = []
    for _ in range(60):
        gate = decide(logits, "hard", 0.5, 1.0)
        loss = (gated_attention(query, key, value, gate, rule=rule) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.01
    if rule != "released":
        assert losses[-1] < 1e-9 and logits[0, 0, 2] > 0
    else:
        assert losses[-1] > 0.01 and logits[0, 0, 2] == -1


def test_closed_gates_give_what_they_take_to_nobody_after_the_softmax():
    query, key, _, gate = problem()
    every = torch.eye(6).expand(2, 6, 6)
    after, exact, free = (
        token_maps(query, key, every, g, None, True, rule)
        for g, rule in ((gate, "post_softmax"), (gate, "exact"), (None, "exact"))
    )
    assert torch.allclose(after, free * gate.unsqueeze(1), atol=1e-7)
    assert bool((after.sum(-1) < 1).any())
    assert torch.allclose(after / after.sum(-1, keepdim=True), exact, atol=1e-6)
    # The same of what the layer gives: values of one everywhere read off the sum.
    value = draw(3, 2, 3, 6, 4)
    total = gated_attention(query, key, torch.ones_like(value), gate, rule="post_softmax")
    assert torch.allclose(total[..., 0], after.sum(-1), atol=1e-6)
    out = gated_attention(query, key, value, gate, rule="post_softmax")
    assert torch.allclose(out / total, gated_attention(query, key, value, gate), atol=1e-5)


def test_a_pixel_whose_gates_are_all_closed_gets_nothing_after_the_softmax():
    query, key, value, gate = problem()
    gate[:, 2] = 0
    gate.requires_grad_()
    out = gated_attention(query, key, value, gate, rule="post_softmax")
    out.square().sum().backward()
    assert not out[:, :, 2].any() and gate.grad is not None and bool(gate.grad.isfinite().all())


def test_the_finite_difference_of_a_gate_is_what_flipping_it_changes():
    *inputs, gate = problem()
    query, key, value = inputs
    select, direction = draw(9, 2, 6, 3), draw(5, *value.shape[:2], gate.shape[1], value.shape[3])
    on_maps = draw(6, 2, 3, 5, 3)

    def total(gate: torch.Tensor) -> torch.Tensor:
        """[B, N]: a linear loss of the output and of the maps, by pixel."""
        p = probability(query, key, gate, "exact")
        out, maps = p @ value.double(), p @ select.double().unsqueeze(1)
        return ((out * direction).sum(-1) + (maps * on_maps).sum(-1)).sum(1)

    mine = [t.clone().requires_grad_() for t in (*inputs, gate)]
    exact = [t.clone().requires_grad_() for t in (*inputs, gate)]
    for leaves, rule in ((mine, "finite_difference"), (exact, "exact")):
        maps = token_maps(leaves[0], leaves[1], select, leaves[3], keep_heads=True, rule=rule)
        (
            (gated_attention(*leaves, rule=rule) * direction).sum() + (maps * on_maps).sum()
        ).backward()
    assert all(
        a.grad is not None and torch.equal(a.grad, b.grad)
        for a, b in zip(mine[:3], exact[:3], strict=True)
    )
    grad = mine[3].grad
    assert grad is not None
    share = probability(query, key, gate, "exact").amax(1)  # [B, N, T]
    for t in range(6):
        opened, closed = gate.clone(), gate.clone()
        opened[..., t], closed[..., t] = 1, 0
        # An open token that has nearly everything leaves nothing behind
        counts = share[..., t] <= 0.95
        change = total(opened) - total(closed)
        assert torch.allclose(grad[..., t].double()[counts], change[counts], atol=1e-5) and bool(
            counts.any()
        )
    alone = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    far = torch.tensor([0.0, 300.0]).view(1, 1, 2, 1)
    gated_attention(
        torch.ones(1, 1, 1, 1),
        far,
        torch.tensor([0.0, 1.0]).view(1, 1, 2, 1),
        alone,
        rule="finite_difference",
    ).sum().backward()
    assert alone.grad is not None and alone.grad.tolist() == [[[0, 1]]], (
        "opening it can at most make the output its value"
    )


# --- maps of some tokens --------------------------------------------------------------------------


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
