from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics.distribution import DistributionScorer
from lightning_modules.metrics.functional import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from lightning_modules.metrics.real_stats import RealStats


class Given:
    """An extractor whose images are the features."""

    name, facts = "given", {"extractor": "given"}

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor) -> Tensor:
        return images


def score(real: Tensor, *fakes: Tensor, **options: int | None) -> DistributionScorer:
    scorer = DistributionScorer(
        Given(real.shape[1]), RealStats(real), about={"extractor": "given"}, **options
    )
    for fake in fakes:
        assert scorer.add([], fake, []) == {}
    return scorer


def test_numbers_are_those_of_the_functions():
    real, fake = torch.randn(30, 4), torch.randn(21, 4) + 0.5
    scorer = score(real, *fake.split(9), k=2)
    values = scorer.finish()
    precision, recall = precision_recall(real, fake, k=2)
    density, coverage = density_coverage(real, fake, k=5)
    assert values == {
        "fid": float(frechet_distance(real, fake)),
        "kid": float(kernel_distance(real, fake)),
        "precision": float(precision),
        "recall": float(recall),
        "density": float(density),
        "coverage": float(coverage),
    }
    with torch.autocast("cpu", torch.bfloat16):
        assert score(real, fake, k=2).finish() == values


def test_facts_stand_beside_the_numbers_that_they_matter_for():
    scorer = score(torch.randn(16, 8), torch.randn(16, 8), density_k=None)
    assert list(scorer.finish()) == ["fid", "kid", "precision", "recall"]
    common = {"extractor": "given", "n_real": 16, "n_fake": 16, "features": 8}
    nearest = common | {"k": 3, "strict": False}
    assert scorer.facts == {
        "fid": common,
        "kid": common,
        "precision": nearest,
        "recall": nearest,
    }
    scorer = score(torch.randn(16, 8), torch.randn(15, 8))
    scorer.finish()
    assert scorer.facts["fid"]["warning"].startswith("15 samples for 8 features")
    assert scorer.facts["coverage"] == common | {"n_fake": 15, "density_k": 5, "strict": False}


def test_too_few_and_unequal_features_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        score(torch.randn(8, 4)).finish()
    with pytest.raises(ValueError, match="k = 3 needs at least 4"):
        score(torch.randn(8, 4), torch.randn(3, 4), density_k=None).finish()
