from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics.functional import Manifold, moments
from lightning_modules.metrics.real_stats import load_or_compute_real_stats

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
    monkeypatch.setattr("lightning_modules.metrics.real_stats.PER_SHARD", 8)
    extract = Extract()
    first = load_or_compute_real_stats(tmp_path, FACTS, extract, batch=5)
    assert torch.equal(first.features, FEATURES) and len(first) == 30
    assert sorted(set(extract.asked)) == list(range(30)) and len(extract.asked) <= 31
    again = load_or_compute_real_stats(tmp_path, FACTS, refuse)
    assert torch.equal(again.features, FEATURES)
    assert json.loads((first.folder / "meta.json").read_text())["facts"] == FACTS


@pytest.mark.parametrize("fact", ["data", "extractor", "weights", "filter"])
def test_other_facts_are_other_statistics(tmp_path: Path, fact: str):
    load_or_compute_real_stats(tmp_path, FACTS, Extract())
    other = load_or_compute_real_stats(
        tmp_path, {**FACTS, fact: "other"}, lambda numbers: FEATURES[numbers] + 1
    )
    assert torch.equal(other.features, FEATURES + 1)
    assert len(load_or_compute_real_stats(tmp_path, {**FACTS, "n": 12}, Extract())) == 12


def test_moments_and_neighbours_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_or_compute_real_stats(tmp_path, FACTS, Extract())
    expected = moments(FEATURES)
    assert all(torch.equal(a, b) for a, b in zip(first.moments, expected, strict=True))
    nearest = Manifold.of(FEATURES, 5).nearest
    assert torch.equal(first.manifold(5).nearest, nearest)

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    again = load_or_compute_real_stats(tmp_path, FACTS, refuse)
    with monkeypatch.context() as patch:
        patch.setattr("lightning_modules.metrics.real_stats.moments", fail)
        patch.setattr("lightning_modules.metrics.real_stats.Manifold.of", fail)
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
    first = load_or_compute_real_stats(tmp_path, FACTS, Extract())
    first.moments, first.manifold(3)
    for path in first.folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:40])
    again = load_or_compute_real_stats(tmp_path, FACTS, Extract())
    assert torch.equal(again.features, FEATURES)
    assert torch.equal(again.moments[1], moments(FEATURES)[1]) and torch.equal(
        again.manifold(3).nearest, Manifold.of(FEATURES, 3).nearest
    )


def test_incomplete_facts_and_features_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no fact weights, filter"):
        load_or_compute_real_stats(
            tmp_path, {"data": "abc", "extractor": "tiny", "n": 3}, Extract()
        )
    with pytest.raises(ValueError, match="expected at least 2"):
        load_or_compute_real_stats(tmp_path, {**FACTS, "n": 1}, Extract())
    with pytest.raises(ValueError, match="images 0 to 0 are not finite"):
        load_or_compute_real_stats(tmp_path, FACTS, lambda numbers: FEATURES[numbers] * torch.nan)
    with pytest.raises(ValueError, match=r"have the shape \[1\]"):
        load_or_compute_real_stats(tmp_path, FACTS, lambda numbers: FEATURES[numbers, 0])
