"""Adapter folders: ``adapter.safetensors`` with what was trained and nothing else, and
``adapter.json``, its card (method, settings, backbone, versions, digest of the tensors)."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors.torch import save_file
from torch import nn

from conf.files import write_atomically
from conf.places import as_path
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from conf.spec import methods
from lightning_modules.backbone.restoring import restored_on_error
from lightning_modules.methods.adapter_file import (
    CARD,
    TENSORS,
    AdapterError,
    AdapterFile,
    backbone_facts,
    file_digest,
)
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "peft")


class AdapterFolder:
    """Saving and loading of ``adapter``, the trained part of a method."""

    name: ClassVar[str]
    # How the names of those tensors begin that an adapter folder may lack: they stay as they are
    may_lack: ClassVar[tuple[str, ...]] = ()

    adapter: nn.Module
    backbone: Backbone
    config: MethodConfig
    resolution: int

    def save_adapter(self, folder: Path | str) -> None:
        """Writes the trained tensors and their card; never a frozen weight."""
        folder = as_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in self.adapter.state_dict().items()
        }
        card = {
            "method": self.name,
            "config": {
                section: asdict(getattr(self.config, section))
                for section in methods()[self.name].sections
            },
            "resolution": self.resolution,
            "backbone": backbone_facts(self.backbone),
            "versions": {library: version(library) for library in LIBRARIES},
        }
        # Each file as a whole, the card last: a folder without it, or with another digest than its
        # tensors have, was written in part.
        write_atomically(folder / TENSORS, lambda draft: save_file(tensors, draft))
        card["sha256"] = file_digest(folder / TENSORS)
        write_atomically(folder / CARD, json.dumps(card, indent=1))

    def load_weights(self, folder: Path | str) -> None:
        """Reads the tensors of an adapter folder; its settings are not taken over.

        Raises AdapterError, a ValueError of one line that names the file, and changes nothing, when
        another method or other settings made it, it was made for another kind of backbone, or it
        was written in part.
        """
        file, notice = self.check_weights(folder)
        if notice is not None:
            log.warning(notice)
        own = self.adapter.state_dict()
        kept = {name: tensor for name, tensor in own.items() if name.startswith(self.may_lack)}
        self.adapter.load_state_dict(kept | file.read_tensors(own))

    def check_weights(self, folder: Path | str) -> tuple[AdapterFile, str | None]:
        """What `load_weights` refuses by the card and the names and shapes of its tensors, of which
        none is read. Gives the file, and a line where it was made for another model of that kind.
        Raises AdapterError."""
        file = AdapterFile.open(folder)
        if file.method != self.name:
            raise AdapterError(f"{folder} holds a {file.method!r} adapter: expected {self.name!r}")
        notice = file.check_backbone(self.backbone)
        file.check_tensors(self.adapter.state_dict(), self.may_lack)
        return file, notice

    @classmethod
    def check_sizes(cls, file: AdapterFile, backbone: Backbone) -> None:
        """Refuses settings by which tensors would be larger than those of ``file``, before memory
        is taken for any. Raises AdapterError."""

    @classmethod
    def load_adapter(cls, folder: Path | str, backbone: Backbone) -> Self:
        """The method that an adapter folder holds, installed into ``backbone`` and ready to
        generate.

        Called on the class of a method it takes that method's adapters alone. All is read and
        checked before anything is put into the backbone. Raises AdapterError as `load_weights`, on
        another method's adapter, and where the backbone holds what the method cannot stand beside.
        The backbone is then as it was before.
        """
        file = AdapterFile.open(folder)
        create: Any = method_class(file.method)
        if not issubclass(create, cls):
            fitting = [name for name in methods() if issubclass(method_class(name), cls)]
            expected = " or ".join(map(repr, fitting))
            raise AdapterError(f"{folder} holds a {file.method!r} adapter: expected {expected}")
        file.check_backbone(backbone)
        with restored_on_error(backbone):
            try:
                create.check_sizes(file, backbone)
                method = _build_outside(
                    create, backbone, file.config, TrainerConfig(), file.resolution
                )
                method.load_weights(folder)
                method.install()
            except AdapterError:
                raise
            except (RuntimeError, ValueError) as error:
                raise AdapterError(f"{folder} cannot be loaded: {error}") from error
        return method.eval()


def _build_outside(create: Any, *args: Any) -> Any:
    """A method that is not installed: methods install themselves when they are made."""
    outside = type(create.__name__, (create,), {"install": lambda self: None})
    method = outside(*args)
    method.__class__ = create
    return method
