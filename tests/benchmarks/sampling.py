"""Images per second for an evaluation: this project's batches against the stock pipeline, called prompt by prompt and in batches.

    python tests/benchmarks/sampling.py                                                  # the embedded backbone on this machine's CPU
    python tests/benchmarks/sampling.py --model sd15 --pixels 256 --images 4 --steps 4 --batch 4
    python tests/benchmarks/sampling.py --model sdxl --device cuda --dtype float16 --pixels 1024 --images 16 --steps 30 --batch 8

  one by one  the stock pipeline, a call for each prompt, as scripts do it
  stock       the stock pipeline, `--batch` prompts a call
  ours        `sample`: the same prompts and noise, guidance in the same call, decoded in chunks
  gates       the same with MaskAttn's gates (its preset) in the denoiser, all open but where their heads close them
  stock gates the stock pipeline with the same gates in it, `--batch` prompts a call
Ways take turns; a first round does not count. Weights are random at full size but for the embedded backbone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from attention import hardware  # noqa: E402
from step import load  # noqa: E402

from conf.schema import Gate, Method, Trainer  # noqa: E402
from lightning_modules import MaskAttn  # noqa: E402
from lightning_modules.backbone import Backbone, sample  # noqa: E402

PROMPT = "a red circle left of a blue square"


def ways(backbone: Backbone, args: argparse.Namespace, pixels: int) -> dict[str, Callable[[], None]]:
    prompts, seeds = [PROMPT] * args.images, list(range(args.images))
    gated = MaskAttn(backbone, Method("maskattn", gate=Gate()), Trainer(), pixels).to(backbone.device).eval()
    gated.remove()

    def stock(batch: int) -> None:
        pipeline = backbone.stock()
        for start in range(0, len(prompts), batch):
            pipeline(
                prompts[start : start + batch], num_inference_steps=args.steps, guidance_scale=args.guidance, height=pixels, width=pixels
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", choices=["embedded", "sd15", "sd21", "sdxl"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--pixels", type=int, help="image side; default 64 for embedded, 512 for the others")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="sampler steps")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    pixels = args.pixels or (64 if args.model == "embedded" else 512)
    backbone = load(args.model, args.device, args.dtype)
    what = f"{pixels} pixels, {args.images} images, {args.steps} steps"
    print(f"{args.model}: {hardware(args.device)}, {args.dtype}, {what}, torch {torch.__version__}")
    seconds: dict[str, list[float]] = {}
    for turn in range(args.repeats + 1):  # the first does not count
        for name, way in ways(backbone, args, pixels).items():
            start = time.perf_counter()
            way()
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    print("| way | images / s | ratio to one by one | to stock |\n|---|---|---|---|")
    rates = {name: args.images / statistics.median(found) for name, found in seconds.items()}
    for name, rate in rates.items():
        print(f"| {name} | {rate:.2f} | {rate / rates['one by one']:.2f}× | {rate / rates['stock']:.2f}× |", flush=True)


if __name__ == "__main__":
    main()
