"""Cached tensors: computed once, never half written, never with a value that is not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datamodules import cache
from datamodules.cache import cached


def test_computed_once_and_read_again(tmp_path: Path):
    calls = []

    def compute() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"latents": torch.randn(3, 2, dtype=torch.bfloat16), "turned": torch.arange(6.0).view(2, 3).T}

    first, second = (cached(tmp_path / "deep" / "er", "k", compute) for _ in range(2))
    assert len(calls) == 1
    assert all(torch.equal(first[name], second[name]) for name in ("latents", "turned"))
    assert first["latents"].dtype == torch.bfloat16 and first["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    cached(tmp_path / "deep" / "er", "other", compute)
    assert len(calls) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (4,)])
def test_values_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path, bad: float, shape: tuple[int, ...]):
    tensor = torch.zeros(shape)
    tensor[1] = bad
    with pytest.raises(ValueError, match=r"1 of 4 rows of 'latents' are not finite.*backbone\.dtype"):
        cached(tmp_path, "k", lambda: {"latents": tensor})
    assert not list(tmp_path.iterdir())
    assert cached(tmp_path, "k", lambda: {"latents": torch.ones(1)})["latents"].item() == 1


def test_an_interrupted_write_is_not_taken_for_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def half(tensors: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "k", lambda: {"x": torch.ones(2)})
    monkeypatch.undo()
    assert cached(tmp_path, "k", lambda: {"x": torch.zeros(2)})["x"].tolist() == [0, 0]
