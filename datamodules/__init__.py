"""Files on disk to batches: data sets, one file each, and what they share; nothing here knows a
model."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.commands import check_command

if TYPE_CHECKING:
    from datamodules.coco import CocoDataModule as CocoDataModule
    from datamodules.flickr30k import Flickr30kDataModule as Flickr30kDataModule
    from datamodules.imagefolder import ImageFolderDataModule as ImageFolderDataModule
    from datamodules.prompts import PromptDataModule as PromptDataModule
    from datamodules.scene import SceneDataModule as SceneDataModule
    from datamodules.shapes.module import ShapesDataModule as ShapesDataModule

HOMES = {
    "CocoDataModule": "coco",
    "Flickr30kDataModule": "flickr30k",
    "ImageFolderDataModule": "imagefolder",
    "PromptDataModule": "prompts",
    "SceneDataModule": "scene",
    "ShapesDataModule": "shapes.module",
}

check_command(__name__, Path(__file__).parent)


def __getattr__(name: str) -> Any:
    # Imported when asked for: Lightning takes seconds to load, and not every module of this package
    # needs it.
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
