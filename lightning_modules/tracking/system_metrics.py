"""CPU, memory and GPU of a run while it lasts, as the ``system/`` metrics that MLflow shows on a
page of their own.

MLflow's own monitor is not used: it stops for good when the server is away for a moment, keeps a
run from ending, and records every GPU of the machine, not only those of the run. The names are the
same.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from lightning_modules.tracking.provenance import cuda_devices

__all__ = ["SystemMetrics"]

SAMPLE = 5.0  # Seconds between two looks
WINDOW = 10.0  # Seconds that the first values are the mean of
LONGEST = 60.0  # In an hour, so that a long run has some hundreds of values and not thousands
MEGABYTE = 1e6


class SystemMetrics:
    """A thread that calls ``store(values, step)`` with the means of a window until ``stop``; errors
    of ``store`` are ignored.

    The step is the number of seconds since the start. ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL``
    sets the length of a window in seconds.
    """

    def __init__(self, store: Callable[[Mapping[str, float], int], None]) -> None:
        self.store = store
        self._end = threading.Event()
        # A daemon: it may be waiting for a server, and that is no reason for a process to stay
        self._thread = threading.Thread(target=self._watch, name="system metrics", daemon=True)

    def start(self) -> None:
        """Begin; nothing is stored before the first window is full."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for a value that is on its way for longer than a moment."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def _watch(self) -> None:
        try:
            fixed = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0"))
        except ValueError:
            fixed = 0.0
        tree, gpus = _Tree(), _Gpus()
        began = opened = time.monotonic()
        seen: dict[str, list[float]] = {}
        psutil.cpu_percent()  # The first answer means nothing
        window = fixed or WINDOW
        while not self._end.wait(min(SAMPLE, window)):
            now = time.monotonic()
            for read in (_machine, tree.read, gpus.read):
                with suppress(Exception):  # A number that this machine does not have
                    for key, value in read().items():
                        seen.setdefault(f"system/{key}", []).append(value)
            if now - opened >= window:
                with suppress(Exception):
                    self.store(
                        {key: round(sum(values) / len(values), 1) for key, values in seen.items()},
                        round(now - began),
                    )
                seen, opened = {}, now
                window = fixed or min(LONGEST, max(WINDOW, (now - began) / 60))


def _machine() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }


class _Tree:
    """This process with those that it started: loaders of data, other ranks are not among them."""

    def __init__(self) -> None:
        self.spent, self.at = self._look()[0], time.monotonic()

    def read(self) -> dict[str, float]:
        (spent, memory), now = self._look(), time.monotonic()
        percentage = 100 * max(spent - self.spent, 0.0) / (now - self.at)
        self.spent, self.at = spent, now
        return {
            "process_cpu_utilization_percentage": percentage,
            "process_memory_usage_megabytes": memory / MEGABYTE,
        }

    def _look(self) -> tuple[float, float]:
        """Seconds of CPU so far and bytes of memory now."""
        seconds = memory = 0.0
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.Error):  # It may have ended
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
        return seconds, memory


class _Gpus:
    """The NVIDIA GPUs that the run computes on, numbered as in torch. Found once torch uses
    them."""

    def __init__(self) -> None:
        self.handles: dict[int, Any] = {}
        self.nvml: Any = None

    def read(self) -> dict[str, float]:
        used = cuda_devices()
        if used and self.nvml is None:
            import pynvml

            pynvml.nvmlInit()
            self.nvml = pynvml
        values: dict[str, float] = {}
        for index in used:
            if index not in self.handles:
                # By its UUID: NVML knows nothing of CUDA_VISIBLE_DEVICES, and orders the devices in
                # another way
                uuid = sys.modules["torch"].cuda.get_device_properties(index).uuid
                self.handles[index] = self.nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            values |= self._one(f"gpu_{index}", self.handles[index])
        return values

    def _one(self, name: str, handle: Any) -> dict[str, float]:
        memory = self.nvml.nvmlDeviceGetMemoryInfo(handle)
        values = {
            f"{name}_memory_usage_megabytes": memory.used / MEGABYTE,
            f"{name}_memory_usage_percentage": 100 * memory.used / memory.total,
        }
        with suppress(self.nvml.NVMLError):  # Parts of a GPU do not tell
            values[f"{name}_utilization_percentage"] = self.nvml.nvmlDeviceGetUtilizationRates(
                handle
            ).gpu
            values[f"{name}_power_usage_watts"] = self.nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        return values
