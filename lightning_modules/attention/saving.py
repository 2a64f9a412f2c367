"""Models and pipelines that cannot be saved as they stand: what a method put into them is not in
their own files."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NoReturn, Self

__all__ = ["NotPickled", "allow_saving", "refuse_saving"]

ATTRIBUTE = "_not_saved"
CURE = (
    "take the method out first (its remove()) to save the untouched weights; what was trained is "
    "written by its save_adapter(folder)"
)


class NotPickled:
    """What a method puts into a model: copied with it, but never pickled."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = object.__new__(type(self))
        memo[id(self)] = new
        vars(new).update(deepcopy(vars(self), memo))
        return new

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ValueError(
            "a model or pipeline that a method is in cannot be pickled (pickle, torch.save): "
            f"{CURE}"
        )


class _Refusal(NotPickled):
    """Stands in for ``save_pretrained``."""

    def __init__(self, owner: str, what: str) -> None:
        self.owner, self.what = owner, what

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"save_pretrained of {self.owner}: its files would not hold {self.what}; {CURE}"
        )


def refuse_saving(owner: Any, what: str) -> Callable[[], None]:
    """Until the function that it gives is called, ``owner.save_pretrained`` raises ValueError: its
    files would not hold ``what``."""
    vars(owner).setdefault(ATTRIBUTE, []).append(what)
    vars(owner)["save_pretrained"] = _Refusal(type(owner).__name__, what)
    return partial(allow_saving, owner, what)


def allow_saving(owner: Any, what: str) -> None:
    """Ends a refusal of `refuse_saving`, on a copy of what it was asked for, too."""
    guests = vars(owner).get(ATTRIBUTE, [])
    if what in guests:
        guests.remove(what)
    if not guests:
        vars(owner).pop(ATTRIBUTE, None)
        vars(owner).pop("save_pretrained", None)
