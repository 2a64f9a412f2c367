"""Losses on images that were scored: by a reward, or one image of a prompt against another. Pure
functions of tensors, computed in float32; each gives a scalar, the mean over the samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from losses.denoising import denoising_loss


def reward_weighted_loss(pred: Tensor, target: Tensor, rewards: Tensor) -> Tensor:
    """Mean over samples of r · ||target - pred||², the squared error a mean over C, H and W (GORS:
    T2I-CompBench, arXiv 2307.06350, section 4).

    ``pred``, ``target`` [B, C, H, W]; ``rewards`` [B], of at least 0. The mean is over B, not over
    the sum of rewards, as in the paper. Raises ValueError as `denoising_loss`, and for a reward
    below 0, which would reward errors.
    """
    if bool((rewards < 0).any()):
        raise ValueError(f"a reward of {float(rewards.min()):g}: expected weights of at least 0")
    return denoising_loss(pred, target, weight=rewards)


def denoising_errors(pred: Tensor, target: Tensor) -> Tensor:
    """``pred``, ``target`` [B, C, H, W] -> the mean squared error of each sample, float32 [B]."""
    return (pred.float() - target.float()).square().flatten(1).mean(1)


def preference_loss(
    better: Tensor, worse: Tensor, frozen_better: Tensor, frozen_worse: Tensor, beta: float
) -> Tensor:
    """Mean of -log sigmoid(-beta · [(better - frozen_better) - (worse - frozen_worse)]) (diffusion
    DPO, arXiv 2311.12908, eq. 14).

    All four [B] are `denoising_errors` of pairs of one prompt at one timestep and noise: of the
    model that is trained, and of the frozen one that it starts from (``frozen_…``, which get no
    gradient). ``beta`` is the paper's beta · T · omega(lambda), constant over timesteps; the
    released code's ``beta_dpo`` is twice as large, since it multiplies by -0.5 · beta_dpo. Raises
    ValueError for a beta that is not positive and on shapes that differ.
    """
    if beta <= 0:
        raise ValueError(f"beta={beta:g}: expected a number above 0")
    shapes = {tuple(t.shape) for t in (better, worse, frozen_better, frozen_worse)}
    if len(shapes) > 1 or better.dim() != 1:
        raise ValueError(f"errors of shapes {sorted(shapes)}: expected [B] of all four")
    own = better.float() - worse.float()
    frozen = (frozen_better.float() - frozen_worse.float()).detach()
    return -F.logsigmoid(-beta * (own - frozen)).mean()
