"""Losses on scored images, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from losses.rewards import denoising_errors, preference_loss, reward_weighted_loss


def test_each_error_counts_by_its_reward() -> None:
    target = torch.zeros(3, 1, 1, 2)
    # Mean squared errors 1, 4 and 2.5
    pred = torch.tensor([[1.0, 1.0], [2.0, 2.0], [1.0, 2.0]]).view(3, 1, 1, 2)
    assert denoising_errors(pred, target).tolist() == [1.0, 4.0, 2.5]
    # (0.5 * 1 + 0.9 * 4 + 0 * 2.5) / 3, not over the sum of rewards
    loss = reward_weighted_loss(pred, target, torch.tensor([0.5, 0.9, 0.0]))
    assert float(loss) == pytest.approx(4.1 / 3, rel=1e-6)
    with pytest.raises(ValueError, match="a reward of -0.5: expected weights of at least 0"):
        reward_weighted_loss(pred, target, torch.tensor([0.5, -0.5, 1.0]))


def test_a_pair_is_judged_by_what_changed_against_the_frozen_model() -> None:
    better, worse = torch.tensor([0.5]), torch.tensor([0.9])
    frozen = torch.tensor([0.7]), torch.tensor([0.8])
    # The better image is denoised better by .2, the worse one worse by .1: -log sigmoid(2 * .3)
    loss = preference_loss(better, worse, *frozen, beta=2.0)
    assert float(loss) == pytest.approx(0.437487950, rel=1e-6)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.6)), rel=1e-6)
    # The other way around: -log sigmoid(-.6)
    turned = preference_loss(worse, better, frozen[1], frozen[0], beta=2.0)
    assert float(turned) == pytest.approx(1.037487950, rel=1e-6)
    both = preference_loss(
        torch.cat([better, worse]),
        torch.cat([worse, better]),
        torch.cat(frozen),
        torch.cat(frozen[::-1]),
        beta=2.0,
    )
    assert float(both) == pytest.approx((0.437487950 + 1.037487950) / 2, rel=1e-6)


def test_an_untrained_pair_costs_log_2_and_pulls_by_half_of_beta() -> None:
    errors = [torch.tensor([0.3, 0.6], requires_grad=True) for _ in range(4)]
    loss = preference_loss(*errors, beta=4.0)
    assert float(loss.detach()) == pytest.approx(math.log(2), rel=1e-6)
    loss.backward()
    better, worse, *frozen = (error.grad for error in errors)
    # d/dx -log sigmoid(-beta x) at 0 is beta / 2, over two samples
    assert better is not None and better.tolist() == pytest.approx([1.0, 1.0])
    assert worse is not None and worse.tolist() == pytest.approx([-1.0, -1.0])
    assert frozen == [None, None]


def test_what_is_no_pair_is_refused() -> None:
    three, two = torch.zeros(3), torch.zeros(2)
    with pytest.raises(ValueError, match=r"errors of shapes \[\(2,\), \(3,\)\]"):
        preference_loss(three, three, three, two, 1.0)
    with pytest.raises(ValueError, match="beta=0: expected a number above 0"):
        preference_loss(two, two, two, two, 0.0)
