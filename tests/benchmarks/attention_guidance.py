"""Time and peak memory of guidance by attention maps: against diffusers' Attend-and-Excite, at the
size of SDXL, and of batches against single images.

    python tests/benchmarks/attention_guidance.py  # all parts on this machine's CPU
    python tests/benchmarks/attention_guidance.py --parts stock --repeats 3
    python tests/benchmarks/attention_guidance.py --parts sdxl --dtype bfloat16
    python tests/benchmarks/attention_guidance.py --tiny --repeats 1  # whether it runs at all

  stock    one guided step of the sampler at SD1.5's size, 512 pixels: the gradient of the
           Attend-and-Excite loss at the layers of 16x16, the move, both halves of guidance and the
           scheduler's step; `plain` is that step without guidance. No refinement, no decoding. The
           prompt is encoded in each of the three
  sdxl     one move at SDXL's size, 512 pixels, a single image, plainly and with blocks recomputed;
           `plain` is a conditional pass that keeps what the gradient by the latents takes
  batches  four guided images in one batch against one, of the embedded backbone (64 pixels), and
           against four single ones, at SD1.5's size and 256 pixels; whether they are equal to
           rounding
Time is that of the process on a CPU, of the clock on a GPU; medians of ways that take turns, after
one of each that does not count. Memory is the most that the allocator handed out during a step,
beside what was there before it. Weights are random at full size but for the embedded backbone.
Figures stand in README.md beside this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from helpers.architectures import build_pipeline  # noqa: E402
from measure import hardware, medians, peak, timed, turns  # noqa: E402

from conf.method.attention_guidance import AttentionGuidance as Settings  # noqa: E402
from conf.schema import Method, Trainer  # noqa: E402
from lightning_modules import AttentionGuidance  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402
from lightning_modules.backbone.sampling import (  # noqa: E402
    denoise,
    initial_noise,
    prepare_scheduler,
)

PROMPT, OBJECTS = "a red circle and a blue square", ["circle", "square"]
PROMPTS = [PROMPT, "a white ring", "a red ring left of a blue circle", "a green square"]
NAMED = [OBJECTS, ["ring"], ["ring", "circle"], ["square"]]
SCALE = 7.5
PARTS = ("stock", "sdxl", "batches")
Ways = Mapping[str, Callable[[], Any]]


def load(model: str, args: argparse.Namespace) -> Backbone:
    from diffusers import DDIMScheduler

    if model == "embedded":
        return Backbone.load("embedded", args.dtype).to(args.device)
    size, dtype = "tiny" if args.tiny else "full", getattr(torch, args.dtype)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build_pipeline(model, Path(folder), args.device, dtype, scale=size)
    # PLMS begins with a step of two calls
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    return Backbone(pipeline, f"random {model}")


def guide(backbone: Backbone, pixels: int, side: int, checkpoints: bool = False) -> Any:
    settings = Settings(
        {"attend_and_excite": 1.0},
        stop=1.0,
        tokens="noun",
        side=side,
        gradient_checkpointing=checkpoints,
    )
    method = Method("attention_guidance", attention_guidance=settings)
    return AttentionGuidance(backbone, method, Trainer(), pixels)


@torch.no_grad()
def step(backbone: Backbone, pixels: int, method: Any = None) -> Tensor:
    """One step of the sampler, guided where a method is given; latents."""
    moving = method.plan_steering([PROMPT], [0], [OBJECTS], 1) if method else []
    text = backbone.text.encode([PROMPT])
    movers = [steer(slice(None), text, SCALE) for steer in moving]
    both = backbone.text.encode_empty(1) + text

    def predict(inputs: Tensor, t: Tensor) -> Tensor:
        given = inputs, t.expand(2), both, pixels, SCALE
        unconditional, conditional = backbone.predict(*given).chunk(2)
        return unconditional + SCALE * (conditional - unconditional)

    return denoise(
        prepare_scheduler(backbone.scheduler, 1, device=backbone.device),
        [0],
        backbone.latent_size(pixels),
        predict,
        copies=2,
        like=torch.empty((), device=backbone.device, dtype=backbone.dtype),
        movers=movers,
    )


def stock_step(backbone: Backbone, pixels: int, side: int) -> Callable[[], Any]:
    """The same step of diffusers' pipeline."""
    from diffusers.pipelines.deprecated import stable_diffusion_attend_and_excite as deprecated

    parts = {
        name: getattr(backbone.pipeline, name)
        for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    }
    pipeline = deprecated.StableDiffusionAttendAndExcitePipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    indices = [own[0] for own in backbone.text.token_indices(PROMPT, OBJECTS)]
    usual = dict(backbone.unet.attn_processors)

    def run() -> Any:
        try:
            return pipeline(
                PROMPT,
                indices,
                pixels,
                pixels,
                num_inference_steps=1,
                guidance_scale=SCALE,
                generator=torch.Generator().manual_seed(0),
                max_iter_to_alter=1,
                thresholds={},
                attn_res=(side, side),
                output_type="latent",
            )
        finally:
            backbone.unet.set_attn_processor(dict(usual))

    return run


def seconds_of(work: Callable[[], Any], device: str) -> float:
    """Of the process on a CPU, of the clock on a GPU."""
    if device.startswith("cuda"):
        return timed(work, device)
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(ways: Ways, args: argparse.Namespace) -> dict[str, float]:
    timings = {name: partial(seconds_of, way, args.device) for name, way in ways.items()}
    return medians(turns(timings, args.repeats, args.limit))


