"""A part of an evaluation by its name in the settings, with options of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def chosen(
    what: str, name: str, kinds: Mapping[str, Callable[..., Any]], options: Mapping[str, Any]
) -> Any:
    """``kinds[name](**options)``. Raises ValueError of one line on an unknown name, an unknown
    option or one that is missing."""
    if name not in kinds:
        raise ValueError(f"{what} {name!r} is unknown: expected one of {', '.join(kinds)}")
    signature = inspect.signature(kinds[name])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(
            f"{what} {name!r}: {error}: its options are {', '.join(signature.parameters)}"
        ) from None
    return kinds[name](**options)
