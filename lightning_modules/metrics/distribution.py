"""How close a set of generated images comes to a set of real ones, as a torchmetrics Metric over features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_modules.metrics.functional import frechet_distance, precision_recall


def gather_to_cpu(value: Tensor, group: Any = None) -> list[Tensor]:
    """All ranks' tensors, on the CPU: a `dist_sync_fn` for metrics that keep their states there. NCCL moves only tensors on its device."""
    if torch.distributed.get_backend(group) == "nccl":
        value = value.cuda()
    if value.ndim == 1 and len(value) == 0:
        # torchmetrics hands over a flat empty tensor for a rank without data, which cannot be padded to a matrix.
        value = value.reshape(0, 1)
    gathered = [v.cpu() for v in gather_all_tensors(value, group)]
    return [v for v in gathered if v.ndim == 0 or len(v)] or gathered[:1]


class FeatureDistance(Metric):
    """FID and improved precision / recall between real and generated features.

    Takes features, not images, so that the extractor stays outside the module tree (its weights are in no checkpoint, no optimiser and no
    parameter count) and real features can be computed once. They are kept as float32 on the CPU and gathered over ranks when the values are
    computed; ranks may hold unequal numbers, none included. Images that a sampler repeated would count twice: give each image once.

    ``k``: neighbour that sets the radius of precision / recall.
    """

    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, k: int = 3, **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather_to_cpu, compute_on_cpu=True, **kwargs)
        self.k = k
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("fake", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """``features``: [N, d]."""
        if features.ndim != 2:
            raise ValueError(f"features must be a matrix [N, d], not {list(features.shape)}")
        (self.real if real else self.fake).append(features.detach().float().cpu())

    def compute(self) -> dict[str, float]:
        """``fid``, ``precision``, ``recall``, ``n_real``, ``n_fake``. Raises ValueError for fewer than k + 1 samples on a side."""
        for side in ("real", "fake"):
            if len(getattr(self, side)) == 0:
                raise ValueError(f"no {side} features were given: call update(features, real={side == 'real'}) before compute")
        real, fake = dim_zero_cat(self.real), dim_zero_cat(self.fake)
        precision, recall = precision_recall(real, fake, self.k)
        return {
            "fid": float(frechet_distance(real, fake)),
            "precision": float(precision),
            "recall": float(recall),
            "n_real": float(len(real)),
            "n_fake": float(len(fake)),
        }
