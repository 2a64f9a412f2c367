"""What the libraries print beside a run."""

from __future__ import annotations

import logging
import os
import warnings

__all__ = ["silence_libraries"]


def silence_libraries() -> None:
    """Keeps advertisements and notes of the libraries out of a sweep's progress."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Each of them sets its level when it is imported: an earlier setting would not last.
    import lightning.pytorch  # noqa: F401
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for library in (diffusers, transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()
    # The last one is not true here: the DataModule resumes where it stopped.
    for note in (
        "does not have many workers",
        r"isinstance\(treespec,",
        "torch_dtype. is deprecated",
        "dataloader is not resumable",
    ):
        warnings.filterwarnings("ignore", f".*{note}")
