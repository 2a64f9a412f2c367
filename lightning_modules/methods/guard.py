"""What watches over a stock pipeline while methods are in it: hooks on a model know nothing of a
model that is put in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning_modules.attention.saving import refuse_saving
from lightning_modules.backbone.backbone import Backbone

__all__ = ["guard_pipeline", "without_guard"]

ATTRIBUTE = "_parts_guard"
STAND_INS = (ATTRIBUTE, "check_inputs", "save_pretrained", "_not_saved")


def guard_pipeline(backbone: Backbone, name: str) -> Callable[[], None]:
    """Until the function that it gives is called, the backbone's pipeline refuses to be saved, and
    to draw where its denoiser or a text encoder is not the one that the method ``name`` is in
    (ValueError, before the first step)."""
    state = vars(backbone.pipeline)
    guard = state.get(ATTRIBUTE) or _PartsGuard(backbone)
    guard.methods.append(name)
    return partial(_release, guard, name, refuse_saving(backbone.pipeline, f"the method {name}"))


def without_guard(pipeline: Any) -> Any:
    """A copy of a guarded pipeline, which has parts of its own, freed from the guard."""
    for name in STAND_INS:
        vars(pipeline).pop(name, None)
    return pipeline


def _release(guard: _PartsGuard, name: str, allow_saving: Callable[[], None]) -> None:
    allow_saving()
    if name in guard.methods:
        guard.methods.remove(name)
    if not guard.methods:
        guard.close()


class _PartsGuard:
    """The parts of one pipeline. It looks at them when the pipeline begins to draw, which stock
    pipelines do by checking their inputs, and when the denoiser is called."""

    def __init__(self, backbone: Backbone) -> None:
        self.pipeline: Any = backbone.pipeline
        self.methods: list[str] = []
        encoders = [f"text_encoder{'_2' * i}" for i in range(len(backbone.text.encoders))]
        names = [backbone.family.denoiser_name, *encoders]
        self.parts = {name: _unwrap(getattr(self.pipeline, name)) for name in names}
        state = vars(self.pipeline)
        state[ATTRIBUTE], state["check_inputs"] = self, self._start
        denoiser = self.parts[names[0]]
        self.handle: Any = denoiser.register_forward_pre_hook(self._check)

    def close(self) -> None:
        self.handle.remove()
        for name in (ATTRIBUTE, "check_inputs"):
            vars(self.pipeline).pop(name, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> _PartsGuard:
        """With its pipeline; of a part that is copied alone the guard has nothing to say."""
        from copy import deepcopy

        new = object.__new__(type(self))
        memo[id(self)] = new
        new.pipeline, new.parts = memo.get(id(self.pipeline)), {}
        new.methods, new.handle = list(self.methods), deepcopy(self.handle, memo)
        if new.pipeline is not None:
            new.parts = deepcopy(self.parts, memo)
        return new

    def _start(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return type(self.pipeline).check_inputs(self.pipeline, *args, **kwargs)

    def _check(self, *_: Any) -> None:
        for name, part in self.parts.items():
            now = getattr(self.pipeline, name, None)
            # A part that was taken out to save memory draws nothing
            if now is not None and _unwrap(now) is not part:
                raise ValueError(
                    f"pipeline.{name} has been replaced by another {type(now).__name__} while "
                    f"{', '.join(self.methods)} is in the one before: put that back, or take the "
                    "method out with its remove()"
                )


def _unwrap(model: Any) -> Any:
    """The model that torch.compile wraps, or itself."""
    return getattr(model, "_orig_mod", model)
