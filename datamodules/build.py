"""The DataModule of a run's settings, and what stands for its data in keys.

A data set is ``datamodules/NAME.py`` (or a package) with

    build(config: Run, emit: Emit) -> PairedDataModule      not set up yet
    digest(config: Run) -> str | None                       optional: see `data_contents`

and ``conf/data/NAME.py`` declares what kind of data it is. Both are found by file name.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from conf.contents import Emit
from conf.schema import Run
from conf.seeds import resolve_seeds
from conf.spec import data_sets, methods
from datamodules.formats.hub import is_hub

if TYPE_CHECKING:
    from datamodules.concepts import ConceptDataset
    from datamodules.loading import PairedDataModule

__all__ = ["Emit", "build_data", "data_contents", "data_digest", "reads_files"]

CONCEPT_PROMPTS = 100_000  # An epoch of prompts made of concepts, where data.train_images is null


def build_data(config: Run, emit: Emit = lambda text, share: None) -> PairedDataModule:
    """The DataModule of the settings, its files rendered or found, set up.

    ``emit`` gets a line and the share done of long work; the ``notes`` are the caller's to tell,
    once. Raises FileNotFoundError or ValueError
    when a file is missing or cannot be used.
    """
    # Here, not above: Lightning takes seconds to load, and keys need none of it
    from datamodules.loading import once

    emit(f"data: {config.data.name}", 0.0)
    datamodule = _module(config.data.name).build(config, emit)
    datamodule.warns_of_notes = False
    once(datamodule.prepare_data)
    datamodule.setup()
    if config.data.concepts:
        datamodule.train_set = concept_dataset(datamodule, config)
    if config.data.drop_captions:
        datamodule.train_set.drop = config.data.drop_captions
    method = methods()[config.method.name]
    datamodule.train_set.with_phrases = method.needs_phrases(config.method)
    datamodule.train_set.naming = method.naming(config.method)
    datamodule.train_set.singular = singular(config)
    if config.data.singular != "auto":
        # Else evaluation asks where an object is, whatever the method trains on
        for dataset in datamodule.eval_sets.values():
            dataset.singular = config.data.singular
    return datamodule


def singular(config: Run) -> str:
    """Whose mask a singular noun has in training (``data.singular``, "auto" resolved)."""
    given = config.data.singular
    return methods()[config.method.name].singular(config.method) if given == "auto" else given


def concept_dataset(datamodule: PairedDataModule, config: Run) -> ConceptDataset:
    """The training prompts that ``data.concepts`` make."""
    data, trainer = config.data, config.trainer
    more: dict[str, Any] = {"joins": [f" {join} " for join in data.joins]} if data.joins else {}
    if data.concept_draw == "batch":
        more["batch"] = trainer.batch * trainer.devices
    return datamodule.concept_dataset(
        data.concepts,
        data.objects,
        data.train_images or CONCEPT_PROMPTS,
        resolve_seeds(config).data,
        article=data.article,
        draw=data.concept_draw,
        **more,
    )


def data_contents(
    config: Run, datamodule: Any = None, emit: Emit = lambda text, share: None
) -> dict[str, str]:
    """Name of each set (``train`` and those of the evaluation) -> digest of what its samples are
    made of, files by their content; empty for the embedded world, which its settings determine,
    and where ``data.root`` is not there. Sets of no more images than prompts are asked for have
    that number in their names: with more prompts they are others.

    ``datamodule``: the one of these settings, where it is built already. A data set may define its
    own ``digest``, of all its sets; else it is that of each dataset. Raises as `build_data`.
    """
    if not reads_files(config):
        return {}
    if own := getattr(_module(config.data.name), "digest", None):
        return {"train": digest} if (digest := own(config)) else {}
    datamodule = datamodule or build_data(config, emit)
    limit = datamodule.eval_limit if config.data.eval_images is None else None
    of = "" if limit is None else f", first {limit}"
    sets = {f"{name}{of}": dataset for name, dataset in datamodule.eval_sets.items()}
    sets = {"train": datamodule.train_set, **sets}
    return {name: _content_digest(dataset, emit) for name, dataset in sets.items()}


def data_digest(config: Run, datamodule: Any = None) -> str | None:
    """What stands for a user's own data in the key of a training: the ``train`` of `data_contents`,
    for which no other set is looked at."""
    if not reads_files(config):
        return None
    if own := getattr(_module(config.data.name), "digest", None):
        return own(config)
    if datamodule is None:
        alone = dataclasses.replace(config.evaluation, prompts=0)
        datamodule = build_data(dataclasses.replace(config, evaluation=alone, evaluate_with={}))
    return _content_digest(datamodule.train_set)


def reads_files(config: Run) -> bool:
    """Whether the data are files of the user's, that are there."""
    root = config.data.root
    embedded = data_sets()[config.data.name].embedded(config) and root == "auto"
    return not embedded and (Path(root).exists() or os.sep not in root or is_hub(root))


def _content_digest(dataset: Any, emit: Emit | None = None) -> str:
    of_all = getattr(dataset, "content_digest", None)
    return of_all(emit) if of_all else dataset.digest()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"datamodules.{name}")
