"""A pretrained diffusers model behind a few calls: loading, texts, latents, sampling; what a method
adds to it stands in ``methods``."""

from importlib import import_module
from typing import Any

HOMES = {
    "EMBEDDED": "backbone",
    "Backbone": "backbone",
    "TextCondition": "text",
    "initial_noise": "backbone",
    "sample": "backbone",
    "weights_digest": "backbone",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: torch takes seconds to load, and planning needs a digest alone.
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
