"""What a method costs beside what it gains: parameters, time and memory of its training, and how
much slower it samples."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conf.files import read_json, write_atomically
from lightning_modules.backbone.sampling import sample
from lightning_modules.evaluation.mask_adherence import mask_guidance, target_masks
from lightning_modules.tracking.ran import read_ran

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from datamodules.batch import Phrase
    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.methods.base import Method

__all__ = ["measure_costs", "track_resources", "write_training_cost"]

FILE = "training.json"  # Beside an adapter
ROUNDS = 3  # Of sampling with the method and without, in turn
PROMPTS = 8
# Linux: how a process's peak memory is set back, and where it stands
RESET, PEAK = Path("/proc/self/clear_refs"), "VmHWM"


@contextmanager
def track_resources(device: torch.device) -> Iterator[dict[str, float]]:
    """Fills the dict when the block ends: ``seconds``, and ``memory``, the peak in bytes, weights
    included: on a GPU what torch took from it, on a CPU that of the whole process; absent where the
    system does not say."""
    used: dict[str, float] = {}
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    known = cuda or _reset_peak()
    began = time.monotonic()
    yield used
    used["seconds"] = time.monotonic() - began
    if known:
        used["memory"] = float(torch.cuda.max_memory_allocated(device)) if cuda else _peak()


def write_training_cost(target: Path, used: dict[str, float]) -> None:
    """Keeps what a training cost beside its adapter."""
    write_atomically(target / FILE, json.dumps(used))


def measure_costs(
    method: Method,
    target: Path | None,
    prompts: list[Prompt],
    config: Evaluation,
    objects: Sequence[Sequence[Phrase]] | None = None,
) -> dict[str, float]:
    """Of a method that trains ``trained_parameters``, ``train_seconds``, ``train_memory`` (GiB) of
    the training that made the adapter in ``target``; of it, and of one that steers,
    ``sampling_time``: seconds that `generate` takes over those of the untouched backbone, medians
    that take turns. ``objects``: the words of each prompt that `generate` looks at."""
    if not method.trains or target is None:
        if not method.guides:
            return {}
        return {"sampling_time": _sampling_time(method, prompts, config, objects)}
    # Of the optimiser: a method may hold some that stay as they are
    every = sum(p.numel() for p in method.parameters())
    found = {"trained_parameters": float(read_ran(target).get("trained_parameters", every))}
    if training := read_json(target / FILE, then="the cost is not known"):
        found["train_seconds"] = training["seconds"]
        found |= {"train_memory": training["memory"] / 2**30} if "memory" in training else {}
    return found | {"sampling_time": _sampling_time(method, prompts, config, objects)}


def _sampling_time(
    method: Method,
    prompts: list[Prompt],
    config: Evaluation,
    objects: Sequence[Sequence[Phrase]] | None,
) -> float:
    prompts = prompts[:PROMPTS]
    named = {} if objects is None else {"objects": objects[:PROMPTS]}
    texts, noises = [prompt.text for prompt in prompts], [prompt.noise for prompt in prompts]
    masks: Any = None
    if method.takes_masks and config.follow_masks:
        masks = mask_guidance(prompts, target_masks(prompts, config), config)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS + 1):
        for own in (True, False):
            began = time.perf_counter()
            if own:
                given = texts, noises, masks, config.steps, config.guidance, len(texts)
                method.generate(*given, **named)
            else:
                method.remove()
                try:
                    sample(
                        method.backbone,
                        texts,
                        noises,
                        config.steps,
                        config.guidance,
                        method.resolution,
                        len(texts),
                    )
                finally:
                    method.install()
            seconds[own].append(time.perf_counter() - began)
    return statistics.median(seconds[True][1:]) / statistics.median(seconds[False][1:])


def _reset_peak() -> bool:
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def _peak() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(PEAK))
    return float(line.split()[1]) * 1024
