"""The real side of a distribution metric, computed once: features, moments and neighbour distances
of N real images, on disk.

    <folder>/<digest of the facts>/meta.json, shard-….safetensors    the features and their facts, as `datamodules.shards` keeps rows
                                   moments.safetensors               mean [d] and covariance [d, d], float64, when FID was asked for
                                   nearest.safetensors               distances to the nearest neighbours [N, K], float64, when they were

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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.shards import Emit, Shards, fill
from lightning_modules.metrics.functional import Manifold, moments

REQUIRED = ("data", "extractor", "weights", "filter", "n")
PER_SHARD = 1024


class Reference:
    """Features of the real images, float32 [N, d] on the CPU, and what depends on them alone.
    ``facts`` say what they are."""

    def __init__(self, shards: Shards, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = shards.folder, dict(facts)
        self.features = torch.cat(
            [shards.load(shard)["features"] for shard in range(shards.number)]
        )

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d] and unbiased covariance [d, d], float64."""

        def compute() -> dict[str, Tensor]:
            mean, cov = moments(self.features)
            return {"mean": mean, "cov": cov}

        kept = self._kept("moments", compute, lambda found: found.keys() == {"mean", "cov"})
        return kept["mean"], kept["cov"]

    def manifold(self, k: int) -> Manifold:
        """The features with the radii of all neighbours up to ``k`` at least. Raises ValueError for
        fewer than k + 1 images."""

        def known(found: Mapping[str, Tensor]) -> bool:
            return "nearest" in found and found["nearest"].shape[1] >= k

        kept = self._kept(
            "nearest", lambda: {"nearest": Manifold.of(self.features, k).nearest}, known
        )
        return Manifold(self.features, kept["nearest"])

    def _kept(
        self,
        name: str,
        compute: Callable[[], dict[str, Tensor]],
        good: Callable[[Mapping[str, Tensor]], bool],
    ) -> dict[str, Tensor]:
        path = self.folder / f"{name}.safetensors"
        # Of several processes one computes, the others read what it wrote
        with FileLock(self.folder / "locks" / name):
            try:
                found = load_file(path)
                if good(found):
                    return found
            except (FileNotFoundError, SafetensorError):  # never written, or cut off
                pass
            found = compute()
            draft = self.folder / f".{name}"
            save_file(found, draft)
            draft.replace(path)
        return found


def reference(
    folder: Path,
    facts: Mapping[str, Any],
    compute: Callable[[list[int]], Tensor],
    emit: Emit | None = None,
    batch: int = 64,
) -> Reference:
    """Reference statistics below ``folder``, computed where they are not there yet.

    ``facts`` (JSON) hold all that the features depend on: ``data`` (digest of the images: files,
    order, crop, resolution), ``n`` (how many), and an extractor's own facts (``extractor``,
    ``weights``, ``filter`` …). ``compute`` gives for up to ``batch`` image numbers their features
    [len(numbers), d]. ``emit`` gets a line of progress and the share done.

    Raises ValueError when a fact is missing, for fewer than 2 images, or for features that are no
    finite matrix; and as `datamodules.shards.fill` does.
    """
    if missing := [name for name in REQUIRED if facts.get(name) is None]:
        raise ValueError(
            f"reference statistics have no fact {', '.join(missing)}: "
            "others would be taken for them"
        )
    if facts["n"] < 2:
        raise ValueError(f"reference statistics of {facts['n']} images: expected at least 2")

    def features(numbers: list[int]) -> dict[str, Tensor]:
        found = compute(numbers)
        if found.ndim != 2 or not bool(torch.isfinite(found).all()):
            what = "are not finite" if found.ndim == 2 else f"have the shape {list(found.shape)}"
            raise ValueError(
                f"features of reference images {numbers[0]} to {numbers[-1]} {what}: "
                "expected finite numbers [N, d]"
            )
        return {"features": found.float()}

    shards = fill(
        folder,
        facts,
        facts["n"],
        features,
        what="reference features",
        where="reference image {}".format,
        emit=emit,
        per_shard=PER_SHARD,
        batch=batch,
    )
    return Reference(shards, facts)
