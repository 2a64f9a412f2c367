"""Images per second for an evaluation: this project's batches against the stock pipeline, called
prompt by prompt and in batches.

    python tests/benchmarks/sampling.py  # the embedded backbone on this machine's CPU
    python tests/benchmarks/sampling.py --model sd15 --pixels 256 --images 4 --steps 4 --batch 4
    python tests/benchmarks/sampling.py --model sdxl --device cuda --dtype float16 \
        --pixels 1024 --images 16 --steps 30 --batch 8

  one by one  the stock pipeline, a call for each prompt, as scripts do it
  stock       the stock pipeline, `--batch` prompts a call
  ours        `sample`: the same prompts and noise, guidance in the same call, decoded in chunks
  gates       the same with MaskAttn's gates (its preset) in the denoiser, all open but where their
              heads close them
  stock gates the stock pipeline with the same gates in it, `--batch` prompts a call
Ways take turns; a first round does not count. Weights are random at full size but for the embedded
backbone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from measure import medians, timed, turns  # noqa: E402
from step import load, parsed, parser_of  # noqa: E402

from conf.schema import Gate, Method, Trainer  # noqa: E402
from lightning_modules import MaskAttn  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402
from lightning_modules.backbone.sampling import sample  # noqa: E402

PROMPT = "a red circle left of a blue square"


def ways(backbone: Backbone, args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    pixels = args.pixels
    prompts, seeds = [PROMPT] * args.images, list(range(args.images))
    gated = (
        MaskAttn(backbone, Method("maskattn", gate=Gate()), Trainer(), pixels)
        .to(backbone.device)
        .eval()
    )
    gated.remove()

    def stock(batch: int) -> None:
        pipeline = backbone.restored_pipeline()
        for start in range(0, len(prompts), batch):
            pipeline(
                prompts[start : start + batch],
                num_inference_steps=args.steps,
                guidance_scale=args.guidance,
                height=pixels,
                width=pixels,
            )

    def ours() -> None:
        sample(backbone, prompts, seeds, args.steps, args.guidance, pixels, args.batch)

    def with_gates(way: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            gated.install()
            try:
                with torch.no_grad():
                    way()
            finally:
                gated.remove()

        return run

    return {
        "one by one": lambda: stock(1),
        "stock": lambda: stock(args.batch),
        "ours": ours,
        "gates": with_gates(ours),
        "stock gates": with_gates(lambda: stock(args.batch)),
    }


def main() -> None:
    parser = parser_of(__doc__, repeats=5, batch=16)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="sampler steps")
    parser.add_argument("--guidance", type=float, default=3.0)
    args = parsed(parser)
    print(f"{args.images} images, {args.steps} steps", flush=True)
    found = ways(load(args.model, args.device, args.dtype), args)
    seconds = medians(
        turns({name: partial(timed, way, args.device) for name, way in found.items()}, args.repeats)
    )
    print("| way | images / s | ratio to one by one | to stock |\n|---|---|---|---|")
    rates = {name: args.images / taken for name, taken in seconds.items()}
    for name, rate in rates.items():
        print(
            (
                f"| {name} | {rate:.2f} | {rate / rates['one by one']:.2f}× | "
                f"{rate / rates['stock']:.2f}× |"
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
