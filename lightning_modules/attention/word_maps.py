"""Where each word of a prompt acts while its image is drawn: attention maps over all steps of a
drawing, the mean over heads and layers.

    heat = draw_with_maps(backbone, ["a red circle and a blue square"], seeds=[0], steps=8)[0]
    heat.image, heat.maps         # uint8 [3, H, W], float32 [words, h, w]

Around any other generation, a stock pipeline's, too:

    capture = DrawingCapture(outer_sites(backbone.sites()), prompt_tokens(backbone, prompts))
    with capture.attached(backbone.denoiser):
        pipeline(prompts)
    capture.mean(64)              # [B, tokens, 64, 64]

The arithmetic is that of DAAM (arXiv 2210.04885, eq. 4 to 6, and its code): for each layer and
head, softmax probabilities of the conditional half are added up over steps, brought to the size of
the latents by bicubic interpolation and cut off below 0; the mean over all heads of all layers is a
token's map, and that over its tokens a word's. `DrawingCapture.total` is its raw map; here maps are
divided by the number of passes, so that they are probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from conf.describe import show_count
from datamodules.batch import Phrase
from lightning_modules.attention.capture import Capture, CapturedMaps, Object
from lightning_modules.attention.sites import Site, select
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample

if TYPE_CHECKING:
    from lightning_modules.attention.hooks import ForwardContext, MapReader

__all__ = [
    "DrawingCapture",
    "WordMaps",
    "draw_with_maps",
    "find_words",
    "outer_sites",
    "prompt_tokens",
]

# Letters and digits, and marks between them; a mark at an end is none of the word
WORD = re.compile(r"\w+(?:[^\w\s]+\w+)*")
# Maps of the latents' side over 2^3 are left out
COARSE = 3


class DrawingCapture(Capture):
    """Captures the maps of ``tokens``, added up over the forward passes of a drawing, while
    attached; heads are kept.

    Passes with gradients (of guidance, of training on a prompt) and those that end before the last
    of ``sites`` are none of the drawing. A pass at a later noise level than the one before begins
    another drawing, and the earlier one is forgotten.
    """

    def __init__(
        self, sites: Sequence[Site], tokens: Sequence[Sequence[Object]] | None = None
    ) -> None:
        super().__init__(sites, tokens, heads="keep")
        self._passes = 0
        self._sums: dict[str, Tensor] = {}  # Site -> [B, objects, heads, h, w]
        self._timestep, self._last = 0.0, 0.0

    def begin(self) -> MapReader | None:  # type: ignore[override]
        self._collect()
        if torch.is_grad_enabled():
            return None
        reader = super().begin()
        return None if reader is None else _DrawingReader(reader, self)

    def detach(self) -> None:
        super().detach()
        self._collect()

    def _collect(self) -> None:
        """Adds the maps of the latest pass."""
        by_site = self.maps.by_site
        self.maps = CapturedMaps(torch.zeros(0, 0, dtype=torch.bool))
        if len(by_site) < len(self.sites):
            return
        if not self._passes or self._timestep > self._last:
            self._sums, self._passes = by_site, 1
        else:
            self._sums = {name: self._sums[name] + maps for name, maps in by_site.items()}
            self._passes += 1
        self._last = self._timestep

    @property
    def passes(self) -> int:
        """Forward passes of the drawing: its steps, and more with some schedulers."""
        self._collect()
        return self._passes

    def total(self, size: int | tuple[int, int]) -> Tensor:
        """float32 [B, objects, h, w] of that ``size``: the sum over passes, mean over all heads of
        all sites. Raises ValueError when no pass was captured."""
        sums = self._captured().values()
        parts = [_enlarge(maps, size).sum(2) for maps in sums]
        return torch.stack(parts).sum(0) / sum(maps.shape[2] for maps in sums)

    def mean(self, size: int | tuple[int, int]) -> Tensor:
        """`total` over the number of passes: probabilities."""
        return self.total(size) / self.passes

    def by_side(self) -> dict[int, Tensor]:
        """Height of a map -> float32 [B, objects, h, w]: the mean over passes and over the heads of
        the sites with maps of that height, coarsest first. Raises as `total`."""
        levels: dict[int, list[Tensor]] = {}
        for maps in self._captured().values():
            levels.setdefault(maps.shape[-2], []).append(maps)
        return {
            side: torch.cat(levels[side], dim=2).mean(2) / self.passes for side in sorted(levels)
        }

    def _captured(self) -> dict[str, Tensor]:
        if not self.passes:
            raise ValueError(
                "no step of a drawing was captured: draw, without gradients, while the capture is "
                "attached and has tokens"
            )
        return self._sums


class _DrawingReader:
    """One forward pass of a `DrawingCapture`, which learns its timestep."""

    keep_heads = True

    def __init__(self, inner: MapReader, capture: DrawingCapture) -> None:
        self.inner, self.capture, self.samples = inner, capture, inner.samples

    def token_weights(self, key: Tensor) -> Tensor:
        return self.inner.token_weights(key)

    def store(self, site: Site, maps: Tensor, forward: ForwardContext) -> None:
        if forward.timesteps is not None:
            self.capture._timestep = float(forward.timesteps.max())
        self.inner.store(site, maps, forward)


def _enlarge(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """[B, objects, heads, h, w] to ``size``; what bicubic interpolation puts below 0 is 0."""
    height, width = (size, size) if isinstance(size, int) else size
    large = F.interpolate(maps.flatten(1, 2), (height, width), mode="bicubic").clamp(min=0)
    return large.unflatten(1, maps.shape[1:3])


def outer_sites(candidates: Sequence[Site]) -> list[Site]:
    """The cross-attention layers that DAAM looks at: all but those of the mid block, and of maps
    with an eighth of the latents' side. Raises ValueError where there are none."""
    cross = select(candidates)
    sites = [site for site in cross if site.placement != "bridge" and site.level != COARSE]
    if not sites:
        raise ValueError(
            f"all {show_count(len(cross), 'layer')} of cross-attention are in the mid block or as "
            "coarse: choose a stage, a placement or a side of maps"
        )
    return sites


