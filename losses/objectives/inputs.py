"""What an objective reads, and what makes a function of it an objective.

All maps are attention probabilities that the caller has averaged over layers, at one size H × W. An
object's map is that of its token, or the mean of those of its phrase's tokens. Samples of a batch
may have different numbers of objects: what is padding is left out by ``present``, adds nothing and
gets a gradient of exactly zero, whatever its map holds. An objective computes in float32 (float64
for float64 maps) under any autocast.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from conf.describe import nearest, show_count
from losses.masks import cover_pixels


@dataclass(frozen=True)
class ObjectiveInputs:
    """The maps of a batch, and what is known of its objects; see the module.

    * ``maps`` [B, objects, H, W], or [B, objects, heads, H, W] with heads kept; ``present``
      [B, objects] (bool): which objects a sample has, all where it is None
    * ``modifiers`` [B, modifiers, H, W]: the words that modify an object ("red"), and
      ``modifier_of`` [B, modifiers] (int): which object, −1 for padding
    * ``others`` [B, others, H, W]: the remaining words of the prompt, without begin and end of
      text, and ``others_present`` [B, others] (bool)
    * ``owner_of`` [B, objects] (int): the object that has this one ("a man with a bag": of the bag
      the man), −1 where none does
    * ``masks`` [B, objects, H', W'] in [0, 1]: where the objects should be, at any size
    * ``self_maps`` [B, H·W, H·W]: the row of a pixel holds its attention to all pixels
    * ``previous``, ``previous_modifiers``: maps of an earlier step, without gradient, of the shape
      [B, objects or modifiers, H, W]

    Raises ValueError on shapes that do not fit each other.
    """

    maps: Tensor
    present: Tensor | None = None
    modifiers: Tensor | None = None
    modifier_of: Tensor | None = None
    others: Tensor | None = None
    others_present: Tensor | None = None
    owner_of: Tensor | None = None
    masks: Tensor | None = None
    self_maps: Tensor | None = None
    previous: Tensor | None = None
    previous_modifiers: Tensor | None = None

    def __post_init__(self) -> None:
        if self.maps.dim() not in (4, 5) or 0 in self.maps.shape:
            raise ValueError(
                f"maps {tuple(self.maps.shape)} do not fit: expected [B, objects, H, W] or "
                "[B, objects, heads, H, W], nothing empty"
            )
        batch, objects, *_, height, width = self.maps.shape
        words = -1 if self.modifiers is None else self.modifiers.shape[1]
        rest = -1 if self.others is None else self.others.shape[1]
        expected = {
            "present": (batch, objects),
            "modifiers": (batch, words, height, width),
            "modifier_of": (batch, words),
            "others": (batch, rest, height, width),
            "others_present": (batch, rest),
            "owner_of": (batch, objects),
            "masks": (batch, objects, "H'", "W'"),
            "self_maps": (batch, height * width, height * width),
            "previous": (batch, objects, height, width),
            "previous_modifiers": (batch, words, height, width),
        }
        for name, shape in expected.items():
            given = getattr(self, name)
            if given is None:
                continue
            free = [isinstance(side, str) for side in shape]
            if given.dim() != len(shape) or not all(
                free[i] or given.shape[i] == side for i, side in enumerate(shape)
            ):
                raise ValueError(
                    f"{name} {tuple(given.shape)} does not fit maps {tuple(self.maps.shape)}: "
                    f"expected [{', '.join(map(str, shape))}]"
                )
            if name.endswith("present") and given.dtype != torch.bool:
                raise ValueError(f"{name} of {given.dtype} does not fit: expected torch.bool")
        if (self.modifiers is None) != (self.modifier_of is None):
            raise ValueError("modifiers and modifier_of belong together: give both or neither")

    @cached_property
    def exists(self) -> Tensor:
        """``present``, all True where it is None; bool [B, objects]."""
        if self.present is None:
            return self.maps.new_ones(self.maps.shape[:2], dtype=torch.bool)
        return self.present

    @cached_property
    def by_head(self) -> Tensor:
        """The objects' maps [B, objects, heads, H, W] in full precision, zero where absent."""
        maps = self.maps if self.maps.dim() == 5 else self.maps.unsqueeze(2)
        return drop_absent(maps, self.exists)

    @cached_property
    def objects(self) -> Tensor:
        """The same, averaged over heads: [B, objects, H, W]."""
        return self.by_head.mean(2)

    @cached_property
    def bound(self) -> Tensor:
        """Which modifiers are there: bool [B, modifiers]. Those of an absent object are not."""
        if self.modifier_of is None:
            return self.maps.new_zeros(len(self.maps), 0, dtype=torch.bool)
        return (self.modifier_of >= 0) & self.exists.gather(1, self.modifier_of.clamp_min(0))

    @cached_property
    def words(self) -> Tensor:
        """The modifiers' maps [B, modifiers, H, W] in full precision, zero where absent."""
        if self.modifiers is None:
            return self.objects[:, :0]
        return drop_absent(self.modifiers, self.bound)

    @cached_property
    def modified(self) -> Tensor:
        """Object numbers of the modifiers, [B, modifiers]; 0 for padding."""
        if self.modifier_of is None:
            return self.maps.new_zeros(len(self.maps), 0, dtype=torch.long)
        return self.modifier_of.clamp_min(0)

    def nouns_of_words(self) -> Tensor:
        """The map of each modifier's object, [B, modifiers, H, W]."""
        return self.objects.gather(1, spread(self.modified, self.objects))

    def earlier(self, name: str = "previous") -> Tensor:
        """``previous`` or ``previous_modifiers`` without gradient, zero where absent."""
        there = self.exists if name == "previous" else self.bound
        return drop_absent(getattr(self, name).detach(), there)

    def regions(self, share: float = 0.25) -> Tensor:
        """``masks`` at the size of the maps, zeros and ones [B, objects, H, W], empty where an
        object is absent (see `losses.masks.cover_pixels`)."""
        assert self.masks is not None
        covered = cover_pixels(self.masks, (self.maps.shape[-2], self.maps.shape[-1]), share)
        return (covered & self.exists[..., None, None]).to(self.objects.dtype)


