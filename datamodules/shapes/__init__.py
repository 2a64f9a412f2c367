"""The embedded world: scenes of coloured shapes, rendered, captioned and read as data sets; its
models stand in ``lightning_modules.embedded``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conf.schema import Run
    from datamodules.build import Emit
    from datamodules.shapes.module import ShapesDataModule


def build(config: Run, emit: Emit) -> ShapesDataModule:
    """The DataModule of a run's settings. Raises ValueError for a split that is not rendered."""
    # Imported when called: Lightning takes seconds, and others want the words of this world alone
    from datamodules.shapes import module

    return module.build(config, emit)
