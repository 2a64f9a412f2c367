"""In which precision images are drawn: the setting, `auto`, and the denoiser's dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from conf.schema import Evaluation
from lightning_modules.backbone import precision
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample, sampling_as

PROMPTS, SEEDS = ["a red circle and a blue square", "a white ring"], [3, 4]


@pytest.mark.parametrize(
    ("setting", "has", "device", "dtype", "expected"),
    [
        ("auto", True, "cpu", torch.float32, "bf16-mixed"),
        ("auto", False, "cpu", torch.float32, "32-true"),
        ("auto", True, "cuda", torch.float32, "32-true"),
        ("auto", True, "cpu", torch.bfloat16, "32-true"),
        ("32-true", True, "cpu", torch.float32, "32-true"),
        ("bf16-mixed", False, "cpu", torch.float32, "bf16-mixed"),
        ("bf16-mixed", True, "cuda", torch.float16, "32-true"),
    ],
)
def test_what_a_precision_means(
    setting: str,
    has: bool,
    device: str,
    dtype: torch.dtype,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has)
    found = precision.resolve_precision(Evaluation(precision=setting), device, dtype)
    assert found == expected


def test_only_the_denoiser_computes_in_bfloat16_and_only_while_it_draws(sd1: Backbone) -> None:
    seen: list[torch.dtype] = []

    def look(module: Any, inputs: Any, output: torch.Tensor) -> None:
        seen.append(output.dtype)

    layer = next(m for m in sd1.denoiser.modules() if isinstance(m, torch.nn.Linear))
    handle = layer.register_forward_hook(look)
    plain = sample(sd1, PROMPTS, SEEDS, 4, 4.0, 64)
    assert set(seen) == {torch.float32}
    seen.clear()
    with sampling_as(sd1, Evaluation(precision="bf16-mixed")):
        mixed = sample(sd1, PROMPTS, SEEDS, 4, 4.0, 64)
    assert set(seen) == {torch.bfloat16}
    handle.remove()
    # Rounding moves levels, not pictures
    apart = (mixed.float() - plain.float()).abs()
    assert 0 < apart.mean() < 4
    assert torch.equal(sample(sd1, PROMPTS, SEEDS, 4, 4.0, 64), plain)
