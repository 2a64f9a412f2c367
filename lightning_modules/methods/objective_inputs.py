"""What objectives read (`losses.objectives.inputs`), captured in one forward pass: maps of a
prompt's objects, of the words that modify them and of its other words, with or without the softmax
over tokens, and self-attention."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from conf.describe import show_count
from datamodules.batch import Phrase
from datamodules.phrases.owners import find_owners
from datamodules.phrases.tagger import name_objects
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture, PixelCapture, token_weights
from lightning_modules.attention.sites import Site
from lightning_modules.attention.token_positions import CutOffError
from lightning_modules.methods.mask_targets import stack_masks
from losses.objectives.inputs import Objective, ObjectiveInputs
from losses.objectives.maps import renormalise_tokens

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

__all__ = ["EarlierMaps", "MapReading", "ObjectiveReader", "PromptWords", "locate_words"]

WORD = re.compile(r"\w+(?:['’-]\w+)*")


# With the softmax over tokens (True) or without -> an image's maps of objects and of modifiers,
# both [n, H, W], without gradient
EarlierMaps = dict[bool, tuple[Tensor, Tensor]]


@dataclass
class PromptWords:
    """The token indices of a prompt's ``objects``, of the words that are ``modifiers`` of the
    objects ``modifier_of``, and of the ``others``, which belong to no object."""

    objects: list[list[int]]
    modifiers: list[list[int]] = field(default_factory=list)
    modifier_of: list[int] = field(default_factory=list)
    others: list[list[int]] = field(default_factory=list)
    # Of each object the one that has it ("a man with a bag": of the bag the man), -1 for none
    owner_of: list[int] = field(default_factory=list)
    # Where each object should be, [H, W]; nothing where that is not known
    masks: list[Tensor] = field(default_factory=list)


def locate_words(
    backbone: Backbone,
    prompts: Sequence[str],
    objects: Sequence[Sequence[Phrase | str | tuple[int, int]]] | None,
    tokens: str = "phrase",
    fewest: int = 1,
) -> list[PromptWords]:
    """The words of each prompt: its objects are phrases or words of it, or characters [start, end);
    without ``objects`` its noun phrases, as far as they are read whole. The last word of a phrase
    is the noun, the words before modify it. ``tokens``: an object's are those of its "phrase", its
    "noun", or the "last".

    Raises ValueError, with the prompt, where a named object is not in it or behind the tokens that
    the text encoder reads, and where fewer than ``fewest`` are left.
    """
    if objects is not None and len(objects) != len(prompts):
        raise ValueError(
            f"{show_count(len(prompts), 'prompt')} but objects of {len(objects)}: expected a list "
            "of phrases for each prompt"
        )
    found = []
    for row, prompt in enumerate(prompts):
        named = None if objects is None else objects[row]
        words = _locate(backbone, prompt, named, tokens)
        if len(words.objects) < fewest:
            raise ValueError(
                f"prompt {prompt!r} names {show_count(len(words.objects), 'object')} that the text "
                f"encoder reads whole: the losses of guidance need {fewest} or more; name them "
                "with objects=, or leave the prompt out"
            )
        found.append(words)
    return found


def _locate(
    backbone: Backbone,
    prompt: str,
    named: Sequence[Phrase | str | tuple[int, int]] | None,
    tokens: str,
) -> PromptWords:
    text = backbone.text
    (offsets,) = text.token_offsets([prompt])

    def read_whole(span: tuple[int, int]) -> list[int]:
        try:
            return text.token_indices(prompt, [span], offsets)[0]
        except CutOffError:
            return []

    spans: list[Any] = []
    if named is None:
        nouns = [(phrase.start, phrase.end) for phrase in name_objects(prompt)]
        spans = [span for span in nouns if read_whole(span)]
    for each in named or ():
        if not isinstance(each, Phrase):
            spans.append(each)
            continue
        if prompt[each.start : each.end] != each.text:
            raise ValueError(
                f"object {each.text!r} is not at characters {each.start} to {each.end} of the "
                f"prompt {prompt!r}: expected its own words there"
            )
        spans.append((each.start, each.end))
    phrases = text.token_indices(prompt, spans, offsets)
    # Each word of the prompt by its tokens, those that a phrase holds under it
    words = [read_whole(match.span()) for match in WORD.finditer(prompt)]
    found = PromptWords([])
    for number, phrase in enumerate(phrases):
        parts = [word for word in words if word and set(word) <= set(phrase)]
        noun = parts[-1] if parts else phrase
        found.objects.append({"phrase": phrase, "noun": noun, "last": phrase[-1:]}[tokens])
        found.modifiers += parts[:-1]
        found.modifier_of += [number] * len(parts[:-1])
    taken = {index for phrase in phrases for index in phrase}
    found.others = [word for word in words if word and taken.isdisjoint(word)]
    found.owner_of = find_owners(prompt, [_place(prompt, span) for span in spans])
    return found


def _place(prompt: str, span: str | tuple[int, int]) -> tuple[int, int]:
    """The characters of words that are in the prompt."""
    if not isinstance(span, str):
        return span
    start = prompt.lower().find(span.lower())
    return start, start + len(span)


class ObjectiveReader:
    """Reads at the level of ``side`` pixels what ``objectives`` look at, with ``heads`` "mean" or
    "each"; ``options`` are settings of those that have them. ``sites`` are where it reads.

    Maps are the mean over the level's layers, of ``layers`` where they are given. The objectives
    ``by_layer`` look at each layer's instead and are summed over them.
    """

    def __init__(
        self,
        backbone: Backbone,
        resolution: int,
        objectives: Mapping[str, Objective],
        side: int,
        heads: str = "mean",
        options: Mapping[str, Any] | None = None,
        layers: Sequence[Site] | None = None,
        by_layer: Collection[str] = (),
    ) -> None:
        self.backbone, self.objectives, self.heads = backbone, objectives, heads
        self.by_layer = by_layer
        self.options = {
            name: {key: value for key, value in (options or {}).items() if key in one.settings}
            for name, one in objectives.items()
        }
        every = backbone.sites(resolution)
        self.cross = nearest(select(every) if layers is None else layers, side)
        self.own: list[Site] = []
        if self.reads("self_maps"):
            level = {site.resolution for site in self.cross}
            # Of joint attention what pixels pay to pixels
            joint = [site for site in every if site.is_joint]
            layers = joint or select(every, kind="self")
            self.own = [site for site in layers if site.resolution in level]
            if not self.own:
                raise ValueError(
                    f"no self-attention of side {self.cross[0].resolution}, which "
                    f"{', '.join(objectives)} look at: set another side"
                )
        self.softened = any(one.token_softmax for one in objectives.values())
        self.plain = not all(one.token_softmax for one in objectives.values())

    @property
    def sites(self) -> list[Site]:
        return [*self.cross, *self.own]

    def reads(self, *names: str) -> bool:
        """Whether an objective looks at one of these inputs."""
        return any(
            name in (*one.needs, *one.uses) for one in self.objectives.values() for name in names
        )

    @contextmanager
    def reading(self, words: Sequence[PromptWords]) -> Iterator[MapReading]:
        """Inside the block a forward pass of the denoiser on samples of these ``words`` is read."""
        keep = "keep" if self.heads == "each" else "mean"
        captures: dict[str, Any] = {}
        if self.plain:
            captures["objects"] = Capture(self.cross, [one.objects for one in words], keep)
            if self.reads("modifiers"):
                captures["modifiers"] = Capture(self.cross, [one.modifiers for one in words])
            if self.reads("others"):
                captures["others"] = Capture(self.cross, [one.others for one in words])
        if self.softened:
            captures["tokens"] = Capture(
                self.cross, [_counted(self.backbone, one) for one in words]
            )
        if self.own:
            captures["pixels"] = PixelCapture(self.own, len(words))
        with ExitStack() as attached:
            for capture in captures.values():
                attached.enter_context(capture.attached(self.backbone.denoiser))
            yield MapReading(self, words, captures)


class MapReading:
    """One forward pass that is read; see `ObjectiveReader.reading`."""

    def __init__(
        self, reader: ObjectiveReader, words: Sequence[PromptWords], captures: Mapping[str, Any]
    ) -> None:
        self.reader, self.words, self.captures = reader, words, captures
        # The objectives' losses, once they are computed
        self.values: dict[str, Tensor] = {}
        # With the softmax over tokens or without, of a layer or (None) of all
        self.inputs: dict[tuple[bool, str | None], ObjectiveInputs] = {}

    def compute_losses(
        self, weights: Mapping[str, float], earlier: Sequence[EarlierMaps]
    ) -> tuple[Tensor, list[EarlierMaps]]:
        """(weighted sum of the objectives for each sample, float32 [B]; the maps that they were
        read from, as those of an ``earlier`` step). An objective that needs earlier maps adds
        nothing where there are none."""
        self.values = self.compute_values(earlier)
        total: Any = 0.0
        for name, value in self.values.items():
            total = total + weights[name] * value
        maps: list[EarlierMaps] = [{} for _ in self.words]
        if self.reader.reads("previous"):
            for (softened, _), own in self.inputs.items():
                for row, words in enumerate(self.words):
                    objects = own.objects[row, : len(words.objects)].detach()
                    modifiers = own.words[row, : len(words.modifiers)].detach()
                    maps[row][softened] = objects, modifiers
        return total, maps

    def compute_values(self, earlier: Sequence[EarlierMaps] = ()) -> dict[str, Tensor]:
        """Objective -> its loss for each sample, float32 [B]; zero where an input that it needs is
        not there."""
        values = {}
        for name, objective in self.reader.objectives.items():
            layers: Sequence[Site | None] = (
                self.reader.cross if name in self.reader.by_layer else [None]
            )
            values[name] = torch.stack(
                [self._compute(objective, name, layer, earlier) for layer in layers]
            ).sum(0)
        return values

    def _compute(
        self,
        objective: Objective,
        name: str,
        layer: Site | None,
        earlier: Sequence[EarlierMaps],
    ) -> Tensor:
        key = objective.token_softmax, layer.name if layer else None
        if key not in self.inputs:
            self.inputs[key] = self._read(*key, [one.get(key[0]) for one in earlier])
        own = self.inputs[key]
        if any(getattr(own, need) is None for need in objective.needs):
            return torch.zeros(len(self.words), device=own.maps.device)
        if objective.phrases == "sum":  # Captured is the mean over a phrase's tokens
            counts = [[len(tokens) for tokens in one.objects] for one in self.words]
            factors = _pad(counts, own.maps.device, own.maps.shape[1])
            factors = factors.view(*factors.shape, *[1] * (own.maps.dim() - 2))
            own = replace(own, maps=own.maps * factors)
        return objective(own, **self.reader.options[name])

    def _read(
        self, softened: bool, layer: str | None, earlier: Sequence[tuple[Tensor, Tensor] | None]
    ) -> ObjectiveInputs:
        read = self._soften(layer) if softened else partial(self._average, layer)
        objects, present = read("objects", 2)
        given: dict[str, Any] = {"maps": objects, "present": present}
        if self.reader.reads("modifiers"):
            given["modifiers"], _ = read("modifiers", 0)
            given["modifier_of"] = _pad([one.modifier_of for one in self.words], objects.device)
        if self.reader.reads("owner_of"):
            owners = [one.owner_of for one in self.words]
            given["owner_of"] = _pad(owners, objects.device, objects.shape[1])
        if self.reader.reads("others"):
            given["others"], given["others_present"] = read("others", 0)
        if self.reader.reads("masks"):
            masks = [one.masks for one in self.words]
            if any(masks):
                side = next(len(own[0]) for own in masks if own)
                planes, _ = stack_masks(masks, side, objects.device)
                lacking = objects.shape[1] - planes.shape[1]
                given["masks"] = F.pad(planes, (0, 0, 0, 0, 0, lacking))
        if self.reader.own:
            given["self_maps"] = self.captures["pixels"].mean()
        known = [one for one in earlier if one is not None]
        if known and len(known) == len(earlier):
            given["previous"] = _stack([one[0] for one in known], objects.shape[1])
            if "modifiers" in given:
                count = given["modifiers"].shape[1]
                given["previous_modifiers"] = _stack([one[1] for one in known], count)
        return ObjectiveInputs(**given)

    def _maps_of(self, name: str, layer: str | None) -> tuple[Tensor, Tensor]:
        captured = self.captures[name].maps
        maps = captured.by_site[layer] if layer else captured.mean()
        return maps, captured.present

    def _average(self, layer: str | None, name: str, fewest: int) -> tuple[Tensor, Tensor]:
        return _widen(*self._maps_of(name, layer), fewest)

    def _soften(self, layer: str | None) -> Callable[[str, int], tuple[Tensor, Tensor]]:
        maps = renormalise_tokens(*self._maps_of("tokens", layer))  # [B, tokens, H, W]
        columns = [
            {index: column for column, (index,) in enumerate(_counted(self.reader.backbone, one))}
            for one in self.words
        ]

        def read(name: str, fewest: int) -> tuple[Tensor, Tensor]:
            rows = [getattr(one, name) for one in self.words]
            placed = [
                [[known[index] for index in word] for word in sample]
                for known, sample in zip(columns, rows, strict=True)
            ]
            weights = token_weights(placed, maps.shape[1]).to(maps.device)  # [B, tokens, words]
            words = torch.einsum("bthw,btn->bnhw", maps, weights)
            counts = torch.tensor([len(sample) for sample in rows], device=maps.device)
            present = torch.arange(words.shape[1], device=maps.device) < counts[:, None]
            return _widen(words, present, fewest)

        return read


def _counted(backbone: Backbone, words: PromptWords) -> list[list[int]]:
    """The tokens that the softmax over tokens counts: of CLIP's padded text all but the first and
    the last, as released; of another text, whose padding nobody reads, those up to the prompt's
    last word, of each of its stretches."""
    if backbone.family.clip:
        return [[index] for index in range(1, backbone.text.length - 1)]
    own = [*words.objects, *words.modifiers, *words.others]
    read = backbone.text.indices_up_to([index for word in own for index in word])
    return [[index] for index in read]


def _widen(maps: Tensor, present: Tensor, fewest: int) -> tuple[Tensor, Tensor]:
    """With as many columns as objectives ask for, absent ones added."""
    lacking = fewest - maps.shape[1]
    if lacking <= 0:
        return maps, present
    zeros = maps.new_zeros(len(maps), lacking, *maps.shape[2:])
    return torch.cat([maps, zeros], 1), torch.cat(
        [present, present.new_zeros(len(maps), lacking)], 1
    )


def _stack(maps: Sequence[Tensor], count: int) -> Tensor:
    """Maps [n, H, W] of each sample, as [B, count, H, W]."""
    padded = [F.pad(one, (0, 0, 0, 0, 0, count - len(one))) for one in maps]
    return torch.stack(padded)


def _pad(rows: Sequence[Sequence[int]], device: torch.device, least: int = 0) -> Tensor:
    """Whole numbers [B, longest], -1 where a row has none; at least ``least`` wide."""
    longest = max(least, *map(len, rows))
    padded = [[*row, *[-1] * (longest - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.long, device=device).view(len(rows), longest)
