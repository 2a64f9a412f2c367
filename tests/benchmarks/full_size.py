"""Full-size SDXL with random weights: one training step and one sampling step of MaskAttn, with what they need.

    python tests/benchmarks/full_size.py --pixels 512 --dtype bfloat16                       # CPU, some 12 GiB and minutes
    python tests/benchmarks/full_size.py --device cuda --pixels 1024 --batch 1 --checkpointing
    python tests/benchmarks/full_size.py --device cuda --pixels 1024 --batch 4

The training step is the method's own, from latents and captions to the optimiser's update; sampling is `generate` with guidance, two
sampler steps less one, so that encoding and decoding do not count. Peak memory is that of the process (CPU) or of the allocator (GPU),
weights included. Run by hand; figures stand in README.md beside it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conf.schema import Gate, Method, Trainer  # noqa: E402
from datamodules.batch import Batch  # noqa: E402
from lightning_modules.architectures import build_pipeline  # noqa: E402
from lightning_modules.backbone import Backbone  # noqa: E402
from lightning_modules.maskattn import MaskAttn  # noqa: E402

CAPTION = "a red circle left of a blue square"


def peak(device: str) -> float:
    """GiB, highest since the last reset (GPU) or since the process began (CPU)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sdxl", choices=["sd15", "sd21", "sdxl"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--stage", default="mid", choices=["all", "high", "mid", "low"])
    parser.add_argument("--steps", type=int, default=2, help="training steps; the first is not timed when there are more")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()

    def note(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        backbone = Backbone(build_pipeline(args.model, Path(folder), args.device, getattr(torch, args.dtype)), f"random {args.model}")
    if args.checkpointing:
        backbone.unet.enable_gradient_checkpointing()
    method = MaskAttn(backbone, Method("maskattn", gate=Gate(stage=args.stage)), Trainer(lr=1e-4), args.pixels).to(args.device)
    method.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer to log to
    frozen = sum(p.numel() for module in method.frozen_modules() for p in module.parameters())
    trained = sum(p.numel() for p in method.parameters())
    note(f"{args.model}: {frozen:,} frozen parameters, {trained:,} trained at {len(method.gates.sites)} sites")

    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4, weight_decay=0.01)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == trained
    side = args.pixels // backbone.factor
    latents = torch.randn(args.batch, 4, side, side, device=args.device, dtype=backbone.dtype)
    batch = Batch(list(range(args.batch)), [CAPTION] * args.batch, latents=latents)
    before = [p.detach().clone() for p in method.parameters()]
    for step in range(args.steps):
        if args.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        loss = method.training_step(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        value = loss.item()
        note(f"training step {step + 1}: {time.perf_counter() - start:.2f} s, loss {value:.3f}, peak {peak(args.device):.1f} GiB")
    changed = sum(int(not torch.equal(a, b)) for a, b in zip(before, method.parameters(), strict=True))
    note(f"{changed} of {len(before)} trained tensors changed; {method.window.share_closed() if method.window else 0:.1%} of gates closed")

    seconds = []
    for steps in (1, 2):
        start = time.perf_counter()
        images = method.generate([CAPTION] * args.batch, list(range(args.batch)), None, steps, 7.5, args.batch)
        seconds.append(time.perf_counter() - start)
        note(f"{steps} sampler steps at guidance 7.5: {seconds[-1]:.2f} s, images {tuple(images.shape)}")
    note(f"one sampler step: {seconds[1] - seconds[0]:.2f} s, peak {peak(args.device):.1f} GiB")


if __name__ == "__main__":
    main()
