"""What is computed faster is the same but for rounding, and only what was asked for is changed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from conf import schema
from lightning_modules.backbone import acceleration
from lightning_modules.backbone.acceleration import BLOCKS, accelerate, find_slow_format
from lightning_modules.backbone.sampling import sample


def test_channels_last_changes_the_order_in_memory_and_no_image_by_more_than_rounding(
    embedded: Any,
):
    plain = deepcopy(embedded)
    accelerate(embedded, schema.Backbone(channels_last=True))
    for backbone, is_last in ((plain, False), (embedded, True)):
        for module in (backbone.denoiser, backbone.vae):
            weight = next(
                m.weight
                for m in module.modules()
                if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
            )
            assert weight.is_contiguous(memory_format=torch.channels_last) == is_last
    images = [
        sample(b, ["a red circle"] * 2, [0, 1], 2, 3.0, 64).float() for b in (plain, embedded)
    ]
    assert (images[0] - images[1]).abs().max() <= 1 and images[0].std() > 1
    assert embedded.autoencoder.fingerprint() == plain.autoencoder.fingerprint(), (
        "cached latents serve both"
    )


def test_compile_is_for_the_transformer_blocks_alone(embedded: Any):
    accelerate(embedded, schema.Backbone(compile=True))
    compiled = [
        type(module).__name__
        for module in embedded.denoiser.modules()
        if module._compiled_call_impl is not None
    ]
    assert set(compiled) == {BLOCKS[0]}
    assert all(module._compiled_call_impl is None for module in embedded.vae.modules())


@pytest.mark.parametrize(
    ("dtype", "precision", "said"),
    [
        ("float32", "32-true", None),
        (
            "bfloat16",
            "32-true",
            (
                "backbone.dtype=bfloat16 is slow on this CPU, whose products of matrices take 20 "
                "times as long in it as"
            ),
        ),
        ("float32", "bf16-mixed", "trainer.precision=bf16-mixed is slow on this CPU"),
        ("float16", "bf16-mixed", "trainer.precision=bf16-mixed is slow on this CPU"),
        ("float16", "32-true", None),
    ],
)
def test_a_format_that_this_cpu_is_slow_in_is_said(
    dtype: str, precision: str, said: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        acceleration, "_measure_slowdown", {torch.float16: 3.0, torch.bfloat16: 20.0}.__getitem__
    )
    config = schema.Run(
        backbone=schema.Backbone(dtype=dtype), trainer=schema.Trainer(precision=precision)
    )
    answer = find_slow_format(config, torch.device("cpu"))
    assert (
        answer is None
        if said is None
        else answer is not None and answer.startswith(said) and ":" not in answer
    )
    assert find_slow_format(config, torch.device("cuda")) is None


def test_the_quickest_products_are_compared_on_one_thread(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    # Float32 and the other in turn: 9, 9, 3, 40, 2, 30, 4, 50 seconds
    clock = iter([0, 9, 0, 9, 0, 3, 0, 40, 0, 2, 0, 30, 0, 4, 0, 50])
    counts: list[int] = []
    monkeypatch.setattr(
        acceleration.time,
        "perf_counter",
        lambda: counts.append(torch.get_num_threads()) or next(clock),
    )
    assert acceleration._measure_slowdown(torch.bfloat16, side=2, repeats=3) == 15.0
    assert set(counts) == {1} and torch.get_num_threads() == threads
