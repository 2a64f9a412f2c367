"""System metrics are measured while a run lasts, and never stand in anybody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_modules.tracking import system_metrics as module
from lightning_modules.tracking.system_metrics import SystemMetrics

ROOT = Path(__file__).parents[3]
NAMES = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/process_cpu_utilization_percentage",
    "system/process_memory_usage_megabytes",
}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")


def test_values_have_mlflows_names_and_an_error_does_not_end_them() -> None:
    seen: list[tuple[Mapping[str, float], int]] = []
    thrice = threading.Event()

    def store(values: Mapping[str, float], step: int) -> None:
        seen.append((values, step))
        if len(seen) == 1:
            raise OSError("the server is away")
        if len(seen) == 3:
            thrice.set()

    system = SystemMetrics(store)
    system.start()
    assert thrice.wait(30)
    system.stop()
    assert not system._thread.is_alive()
    values, step = seen[1]
    assert values.keys() == NAMES and step >= 0
    assert (
        0 <= values["system/system_memory_usage_percentage"] <= 100
        and values["system/process_memory_usage_megabytes"] > 10
    )


def test_stopping_does_not_wait_for_a_server() -> None:
    inside, never = threading.Event(), threading.Event()

    def hang(values: Mapping[str, float], step: int) -> None:
        inside.set()
        never.wait()

    system = SystemMetrics(hang)
    system.start()
    assert inside.wait(30)
    system.stop()
    assert system._thread.is_alive()  # it hangs on, alone
    never.set()
    SystemMetrics(hang).stop()  # one that was never started


@pytest.mark.slow
def test_a_process_ends_although_a_value_hangs() -> None:
    code = (
        "import threading\nfrom lightning_modules.tracking.system_metrics import SystemMetrics\n"
        "inside = threading.Event()\n"
        "SystemMetrics(lambda values, step: (inside.set(), threading.Event().wait()))"
        ".start()\ninside.wait()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0 and not done.stderr


def test_gpus_are_those_in_use_found_by_their_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def power(handle: str) -> int:
        raise NVMLError("not supported")

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=str,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=2e9, total=8e9),
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(
            gpu={"GPU-u0": 10, "GPU-u1": 90}[handle]
        ),
        nvmlDeviceGetPowerUsage=power,
    )
    properties = SimpleNamespace(
        get_device_properties=lambda index: SimpleNamespace(uuid=f"u{index}")
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=properties))
    monkeypatch.setattr(module, "cuda_devices", lambda: [])
    gpus = module._Gpus()
    assert gpus.read() == {}
    monkeypatch.setattr(module, "cuda_devices", lambda: [1])
    assert gpus.read() == {
        "gpu_1_memory_usage_megabytes": 2000,
        "gpu_1_memory_usage_percentage": 25,
        "gpu_1_utilization_percentage": 90,
    }
