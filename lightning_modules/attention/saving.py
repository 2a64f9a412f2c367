"""Models and pipelines that cannot be saved as they stand: what a method put into them is not in
their own files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["refuse_saving"]

ATTRIBUTE = "_not_saved"
CURE = (
    "take the method out first (its remove()) to save the untouched weights; what was trained is "
    "written by its save_adapter(folder)"
)


def refuse_saving(owner: Any, what: str) -> Callable[[], None]:
    """Until the function that it gives is called, ``owner.save_pretrained`` raises ValueError: its
    files would not hold ``what``."""

    def save_pretrained(*args: Any, **kwargs: Any) -> None:
        raise ValueError(
            f"save_pretrained of {type(owner).__name__}: its files would not hold {what}; {CURE}"
        )

    vars(owner).setdefault(ATTRIBUTE, []).append(what)
    vars(owner)["save_pretrained"] = save_pretrained
    return partial(_allow_saving, owner, what)


def _allow_saving(owner: Any, what: str) -> None:
    guests = vars(owner).get(ATTRIBUTE, [])
    if what in guests:
        guests.remove(what)
    if not guests:
        vars(owner).pop(ATTRIBUTE, None)
        vars(owner).pop("save_pretrained", None)
