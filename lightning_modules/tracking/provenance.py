"""What a result was made with: versions, commit and changes of the code, hardware and device.

Nothing here tells whose machine it was: no host name, no path outside the repository.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "arithmetic",
    "changes",
    "cuda_devices",
    "device",
    "environment",
    "hardware",
    "measuring_tags",
    "provenance",
    "tags",
]

# Those that make, move or measure numbers, where they are installed
PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "accelerate",
    "lightning",
    "peft",
    "safetensors",
    "torchmetrics",
    "torch-fidelity",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "pycocotools",
    "mlflow",
    "optuna",
)
# Environment variables that change how libraries compute
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
DIFF_LENGTH = 200_000  # Characters; every seed's run holds a copy
MEASURED, MEASURED_BY = "measured", "measured.by"  # Tags
TAG_LENGTH = 7500  # MLflow takes 8000 characters


def provenance() -> dict[str, Any]:
    """Versions of python and packages, the names of CPU and GPU (``hardware``), how torch computes
    (``arithmetic``), and in a repository the ``commit`` and whether tracked files differ from it
    (``dirty``)."""
    facts: dict[str, Any] = {}
    commit = _commit()
    if commit:
        facts |= {
            "commit": commit,
            "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        }
    facts |= {"hardware": hardware(), "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            facts[name] = metadata.version(name)
    return facts | arithmetic()


def arithmetic() -> dict[str, Any]:
    """How torch computes in this process: the number of ``threads``, and ``arithmetic``, all else
    that moves the last digits of numbers. Nothing in a process that never loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    from lightning_modules.backbone.precision import cpu_has_bfloat16

    parts = [
        f"CPU {torch.backends.cpu.get_cpu_capability()}"
        f"{' with bfloat16' if cpu_has_bfloat16() else ''}",
        f"matmul {torch.get_float32_matmul_precision()}",
    ]
    if torch.are_deterministic_algorithms_enabled():
        parts.append("deterministic")
    if torch.cuda.is_available():
        cudnn = torch.backends.cudnn
        parts += [f"CUDA {torch.version.cuda}", f"cuDNN {cudnn.version()}"]
        switches = {
            "cuDNN TF32": cudnn.allow_tf32,
            "cuDNN deterministic": cudnn.deterministic,
            "cuDNN benchmark": cudnn.benchmark,
        }
        parts += [name for name, on in switches.items() if on]
    parts += [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return {"threads": torch.get_num_threads(), "arithmetic": ", ".join(parts)}


def hardware() -> str:
    """The names of CPU and GPU. A process that never loaded torch has used no GPU, and need not
    load it to say so."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return ", ".join(filter(None, [_cpu(), gpu]))


def tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as MLflow tags; MLflow's page of a run shows the commit under its own name for
    it."""
    plain = ("commit", "dirty", "hardware", "threads", "arithmetic", "code")
    named = {key if key in plain else f"version.{key}": str(value) for key, value in facts.items()}
    return named | ({"mlflow.source.git.commit": facts["commit"]} if "commit" in facts else {})


def measuring_tags(result: Mapping[str, Any]) -> dict[str, str]:
    """What measured a result as MLflow tags: `MEASURED`, the digest of the code, and `MEASURED_BY`,
    which part of it gave which value; and on how many ``prompts``. Nothing of an old result, which
    does not say."""
    measured, prompts = result.get("measured"), result.get("prompts")
    extent = {"prompts": str(prompts)} if prompts else {}
    if not measured:
        return extent
    by = json.dumps(measured, separators=(",", ":"))
    # A reader without it takes the values for some of unknown code: better than a part of it
    whole = {MEASURED_BY: by} if len(by) <= TAG_LENGTH else {}
    return extent | {MEASURED: measured["code"]} | whole


@cache
def environment() -> str:
    """Every installed package as ``name==version``, one a line, sorted without regard to case."""
    versions = {
        dist.metadata["Name"]: dist.version
        for dist in metadata.distributions()
        if dist.metadata["Name"]
    }
    return "".join(
        f"{name}=={version}\n"
        for name, version in sorted(versions.items(), key=lambda item: item[0].lower())
    )


@cache
def changes() -> str | None:
    """The difference of tracked files from the commit at the first call; None without difference or
    repository."""
    if not _commit():
        return None
    plain = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")
    text = _git(
        *plain, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative"
    )
    if not text:
        return None
    if len(text) > DIFF_LENGTH:
        return f"{text[:DIFF_LENGTH]}\n\n[cut: the first {DIFF_LENGTH} of {len(text)} characters]\n"
    return f"{text}\n"


def device() -> str:
    """What this process and the ranks beside it compute on: ``cpu``, ``mps``, or CUDA devices by
    their numbers on the machine, ``cuda:2 NVIDIA H100``."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    if used := cuda_devices():
        visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        numbers = {i: visible[i] if i < len(visible) and visible[i].isdigit() else i for i in used}
        return ", ".join(f"cuda:{numbers[i]} {torch.cuda.get_device_name(i)}" for i in used)
    if torch.backends.mps.is_available() and torch.mps.current_allocated_memory():
        return "mps"
    return "cpu"


def cuda_devices() -> list[int]:
    """Torch's numbers of the CUDA devices that are in use, those of the other ranks of one trial
    included; asking starts nothing."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    used = [i for i in range(torch.cuda.device_count()) if torch.cuda.max_memory_reserved(i)]
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return list(range(min(ranks, torch.cuda.device_count()))) if used and ranks > 1 else used


def _commit() -> str | None:
    """The commit of the project's repository; None in a repository that only happens to lie above
    an installed copy."""
    return _git("rev-parse", "HEAD") if _git("ls-files", Path(__file__).name) else None


def _git(*words: str) -> str | None:
    """What git says about the project's repository, None without git or repository."""
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
