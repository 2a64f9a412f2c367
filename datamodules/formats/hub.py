"""Data sets of the Hugging Face hub as folders: ``hub:OWNER/NAME``, or ``hub:OWNER/NAME@REVISION``.

A snapshot lies in the hub's cache, where ``hf download --repo-type dataset OWNER/NAME`` puts it; it
is read like any other folder, so that nothing of a data set is run.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["HUB", "find_snapshot", "is_hub"]

HUB = "hub:"
NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_hub(root: str) -> bool:
    """Whether a root names a data set of the hub."""
    return root.startswith(HUB)


def find_snapshot(root: str) -> Path:
    """The folder of ``hub:OWNER/NAME``: from the cache, else downloaded. Raises ValueError for
    another form, FileNotFoundError where it cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    match = NAME.fullmatch(root)
    if not match:
        raise ValueError(f"{root!r}: expected hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    name, revision = match.groups()
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=revision)
    except (OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        hint = "; HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else ""
        raise FileNotFoundError(
            f"data set {root} cannot be had ({said}): expected one of the hub or its cache{hint}: "
            f"run `hf download --repo-type dataset {name}` where there is a network"
        ) from error
    return Path(folder)
