"""A whole training step of each method against the plain denoising step that trains the same
weights.

    python tests/benchmarks/step.py  # the embedded backbone on this machine's CPU
    python tests/benchmarks/step.py --model sd15 --pixels 256 --repeats 5
    python tests/benchmarks/step.py --model sdxl --device cuda --dtype bfloat16 --pixels 1024 \
        --repeats 20

Latents and encoded captions are there already (`data.cache=all`), weights are random at the
architecture's full size, steps of all variants take turns; a step ends with the backward pass, the
optimiser's update being the same for all. Per method:
  plain    the denoising loss alone, and what the method trains (of MaskAttn, whose heads no plain
           step has: the key projections)
  losses   the method without what holds it near the backbone (drift, which is one or two passes
           more)
  whole    the method as its preset is
  naive    the same (of a method without drift: whole) with the probabilities of every attention
           layer multiplied out and kept (`naive`),
           and a forward pass of Separate-and-Enhance that goes on to its end
Memory is the most that the allocator handed out during a step, beside what was there before it.
Figures stand in README.md beside this.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from full_size import NAMES, samples  # noqa: E402
from helpers.architectures import build_pipeline  # noqa: E402
from measure import hardware, medians, peak, timed, turns  # noqa: E402
from naive import materialised  # noqa: E402

from conf.schema import Gate, Masks, Method, Separate, Trainer, Weights  # noqa: E402
from datamodules.batch import Batch  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402
from lightning_modules.methods import separate_enhance  # noqa: E402
from lightning_modules.methods.registry import method_class  # noqa: E402

Key = tuple[str, str]  # a method and a variant of its step
GROUP = {"mcgm": "masks", "separate_enhance": "separate"}  # whose settings a variant changes
PLAIN = ("separate_enhance", {"control": "denoising"})
# variant -> (method, settings of its own group, which weights)
VARIANTS: dict[str, dict[str, tuple[str, dict[str, Any], str]]] = {
    "maskattn": {
        "plain": (*PLAIN, "k"),
        "whole": ("maskattn", {}, "k"),
        "naive": ("maskattn", {}, "k"),
    },
    "separate_enhance": {
        "plain": (*PLAIN, "k"),
        "losses": ("separate_enhance", {"distillation_weight": 0.0}, "k"),
        "naive": ("separate_enhance", {"distillation_weight": 0.0}, "k"),
        "whole": ("separate_enhance", {}, "k"),
    },
    "mcgm": {
        "plain": (*PLAIN, "attn2"),
        "losses": ("mcgm", {"distillation_weight": 0.0}, "attn2"),
        "naive": ("mcgm", {"distillation_weight": 0.0}, "attn2"),
        "whole": ("mcgm", {}, "attn2"),
    },
}


def load(model: str, device: str, dtype: str) -> Backbone:
    if model == "embedded":
        return Backbone.load("embedded", dtype).to(device)
    with tempfile.TemporaryDirectory() as folder:
        return Backbone(
            build_pipeline(model, Path(folder), device, getattr(torch, dtype)), f"random {model}"
        )


def remembering(backbone: Backbone) -> None:
    """Encodes each list of captions once."""
    known: dict[tuple[str, ...], Any] = {}
    encode = backbone.text.encode

    @torch.no_grad()
    def encoded(prompts: list[str]) -> Any:
        if tuple(prompts) not in known:
            known[tuple(prompts)] = encode(prompts)
        return known[tuple(prompts)]

    backbone.text.encode = encoded  # type: ignore[method-assign]


def method_of(backbone: Backbone, name: str, own: dict[str, Any], part: str, pixels: int) -> Any:
    """A method with weights of its own, not in the backbone yet."""
    groups = {
        group: kind(**(own if group == GROUP.get(name) else {}))
        for group, kind in (("masks", Masks), ("separate", Separate))
    }
    settings = Method(name, gate=Gate(), weights=Weights(part), **groups)
    made = method_class(name)(backbone, settings, Trainer(), pixels).to(backbone.device)
    made.log = made.log_dict = lambda *_, **__: None  # there is no Trainer to log to
    made._trainer = SimpleNamespace(
        global_step=0, global_rank=0, fit_loop=SimpleNamespace(total_batch_idx=0)
    )
    made.remove()
    return made


def steps_of(
    backbone: Backbone, keys: list[Key], pixels: int, batch: Batch
) -> dict[Key, Callable[[], float]]:
    """Steps of `step_of`; variants with the same settings share a method, since copies of SDXL's
    weights would fill a small machine."""
    wanted = {key: VARIANTS[key[0]][key[1]] for key in keys}
    made: dict[str, Any] = {}
    for settings in wanted.values():
        made[str(settings)] = made.get(str(settings)) or method_of(backbone, *settings, pixels)
    return {key: step_of(made[str(settings)], key[1], batch) for key, settings in wanted.items()}


def step_of(made: Any, variant: str, batch: Batch) -> Callable[[], float]:
    """One step of a method that is put into the backbone and out again; gives the seconds of its
    forward and backward pass."""

    def step() -> float:
        made.install()
        with naive_way() if variant == "naive" else nullcontext():
            seconds = timed(
                lambda: made.training_step(batch, 0).backward(), made.backbone.device.type
            )
        for parameter in made.parameters():
            parameter.grad = None
        made.remove()
        return seconds

    return step


@contextmanager
def naive_way() -> Iterator[None]:
    stops = separate_enhance.stop_after
    separate_enhance.stop_after = lambda *_: nullcontext()  # type: ignore[assignment]
    try:
        with materialised():
            yield
    finally:
        separate_enhance.stop_after = stops


def parser_of(doc: str | None, repeats: int, batch: int | None = None) -> argparse.ArgumentParser:
    """The words of a benchmark of whole models; `parsed` reads them."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", choices=["embedded", "sd15", "sd21", "sdxl"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--pixels", type=int, help=("image side; default 64 for embedded, 512 for the others")
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=batch,
        help=(f"samples; default {batch or '16 for embedded, 1 for the others'}"),
    )
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line with its defaults filled in, said in one line."""
    args = parser.parse_args()
    small = args.model == "embedded"
    args.pixels, args.batch = (
        args.pixels or (64 if small else 512),
        args.batch or (16 if small else 1),
    )
    where = f"{hardware(args.device)}, {args.dtype}, {args.pixels} pixels, batch {args.batch}"
    print(f"{args.model}: {where}, torch {torch.__version__}", flush=True)
    return args


def batch_for(backbone: Backbone, args: argparse.Namespace) -> Batch:
    """Random latents with captions, whose encoding is remembered."""
    remembering(backbone)
    latents = torch.randn(
        args.batch, *backbone.latent_size(args.pixels), device=args.device, dtype=backbone.dtype
    )
    batch = samples(NAMES["separate_enhance"], args.pixels, latents)
    backbone.text.encode(batch.captions)
    return batch


def main() -> None:
    parser = parser_of(__doc__, repeats=20)
    parser.add_argument("--methods", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    args = parsed(parser)
    backbone = load(args.model, args.device, args.dtype)
    batch = batch_for(backbone, args)
    keys = [(method, variant) for method in args.methods for variant in VARIANTS[method]]
    steps = steps_of(backbone, keys, args.pixels, batch)
    seconds = medians(turns(steps, args.repeats))
    memory = {key: peak(step, args.device) for key, step in steps.items()}
    print("| method | step | seconds | to plain | MiB | to plain |\n|---|---|---|---|---|---|")
    for method, variant in keys:
        s, m = seconds[method, variant], memory[method, variant]
        ratios = s / seconds[method, "plain"], m / memory[method, "plain"]
        print(
            (f"| {method} | {variant} | {s:.3f} | {ratios[0]:.2f} | {m:.0f} | {ratios[1]:.2f} |"),
            flush=True,
        )


if __name__ == "__main__":
    main()
