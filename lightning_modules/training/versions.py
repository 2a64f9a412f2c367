"""Which code made a trial, and which code measured it: two digests that go with every result.

Each has parts, so that trials of other methods, data or metrics can be compared: two trials come
from the same code where the parts that both have agree. A change of a metric's file is one of what
measured alone; it changes no key of an adapter or an image.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.schema import Run
from conf.spec import measured_metrics, methods, steering
from lightning_modules.training.keys import PROJECT, SAMPLING, TRAINING, code_version

__all__ = [
    "DIAGNOSTICS",
    "MAKING",
    "join_parts",
    "made_by",
    "measured_by",
    "measures_otherwise",
    "measuring_code",
    "measuring_parts",
]

# What is measured of the method itself (see `evaluation.diagnostics`), not of its images
DIAGNOSTICS = "diagnostics"
METRICS, EVALUATION = "lightning_modules.metrics", "lightning_modules.evaluation"
# What an evaluation reaches through imports and that measures nothing
MAKING = tuple(f"lightning_modules.{name}." for name in ("training", "tracking", "backbone"))


def made_by(config: Run, project: Path = PROJECT) -> dict[str, Any]:
    """``code``, the digest of what trains the adapter of these settings and draws its images, and
    its ``code_parts``: training, data and method where something is trained, sampling."""
    method = methods()[config.method.name]
    roots: dict[str, tuple[str, ...]] = {
        "sampling": SAMPLING,
        f"method {config.method.name}": (f"lightning_modules.methods.{config.method.name}",),
    }
    for name in steering(conf.with_eval_overrides(config).method):
        roots[f"method {name}"] = (f"lightning_modules.methods.{name}",)
    if method.trains(config.method):
        roots["training"] = TRAINING
        roots[f"data {config.data.name}"] = (f"datamodules.{config.data.name}",)
    parts = {name: code_version(*modules, project=project) for name, modules in roots.items()}
    return {"code": _join(parts), "code_parts": parts}


def measuring_parts(config: Run, project: Path = PROJECT) -> dict[str, str]:
    """Name -> digest of the code of each metric that these settings measure, of the evaluation
    around it too, and of `DIAGNOSTICS`; nothing where nothing is measured."""
    evaluation = conf.with_eval_overrides(config).evaluation
    if not evaluation.measures:
        return {}
    known = measured_metrics(evaluation)
    names = [name for name, metric in known.items() if metric.scores_images]
    skip = (*MAKING, f"{EVALUATION}.diagnostics.")
    parts = {
        name: code_version(
            f"{EVALUATION}.evaluate",
            f"{METRICS}.{name}",
            project=project,
            skip=skip,
            libraries=(),
        )
        for name in names
    }
    skip = (*MAKING, f"{EVALUATION}.evaluate.", f"{METRICS}.")
    return parts | {DIAGNOSTICS: code_version(EVALUATION, project=project, skip=skip, libraries=())}


def measuring_code(config: Run, project: Path = PROJECT) -> str:
    """The digest of what measures with these settings, of all `measuring_parts`."""
    return _join(measuring_parts(config, project))


def measured_by(config: Run, metric_of: Mapping[str, str]) -> dict[str, Any]:
    """What a result says of its measuring: ``code``, the digest of all parts; ``parts``, for each
    its ``code`` and the time ``at`` (ms since 1970); ``of``, the part that gave each value.

    ``metric_of``: value -> name of the metric that scored it; `DIAGNOSTICS` gave the others.
    """
    now, parts = int(time.time() * 1000), measuring_parts(config)
    return {
        "code": _join(parts),
        "parts": {name: {"code": code, "at": now} for name, code in parts.items()},
        "of": dict(metric_of),
    }


def measures_otherwise(measured: Mapping[str, Any] | None, config: Run) -> set[str]:
    """The metrics (and `DIAGNOSTICS`) that measured a result, as it says (None: an old one, which
    does not), with other code than these settings have now."""
    parts = measured["parts"] if measured else {}
    now = measuring_parts(config)
    return {name for name, code in now.items() if parts.get(name, {}).get("code") != code}


def join_parts(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of parts as ``measured_by`` writes them."""
    return _join({name: str(part["code"]) for name, part in parts.items()})


def _join(parts: Mapping[str, str]) -> str:
    return _digest(f"{name} {code}" for name, code in sorted(parts.items()))


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