def drop_absent(maps: Tensor, there: Tensor) -> Tensor:
    """``maps`` in full precision, zero and without gradient where ``there`` is False."""
    full = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return torch.where(there[(...,) + (None,) * (maps.dim() - 2)], full, 0.0)


def spread(numbers: Tensor, maps: Tensor) -> Tensor:
    """[B, n] as the index that gathers n of ``maps`` [B, objects, H, W] along the objects."""
    return numbers[..., None, None].expand(-1, -1, *maps.shape[2:])


class Objective:
    """A function of `ObjectiveInputs`, and of keyword settings, that gives one loss for each
    sample, [B], to be minimised.

    ``needs`` are the inputs besides ``maps`` without which it has no value, ``uses`` those that it
    reads if they are there. A sample with fewer than ``fewest`` objects adds zero, so that ragged
    batches can be padded; maps for fewer than that, without padding, are refused. With
    ``token_softmax`` the released code reads maps after `maps.renormalise_tokens`; ``phrases``
    says how it joins the maps of a phrase's tokens. ``settings`` are the keywords and what they
    are by default. Raises ValueError where an input is missing or objects are too few.
    """

    def __init__(
        self,
        compute: Callable[..., Tensor],
        needs: tuple[str, ...],
        uses: tuple[str, ...],
        fewest: int,
        token_softmax: bool,
        phrases: str,
    ) -> None:
        self.compute, self.needs, self.uses = compute, needs, uses
        self.fewest, self.token_softmax, self.phrases = fewest, token_softmax, phrases
        self.name, self.__doc__ = compute.__name__, compute.__doc__
        keywords = list(inspect.signature(compute).parameters.values())[1:]
        self.settings = {keyword.name: keyword.default for keyword in keywords}

    def __call__(self, inputs: ObjectiveInputs, **settings: Any) -> Tensor:
        self._expect_inputs(inputs)
        objects = inputs.maps.shape[1]
        if objects < self.fewest:
            raise ValueError(
                f"{self.name} compares objects: expected maps of at least {self.fewest}, "
                f"got {show_count(objects, 'object')} in {tuple(inputs.maps.shape)}; name another "
                "object, or take an objective of single objects"
            )
        for key in settings:
            if key not in self.settings:
                raise ValueError(
                    f"{self.name} has no setting {key!r}: expected one of "
                    f"{', '.join(self.settings) or 'none'}{nearest(key, self.settings)}"
                )
        with torch.autocast(inputs.maps.device.type, enabled=False):
            loss = self.compute(inputs, **settings)
            enough = inputs.exists.sum(1) >= self.fewest
            return torch.where(enough, loss, 0.0)

    def check(self, inputs: ObjectiveInputs) -> None:
        """Refuses a batch of which a sample has too few objects, before long work; reads values
        of ``present`` and of the numbers of objects, and therefore waits for a GPU. Raises
        ValueError."""
        self._expect_inputs(inputs)
        for sample, count in enumerate(inputs.exists.sum(1).tolist()):
            if count < self.fewest:
                expected = show_count(self.fewest, "object")
                raise ValueError(
                    f"{self.name} needs {expected} in each sample, sample {sample} has {count}: "
                    "name another object in its prompt, or take an objective of single objects"
                )
        objects = inputs.maps.shape[1]
        for name in ("modifier_of", "owner_of"):
            numbers = getattr(inputs, name)
            if numbers is not None and not bool(((numbers >= -1) & (numbers < objects)).all()):
                raise ValueError(
                    f"{name} {numbers.tolist()} names objects that are not there: expected "
                    f"numbers from 0 to {objects - 1}, or -1 for none"
                )

    def _expect_inputs(self, inputs: ObjectiveInputs) -> None:
        missing = [name for name in self.needs if getattr(inputs, name) is None]
        if missing:
            names = [field.name for field in fields(inputs)]
            given = [name for name in names if getattr(inputs, name) is not None]
            raise ValueError(
                f"{self.name} needs {' and '.join(missing)}: got {', '.join(given)} alone"
            )


def objective(
    *,
    needs: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    fewest: int = 1,
    token_softmax: bool = False,
    phrases: str = "mean",
) -> Callable[[Callable[..., Tensor]], Objective]:
    """Makes a function an `Objective`, of the function's name."""
    return lambda compute: Objective(compute, needs, uses, fewest, token_softmax, phrases)
