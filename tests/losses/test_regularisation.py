"""Losses that hold a method back, against plain references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from losses.regularisation import distillation_loss, prior_loss


def sample(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", [prior_loss, distillation_loss])
def test_mean_squared_error(loss):
    pred, target = sample(0, 3, 4, 8, 8), sample(1, 3, 4, 8, 8)
    assert float(loss(pred, target)) == pytest.approx(
        float((pred.double() - target.double()).square().mean()), rel=1e-6
    )
    alone = torch.stack([loss(pred[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.allclose(loss(pred, target), alone.mean())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(pred.bfloat16(), target.bfloat16())
    assert inside.dtype == torch.float32 and torch.equal(
        inside, loss(pred.bfloat16().float(), target.bfloat16().float())
    )
    with pytest.raises(
        ValueError,
        match=(r"pred \(3, 4, 8, 8\) and \w+ \(3, " r"4, 8, 4\) differ: expected the same shape"),
    ):
        loss(pred, target[..., :4])
    with pytest.raises(
        ValueError, match=(r"pred \(0, 4, 8, 8\) is " r"empty: expected at least one sample")
    ):
        loss(pred[:0], target[:0])


def test_the_frozen_backbone_gets_no_gradient():
    pred, frozen = sample(0, 2, 4, 8, 8).requires_grad_(), sample(1, 2, 4, 8, 8).requires_grad_()
    distillation_loss(pred, frozen).backward()
    assert frozen.grad is None and pred.grad is not None
    assert torch.allclose(pred.grad, 2 * (pred - frozen).detach() / pred.numel())
