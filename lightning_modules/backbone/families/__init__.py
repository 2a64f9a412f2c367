"""What kinds of diffusers pipelines differ in, a file for each kind; what all of them share stands
in `Backbone`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from lightning_modules.backbone.families.base import Family

__all__ = ["Family", "find_family"]


def find_family(pipeline: Any, source: str) -> Family:
    """The family of the pipeline from ``source``: the module here whose ``FAMILY`` matches it.

    Raises ValueError on a pipeline that no family matches.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    families = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    for family in families:
        if family.matches(pipeline):
            return family(pipeline)
    known = [f"{family.label} ({' or '.join(family.pipelines)})" for family in families]
    raise ValueError(f"{source!r} is a {type(pipeline).__name__}: expected {', '.join(known)}")
