"""What watches over a stock pipeline while methods are in it: hooks on a model know nothing of a
model that is put in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_modules.attention.hooks import HookManager
from lightning_modules.attention.saving import NotPickled, refuse_saving
from lightning_modules.backbone.backbone import PREDICTING, Backbone
from lightning_modules.networks.placeholder_tokens import Subjects
from lightning_modules.networks.trained_weights import TrainedWeights

__all__ = ["explain_steering", "guard_pipeline", "without_guard"]

ATTRIBUTE = "_parts_guard"
STAND_INS = (ATTRIBUTE, "check_inputs", "save_pretrained", "_not_saved")


def explain_steering(name: str) -> str:
    """Why a stock pipeline does not draw with the method ``name``, and the cure."""
    return (
        f"latents are moved by {name} between the sampler's steps, where a stock pipeline gives "
        "nobody a say: draw with the method's generate(), or take it out with its remove()"
    )


def guard_pipeline(backbone: Backbone, name: str, steered: str = "") -> Callable[[], None]:
    """Until the function that it gives is called, the backbone's pipeline refuses to be saved, and
    to draw where its denoiser or a text encoder is not the one that the method ``name`` is in
    (ValueError, before the first step); where a method ``steered`` moves the latents, it draws
    nothing at all, nor does another pipeline around its denoiser (``from_pipe``).

    That function takes the last method also out of a copy of such a part that stands in the
    pipeline in its place; ValueError where it cannot.
    """
    state = vars(backbone.pipeline)
    guard = state.get(ATTRIBUTE) or _PartsGuard(backbone)
    guard.methods.append(name)
    if steered:
        guard.steered[name] = steered
    return _Release(guard, name, refuse_saving(backbone.pipeline, f"the method {name}"))


def without_guard(pipeline: Any) -> Any:
    """A copy of a guarded pipeline, which has parts of its own, freed from the guard."""
    for name in STAND_INS:
        vars(pipeline).pop(name, None)
    return pipeline


class _Release(NotPickled):
    """Ends the watch over one method."""

    def __init__(self, guard: _PartsGuard, name: str, allow_saving: Callable[[], None]) -> None:
        self.guard, self.name, self.allow_saving = guard, name, allow_saving

    def __call__(self) -> None:
        guard = self.guard
        if guard.methods == [self.name]:
            guard.clean_copies()
        self.allow_saving()
        guard.steered.pop(self.name, None)
        if self.name in guard.methods:
            guard.methods.remove(self.name)
        if not guard.methods:
            guard.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise ValueError(
            f"{self.name} is in a pipeline, and no copy of it would be: copy the pipeline alone, "
            "or take the method out with its remove() first"
        )


class _PartsGuard(NotPickled):
    """The parts of one pipeline. It looks at them when the pipeline begins to draw, which stock
    pipelines do by checking their inputs, and when the denoiser is called."""

    def __init__(self, backbone: Backbone) -> None:
        self.pipeline: Any = backbone.pipeline
        self.methods: list[str] = []
        self.steered: dict[str, str] = {}  # Method -> what moves its latents
        # Those that methods go into, also where the pipeline has others by now
        self.parts = {backbone.family.denoiser_name: _unwrap(backbone.denoiser)}
        encoders = zip(backbone.text.names, backbone.text.encoders, strict=True)
        self.parts |= {name: _unwrap(encoder) for name, encoder in encoders}
        state = vars(self.pipeline)
        state[ATTRIBUTE], state["check_inputs"] = self, self._start
        self.handle: Any = _unwrap(backbone.denoiser).register_forward_pre_hook(self._check)

    def close(self) -> None:
        self.handle.remove()
        for name in (ATTRIBUTE, "check_inputs"):
            vars(self.pipeline).pop(name, None)

    def clean_copies(self) -> None:
        """Takes what methods put into a part out of its copy, which has it too, where that is in
        the pipeline now. Raises ValueError where the copy was changed since."""
        for name, part in self.parts.items():
            now = _unwrap(getattr(self.pipeline, name, None))
            if now is None or now is part:
                continue
            try:
                _clean(now)
            except (ValueError, AttributeError, KeyError) as error:
                raise ValueError(
                    f"{', '.join(self.methods)} cannot be taken out of pipeline.{name}, a changed "
                    f"copy of the model that it was put into ({error}): put that model or an "
                    "untouched one into the pipeline, and call remove() again"
                ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> _PartsGuard:
        """With its pipeline; of a part that is copied alone the guard has nothing to say."""
        from copy import deepcopy

        new = object.__new__(type(self))
        memo[id(self)] = new
        new.pipeline, new.parts = memo.get(id(self.pipeline)), {}
        new.methods, new.handle = list(self.methods), deepcopy(self.handle, memo)
        new.steered = dict(self.steered)
        if new.pipeline is not None:
            new.parts = deepcopy(self.parts, memo)
        return new

    def _start(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return type(self.pipeline).check_inputs(self.pipeline, *args, **kwargs)

    def _check(self, *_: Any) -> None:
        if self.steered and not PREDICTING.get():
            raise ValueError(explain_steering(next(iter(self.steered.values()))))
        for name, part in self.parts.items():
            now = getattr(self.pipeline, name, None)
            # A part that was taken out to save memory draws nothing
            if now is not None and _unwrap(now) is not part:
                raise ValueError(
                    f"pipeline.{name} has been replaced by another {type(now).__name__} while "
                    f"{', '.join(self.methods)} is in the one before: put that back, or take the "
                    "method out with its remove(), and open the pipeline as a Backbone again to "
                    "put it into this one"
                )


def _clean(model: Any) -> None:
    """Takes out of a copied model what was put into the one that it is a copy of."""
    for number, hook in list(model._forward_pre_hooks.items()):
        guest = getattr(hook, "__self__", None)
        if isinstance(guest, HookManager) and guest.model is model:
            for each in list(guest.hooks):
                guest.remove(each)
        elif isinstance(guest, TrainedWeights | Subjects):
            guest.remove()
        elif isinstance(guest, _PartsGuard):
            model._forward_pre_hooks.pop(number, None)


def _unwrap(model: Any) -> Any:
    """The model that torch.compile wraps, or itself."""
    return getattr(model, "_orig_mod", model)
