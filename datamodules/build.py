"""The DataModule of a run's settings, and what stands for its data in keys.

A data set is ``datamodules/NAME.py`` (or a package) with

    build(config: Run, emit: Emit) -> PairedDataModule      not set up yet
    digest(config: Run) -> str | None                       optional: see `data_digest`

and ``conf/data/NAME.py`` declares what kind of data it is. Both are found by file name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from conf import load as conf
from conf.schema import Run
from conf.spec import data_sets, methods

if TYPE_CHECKING:
    from datamodules.loading import PairedDataModule

__all__ = ["Emit", "build_data", "data_digest"]

Emit = Callable[[str, float], None]
# Files of annotations or prompts, which are small; images are known by their folders
ANNOTATIONS = (".json", ".jsonl", ".csv", ".token", ".txt")


def build_data(config: Run, emit: Emit = lambda text, share: None) -> PairedDataModule:
    """The DataModule of the settings, its files rendered or found, set up.

    ``emit`` gets a line and the share done of long work. Raises FileNotFoundError or ValueError
    when a file is missing or cannot be used.
    """
    # Here, not above: Lightning takes seconds to load, and keys need none of it
    from datamodules.loading import once

    emit(f"data: {config.data.name}", 0.0)
    datamodule = _module(config.data.name).build(config, emit)
    once(datamodule.prepare_data)
    datamodule.setup()
    if config.data.concepts:
        datamodule.train_set = datamodule.concept_dataset(
            config.data.concepts, config.data.objects, config.data.train_images, config.seed
        )
    if config.data.drop_captions:
        datamodule.train_set.drop = config.data.drop_captions
    needs_phrases = methods()[config.method.name].needs_phrases
    datamodule.train_set.with_phrases = needs_phrases(config.method)
    return datamodule


def data_digest(config: Run) -> str | None:
    """What stands for a user's own data in the key of a training; None for the embedded world,
    which its settings determine.

    A data set may define its own ``digest``; else it is made of the names, sizes and times of the
    files of annotations or prompts and of the folders that images are in, two folders deep.
    """
    if data_sets()[config.data.name].embedded(config):
        return None
    own = getattr(_module(config.data.name), "digest", None)
    return own(config) if own else _digest_files(Path(config.data.root))


def _digest_files(root: Path) -> str:
    paths = [root, *root.glob("*"), *root.glob("*/*")] if root.exists() else []
    facts = [
        (str(path.relative_to(root)), path.stat().st_size * path.is_file(), path.stat().st_mtime_ns)
        for path in sorted(paths)
        if path.is_dir() or path.suffix.lower() in ANNOTATIONS
    ]
    return conf.digest({"files": facts})


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"datamodules.{name}")
