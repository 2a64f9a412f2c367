"""A backbone that is as it was before when something that changes it fails half-way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_modules.attention.hooks import ATTRIBUTE
from lightning_modules.backbone.backbone import Backbone

__all__ = ["restored_on_error"]

# Containers whose content is kept, too; others are frozen
KEPT = (dict, OrderedDict, list)


@contextmanager
def restored_on_error(backbone: Backbone) -> Iterator[None]:
    """When the block raises, the pipeline is as it was before it: the same parts, layers,
    parameters, processors, hooks and settings in the same places. Numbers that were written over
    are not kept."""
    states = [_State(owner) for owner in _owners(backbone)]
    parameters = [
        (parameter, parameter.data, parameter.requires_grad)
        for module in _models(backbone)
        for parameter in module.parameters()
    ]
    try:
        yield
    except BaseException:
        for state in states:
            state.restore()
        for parameter, data, requires_grad in parameters:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
        raise


def _models(backbone: Backbone) -> list[nn.Module]:
    return [part for part in vars(backbone.pipeline).values() if isinstance(part, nn.Module)]


def _owners(backbone: Backbone) -> Iterator[Any]:
    """All objects whose attributes a method may change."""
    yield backbone
    yield backbone.pipeline
    yield backbone.text
    for model in _models(backbone):
        for module in model.modules():
            yield module
            if (config := vars(module).get("config")) is not None and hasattr(config, "__dict__"):
                yield config
            if (manager := vars(module).get(ATTRIBUTE)) is not None:
                yield manager


class _State:
    """The attributes of an object, and what is in its containers; these stay the same objects,
    which others may hold, too."""

    def __init__(self, owner: Any) -> None:
        self.attributes = vars(owner)
        self.values = dict(self.attributes)
        self.contents = [(v, v.copy()) for v in self.values.values() if type(v) in KEPT]

    def restore(self) -> None:
        self.attributes.clear()
        self.attributes.update(self.values)
        for container, content in self.contents:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)
