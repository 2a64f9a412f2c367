from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics import FeatureDistance
from lightning_modules.metrics.functional import Manifold, moments
from lightning_modules.metrics.reference import reference

FEATURES = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
FACTS = {
    "data": "abc",
    "extractor": "tiny",
    "weights": "123",
    "filter": "tf1",
    "resolution": 64,
    "n": 30,
}


class Extract:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, numbers: list[int]) -> Tensor:
        self.asked += numbers
        return FEATURES[numbers]


def refuse(numbers: list[int]) -> Tensor:
    raise AssertionError(f"images {numbers} were extracted again")


def test_features_are_extracted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning_modules.metrics.reference.PER_SHARD", 8)
    extract = Extract()
    first = reference(tmp_path, FACTS, extract, batch=5)
    assert torch.equal(first.features, FEATURES) and len(first) == 30
    assert sorted(set(extract.asked)) == list(range(30)) and len(extract.asked) <= 31
    again = reference(tmp_path, FACTS, refuse)
    assert torch.equal(again.features, FEATURES) and again.facts == FACTS
    assert json.loads((first.folder / "meta.json").read_text())["facts"] == FACTS


@pytest.mark.parametrize("fact", ["data", "extractor", "weights", "filter"])
def test_other_facts_are_another_reference(tmp_path: Path, fact: str):
    reference(tmp_path, FACTS, Extract())
    other = reference(tmp_path, {**FACTS, fact: "other"}, lambda numbers: FEATURES[numbers] + 1)
    assert torch.equal(other.features, FEATURES + 1)
    assert len(reference(tmp_path, {**FACTS, "n": 12}, Extract())) == 12


def test_moments_and_neighbours_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = reference(tmp_path, FACTS, Extract())
    expected = moments(FEATURES)
    assert all(torch.equal(a, b) for a, b in zip(first.moments, expected, strict=True))
    nearest = Manifold.of(FEATURES, 5).nearest
    assert torch.equal(first.manifold(5).nearest, nearest)

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    again = reference(tmp_path, FACTS, refuse)
    with monkeypatch.context() as patch:
        patch.setattr("lightning_modules.metrics.reference.moments", fail)
        patch.setattr("lightning_modules.metrics.reference.Manifold.of", fail)
        assert all(torch.equal(a, b) for a, b in zip(again.moments, expected, strict=True))
        # The greater k knows the smaller
        assert torch.equal(again.manifold(3).radii(3), nearest[:, 2])
        with pytest.raises(AssertionError, match="computed again"):
            again.manifold(6)
    assert again.manifold(6).k == 6 and again.manifold(5).k == 6
    assert not [
        path
        for path in first.folder.iterdir()
        if path.suffix not in (".json", ".safetensors") and path.name != "locks"
    ]


def test_damaged_files_are_computed_again(tmp_path: Path):
    first = reference(tmp_path, FACTS, Extract())
    first.moments, first.manifold(3)
    for path in first.folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:40])
    again = reference(tmp_path, FACTS, Extract())
    assert torch.equal(again.features, FEATURES)
    assert torch.equal(again.moments[1], moments(FEATURES)[1]) and torch.equal(
        again.manifold(3).nearest, Manifold.of(FEATURES, 3).nearest
    )


def test_a_metric_takes_the_reference_as_its_real_side(tmp_path: Path):
    which = ("fid", "kid", "precision", "recall", "density", "coverage")
    fake = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)) + 0.3
    alone = FeatureDistance(which=which)
    alone.update(FEATURES, real=True)
    alone.update(fake, real=False)
    metric = FeatureDistance(which=which, reference=reference(tmp_path, FACTS, Extract()))
    metric.update(fake, real=False)
    assert metric.compute() == alone.compute()
    facts = metric.facts()
    assert {name: facts[name] for name in FACTS} == FACTS and facts["n_real"] == 30
    with pytest.raises(
        ValueError, match=("7 real features were given beside a reference of 30 images")
    ):
        metric.update(FEATURES[:7], real=True)


def test_what_is_no_reference_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="have no fact weights, filter: others would be taken"):
        reference(tmp_path, {"data": "abc", "extractor": "tiny", "n": 3}, Extract())
    with pytest.raises(ValueError, match="1 images: expected at least 2"):
        reference(tmp_path, {**FACTS, "n": 1}, Extract())
    with pytest.raises(ValueError, match="reference images 0 to 0 are not finite"):
        reference(tmp_path, FACTS, lambda numbers: FEATURES[numbers] * torch.nan)
    with pytest.raises(ValueError, match=r"have the shape \[1\]"):
        reference(tmp_path, FACTS, lambda numbers: FEATURES[numbers, 0])
