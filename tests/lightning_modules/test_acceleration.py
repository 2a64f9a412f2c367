"""What is computed faster is the same but for rounding, and only what was asked for is changed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from conf import schema
from lightning_modules.acceleration import BLOCK, accelerate
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
