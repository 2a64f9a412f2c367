"""Full-size models with random weights: training steps and a sampling step of a method, with what
they need.

    python tests/benchmarks/full_size.py --pixels 512 --dtype bfloat16
    python tests/benchmarks/full_size.py --method mcgm --model sd21 --pixels 256 --steps 4
    python tests/benchmarks/full_size.py --device cuda --pixels 1024 --batch 1 --checkpointing
    python tests/benchmarks/full_size.py --device cuda --pixels 1024 --batch 4

The training step is the method's own, from latents and captions to the optimiser's update; sampling
is `generate` with guidance, two sampler steps less one, so that encoding and decoding do not count.
Peak memory is that of the process (CPU) or of the allocator (GPU), weights included. Break-A-Scene
and MCGM learn two subjects from one image, the first half of the steps their tokens alone; on
PixArt, where there are none, the caption's words. Run by hand; figures stand in README.md beside
it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (2, 1)]

from helpers.architectures import build_pipeline  # noqa: E402

from conf.schema import Gate, Method, Separate, Subjects, Trainer, Weights  # noqa: E402
from datamodules.batch import Batch, Phrase  # noqa: E402
from lightning_modules.backbone.backbone import Backbone  # noqa: E402
from lightning_modules.methods.registry import method_class  # noqa: E402

CAPTION = "a red circle left of a blue square"
SCENE = "a photo of <asset0> and <asset1>"
NAMES = {
    "break_a_scene": ("<asset0>", "<asset1>"),
    "mcgm": ("<asset0>", "<asset1>"),
    "separate_enhance": ("red circle", "blue square"),
}


def samples(names: tuple[str, ...], pixels: int, latents: torch.Tensor) -> Batch:
    """The same caption for all, its objects' masks on the left and on the right half of the
    image."""
    caption, count = SCENE if names and names[0] in SCENE else CAPTION, len(latents)
    halves = torch.zeros(2, pixels, pixels)
    halves[0, :, : pixels // 2] = halves[1, :, pixels // 2 :] = 1
    found = [
        Phrase(name, caption.index(name), caption.index(name) + len(name), mask)
        for name, mask in zip(names, halves, strict=False)
    ]
    return Batch(
        list(range(count)),
        [caption] * count,
        latents=latents,
        phrases=[found] * count if found else None,
    )


def peak(device: str) -> float:
    """GiB, highest since the last reset (GPU) or since the process began (CPU)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="maskattn", choices=["maskattn", *NAMES])
    parser.add_argument(
        "--part",
        default="attn2",
        help=("weights that are trained, but by maskattn (default: attn2)"),
    )
    parser.add_argument(
        "--rank", type=int, default=0, help=("0 trains them whole, else low-rank updates")
    )
    parser.add_argument("--model", default="sdxl", choices=["sd15", "sd21", "sdxl", "pixart"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--stage", default="mid", choices=["all", "high", "mid", "low"])
    parser.add_argument(
        "--steps",
        type=int,
        default=2,
        help=("training steps; the first is not timed when there are more"),
    )
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()

    def note(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        backbone = Backbone(
            build_pipeline(args.model, Path(folder), args.device, getattr(torch, args.dtype)),
            f"random {args.model}",
        )
    if args.checkpointing:
        backbone.denoiser.enable_gradient_checkpointing()
    kind = method_class(args.method)
    names = NAMES.get(args.method, ())
    if not backbone.family.clip and names:
        names = NAMES["separate_enhance"]
    subjects = Subjects(tokens=list(names)) if names and names[0] in SCENE else Subjects()
    trained_part = Weights(args.part, args.rank)
    settings = Method(
        args.method,
        gate=Gate(stage=args.stage),
        weights=trained_part,
        subjects=subjects,
        separate=Separate(),
    )
    method = kind(backbone, settings, Trainer(lr=1e-4, steps=args.steps), args.pixels).to(
        args.device
    )
    method.log = method.log_dict = lambda *_, **__: None  # there is no Trainer to log to
    own = set(method.parameters())
    frozen = sum(
        p.numel() for module in method.frozen_modules() for p in module.parameters() if p not in own
    )
    trained = sum(p.numel() for p in own)
    note(f"{args.model}: {frozen:,} frozen parameters, {trained:,} trained by {args.method}")

    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4, weight_decay=0.01)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == trained
    side = args.pixels // backbone.vae_scale_factor
    latents = torch.randn(args.batch, 4, side, side, device=args.device, dtype=backbone.dtype)
    batch = samples(names, args.pixels, latents)
    before = [p.detach().clone() for p in method.parameters()]
    for step in range(args.steps):
        if args.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        loop = SimpleNamespace(total_batch_idx=step)
        # What says which phase it is
        method._trainer = SimpleNamespace(global_step=step, global_rank=0, fit_loop=loop)
        loss = method.training_step(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        note(
            f"training step {step + 1}: {time.perf_counter() - start:.2f} s, loss "
            f"{value:.3f}, peak {peak(args.device):.1f} GiB"
        )
    changed = sum(
        int(not torch.equal(a, b)) for a, b in zip(before, method.parameters(), strict=True)
    )
    gates = (
        (f"; {method.window.share_closed():.1%} of gates closed")
        if args.method == "maskattn"
        else ""
    )
    note(f"{changed} of {len(before)} trained tensors changed{gates}")

    seconds = []
    for steps in (1, 2):
        start = time.perf_counter()
        images = method.generate(
            batch.captions, list(range(args.batch)), None, steps, 7.5, args.batch
        )
        seconds.append(time.perf_counter() - start)
        note(
            f"{steps} sampler steps at guidance 7.5: {seconds[-1]:.2f} s, images "
            f"{tuple(images.shape)}"
        )
    note(f"one sampler step: {seconds[1] - seconds[0]:.2f} s, peak {peak(args.device):.1f} GiB")


if __name__ == "__main__":
    main()
