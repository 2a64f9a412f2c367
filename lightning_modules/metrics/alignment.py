"""How well images agree with their prompts, by CLIP and BLIP: pure functions, scorers over them,
and one torchmetrics Metric for all.

A scorer is called as ``scorer(images, prompts) -> float32 [N]`` (uint8 [N, 3, H, W] and N prompts)
and says in ``name`` and ``facts`` which model, scale and templates its number has: "CLIP score"
alone names at least three different ones.

* `Similarity`: image against prompt. With CLIP the CLIP score, with BLIP its contrastive cosine (ITC).
* `WeakestPart`: the smallest of the similarities with the prompt's halves (Attend-and-Excite, arXiv:2301.13826, section 5).
* `CaptionSimilarity`: a caption that BLIP writes for the image against the prompt, both as texts, by CLIP (the same paper).
* `MatchProbability`: BLIP's head that sees image and prompt together (ITM).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lightning_modules.metrics.distribution import gather_to_cpu
from lightning_modules.metrics.templates import IMAGENET_TEMPLATES, PLAIN, fill, split_prompt
from lightning_modules.metrics.vision_language import (
    BlipCaptioner,
    BlipMatcher,
    Embedder,
    check_images,
)


class Scale(NamedTuple):
    """How a cosine becomes a score."""

    label: str
    factor: float
    floor: str  # what cannot fall below 0: "none", each "sample", or the "mean"
    templates: tuple[str, ...] = PLAIN


SCALES = {
    "cosine": Scale("cos", 1.0, "none"),
    "torchmetrics": Scale("100·cos", 100.0, "mean"),
    # arXiv:2104.08718, section 3
    "hessel": Scale("2.5·max(cos, 0)", 2.5, "sample", ("A photo depicts {}",)),
}


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of vectors row by row, computed in float64: [..., d] and [..., d] -> float32 [...] in
    [-1, 1].

    Raises ValueError if the last sides differ or a value is not finite.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"cosines compare vectors of equal length, not {list(a.shape)} and "
            f"{list(b.shape)}: take both from one model"
        )
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ValueError("cosines got features that are not finite: look at the model's weights")
    return F.cosine_similarity(a.double(), b.double(), dim=-1).clamp(-1, 1).float()


def scaled(cosines: Tensor, scale: str) -> Tensor:
    """Cosines as one of ``SCALES`` gives them for single images. Raises ValueError on an unknown
    scale."""
    factor, floor = _scale(scale).factor, _scale(scale).floor
    return factor * (cosines.clamp(min=0) if floor == "sample" else cosines)


def _scale(name: str) -> Scale:
    if name not in SCALES:
        raise ValueError(f"scale={name!r} is unknown: expected one of {', '.join(SCALES)}")
    return SCALES[name]


def minimum_over_parts(images: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Each image's smallest cosine with the texts of its prompt's parts: [N, d] and N of [P, d] ->
    float32 [N]; nan where P is 0."""
    if len(images) != len(parts):
        raise ValueError(
            f"{len(images)} images but {len(parts)} lists of parts: give one list per image"
        )
    smallest = [
        cosine(image, part).min() if len(part) else torch.tensor(torch.nan)
        for image, part in zip(images, parts, strict=True)
    ]
    return torch.stack(smallest) if smallest else torch.zeros(0)


def mean_direction(vectors: Tensor) -> Tensor:
    """The direction of the mean of vectors that each count alike: [T, d] -> float32 unit vector
    [d]."""
    return F.normalize(F.normalize(vectors.double(), dim=-1).mean(0), dim=0).float()


class _Prompts:
    """Prompts' vectors, averaged over templates; each prompt is computed once."""

    def __init__(self, model: Embedder, templates: Sequence[str]) -> None:
        if not templates:
            raise ValueError("templates=[] leaves no text to compare with: give at least '{}'")
        for template in templates:
            fill(template, "")
        self.model, self.templates = model, tuple(templates)
        self.memory: dict[str, tuple[Tensor, bool]] = {}

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """N prompts -> float32 unit vectors [N, d], and which were cut in any of their
        sentences."""
        new, count = (
            [p for p in dict.fromkeys(prompts) if p not in self.memory],
            len(self.templates),
        )
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            vectors, cut = self.model.texts(
                [fill(template, prompt) for prompt in some for template in self.templates]
            )
            for i, prompt in enumerate(some):
                mine = slice(i * count, (i + 1) * count)
                self.memory[prompt] = mean_direction(vectors[mine]), any(cut[mine])
        if not prompts:
            return self.model.texts([])
        return torch.stack([self.memory[p][0] for p in prompts]), [
            self.memory[p][1] for p in prompts
        ]


