"""How close a set of generated images comes to a set of real ones, as a torchmetrics Metric over
features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_modules.metrics.blocks import check
from lightning_modules.metrics.functional import (
    frechet_distance_of_moments,
    kernel_distance,
    manifold_scores,
    moments,
)

if TYPE_CHECKING:
    from lightning_modules.metrics.reference import Reference

WHICH = ("fid", "kid", "precision", "recall", "density", "coverage")


def gather_to_cpu(value: Tensor, group: Any = None) -> list[Tensor]:
    """All ranks' tensors, on the CPU: a `dist_sync_fn` for metrics that keep their states there.
    NCCL moves only tensors on its device."""
    if torch.distributed.get_backend(group) == "nccl":
        value = value.cuda()
    if value.ndim == 1 and len(value) == 0:
        # torchmetrics hands over a flat empty tensor for a rank without data, which cannot be
        # padded to a matrix.
        value = value.reshape(0, 1)
    gathered = [v.cpu() for v in gather_all_tensors(value, group)]
    return [v for v in gathered if v.ndim == 0 or len(v)] or gathered[:1]


class FeatureDistance(Metric):
    """FID, KID, improved precision / recall, density / coverage between real and generated
    features.

    Takes features, not images, so that the extractor stays outside the module tree (its weights are
    in no checkpoint, no optimiser and no parameter count) and real features can be computed once.
    They are kept as float32 on the CPU and gathered over ranks when the values are computed; ranks
    may hold unequal numbers, none included. Images that a sampler repeated would count twice: give
    each image once.

    ``k``: neighbour that sets the radius of precision / recall; ``density_k``: that of density /
    coverage. ``which``: some of `WHICH`. ``strict``: a sample on the rim of a ball is outside.
    ``about``: facts that only the caller knows, such as an extractor's ``facts`` and the images'
    ``resolution``. ``reference``: the real side, already computed, the same on every rank; its
    facts are told too.
    """

    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(
        self,
        k: int = 3,
        which: Sequence[str] = ("fid", "precision", "recall"),
        density_k: int = 5,
        strict: bool = False,
        about: Mapping[str, Any] | None = None,
        reference: Reference | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dist_sync_fn=gather_to_cpu, compute_on_cpu=True, **kwargs)
        if unknown := [name for name in which if name not in WHICH]:
            raise ValueError(
                f"distance {unknown[0]!r} is unknown: expected some of {', '.join(WHICH)}"
            )
        self.k, self.which, self.density_k, self.strict = k, tuple(which), density_k, strict
        self.about, self.reference = dict(about or {}), reference
        self.counted: tuple[int, int, int] | None = None  # n_real, n_fake, d over all ranks
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("fake", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """``features``: [N, d]. Raises ValueError for another shape, and for real ones beside a
        reference."""
        if features.ndim != 2:
            raise ValueError(f"features must be a matrix [N, d], not {list(features.shape)}")
        if real and self.reference is not None:
            n = len(self.reference)
            raise ValueError(
                f"{len(features)} real features were given beside a reference of {n} "
                "images: expected one of the two"
            )
        self.counted = None
        (self.real if real else self.fake).append(features.detach().float().cpu())

    def reset(self) -> None:
        super().reset()
        self.counted = None

    def compute(self) -> dict[str, float]:
        """The values of ``which``, ``n_real`` and ``n_fake``. Raises ValueError for fewer than k +
        1 samples on a side (2 for FID, KID)."""
        for side in ("fake",) if self.reference else ("real", "fake"):
            if len(getattr(self, side)) == 0:
                raise ValueError(
                    f"no {side} features were given: call update(features, "
                    f"real={side == 'real'}) before compute"
                )
        fake = dim_zero_cat(self.fake)
        real = self.reference.features if self.reference else dim_zero_cat(self.real)
        check("a feature distance", 2, real, fake)
        values: dict[str, Tensor] = {}
        if "fid" in self.which:
            values["fid"] = frechet_distance_of_moments(
                *(self.reference.moments if self.reference else moments(real)), *moments(fake)
            )
        if "kid" in self.which:
            values["kid"] = kernel_distance(real, fake)
        wanted = set(self.which)
        if wanted & {"precision", "recall", "density", "coverage"}:
            dense = self.density_k if wanted & {"density", "coverage"} else self.k
            known = self.reference.manifold(max(self.k, dense)) if self.reference else real
            values |= manifold_scores(known, fake, self.k, dense, self.strict)._asdict()
        self.counted = len(real), len(fake), real.shape[1]
        numbers = {name: float(values[name]) for name in WHICH if name in wanted}
        return {**numbers, "n_real": float(len(real)), "n_fake": float(len(fake))}

    def facts(self) -> dict[str, Any]:
        """What the last computed values are, as JSON values; None for what nobody told.

        ``extractor``, ``resolution`` (of the images), ``filter`` (of the resize before the
        extractor) and all else that was told; ``k``, ``density_k`` and ``strict`` where they
        matter; ``n_real``, ``n_fake``, ``features`` (their number d); ``small``: whether a side has
        fewer than 2 d samples, and then a ``warning``. Raises ValueError before anything was
        computed.
        """
        if self.counted is None:
            raise ValueError("facts are known when values are: call compute() first")
        n_real, n_fake, d = self.counted
        n = min(n_real, n_fake)
        told = {
            "extractor": None,
            "resolution": None,
            "filter": None,
            **(self.reference.facts if self.reference else {}),
            **self.about,
        }
        told |= {"n_real": n_real, "n_fake": n_fake, "features": d, "small": n < 2 * d}
        if told["small"]:
            bias = "FID is mostly its bias, which falls as 1 / N; KID has none"
            told["warning"] = f"{n} samples for {d} features are fewer than 2 for each: {bias}"
        if {"precision", "recall"} & set(self.which):
            told["k"] = self.k
        if {"density", "coverage"} & set(self.which):
            told["density_k"] = self.density_k
        if {"precision", "recall", "density", "coverage"} & set(self.which):
            told["strict"] = self.strict
        return told
