"""Adapter folders: ``adapter.safetensors`` with what was trained and nothing else, and
``adapter.json``, its card (method, settings, backbone, versions)."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from safetensors.torch import load_file, save_file
from torch import nn

from conf.files import write_atomically
from conf.renamed import current
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from conf.spec import methods
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

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
        folder = Path(folder)
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
            "backbone": {"source": self.backbone.source, "revision": self.backbone.revision},
            "versions": {library: version(library) for library in LIBRARIES},
        }
        save_file(tensors, folder / "adapter.safetensors")
        # The card last, and as a whole: a folder without it is unfinished.
        write_atomically(folder / "adapter.json", json.dumps(card, indent=1))

    def load_weights(self, folder: Path | str) -> None:
        """Reads the tensors of an adapter folder.

        Raises ValueError when another method, or other settings, made it.
        """
        folder = Path(folder)
        made_by = _read_card(folder)["method"]
        if made_by != self.name:
            raise ValueError(f"{folder} holds a {made_by!r} adapter: expected {self.name!r}")
        own = self.adapter.state_dict()
        kept = {name: tensor for name, tensor in own.items() if name.startswith(self.may_lack)}
        tensors = kept | load_file(folder / "adapter.safetensors")
        wrong = sorted(
            name
            for name in own.keys() | tensors.keys()
            if name not in own or name not in tensors or own[name].shape != tensors[name].shape
        )
        if wrong:
            raise ValueError(
                f"{folder} does not fit: {wrong[0]} and {len(wrong) - 1} more are missing, new or "
                "of another shape; give the settings that the adapter was made with (its "
                "adapter.json)"
            )
        self.adapter.load_state_dict(tensors)

    @classmethod
    def load_adapter(cls, folder: Path | str, backbone: Backbone) -> Self:
        """The method that an adapter folder holds, installed into ``backbone`` and ready to
        generate.

        Called on the class of a method it takes that method's adapters alone: raises ValueError on
        another's.
        """
        card = _read_card(Path(folder))
        made_by = card["method"]
        create: Any = method_class(made_by) if made_by in methods() else None
        if create is None or not issubclass(create, cls):
            fitting = [name for name in methods() if issubclass(method_class(name), cls)]
            expected = " or ".join(map(repr, fitting))
            raise ValueError(f"{folder} holds a {made_by!r} adapter: expected {expected}")
        method = create(backbone, _saved_settings(card), TrainerConfig(), card["resolution"])
        method.load_weights(folder)
        return method.eval()


def _read_card(folder: Path) -> dict[str, Any]:
    """``adapter.json``, a former name of the method as that of today."""
    card = json.loads((folder / "adapter.json").read_text())
    return card | {"method": current("method.name", card["method"])[1]}


def _saved_settings(card: dict[str, Any]) -> MethodConfig:
    """The settings that an adapter was made with, former names as those of today."""
    known = {name: kind for spec in methods().values() for name, kind in spec.settings.items()}
    sections = {}
    for section, values in card["config"].items():
        pairs = (current(f"method.{section}.{key}", value) for key, value in values.items())
        values = {key.rpartition(".")[2]: value for key, value in pairs}
        sections[section] = known[section](**values)
    return MethodConfig(name=card["method"], **sections)
