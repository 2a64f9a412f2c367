"""What lies in the files that settings name: results depend on it, not on names and times. Things
may change at the same path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.contents import Emit, digest_contents, list_files
from conf.describe import describe
from conf.fields import Place
from conf.schema import Run
from conf.spec import methods
from lightning_modules.backbone.weights import ASSETS, KINDS, hub_commit, weights_digest

__all__ = ["changed_contents", "contents_of", "place_digest", "shipped_digests"]


def contents_of(config: Run, datamodule: Any = None, emit: Emit | None = None) -> dict[str, str]:
    """``setting=value`` -> digest of the content of each file or folder that a trial with these
    settings reads: weights, models that measure, files of detections; of data each set by its name.

    What is not there has none. ``datamodule``: that of these settings, where it is built already.
    ``emit`` gets lines while many files are read. Raises as `datamodules.build.build_data`.
    """
    from datamodules.build import data_contents
    from datamodules.phrases.pipelines import LIGHT, tagger_identity

    contents: dict[str, str] = {}
    late = conf.with_eval_overrides(config)
    for key, setting in describe(Run).settings.items():
        measures = key.startswith("evaluation.")
        if setting.place is None or (measures and not late.evaluation.measures):
            continue
        values = conf.lookup(late if measures else config, key)
        for value in values if isinstance(values, list) else [values]:
            if value and (digest := _digest(config, key, value, setting.place, emit)):
                contents[f"{key}={value}"] = digest
    if config.data.tagger != LIGHT:
        tagger = tagger_identity(config.data.tagger, Path(config.output) / "cache")
        contents[f"data.tagger={config.data.tagger}"] = tagger
    contents |= {f"shipped {name}": digest for name, digest in shipped_digests(late).items()}
    tell = emit or (lambda text, share: None)
    sets = data_contents(config, datamodule, tell)
    return contents | {f"data.root={config.data.root} ({name})": d for name, d in sets.items()}


def place_digest(config: Run, key: str, emit: Emit | None = None) -> str | None:
    """Digest of the content of what the setting ``key`` names, wherever it lies; None where it
    names nothing, or a model of the hub that was never downloaded."""
    value, place = conf.lookup(config, key), describe(Run).settings[key].place
    return _digest(config, key, value, place, emit) if value and place else None


def shipped_digests(config: Run) -> dict[str, str]:
    """Name -> digest of the content of the shipped models that the method draws with, beside the
    backbone; ``config`` is that of the evaluation."""
    cache = Path(config.output) / "cache"
    names = methods()[config.method.name].draws_with(config.method)
    return {
        name: digest_contents(list_files(ASSETS / name, KINDS), cache, f"weights of {name}")
        for name in names
    }


def _digest(config: Run, key: str, value: str, place: Place, emit: Emit | None) -> str | None:
    cache = Path(config.output) / "cache"
    if key == "backbone.path":
        return weights_digest(value, cache, config.backbone.revision, emit)
    shipped = value in place.shipped
    where = ASSETS / place.shipped[value] if shipped else Path(value)
    if not where.exists() or value == "none":
        return hub_commit(value)
    # Beside what is shipped lies what people wrote: its card, labels
    files = list_files(where, KINDS if shipped else ())
    if place.files:
        files = {name: path for name, path in files.items() if name in place.files}
    return digest_contents(files, cache, f"{key}={value}", emit)


def changed_contents(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The entries of `contents_of` that two trials share and whose content differs."""
    return [key for key in before if key in now and before[key] != now[key]]
