"""Which study the results of some settings belong to, without opening anything.

Results are never mixed over settings. A digest of everything that a result depends on (not of
seeds, levels, retries, output) is stored with the study; the same settings continue it, other
settings start a study of their own next to it, ``<name>-<digest>``, and a note says so; so do the
same settings where what lies in the files that they name has changed. Code is not
part of the digest of a study, but of those of adapters and images, and a trial says what code made
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf import load as conf
from conf import schema, spec
from conf.describe import describe, show_count
from conf.prompts import PROMPTS
from conf.seeds import SEEDS
from conf.sources import list_group, read_group
from lightning_modules.training.contents import changed_contents
from sweeps.engine.request import Request
from sweeps.engine.trials import key_of, read_identity, read_trials
from sweeps.sweep import Sweep

__all__ = ["PLACES", "find_study", "is_of", "other_contents", "possible_names", "result_settings"]

# Settings that say where things are and run on this machine
PLACES = (
    *("output", "tracking_uri", "workers", "devices", "launcher", "launch"),
    *("executor", "slurm", "ray"),
)
METHOD_KEYS = ("method", "method.name")
# Settings that change when, where or how often trials run, but no trial's numbers
NOT_IN_DIGEST = {
    *PLACES,
    *("seed", "seeds", "retries", "levels", "mode", "cells", "candidates", "delta"),
    *("against", "resolution", "to"),
    *("sampler", "sampler_seed", "prune", "until", "budget", "primary"),
    *("data.workers", "trainer.log_every", "trainer.checkpoint_every", "evaluation.draw_only"),
}


def find_study(
    sweep: Sweep,
    config: schema.Sweep,
    request: Request | None = None,
    notes: list[str] | None = None,
) -> tuple[str, bool]:
    """The name of the study of these settings below the output, and whether it is there already;
    with ``request`` not one whose trials were made from other content of the files, which
    ``notes`` are told. Creates nothing. Raises StorageError."""
    digest = conf.digest(result_settings(sweep, config))
    for name in possible_names(sweep, config, digest):
        folder = Path(config.output) / name
        identity = read_identity(folder, name)
        if identity is None:
            return name, False
        if is_of(identity, digest):
            other = other_contents(request, folder, name) if request else ""
            if not other:
                return name, True
            if notes is not None:
                notes.append(other)
    return sweep.name, False


def is_of(identity: Mapping[str, Any], digest: str) -> bool:
    """Whether a stored study is that of the settings with this digest."""
    # Once the number of prompts was a setting that trials did not differ in
    older = {key: value for key, value in identity["config"].items() if key != PROMPTS}
    return digest in (identity["digest"], conf.digest(older))


def other_contents(request: Request, folder: Path, name: str) -> str:
    """Which files hold something else now than when the finished trials of a study were made, in
    words; empty where none do. Raises StorageError, and PlanError for data that cannot be used."""
    cells = {cell.text for cell in request.cells}
    changed: dict[str, None] = {}
    trials = 0
    for trial in read_trials(folder, name):
        made = trial.user_attrs.get("contents")
        if trial.state.name == "COMPLETE" and made and key_of(trial)[0] in cells:
            entries = changed_contents(made, request.contents(key_of(trial)))
            changed |= dict.fromkeys(entries)
            trials += bool(entries)
    if not changed:
        return ""
    first, *more = changed
    others = f" and {len(more)} more" if more else ""
    count = show_count(trials, "finished trial")
    return f"{count} of {folder}: made from other content of {first}{others}"


def result_settings(sweep: Sweep, config: schema.Sweep) -> dict[str, Any]:
    """The dotted settings that results depend on, without those of methods that no cell has; of
    the batch on each device and the number of
    devices, their product."""
    flat = dict(_flatten(conf.to_dict(config)))
    sections = spec.unread_sections(*_methods_of(sweep, config))
    unread = tuple(f"method.{section}." for section in sections)
    flat = {key: value for key, value in flat.items() if not key.startswith(unread)}
    # Those that act where images are drawn alone count once they are no defaults
    idle = tuple(f"method.{section}." for section in spec.sampling_sections())
    defaults = schema.Sweep()
    flat = {
        key: value
        for key, value in flat.items()
        if not (key.startswith(idle) and value == conf.lookup(defaults, key))
    }
    # Those that follow seed were no settings once
    flat = {key: value for key, value in flat.items() if key not in SEEDS or value is not None}
    flat["trainer.batch"] *= flat.pop("trainer.devices")
    flat |= {f"levels of {f.key}": f.settings for f in sweep.factors if f.settings}
    if sweep.also:
        flat["also"] = [list(map(dict, entry)) for entry in sweep.also]
    left_out = NOT_IN_DIGEST | {*sweep.keys}
    if config.mode != "search":  # What a search has learned is of one number of prompts
        left_out.add(PROMPTS)
    return {
        key: value
        for key, value in flat.items()
        if key not in left_out and key.partition(".")[0] not in PLACES
    }


def _methods_of(sweep: Sweep, config: schema.Sweep) -> set[str]:
    """The methods that cells may have."""
    levels = [
        settings
        for factor in sweep.factors
        for settings in factor.settings.values() or ({factor.key: x} for x in factor.levels)
    ]
    levels += [settings for _, settings in sweep.also]
    names = [config.method.name]
    names += [str(level[key]) for level in levels for key in METHOD_KEYS if key in level]
    presets = {name for name in names if name not in spec.methods()} & {*list_group("method")}
    index = describe(schema.Sweep)
    of_presets = {read_group("method", name, "sweep", index)["method.name"] for name in presets}
    return {str(name) for name in {*names, *of_presets}} & {*spec.methods()}


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        if isinstance(value, dict) and prefix + key not in describe(schema.Sweep).settings:
            items += _flatten(value, f"{prefix}{key}.")
        else:
            items.append((prefix + key, value))
    return items


def possible_names(sweep: Sweep, config: schema.Sweep, digest: str) -> list[str]:
    """What the study of these settings may be called, in order."""
    plain = f"{sweep.name}-search" if config.mode == "search" else sweep.name
    base = f"{plain}-{digest[:8]}"
    return [plain, base, *(f"{base}-{count}" for count in range(2, 100))]