class Scorer(Protocol):
    name: str
    floor: str  # as `Scale.floor`
    truncated: int  # images so far whose text was longer than the model reads

    @property
    def facts(self) -> dict[str, Any]: ...

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor: ...


class Similarity:
    """Cosine of image and prompt: the CLIP score, or BLIP's ITC where ``model`` is a `BlipMatcher`.

    ``scale``: "torchmetrics" (100·cos, the mean not below 0), "hessel" (2.5·max(cos, 0) of "A photo
    depicts …") or "cosine". ``templates``: sentences with ``{}`` over which the prompt's vector is
    averaged; by default the scale's own.
    """

    def __init__(
        self, model: Embedder, scale: str = "torchmetrics", templates: Sequence[str] | None = None
    ) -> None:
        self.model, self.scale, self.floor = model, scale, _scale(scale).floor
        self.prompts = _Prompts(model, _scale(scale).templates if templates is None else templates)
        self.truncated = 0
        self.name = self._name(model.score, model.label)

    def _name(self, title: str, *models: str) -> str:
        """Templates are named where they are not the scale's own."""
        scale, templates = _scale(self.scale), self.prompts.templates
        said = (
            [repr(templates[0]) if len(templates) == 1 else f"{len(templates)} templates"]
            if templates != scale.templates
            else []
        )
        return f"{title}[{', '.join([*models, scale.label, *said])}]"

    @property
    def facts(self) -> dict[str, Any]:
        """What the score is, as JSON values; ``truncated`` counts the images so far whose text lost
        its end."""
        return {
            **self.model.facts,
            "scale": _scale(self.scale).label,
            "floor": self.floor,
            "templates": "ImageNet (80)"
            if set(self.prompts.templates) == set(IMAGENET_TEMPLATES)
            else list(self.prompts.templates),
            "truncated": self.truncated,
        }

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """float32 [N]. Raises ValueError on images that are not uint8 [N, 3, H, W], and if there is
        not one prompt per image."""
        _check(images, prompts)
        texts, cut = self.prompts(prompts)
        self.truncated += sum(cut)
        return scaled(cosine(self.model.images(images), texts), self.scale)