@dataclass
class WordMaps:
    """The image of a prompt, and the maps of its words.

    ``image`` uint8 [3, H, W]; ``token_maps`` float32 [T, h, w], of all ``tokens`` that the prompt
    was cut into (with begin and end) at the size of the latents, probabilities; ``by_side``: height
    of a map -> the same at the size of these layers, [T, h', w']. ``words`` are those that the text
    encoder reads whole, and ``token_indices`` where their tokens stand; ``cut`` are those behind
    them. ``passes``: of the denoiser, one a step with most schedulers.
    """

    prompt: str
    seed: int
    image: Tensor
    words: list[Phrase]
    token_indices: list[list[int]]
    cut: list[str]
    tokens: list[str]
    token_maps: Tensor
    by_side: dict[int, Tensor]
    passes: int

    @property
    def maps(self) -> Tensor:
        """float32 [words, h, w]: the mean over each word's tokens."""
        return self.average(self.token_indices)

    def average(self, token_indices: Sequence[Sequence[int]], side: int | None = None) -> Tensor:
        """float32 [n, h, w]: the mean over the tokens of each of n words, or phrases; with
        ``side``, of the layers of that size."""
        maps = self.token_maps if side is None else self.by_side[side]
        if not token_indices:
            return maps.new_zeros(0, *maps.shape[1:])
        return torch.stack([maps[list(indices)].mean(0) for indices in token_indices])


def find_words(prompt: str) -> list[Phrase]:
    """The words of a prompt without the punctuation around them, and without masks. Raises
    ValueError where there are none."""
    nowhere = torch.zeros(0, 0, dtype=torch.bool)
    words = [Phrase(m[0], m.start(), m.end(), nowhere) for m in WORD.finditer(prompt)]
    if not words:
        raise ValueError(
            f"prompt {prompt!r} has no word: expected at least one, whose map can be drawn"
        )
    return words


def prompt_tokens(backbone: Backbone, prompts: Sequence[str]) -> list[list[int]]:
    """The indices of all tokens of each prompt, with begin and end, as far as they are read: what
    `DrawingCapture` takes."""
    return [list(range(len(backbone.text.token_names(prompt)))) for prompt in prompts]


@torch.no_grad()
def draw_with_maps(
    model: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 30,
    guidance: float = 7.5,
    resolution: int | None = None,
    sites: Sequence[Site] | None = None,
    **given: Sequence[Any],
) -> list[WordMaps]:
    """An image and its `WordMaps` for each prompt and its seed.

    ``model`` is a `Backbone`, a diffusers pipeline, whose parts are frozen by that, or a method:
    what is ``given`` of ``masks`` and ``objects``, one entry a prompt, goes to its `generate`, and
    it has a resolution of its own. ``resolution`` in pixels: by default the model's own. ``sites``:
    whose maps; by default `outer_sites`. Images are drawn one by one. Raises ValueError where
    prompts and seeds differ in number, and on a prompt without a word.
    """
    if len(prompts) != len(seeds):
        raise ValueError(
            f"{show_count(len(prompts), 'prompt')} but {show_count(len(seeds), 'seed')}: expected "
            "one seed for each prompt"
        )
    found = [find_words(prompt) for prompt in prompts]
    backbone = _backbone_of(model)
    resolution = resolution or getattr(model, "resolution", None) or own_resolution(backbone)
    sites = outer_sites(backbone.sites(resolution)) if sites is None else list(sites)
    _, height, width = backbone.latent_size(resolution)
    kept, indices = backbone.text.locate_phrases(prompts, found)
    results = []
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        capture = DrawingCapture(sites, prompt_tokens(backbone, [prompt]))
        with capture.attached(backbone.denoiser):
            if hasattr(model, "generate"):
                own = {name: [entries[i]] for name, entries in given.items()}
                images = model.generate([prompt], [seed], steps=steps, guidance=guidance, **own)
            else:
                images = sample(backbone, [prompt], [seed], steps, guidance, resolution)
        read = {(word.start, word.end) for word in kept[i]}
        results.append(
            WordMaps(
                prompt,
                seed,
                images[0].cpu(),
                kept[i],
                indices[i],
                [word.text for word in found[i] if (word.start, word.end) not in read],
                backbone.text.token_names(prompt),
                capture.mean((height, width))[0].cpu(),
                {side: maps[0].cpu() for side, maps in capture.by_side().items()},
                capture.passes,
            )
        )
    return results


def own_resolution(backbone: Backbone) -> int:
    """The side in pixels of the images that the model was made for."""
    return backbone.latent_size()[1] * backbone.vae_scale_factor


def _backbone_of(model: Any) -> Backbone:
    """That of a method, of a pipeline, or itself."""
    if isinstance(model, Backbone):
        return model
    return getattr(model, "backbone", None) or Backbone(model, type(model).__name__)
