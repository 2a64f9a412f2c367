"""Methods with visible effects, installed into a backbone, and the stock pipeline around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from conf.schema import Gate, Method, Subjects, Trainer, Weights
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.registry import method_class

PLACEHOLDERS = {"subjects": Subjects(tokens=["<asset0>"], classes=["circle"])}
# Name -> method, its settings, and whether its prompts have a placeholder
METHODS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "gates": ("maskattn", {"gate": Gate(width=16, bias=0.0, stage="all")}, False),
    "weights": ("separate_enhance", {"weights": Weights("kv")}, False),
    "low rank": ("separate_enhance", {"weights": Weights("kv", rank=4)}, False),
    "subjects": (
        "break_a_scene",
        {"weights": Weights("attn2", text_encoder=True), **PLACEHOLDERS},
        True,
    ),
    "low-rank subjects": (
        "break_a_scene",
        {"weights": Weights("attn2", rank=4, text_encoder=True), **PLACEHOLDERS},
        True,
    ),
    "mask tokens": ("mcgm", {"weights": Weights("attn2"), **PLACEHOLDERS}, True),
}
PROMPTS, SEEDS = ["a red circle left of an orange square", "a white ring"], [1, 2]


def prompts_of(name: str) -> list[str]:
    return ["<asset0> left of a square", "a white ring"] if METHODS[name][2] else PROMPTS


def install_method(name: str, backbone: Backbone) -> Any:
    """The method, as if trained: its weights lie apart from those that it starts with."""
    method, sections, _ = METHODS[name]
    torch.manual_seed(3)
    built = method_class(method)(backbone, Method(method, **sections), Trainer(), 64)
    generator = torch.Generator().manual_seed(1)
    if name != "gates":
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return built


def draw_with(pipeline: Any, prompts: list[str] = PROMPTS) -> Tensor:
    """int [N, 3, H, W] of the stock pipeline's own call."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompts,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    ).images
    return (images.float() * 255).round().int()