class WeakestPart(Similarity):
    """The smallest cosine of the image with the parts of its prompt; nan for prompts without parts.

    ``parts``: gives a prompt's parts, `split_prompt` by default; for given phrases the ``get`` of a
    dict from prompts to phrases.
    """

    def __init__(
        self,
        model: Embedder,
        scale: str = "cosine",
        templates: Sequence[str] | None = None,
        parts: Callable[[str], Sequence[str] | None] = split_prompt,
    ) -> None:
        super().__init__(model, scale, templates)
        self.parts, self.name = parts, self._name(f"{model.score}_weakest_part", model.label)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Similarity`."""
        _check(images, prompts)
        phrases = [list(self.parts(prompt) or []) for prompt in prompts]
        vectors, cut = self.prompts([phrase for row in phrases for phrase in row])
        each = iter(cut)
        self.truncated += sum(any([next(each) for _ in row]) for row in phrases)
        return scaled(
            minimum_over_parts(
                self.model.images(images), vectors.split([len(row) for row in phrases])
            ),
            self.scale,
        )


class CaptionSimilarity(Similarity):
    """Cosine of two texts: the prompt, averaged over ``templates``, and the plain caption that BLIP
    writes for the image."""

    def __init__(
        self,
        captioner: BlipCaptioner,
        model: Embedder,
        scale: str = "cosine",
        templates: Sequence[str] | None = None,
    ) -> None:
        super().__init__(model, scale, templates)
        self.captioner, self.name = (
            captioner,
            self._name("caption_similarity", captioner.label, model.label),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """As `Similarity`; the captioner's lie under ``captioner``."""
        return {**super().facts, "captioner": self.captioner.facts}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Similarity`."""
        _check(images, prompts)
        return self.compare(self.captioner.captions(images), prompts)

    def compare(self, captions: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """The scores of captions that are there already, float32 [N]."""
        if len(captions) != len(prompts):
            raise ValueError(
                f"{len(captions)} captions but {len(prompts)} prompts: give one prompt per caption"
            )
        wanted, cut = self.prompts(prompts)
        written, _ = self.model.texts(captions)
        self.truncated += sum(cut)
        return scaled(cosine(written, wanted), self.scale)


class MatchProbability:
    """The probability, by BLIP's matching head, that the prompt belongs to the image."""

    floor = "none"

    def __init__(self, model: BlipMatcher) -> None:
        self.model, self.truncated = model, 0
        self.name = f"blip_itm[{model.label}, probability]"

    @property
    def facts(self) -> dict[str, Any]:
        """As `Similarity`."""
        return {
            **self.model.facts,
            "scale": "probability",
            "floor": self.floor,
            "first_token": "[CLS]",
            "truncated": self.truncated,
        }

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As `Similarity`."""
        _check(images, prompts)
        scores, cut = self.model.match(images, prompts)
        self.truncated += sum(cut)
        return scores


def attend_and_excite(model: Embedder, captioner: BlipCaptioner | None = None) -> list[Similarity]:
    """The paper's scores: full prompt, weakest half and, with a captioner, caption similarity;
    plain cosines, 80 ImageNet templates.

    The paper's models are openai/clip-vit-base-patch16 and BLIP base fine-tuned on COCO captions.
    """
    scores = [
        Similarity(model, "cosine", IMAGENET_TEMPLATES),
        WeakestPart(model, "cosine", IMAGENET_TEMPLATES),
    ]
    return (
        scores
        if captioner is None
        else [*scores, CaptionSimilarity(captioner, model, "cosine", IMAGENET_TEMPLATES)]
    )


def _check(images: Tensor, prompts: Sequence[str]) -> None:
    check_images(images)
    if isinstance(prompts, str) or len(images) != len(prompts):
        given = "one string" if isinstance(prompts, str) else str(len(prompts))
        raise ValueError(
            f"{len(images)} images but {given} as prompts: give a list with one prompt per image"
        )


class Alignment(Metric):
    """The mean of a scorer over all images seen, on all ranks.

    ``compute`` returns a dict of floats: the mean under the scorer's name, ``n_images`` (those in
    the mean), ``n_undefined`` (images whose score is nan, left out) and ``n_truncated`` (images
    whose text was longer than the model reads). Every state is a sum, so that ranks with unequal
    numbers of images (none included) reduce exactly. Images that a sampler repeated count twice:
    give each image once.

    ``scores``: one float per image given on this rank, in their order; calling the metric returns
    those of the batch, [N].
    """

    full_state_update = False

    def __init__(self, scorer: Scorer, **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather_to_cpu, **kwargs)
        self.scorer = scorer
        self.scores: list[float] = []
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("images", "undefined", "truncated"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        """uint8 [N, 3, H, W] and N prompts. Raises as the scorer does."""
        before = self.scorer.truncated
        scores = self.scorer(images, prompts)
        defined = ~scores.isnan()
        self.total += scores[defined].double().sum().to(self.total.device)
        self.images += int(defined.sum())
        self.undefined += int((~defined).sum())
        self.truncated += self.scorer.truncated - before
        self.scores += scores.tolist()

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Adds a batch and returns its scores, float32 [N]."""
        self.update(images, prompts)
        return torch.tensor(self.scores[len(self.scores) - len(images) :])

    def compute(self) -> dict[str, float]:
        """Raises ValueError if no image was given; the mean is nan if none of them has a score."""
        if self.images + self.undefined == 0:
            raise ValueError(
                f"no image was scored by {self.scorer.name}: call update before compute"
            )
        mean = float(self.total / self.images) if self.images else float("nan")
        return {
            self.scorer.name: max(0.0, mean) if self.scorer.floor == "mean" else mean,
            "n_images": float(self.images),
            "n_undefined": float(self.undefined),
            "n_truncated": float(self.truncated),
        }

    def reset(self) -> None:
        super().reset()
        self.scores = []
