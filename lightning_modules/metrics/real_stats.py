"""The real side of a distribution metric, computed once: features, moments and neighbour distances
of N real images, on disk.

    <folder>/<digest of the facts>/
        meta.json, shard-….safetensors  features and facts, as `datamodules.shards` keeps them
        moments.safetensors             mean [d] and covariance [d, d], float64
        nearest.safetensors             distances to the nearest neighbours [N, K], float64

Other data, another extractor, filter or N are another folder. Several processes share the work; a
killed one loses at most a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from conf.describe import show_count
from conf.files import read_kept, write_atomically
from datamodules.shards import Emit, fill
from lightning_modules.metrics.functional import Manifold, moments

REQUIRED = ("data", "extractor", "weights", "filter", "n")
PER_SHARD = 1024


class RealStats:
    """Features of the real images, float32 [N, d] on the CPU, and what depends on them alone.

    ``folder``: where the rest is kept; None computes it when asked.
    """

    def __init__(self, features: Tensor, folder: Path | None = None) -> None:
        self.features, self.folder = features.float().cpu(), folder

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d] and unbiased covariance [d, d], float64."""
        stored = self._load_or_compute(
            "moments",
            lambda: dict(zip(("mean", "cov"), moments(self.features), strict=True)),
            lambda stored: stored.keys() == {"mean", "cov"},
        )
        return stored["mean"], stored["cov"]

    def manifold(self, k: int) -> Manifold:
        """The features with the radii of all neighbours up to ``k`` at least. Raises ValueError for
        fewer than k + 1 images."""
        stored = self._load_or_compute(
            "nearest",
            lambda: {"nearest": Manifold.of(self.features, k).nearest},
            lambda stored: "nearest" in stored and stored["nearest"].shape[1] >= k,
        )
        return Manifold(self.features, stored["nearest"])

    def _load_or_compute(
        self,
        name: str,
        compute: Callable[[], dict[str, Tensor]],
        valid: Callable[[Mapping[str, Tensor]], bool],
    ) -> dict[str, Tensor]:
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.safetensors"
        # Of several processes one computes, the others read what it wrote
        with FileLock(self.folder / "locks" / name):
            stored = read_kept(path, load_file)
            if stored is not None and valid(stored):
                return stored
            computed = compute()
            write_atomically(path, lambda draft: save_file(computed, draft))
        return computed


def load_or_compute_real_stats(
    folder: Path,
    facts: Mapping[str, Any],
    compute: Callable[[list[int]], Tensor],
    emit: Emit | None = None,
    batch: int = 64,
) -> RealStats:
    """Statistics of real images below ``folder``, computed where they are not there yet.

    ``facts`` (JSON) hold all that the features depend on: ``data`` (digest of the images: files,
    order, crop, resolution), ``n`` (how many), and an extractor's own facts (``extractor``,
    ``weights``, ``filter`` …). ``compute`` gives for up to ``batch`` image numbers their features
    [len(numbers), d]. ``emit`` gets a line of progress and the share done.

    Raises ValueError when a fact is missing, for fewer than 2 images, or for features that are no
    finite matrix; and as `datamodules.shards.fill` does.
    """
    if missing := [name for name in REQUIRED if facts.get(name) is None]:
        raise ValueError(
            f"statistics of real images have no fact {', '.join(missing)}: others would be taken "
            "for them"
        )
    if facts["n"] < 2:
        images = show_count(facts["n"], "real image")
        raise ValueError(f"statistics of {images}: expected at least 2")

    def compute_rows(numbers: list[int]) -> dict[str, Tensor]:
        features = compute(numbers)
        if features.ndim != 2 or not bool(torch.isfinite(features).all()):
            shape = f"have the shape {list(features.shape)}"
            what = "are not finite" if features.ndim == 2 else shape
            raise ValueError(
                f"features of real images {numbers[0]} to {numbers[-1]} {what}: expected finite "
                "numbers [N, d]"
            )
        return {"features": features.float()}

    shards = fill(
        folder,
        facts,
        facts["n"],
        compute_rows,
        what="features of real images",
        where="real image {}".format,
        emit=emit,
        per_shard=PER_SHARD,
        batch=batch,
    )
    features = [shards.load(number)["features"] for number in range(shards.number)]
    return RealStats(torch.cat(features), shards.folder)
