"""What gates do to attention by each rule: values, gradients, and which closed gates can open
again."""

from __future__ import annotations

import pytest
import torch
from helpers.attention_problem import probability, problem
from helpers.unet_inputs import draw

from lightning_modules.attention.functional import gated_attention, token_maps
from lightning_modules.attention.gates import decide


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
    # One location, three tokens; the target is what attention gives with all gates open, and token
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


def test_closed_gates_give_what_they_take_to_nobody_after_the_softmax_and_to_the_others_when_renormalised():
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


def test_a_location_whose_gates_are_all_closed_gets_nothing_after_the_softmax():
    query, key, value, gate = problem()
    gate[:, 2] = 0
    gate.requires_grad_()
    out = gated_attention(query, key, value, gate, rule="post_softmax")
    out.square().sum().backward()
    assert not out[:, :, 2].any() and gate.grad is not None and bool(gate.grad.isfinite().all())


def test_the_secant_of_a_gate_is_what_flipping_it_changes():
    *inputs, gate = problem()
    query, key, value = inputs
    select, direction = draw(9, 2, 6, 3), draw(5, *value.shape[:2], gate.shape[1], value.shape[3])
    on_maps = draw(6, 2, 3, 5, 3)

    def total(gate: torch.Tensor) -> torch.Tensor:
        """[B, N]: a linear loss of the output and of the maps, by location."""
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
