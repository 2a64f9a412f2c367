"""What is computed faster is the same but for rounding, and only what was asked for is changed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from conf import schema
from lightning_modules import acceleration
from lightning_modules.acceleration import BLOCK, accelerate, slow_format
from lightning_modules.backbone import sample


def test_channels_last_changes_the_order_in_memory_and_no_image_by_more_than_rounding(embedded: Any):
    plain = deepcopy(embedded)
    accelerate(embedded, schema.Backbone(channels_last=True))
    for backbone, is_last in ((plain, False), (embedded, True)):
        for module in (backbone.denoiser, backbone.vae):
            weight = next(m.weight for m in module.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3))
            assert weight.is_contiguous(memory_format=torch.channels_last) == is_last
    images = [sample(b, ["a red circle"] * 2, [0, 1], 2, 3.0, 64).float() for b in (plain, embedded)]
    assert (images[0] - images[1]).abs().max() <= 1 and images[0].std() > 1
    assert embedded.fingerprint() == plain.fingerprint(), "cached latents serve both"


def test_compile_is_for_the_transformer_blocks_alone(embedded: Any):
    accelerate(embedded, schema.Backbone(compile=True))
    compiled = [type(module).__name__ for module in embedded.denoiser.modules() if module._compiled_call_impl is not None]
    assert set(compiled) == {BLOCK}
    assert all(module._compiled_call_impl is None for module in embedded.vae.modules())


def test_by_default_nothing_is_changed(embedded: Any):
    accelerate(embedded, schema.Backbone())
    assert all(module._compiled_call_impl is None for module in embedded.denoiser.modules())
    assert not any(p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
                   for p in embedded.denoiser.parameters())  # fmt: skip


@pytest.mark.parametrize(("dtype", "precision", "said"), [
    ("float32", "32-true", None),
    ("bfloat16", "32-true", "backbone.dtype=bfloat16 saves memory and no time on this CPU: a product of matrices takes 20 times as long"),
    ("float32", "bf16-mixed", "trainer.precision=bf16-mixed saves memory and no time on this CPU"),
    ("float16", "bf16-mixed", "trainer.precision=bf16-mixed saves"),
])  # fmt: skip
def test_a_format_that_this_cpu_is_slow_in_is_said(dtype: str, precision: str, said: str | None, monkeypatch: pytest.MonkeyPatch):
    taken = {torch.float32: 1e-3, torch.float16: 3e-3, torch.bfloat16: 2e-2}
    monkeypatch.setattr(acceleration, "_seconds", taken.__getitem__)
    config = schema.Run(backbone=schema.Backbone(dtype=dtype), trainer=schema.Trainer(precision=precision))
    answer = slow_format(config, torch.device("cpu"))
    assert answer is None if said is None else answer is not None and answer.startswith(said)
    assert slow_format(config, torch.device("cuda")) is None


def test_the_quickest_product_counts(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 9.0, 10.0, 13.0, 20.0, 22.0, 30.0, 34.0])  # 9, 3, 2 and 4 seconds
    monkeypatch.setattr(acceleration.time, "perf_counter", lambda: next(clock))
    assert acceleration._seconds(torch.float32, side=2) == 2.0