def report(title: str, rows: Mapping[str, tuple[float, float | None]]) -> None:
    """What was measured, and what is wanted of ratios."""
    print(f"{title}\n  | what | measured | wanted at most | |\n  |---|---|---|---|")
    for name, (value, most) in rows.items():
        wanted = "" if most is None else f"{most:g}"
        verdict = "" if most is None else "met" if value <= most else "NOT met"
        print(f"  | {name} | {value:.3f} | {wanted} | {verdict} |", flush=True)


def compare_with_stock(args: argparse.Namespace) -> None:
    pixels = 64 if args.tiny else 512
    side, backbone = pixels // 32 if not args.tiny else 4, load("sd15", args)
    method = guide(backbone, pixels, side)
    method.remove()  # Nothing guards the pipeline while the stock one draws
    stock = stock_step(backbone, pixels, side)

    def ours() -> Tensor:
        method.install()
        try:
            return step(backbone, pixels, method)
        finally:
            method.remove()

    ways: Ways = {"plain": lambda: step(backbone, pixels), "ours": ours, "stock": stock}
    seconds = measure(ways, args)
    memory = {name: peak(way, args.device) for name, way in ways.items()}
    extra = {name: memory[name] - memory["plain"] for name in ("ours", "stock")}
    report(
        f"stock: a guided step, SD1.5, {pixels} pixels",
        {
            **{f"{name}, seconds": (value, None) for name, value in seconds.items()},
            **{f"{name}, peak MiB": (value, None) for name, value in memory.items()},
            "time, ours / stock": (seconds["ours"] / seconds["stock"], 0.6),
            "peak beyond a plain step, ours / stock": (extra["ours"] / extra["stock"], 0.35),
        },
    )


def move_at_size_of_sdxl(args: argparse.Namespace) -> None:
    pixels, backbone = 64 if args.tiny else 512, load("sdxl", args)
    side = 4 if args.tiny else 16
    text = backbone.text.encode([PROMPT])
    latents = initial_noise([0], backbone.latent_size(pixels)).to(backbone.device, backbone.dtype)
    scheduler = prepare_scheduler(backbone.scheduler, 1, device=backbone.device)
    timestep = scheduler.timesteps[0]

    def plain() -> Tensor:
        inputs = latents.clone().requires_grad_()
        given = inputs, timestep.expand(1), text, pixels, SCALE
        return backbone.predict(*given)

    def move(method: Any) -> Tensor:
        (plan,) = method.plan_steering([PROMPT], [0], [OBJECTS], 1)
        with torch.no_grad():
            mover = plan(slice(None), text, SCALE)
            return mover.move(latents, 0, timestep, scheduler)

    methods = {
        "ours": guide(backbone, pixels, side),
        "ours, recomputed": guide(backbone, pixels, side, checkpoints=True),
    }
    ways = {"plain": plain, **{name: partial(move, own) for name, own in methods.items()}}
    seconds = measure(ways, args)
    memory = {name: peak(way, args.device) for name, way in ways.items()}
    least = min(memory[name] for name in methods)
    report(
        f"sdxl: a move, SDXL, {pixels} pixels, batch 1",
        {
            **{f"{name}, seconds": (value, None) for name, value in seconds.items()},
            **{f"{name}, peak MiB": (value, None) for name, value in memory.items()},
            "peak beside the weights, least of ours / plain": (least / memory["plain"], 1.5),
        },
    )


def compare_batches(args: argparse.Namespace) -> None:
    for model, pixels, side, steps in (
        ("embedded", 64, 16, 4),
        ("sd15", 64 if args.tiny else 256, 4 if args.tiny else 8, 2),
    ):
        backbone = load(model, args)
        method = guide(backbone, pixels, side)
        draw = partial(method.generate, masks=None, steps=steps, guidance=SCALE)

        def single(row: int, draw: Any = draw) -> Tensor:
            return draw(PROMPTS[row : row + 1], [row], batch=1, objects=NAMED[row : row + 1])

        def four(draw: Any = draw) -> Tensor:
            return draw(PROMPTS, [*range(4)], batch=4, objects=NAMED)

        def each(single: Any = single) -> Tensor:
            return torch.cat([single(row) for row in range(4)])

        seconds = measure({"one": partial(single, 0), "four": four, "each": each}, args)
        worst = float((four().int() - each().int()).abs().max())
        of_one = seconds["four"] / seconds["one"]
        of_each = seconds["four"] / seconds["each"]
        small = model == "embedded"
        report(
            f"batches: guided images, {model}, {pixels} pixels, {steps} steps",
            {
                **{f"{name}, seconds": (value, None) for name, value in seconds.items()},
                "time, four / one": (of_one, 2.5 if small else None),
                "time, four / four single ones": (of_each, None if small else 0.95),
                "largest difference of a pixel, of 255": (worst, 1.0),
            },
        )
        method.remove()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--limit", type=float, default=300, help=("seconds after which no further round begins")
    )
    parser.add_argument("--tiny", action="store_true", help="small models, to see that it runs")
    args = parser.parse_args()
    size = "small models, " if args.tiny else ""
    print(f"{hardware(args.device)}, {size}{args.dtype}, torch {torch.__version__}", flush=True)
    parts = {
        "stock": compare_with_stock,
        "sdxl": move_at_size_of_sdxl,
        "batches": compare_batches,
    }
    for name in args.parts:
        parts[name](args)


if __name__ == "__main__":
    main()
