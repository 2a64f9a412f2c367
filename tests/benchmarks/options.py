"""What each option for speed or memory does to a training step and to sampling, against the same
without it, in turn.

    python tests/benchmarks/options.py  # the embedded backbone on this machine's CPU
    python tests/benchmarks/options.py --model sd15 --pixels 256 --repeats 4 \
        --options channels_last bf16-mixed checkpointing
    python tests/benchmarks/options.py --model sdxl --device cuda --dtype float16 \
        --pixels 1024 --batch 4

  channels_last  backbone.channels_last
  bf16-mixed     trainer.precision=bf16-mixed: autocast in training
  bfloat16       backbone.dtype=bfloat16: frozen weights and sampling
  checkpointing  trainer.gradient_checkpointing
  compile        backbone.compile; its first call, in which it compiles, stands apart
A training step is MaskAttn's with its preset; sampling is `sample` with its gates, 8 steps at
guidance 3, as many images as a batch.
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

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from full_size import CAPTION  # noqa: E402
from measure import medians, peak, timed, turns  # noqa: E402
from step import batch_for, load, method_of, parsed, parser_of, step_of  # noqa: E402

from conf import schema  # noqa: E402
from lightning_modules import MaskAttn  # noqa: E402
from lightning_modules.backbone.acceleration import accelerate  # noqa: E402
from lightning_modules.backbone.sampling import sample  # noqa: E402

OPTIONS = ("channels_last", "bf16-mixed", "bfloat16", "checkpointing", "compile")


def both(option: str, args: argparse.Namespace) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(a training step, sampling) with an option; "" is none."""
    backbone = load(args.model, args.device, "bfloat16" if option == "bfloat16" else args.dtype)
    accelerate(
        backbone,
        schema.Backbone(channels_last=option == "channels_last", compile=option == "compile"),
    )
    if option == "checkpointing":
        backbone.denoiser.enable_gradient_checkpointing()
    train = step_of(
        method_of(backbone, "maskattn", {}, "k", args.pixels), "whole", batch_for(backbone, args)
    )
    gated = (
        MaskAttn(backbone, schema.Method("maskattn"), schema.Trainer(), args.pixels)
        .to(args.device)
        .eval()
    )
    gated.remove()
    narrow = (
        torch.autocast(args.device.partition(":")[0], torch.bfloat16)
        if option == "bf16-mixed"
        else nullcontext()
    )

    def step() -> None:
        with narrow:
            train()

    def draw() -> None:
        gated.install()
        sample(
            backbone,
            [CAPTION] * args.batch,
            list(range(args.batch)),
            8,
            3.0,
            args.pixels,
            args.batch,
        )
        gated.remove()

    return step, draw


def main() -> None:
    parser = parser_of(__doc__, repeats=8)
    parser.add_argument("--options", nargs="+", default=list(OPTIONS), choices=OPTIONS)
    args = parsed(parser)
    plain_step, plain_draw = both("", args)
    plain_peak = peak(plain_step, args.device)
    print(
        "| option | first step | step | to without | peak to without | sampling | to "
        "without |\n|---|---|---|---|---|---|---|"
    )
    for option in args.options:
        step, draw = both(option, args)
        found = turns(
            {way: partial(timed, way, args.device) for way in (plain_step, step)}, args.repeats
        )
        images = turns(
            {way: partial(timed, way, args.device) for way in (plain_draw, draw)},
            max(args.repeats // 3, 1),
        )
        middle = medians(found | images)
        first, seconds, drawn = found[step][0], middle[step], middle[draw]
        to, drawn_to = seconds / middle[plain_step], drawn / middle[plain_draw]
        memory = peak(step, args.device) / plain_peak
        print(
            (
                f"| {option} | {first:.1f} s | {seconds:.3f} s | {to:.2f} | {memory:.2f} | "
                f"{drawn:.2f} s | {drawn_to:.2f} |"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
