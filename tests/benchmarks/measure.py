"""What the benchmarks of one machine have in common: time of ways that take turns, peak memory, and
the name of the hardware."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch

Key = TypeVar("Key")


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds until ``work`` is done, on its device too."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def turns(
    ways: Mapping[Key, Callable[[], float]], repeats: int, limit: float = float("inf")
) -> dict[Key, list[float]]:
    """Seconds that each way says it took, in ``repeats`` rounds after a first one, whose seconds
    come first and are not to count.

    Ways take turns, so that what else the machine does meets all of them; no further round begins
    after ``limit`` seconds.
    """
    seconds: dict[Key, list[float]] = {key: [way()] for key, way in ways.items()}
    began = time.monotonic()
    for done in range(repeats):
        for key, way in ways.items():
            seconds[key].append(way())
        passed = time.monotonic() - began
        print(f"  round {done + 1}/{repeats}, {passed:.0f} s", file=sys.stderr)
        if passed > limit:
            break
    return seconds


def medians(seconds: Mapping[Key, list[float]]) -> dict[Key, float]:
    """Of `turns`, without the first round."""
    return {key: statistics.median(taken[1:]) for key, taken in seconds.items()}


def peak(step: Callable[[], Any], device: str) -> float:
    """MiB that the allocator of the device hands out in a step beside what was there before it, at
    most."""
    if device.startswith("cuda"):
        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        step()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(changes, initial=0)) / 2**20


def hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{model[0] if model else platform.machine()}, {torch.get_num_threads()} threads"
