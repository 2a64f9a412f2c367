"""A pretrained diffusers model behind a few calls: texts, latents, predictions, sampling.

What a method adds to the model does not belong here, but in ``methods`` and ``networks``.
"""

from importlib import import_module
from typing import Any

HOMES = {
    "Backbone": "backbone",
    "TextCondition": "text",
    "initial_noise": "sampling",
    "sample": "sampling",
    "shipped_folder": "weights",
    "weights_digest": "weights",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: torch takes seconds to load, and planning needs a digest alone.
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
