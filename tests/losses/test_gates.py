"""Losses on gates against plain references, and masks on the pixels of maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from losses.gates import gate_density, gate_mask_loss, gate_targets, mask_to_pixels


def sample(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gates(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def density_gradient(gate: Tensor, target: float, present: Tensor | None = None) -> Tensor:
    gate = gate.clone().requires_grad_()
    gate_density(gate, target, present).backward()
    assert gate.grad is not None
    return gate.grad


def test_density_is_the_share_of_open_gates():
    gate = torch.zeros(1, 4, 5)
    gate[0, :2, :3] = 1  # 6 of 20 open
    assert float(gate_density(gate, 0.5)) == pytest.approx(0.04)
    assert float(gate_density(gate, 0.3)) == pytest.approx(0, abs=1e-12)
    # Among the first three tokens 6 of 12 are open, among the last two none.
    first = torch.tensor([[True, True, True, False, False]])
    assert float(gate_density(gate, 0.25, first)) == pytest.approx(0.0625)
    assert float(gate_density(gate, 0.25, ~first)) == pytest.approx(0.0625)
    assert float(gate_density(gate, 1, ~first)) == 1


def test_density_is_that_of_a_plain_loop():
    gate, present = gates(0, 3, 16, 7), gates(1, 3, 7) > 0.4
    doubles = gate.double().requires_grad_()
    terms = []
    for one, counted in zip(doubles, present, strict=True):
        chosen = [one[n, t] for n in range(16) for t in range(7) if counted[t]]
        terms.append((torch.stack(chosen).mean() - 0.3) ** 2)
    expected = torch.stack(terms).mean()
    expected.backward()
    assert doubles.grad is not None
    assert float(gate_density(gate, 0.3, present)) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(
        density_gradient(gate, 0.3, present), doubles.grad.float(), rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize("fill", [0.0, 1.0, torch.nan, torch.inf])
def test_tokens_that_do_not_count(fill: float):
    gate, present = gates(0, 2, 16, 7), torch.tensor([[True] * 4 + [False] * 3] * 2)
    removed = gate_density(gate[..., :4], 0.3)
    gate[..., 4:] = fill
    assert torch.allclose(gate_density(gate, 0.3, present), removed)
    grad = density_gradient(gate, 0.3, present)
    assert torch.allclose(grad[..., :4], density_gradient(gate[..., :4], 0.3))
    assert torch.equal(grad[..., 4:], torch.zeros(2, 16, 3))
    # A sample that counts no token adds zero.
    present[1] = False
    assert torch.allclose(
        gate_density(gate, 0.3, present), gate_density(gate[:1], 0.3, present[:1]) / 2
    )
    with torch.autograd.set_detect_anomaly(True):
        assert torch.equal(density_gradient(gate, 0.3, present)[1], torch.zeros(16, 7))


def test_density_of_one_sample_does_not_make_up_for_another():
    gate = torch.stack([torch.zeros(16, 7), torch.ones(16, 7)])
    assert float(gate_density(gate, 0.5)) == pytest.approx(0.25)
    before = density_gradient(gate, 0.5)[0]
    gate[1] = torch.nan
    assert torch.equal(density_gradient(gate, 0.5)[0], before) and bool(before.isfinite().all())
    # Too few open gates are drawn open, too many closed.
    assert bool((before < 0).all()) and bool(
        (density_gradient(torch.ones(1, 16, 7), 0.5) > 0).all()
    )


def test_density_is_float32_whatever_the_autocast():
    gate = gates(0, 2, 4096, 77)
    expected = gate_density(gate.bfloat16().float(), 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gate_density(gate.bfloat16(), 0.3)
    assert inside.shape == () and inside.dtype == torch.float32 and torch.equal(inside, expected)
    assert torch.equal(gate_density(gate.bfloat16().double(), 0.3), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 1.2}, "target=1.2 is not a share of open gates: expected a number from 0 to 1"),
        ({"target": -0.1}, "target=-0.1 is not a share"),
        ({"target": math.nan}, "target=nan is not a share"),
        (
            {"gate": torch.ones(2, 7)},
            (r"gate \(2, 7\) does not " r"fit: expected \[B, pixels, tokens\]"),
        ),
        ({"gate": torch.ones(0, 16, 7)}, r"gate \(0, 16, 7\) does not fit: .*nothing empty"),
        (
            {"present": torch.ones(2, 16, dtype=torch.bool)},
            (r"present \(2, 16\) of torch.bool " r"does not fit: expected bool"),
        ),
        (
            {"present": torch.ones(2, 7)},
            (
                r"present \(2, 7\) of torch.float32 does not "
                r"fit: expected bool of shape \(2, 7\)"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        gate_density(**{"gate": torch.ones(2, 16, 7), "target": 0.5} | change)


# --- where gates should be open -------------------------------------------------------------------


def mask_problem() -> tuple[Tensor, Tensor, Tensor]:
    """logits [3, 16, 7], a soft target, and weights of which the last sample has none."""
    weight = gates(2, 3, 16, 7) * (gates(3, 3, 16, 7) > 0.3)
    weight[2] = 0
    return 3 * sample(0, 3, 16, 7), gates(1, 3, 16, 7), weight


def mask_gradient(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    logits = logits.clone().requires_grad_()
    gate_mask_loss(logits, target, weight).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("weighted", [False, True], ids=["all alike", "weighted"])
def test_mask_loss_is_the_weighted_cross_entropy_of_a_plain_loop(weighted: bool):
    logits, target, weight = mask_problem()
    doubles = logits.double().requires_grad_()
    terms = []
    for b in range(3):
        total, amount = torch.zeros((), dtype=torch.float64), 0.0
        for i in range(16):
            for t in range(7):
                p, y = torch.sigmoid(doubles[b, i, t]), float(target[b, i, t])
                w = float(weight[b, i, t]) if weighted else 1.0
                total = total - w * (y * p.log() + (1 - y) * (1 - p).log())
                amount += w
        terms.append(total / amount if amount else total)
    expected = torch.stack(terms).mean()
    expected.backward()
    assert doubles.grad is not None
    given = weight if weighted else None
    assert float(gate_mask_loss(logits, target, given)) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(
        mask_gradient(logits, target, given), doubles.grad.float(), rtol=1e-4, atol=1e-7
    )


def test_one_row_of_weights_serves_all_locations():
    logits, target, weight = mask_problem()
    row = weight[:, :1]
    assert torch.allclose(
        gate_mask_loss(logits, target, row),
        gate_mask_loss(logits, target, row.expand(3, 16, 7).clone()),
    )


def test_mask_loss_pulls_gates_to_their_target_and_leaves_alone_what_does_not_count():
    target = torch.zeros(1, 2, 3)
    target[0, 0] = 1
    weight = torch.tensor([[[1.0, 1.0, 0.0]]])
    grad = mask_gradient(torch.zeros(1, 2, 3), target, weight)
    assert (
        bool((grad[0, 0, :2] < 0).all())
        and bool((grad[0, 1, :2] > 0).all())
        and not grad[..., 2].any()
    )
    assert float(gate_mask_loss(torch.zeros(1, 2, 3), target)) == pytest.approx(math.log(2))
    assert float(gate_mask_loss(40 * (2 * target - 1), target)) < 1e-6


def test_a_sample_without_weights_adds_zero_and_none_depends_on_another():
    logits, target, weight = mask_problem()
    alone = torch.stack(
        [gate_mask_loss(logits[i : i + 1], target[i : i + 1], weight[i : i + 1]) for i in range(3)]
    )
    assert alone[2] == 0 and torch.allclose(gate_mask_loss(logits, target, weight), alone.mean())
    grad = mask_gradient(logits, target, weight)
    assert not grad[2].any()
    other = logits.clone()
    other[1] = 50
    assert torch.equal(mask_gradient(other, target, weight)[0], grad[0])


def test_mask_loss_is_finite_at_the_ends_of_the_numbers_and_float32_whatever_the_autocast():
    target = torch.tensor([0.0, 1.0]).expand(1, 2, 2)
    for size in (1e4, -1e4):
        logits = torch.full((1, 2, 2), size)
        assert float(gate_mask_loss(logits, target)) == pytest.approx(5e3) and bool(
            mask_gradient(logits, target).isfinite().all()
        )
    logits, target, weight = mask_problem()
    expected = gate_mask_loss(logits.bfloat16().float(), target, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gate_mask_loss(logits.bfloat16(), target, weight)
    assert inside.shape == () and inside.dtype == torch.float32 and torch.equal(inside, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logits": torch.zeros(2, 7)},
            (
                r"logits \(2, 7\) and target \(2, 16, 7\) do not fit: expected both \[B, "
                r"pixels, tokens\]"
            ),
        ),
        (
            {"target": torch.zeros(2, 16, 6)},
            (r"logits \(2, 16, 7\) and target " r"\(2, 16, 6\) do not fit"),
        ),
        ({"logits": torch.zeros(0, 16, 7), "target": torch.zeros(0, 16, 7)}, "nothing empty"),
        (
            {"weight": torch.zeros(2, 16, 6)},
            (
                r"weight \(2, 16, 6\) does not fit logits \(2, 16, 7\): expected \[B, pixels "
                r"or 1, tokens"
            ),
        ),
        ({"weight": torch.zeros(2, 8, 7)}, r"weight \(2, 8, 7\) does not fit"),
        ({"weight": torch.zeros(1, 16, 7)}, r"weight \(1, 16, 7\) does not fit"),
    ],
)
def test_masks_that_do_not_fit_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        gate_mask_loss(
            **{"logits": torch.zeros(2, 16, 7), "target": torch.zeros(2, 16, 7)} | change
        )


# --- masks on pixels ---------------------------------------------------------------------------


def test_a_quarter_of_a_pixel_is_enough():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 0] = True  # a quarter of pixel 0
    mask[4:6, 4:7] = True  # all of pixel 10, half of 11
    assert mask_to_pixels(mask, 16).nonzero().flatten().tolist() == [0, 10, 11]
    assert torch.equal(mask_to_pixels(mask, 64), mask.flatten())


@pytest.mark.parametrize("where", [(0, 0), (33, 60), (63, 63)])
@pytest.mark.parametrize("pixels", [4, 64, 256, 1024])
def test_nothing_small_vanishes(where: tuple[int, int], pixels: int):
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[where] = True
    side = math.isqrt(pixels)
    row, column = (place * side // 64 for place in where)
    assert mask_to_pixels(mask, pixels).nonzero().flatten().tolist() == [row * side + column]


def test_nothing_is_nowhere_and_everything_everywhere():
    empty = torch.zeros(64, 64, dtype=torch.bool)
    assert not mask_to_pixels(empty, 256).any() and bool(mask_to_pixels(~empty, 256).all())


def test_a_plane_has_the_masks_shape():
    mask = torch.zeros(32, 64, dtype=torch.bool)
    mask[:, :32] = True
    found = mask_to_pixels(mask, 8 * 16)
    assert torch.equal(found.view(8, 16), torch.tensor([True] * 8 + [False] * 8).expand(8, 16))


def test_tokens_that_are_masked_out_have_no_target():
    masked_out = torch.tensor([[False] * 4 + [True] * 8])
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    target, weight = gate_targets("own", [[mask]], [[[1]]], 16, 12, masked_out)
    assert weight[0, :, 4:].eq(0).all() and target[0, :, 1].sum() == 8
    others = float(weight[0, :, [0, 2, 3]].sum())
    assert float(weight[0, :, 1].sum()) == pytest.approx(others)
