"""A whole training step of each method against the plain denoising step that trains the same weights.

    python tests/benchmarks/step.py                                               # the embedded backbone on this machine's CPU
    python tests/benchmarks/step.py --model sd15 --pixels 256 --repeats 5
    python tests/benchmarks/step.py --model sdxl --device cuda --dtype bfloat16 --pixels 1024 --repeats 20

Latents and encoded captions are there already (`data.cache=all`), weights are random at the architecture's full size, steps of all variants
take turns; a step ends with the backward pass, the optimiser's update being the same for all. Per method:
  plain    the denoising loss alone, and what the method trains (of MaskAttn, whose heads no plain step has: the key projections)
  losses   the method without what holds it near the backbone (drift, which is one or two passes more)
  whole    the method as its preset is
  to end   Separate-and-Enhance's losses with a forward pass that goes on to its end, as it did before `as_far_as`
Memory is the allocator's peak on a GPU; on a CPU see attention.py. Figures stand in README.md beside this.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from attention import hardware  # noqa: E402
from full_size import NAMES, samples  # noqa: E402

import lightning_modules  # noqa: E402
from conf.schema import Gate, Masks, Method, Separate, Trainer, Weights  # noqa: E402
from lightning_modules import separate_enhance  # noqa: E402
from lightning_modules.architectures import build_pipeline  # noqa: E402
from lightning_modules.backbone import Backbone  # noqa: E402

PLAIN = {"control": "denoising"}
VARIANTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "maskattn": {"plain": ("separate_enhance", {"part": "k", "separate": PLAIN}), "whole": ("maskattn", {})},
    "separate_enhance": {
        "plain": ("separate_enhance", {"part": "k", "separate": PLAIN}),
        "losses": ("separate_enhance", {"part": "k", "separate": {"drift_weight": 0.0}}),
        "to end": ("separate_enhance", {"part": "k", "separate": {"drift_weight": 0.0}}),
        "whole": ("separate_enhance", {"part": "k"}),
    },
    "mcgm": {
        "plain": ("separate_enhance", {"part": "attn2", "separate": PLAIN}),
        "losses": ("mcgm", {"part": "attn2", "masks": {"keep_weight": 0.0}}),
        "whole": ("mcgm", {"part": "attn2"}),
    },
}


def load(model: str, device: str, dtype: str) -> Backbone:
    if model == "embedded":
        return Backbone.load("embedded", dtype).to(device)
    with tempfile.TemporaryDirectory() as folder:
        return Backbone(build_pipeline(model, Path(folder), device, getattr(torch, dtype)), f"random {model}")


def remembering(backbone: Backbone) -> None:
    """Encodes each list of captions once."""
    known: dict[tuple[str, ...], Any] = {}
    encode = backbone.encode_prompts

    @torch.no_grad()
    def encoded(prompts: list[str]) -> Any:
        if tuple(prompts) not in known:
            known[tuple(prompts)] = encode(prompts)
        return known[tuple(prompts)]

    backbone.encode_prompts = encoded  # type: ignore[method-assign]


def step_of(backbone: Backbone, name: str, chosen: dict[str, Any], pixels: int, batch: Any, to_end: bool) -> Callable[[], None]:
    """One step of a method that is put into the backbone and out again."""
    kind = getattr(lightning_modules, lightning_modules.METHODS[name])
    settings = Method(
        name, gate=Gate(), weights=Weights(chosen.get("part", "k")), masks=Masks(**chosen.get("masks", {})),
        separate=Separate(**chosen.get("separate", {})),
    )  # fmt: skip
    method = kind(backbone, settings, Trainer(), pixels).to(backbone.device)
    method.log = method.log_dict = lambda *_, **__: None  # there is no Trainer to log to
    method._trainer = SimpleNamespace(global_step=0, global_rank=0, fit_loop=SimpleNamespace(total_batch_idx=0))
    method.remove()
    stops = separate_enhance.as_far_as

    def step() -> None:
        method.install()
        separate_enhance.as_far_as = (lambda *_: nullcontext()) if to_end else stops  # type: ignore[assignment]
        start = time.perf_counter()
        method.training_step(batch, 0).backward()
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        step.seconds = time.perf_counter() - start  # type: ignore[attr-defined]
        separate_enhance.as_far_as = stops
        for parameter in method.parameters():
            parameter.grad = None
        method.remove()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", choices=["embedded", "sd15", "sd21", "sdxl"])
    parser.add_argument("--methods", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--pixels", type=int, help="image side; default 64 for embedded, 512 for the others")
    parser.add_argument("--batch", type=int, help="samples; default 16 for embedded, 1 for the others")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    small = args.model == "embedded"
    pixels, count = args.pixels or (64 if small else 512), args.batch or (16 if small else 1)
    backbone = load(args.model, args.device, args.dtype)
    remembering(backbone)
    latents = torch.randn(count, *backbone.latent_size(pixels), device=args.device, dtype=backbone.dtype)
    batch = samples(NAMES["separate_enhance"], pixels, latents)
    print(f"{args.model}: {hardware(args.device)}, {args.dtype}, {pixels} pixels, batch {count}, torch {torch.__version__}", flush=True)
    steps = {
        (method, variant): step_of(backbone, name, chosen, pixels, batch, variant == "to end")
        for method in args.methods
        for variant, (name, chosen) in VARIANTS[method].items()
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    peaks: dict[tuple[str, str], float] = {}
    for turn in range(args.repeats + 1):  # the first does not count
        for key, step in steps.items():
            if args.device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            step()
            if args.device.startswith("cuda"):
                peaks[key] = torch.cuda.max_memory_allocated() / 2**20
            if turn:
                seconds[key].append(step.seconds)  # type: ignore[attr-defined]
    print("| method | step | seconds | ratio to plain | peak |\n|---|---|---|---|---|")
    for (method, variant), found in seconds.items():
        plain = statistics.median(seconds[method, "plain"])
        peak = f"{peaks[method, variant]:.0f} MiB, {peaks[method, variant] / peaks[method, 'plain']:.2f}×" if peaks else "–"
        print(f"| {method} | {variant} | {statistics.median(found):.3f} | {statistics.median(found) / plain:.2f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
