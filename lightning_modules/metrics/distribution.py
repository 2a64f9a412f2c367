"""How close the generated images come to the real ones behind the same prompts: FID, KID, improved
precision / recall, density / coverage, on the features of an extractor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from conf import load as conf
from conf.describe import show_count
from lightning_modules.evaluation.plan import real_rows
from lightning_modules.metrics.features import Extractor, build_extractor
from lightning_modules.metrics.functional import (
    check_features,
    frechet_distance_of_moments,
    kernel_distance,
    manifold_scores,
    moments,
)
from lightning_modules.metrics.real_stats import RealStats, load_or_compute_real_stats
from lightning_modules.metrics.registry import CHUNK, Columns, ScoringContext
from lightning_modules.training.keys import code_version
from lightning_modules.training.versions import MAKING

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt

DENSITY_K = 5  # The neighbour of density / coverage, as in their paper


def build(context: ScoringContext) -> list[DistributionScorer]:
    """The scorer that ``evaluation.extractor`` names; the real images are looked at now, unless
    their features are in the cache. Raises as `build_extractor`, and ValueError for prompts that
    have no real images."""
    evaluation = context.evaluation
    weights = evaluation.extractor_weights or None
    extractor = build_extractor(evaluation.extractor, weights, device=context.device)
    splits, rows = context.datamodule.eval_sets, real_rows(context.prompts)
    images = [(splits[split], row) for split in rows for row in rows[split]]
    if any(not hasattr(dataset, "pixels") for dataset, _ in images):
        raise ValueError(
            f"evaluation.extractor={evaluation.extractor} compares with real images, which "
            "prompts do not have: set it to none"
        )

    def compute(numbers: Sequence[int]) -> Tensor:
        pixels = [dataset.pixels(row) for dataset, row in (images[i] for i in numbers)]
        return extractor(torch.stack(pixels))

    first, row = images[0]
    facts = {**extractor.facts, "resolution": int(first.pixels(row).shape[-1])}
    digests = {split: getattr(splits[split], "digest", None) for split in rows}
    if all(digests.values()):
        data = conf.digest({split: [get(), rows[split]] for split, get in digests.items() if get})
        real = load_or_compute_real_stats(
            context.cache / "real_stats",
            {**facts, "data": data, "n": len(images), "code": _reading_code(context)},
            compute,
            context.emit,
            CHUNK,
        )
    else:
        chunks = torch.arange(len(images)).split(CHUNK)
        real = RealStats(torch.cat([compute(chunk.tolist()) for chunk in chunks]))
    dense = min(len(images), len(context.prompts)) > DENSITY_K
    return [
        DistributionScorer(
            extractor, real, evaluation.precision_recall_k, DENSITY_K if dense else None, facts
        )
    ]


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why these prompts do not give it. Raises ValueError for fewer than the neighbours of
    precision and recall."""
    real, k = sum(map(len, real_rows(prompts).values())), evaluation.precision_recall_k
    least = min(real, len(prompts))
    if least <= k:
        raise ValueError(
            f"evaluation.extractor={evaluation.extractor}: {show_count(real, 'real image')} and "
            f"{show_count(len(prompts), 'drawn one')}, too few for "
            f"evaluation.precision_recall_k={k}: take more, or set it lower"
        )
    if least > DENSITY_K:
        return {}
    why = f"{show_count(least, 'image')} are too few for neighbour {DENSITY_K}"
    return dict.fromkeys(("density", "coverage"), why)


def _reading_code(context: ScoringContext) -> str:
    """Digest of the code that makes features of real images: those of other code are not taken from
    the cache."""
    sets = {type(dataset).__module__ for dataset in context.datamodule.eval_sets.values()}
    readers = sorted(name for name in sets if name.startswith("datamodules."))
    return code_version("lightning_modules.metrics.features", *readers, skip=MAKING)


class DistributionScorer:
    """FID, KID, precision / recall (with ``k`` neighbours) and density / coverage (with
    ``density_k``, left out where that is None) between generated features and ``real``.

    ``about``: facts of the extractor and the images, which stand beside each number.
    """

    def __init__(
        self,
        extractor: Extractor,
        real: RealStats,
        k: int = 3,
        density_k: int | None = DENSITY_K,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.extractor, self.real, self.k, self.density_k = extractor, real, k, density_k
        self.about, self.features = about or {}, [torch.zeros(0, extractor.size)]
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; no columns, since single images have no distance."""
        self.features.append(self.extractor(images).float().cpu())
        return {}

    def finish(self) -> dict[str, float]:
        """As `Scorer`. Raises ValueError for fewer than 2 images on a side, or than k + 1."""
        real, fake = self.real.features, torch.cat(self.features)
        check_features("a feature distance", 2, real, fake)
        dense = self.density_k or self.k
        scores = manifold_scores(self.real.manifold(max(self.k, dense)), fake, self.k, dense)
        values = {
            "fid": frechet_distance_of_moments(*self.real.moments, *moments(fake)),
            "kid": kernel_distance(real, fake),
            "precision": scores.precision,
            "recall": scores.recall,
        }
        if self.density_k is not None:
            values |= {"density": scores.density, "coverage": scores.coverage}
        self._set_facts(len(real), len(fake), real.shape[1])
        return {key: float(value) for key, value in values.items()}

    def _set_facts(self, n_real: int, n_fake: int, features: int) -> None:
        n = min(n_real, n_fake)
        common = {**self.about, "n_real": n_real, "n_fake": n_fake, "features": features}
        nearest = {"k": self.k, "strict": False}
        dense = {"density_k": self.density_k, "strict": False}
        warning = {}
        if n < 2 * features:
            bias = "FID is mostly its bias, which falls as 1 / N; KID has none"
            samples, each = show_count(n, "sample"), show_count(features, "feature")
            text = f"{samples} for {each}, fewer than 2 for each one: {bias}"
            warning = {"warning": text}
        own: dict[str, dict[str, Any]] = {"fid": warning, "kid": {}}
        own |= {"precision": nearest, "recall": nearest}
        if self.density_k is not None:
            own |= {"density": dense, "coverage": dense}
        self.facts = {key: common | more for key, more in own.items()}
