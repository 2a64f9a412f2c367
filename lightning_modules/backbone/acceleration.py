"""Options that change how fast a backbone computes, and its numbers by rounding alone: memory
format, compilation, number format."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from conf import schema

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

__all__ = ["accelerate", "compile_blocks", "find_slow_format"]

# Of UNets and of transformers; SDXL has 70 of two widths. Residual blocks hardly share a shape, so
# that compiling them would take minutes more.
BLOCKS = (
    "BasicTransformerBlock",
    "JointTransformerBlock",  # SD3
    "FluxTransformerBlock",
    "FluxSingleTransformerBlock",
)
NARROW = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
# Times as long as in float32: with instructions for it a narrow format takes less time, without
# them 20 times and more
SLOW = 4.0
# Of one block: its width and map size in each level, with and without gradients, gated or not, each
# new batch size
VARIANTS = 64


def accelerate(backbone: Backbone, settings: schema.Backbone) -> None:
    """Applies ``settings.channels_last`` and ``settings.compile`` to a loaded backbone, in
    place."""
    if settings.channels_last:
        for module in (backbone.denoiser, backbone.vae):
            module.to(memory_format=torch.channels_last)
    if settings.compile:
        compile_blocks(backbone.denoiser)


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compiles each transformer block of a UNet or of a transformer when it first runs; ``backend``
    is torch.compile's.

    Blocks one by one, not the model as a whole: those of one shape share their code, which takes a
    fraction of the time, and what happens around them (`attention.hooks`, gradient checkpointing,
    `stop_after`) stays Python. The attention of a layer where gates, maps or tokens act is left out
    (`SiteProcessor`).
    """
    import torch._dynamo.config as dynamo

    dynamo.cache_size_limit = max(VARIANTS, dynamo.cache_size_limit)
    for module in model.modules():
        if type(module).__name__ in BLOCKS:
            module.compile(backend=backend)


def find_slow_format(config: schema.Run, device: torch.device) -> str | None:
    """A sentence where ``backbone.dtype`` or ``trainer.precision`` is a narrow format for which
    this CPU has no instructions, measured on a product of matrices; None elsewhere."""
    if device.type != "cpu":
        return None
    formats = {
        "backbone.dtype": config.backbone.dtype,
        "trainer.precision": config.trainer.precision,
    }
    for key, name in formats.items():
        name = {"16-mixed": "bf16-mixed"}.get(name, name)  # Lightning's choice on a CPU
        if name in NARROW and (ratio := _measure_slowdown(NARROW[name])) > SLOW:
            return (
                f"{key}={name} is slow on this CPU, whose products of matrices take "
                f"{ratio:.0f} times as long in it as in float32"
            )
    return None


@torch.no_grad()
def _measure_slowdown(dtype: torch.dtype, side: int = 256, repeats: int = 6) -> float:
    """How many times as long as in float32 a product of matrices takes in ``dtype``: the quickest
    of some, on one thread and in turn, so that other work of the machine decides nothing."""
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], dtype: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(repeats + 1):
            for number_format, times in seconds.items():
                matrix = torch.ones(side, side, dtype=number_format)
                start = time.perf_counter()
                matrix @ matrix
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[dtype][1:]) / min(seconds[torch.float32][1:])
