"""Time and peak memory of one training step: stock, with captured maps, with gates, and the naive
way that materialises attention.

    python tests/benchmarks/attention.py  # embedded and SD1.x on this machine's CPU
    python tests/benchmarks/attention.py --models sdxl --dtype bfloat16 --pixels 512 --repeats 2
    python tests/benchmarks/attention.py --models sd15 sdxl --device cuda --dtype bfloat16 \
        --pixels 512

Run by hand; figures stand in README.md beside it. A step is the UNet's forward pass on random
latents and text, the loss, and the backward pass; weights are random, architectures full-size.
  stock    denoising loss, stock processors; the key projections of all cross-attention layers are
           trained (as Separate-and-Enhance does)
  capture  the same, and separate + enhance losses on the maps of four tokens a sample at the level
           nearest to 16x16
  gates    denoising loss, gates at every cross-attention layer; their heads are trained and nothing
           else
  naive    as capture, but every attention layer, self-attention too, multiplies out its
           probabilities and keeps them for the loss
Times are medians of steps that take turns, after one of each that does not count. Memory is the
most that the allocator handed out during a step, beside what was there before it. Ratios are to
stock.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from helpers.architectures import build_unet  # noqa: E402
from measure import hardware, medians, peak, timed, turns  # noqa: E402
from naive import materialised  # noqa: E402

from conf.schema import Gate  # noqa: E402
from lightning_modules.attention import nearest, select, sites  # noqa: E402
from lightning_modules.attention.capture import Capture  # noqa: E402
from lightning_modules.attention.gates import Gates  # noqa: E402
from losses.attention import enhance_loss, separate_loss  # noqa: E402
from losses.denoising import denoising_loss  # noqa: E402

VARIANTS = ("stock", "capture", "gates", "naive")
TOKENS = [2, 5, 7, 9]


def load(model: str, device: str, dtype: torch.dtype, pixels: int | None) -> tuple[Any, int]:
    """(the UNet, side of its latents)"""
    if model == "embedded":
        from lightning_modules.embedded.pipeline import build_unet as build_embedded

        unet = build_embedded().to(device, dtype)
        return unet, (pixels or 64) // 4
    return build_unet(model, device, dtype), (pixels or 512) // 8


def step_of(variant: str, unet: Any, side: int, batch: int) -> Callable[[], None]:
    """One training step, without the optimiser's update, which is the same for all."""
    unet.requires_grad_(False)
    device, dtype = next(unet.parameters()).device, next(unet.parameters()).dtype
    found = sites(unet, side)
    cross = select(found)
    generator = torch.Generator().manual_seed(0)
    text_length = 24 if unet.config.cross_attention_dim == 192 else 77

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    latents, noise, text = (
        random(batch, 4, side, side),
        random(batch, 4, side, side),
        random(batch, text_length, cross[0].context),
    )
    timesteps = torch.full((batch,), 500, device=device)
    added = None
    if unet.config.addition_embed_type:
        pooled = (
            unet.config.projection_class_embeddings_input_dim
            - 6 * unet.config.addition_time_embed_dim
        )
        added = {"text_embeds": random(batch, pooled), "time_ids": random(batch, 6).abs()}
    keys = [unet.get_submodule(site.name).to_k.weight for site in cross]
    gates = Gates(cross, Gate()).to(device)
    capture = Capture(nearest(cross), [TOKENS] * batch, heads="keep")

    def losses(maps: Tensor) -> Tensor:
        return separate_loss(maps) + 0.5 * enhance_loss(maps)

    def step() -> None:
        trained = list(gates.parameters()) if variant == "gates" else keys
        for tensor in trained:
            tensor.requires_grad_(True)
            tensor.grad = None
        try:
            if variant == "gates":
                gates.attach(unet)
            elif variant != "stock":
                capture.attach(unet)
            with materialised() if variant == "naive" else nullcontext():
                out = unet(
                    latents, timesteps, encoder_hidden_states=text, added_cond_kwargs=added
                ).sample
                loss = denoising_loss(out, noise)
                if capture.is_attached:
                    loss = loss + losses(capture.maps.mean())
                loss.backward()
                loss.item()
        finally:
            gates.detach()
            capture.detach()
            for tensor in trained:
                tensor.requires_grad_(False)
                tensor.grad = None

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["embedded", "sd15"],
        choices=["embedded", "sd14", "sd15", "sd21", "sdxl"],
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        default=list(VARIANTS),
        choices=VARIANTS,
        help="stock is always measured",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--pixels", type=int, help=("image side; default 64 for embedded, 512 for the others")
    )
    parser.add_argument(
        "--batch", type=int, help=("samples; default 16 for embedded, 1 for the others")
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--limit", type=float, default=300, help=("seconds after which no further round begins")
    )
    args = parser.parse_args()
    variants = ["stock", *(v for v in args.variants if v != "stock")]
    dtype = getattr(torch, args.dtype)
    for model in args.models:
        batch = args.batch or (16 if model == "embedded" else 1)
        unet, side = load(model, args.device, dtype, args.pixels)
        found = sites(unet, side)
        print(
            f"{model}: {hardware(args.device)}, {args.dtype}, latents {side}x{side}, batch "
            f"{batch}, torch {torch.__version__}"
        )
        captured = nearest(select(found))
        print(
            (
                f"  maps of {len(captured)} sites at {captured[0].resolution}, gates at "
                f"{len(select(found))}"
            ),
            flush=True,
        )
        steps = {variant: step_of(variant, unet, side, batch) for variant in variants}
        seconds = medians(
            turns(
                {name: partial(timed, step, args.device) for name, step in steps.items()},
                args.repeats,
                args.limit,
            )
        )
        memory = {variant: peak(step, args.device) for variant, step in steps.items()}
        print("  | variant | seconds | ratio | peak MiB | ratio | extra MiB |")
        for variant in variants:
            s, m = seconds[variant], memory[variant]
            ratios = (
                f"{s:.3f} | {s / seconds['stock']:.2f} | {m:.0f} | "
                f"{m / memory['stock']:.2f} | {m - memory['stock']:+.0f}"
            )
            print(f"  | {variant} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
