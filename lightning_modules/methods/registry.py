"""The class of a method: ``lightning_modules/methods/NAME.py``, found by file name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from conf.schema import Run
from conf.seeds import resolve_seeds
from conf.spec import methods

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.methods.base import Method

__all__ = ["build_method", "method_class"]


def method_class(name: str) -> type[Method]:
    """The class whose ``name`` is that of its file.

    Raises ValueError for a method that ``conf/method/`` does not declare, and TypeError where its
    file defines no such class.
    """
    if name not in methods():
        known = ", ".join(methods())
        raise ValueError(f"method {name!r} is unknown: expected one of {known}")
    module = import_module(f"lightning_modules.methods.{name}")
    for value in vars(module).values():
        if getattr(value, "__module__", "") == module.__name__ and vars(value).get("name") == name:
            return value
    raise TypeError(f'{module.__file__} defines no method: expected a class with name = "{name}"')


def build_method(config: Run, backbone: Backbone) -> Method:
    """The method of these settings, untrained and installed into ``backbone``."""
    create = method_class(config.method.name)
    settings = config.method, config.trainer, config.backbone.resolution
    method = create(backbone, *settings, config.seed)
    method.seeds = resolve_seeds(config)
    return method
