"""What loading a pipeline leaves unsaid."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["quiet_loading"]

# Notes of the libraries that ask nothing of the user
NOTES = ("requires torchvision (not installed)", "`torch_dtype` is deprecated")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without progress bars, but of downloads, and without the NOTES; all other warnings come
    through. What a script has set up itself is in place again afterwards."""
    from diffusers.utils import logging as diffusers
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as transformers

    shows_downloads = not are_progress_bars_disabled()

    def is_told(record: logging.LogRecord) -> bool:
        return not any(note in record.getMessage() for note in NOTES)

    with ExitStack() as stack:
        for name, library in (("diffusers", diffusers), ("transformers", transformers)):
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                stack.callback(library.enable_progress_bar)
            for handler in logging.getLogger(name).handlers:
                handler.addFilter(is_told)
                stack.callback(handler.removeFilter, is_told)
        if shows_downloads:
            enable_progress_bars()
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*torch_dtype. is deprecated")
        yield
