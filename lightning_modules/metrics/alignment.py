"""How well images agree with their prompts, by CLIP, SigLIP and BLIP: pure functions, scores
over them, and one scorer for all.

A score is called as ``score(images, prompts) -> float32 [N]`` (uint8 [N, 3, H, W] and N prompts)
and says in ``name`` and ``facts`` which model, scale and templates its number has: "CLIP score"
alone names at least three different ones.

* `Similarity`: image against prompt. With CLIP the CLIP score, with SigLIP the same cosine of its
  space, with BLIP its contrastive cosine (ITC).
* `WeakestPart`: the smallest of the similarities with the prompt's halves (Attend-and-Excite,
  arXiv:2301.13826, section 5).
* `CaptionSimilarity`: a caption that BLIP writes for the image against the prompt, both as texts,
  by CLIP (the same paper).
* `MatchProbability`: BLIP's head that sees image and prompt together (ITM).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from conf.describe import show_count
from lightning_modules.metrics.benchmarks import describe_plan
from lightning_modules.metrics.registry import Columns, ScoringContext, check_images
from lightning_modules.metrics.vision_language import (
    BlipCaptioner,
    BlipMatcher,
    Embedder,
    kind_of,
    load_aligner,
)

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from lightning_modules.evaluation.plan import Prompt


PLAIN = ("{}",)


def _imagenet_templates() -> tuple[str, ...]:
    things = (
        "bad photo, sculpture, low resolution photo, rendering, cropped photo, tattoo, bright "
        "photo, dark photo, drawing, close-up photo, black and white photo, painting, pixelated "
        "photo, jpeg corrupted photo, blurry photo, photo, good photo, doodle, sketch, rendition"
    )
    of = [f"a {thing}" for thing in things.split(", ")] + ["graffiti", "art", "itap"]
    looks = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
    makes = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
    templates = ["a photo of many {}.", "a photo of one {}.", "a photo of my {}.", "itap of my {}."]
    for article in ("a", "the"):
        templates += [f"{thing} of {article} {{}}." for thing in of]
        templates += [f"a photo of {article} {look} {{}}." for look in looks]
        templates += [f"{article} {make} {{}}." for make in makes]
        templates.append(f"{article} {{}} in a video game.")
    return tuple(templates)


# The 80 sentences with which OpenAI's CLIP classifies ImageNet (its notebook
# Prompt_Engineering_for_ImageNet). Only their mean is used, so their order has no effect.
IMAGENET_TEMPLATES = _imagenet_templates()


class Scale(NamedTuple):
    """How a cosine becomes a score."""

    label: str
    factor: float
    floor: str  # What cannot fall below 0: "none", each "sample", or the "mean"
    templates: tuple[str, ...] = PLAIN


SCALES = {
    "cosine": Scale("cos", 1.0, "none"),
    "torchmetrics": Scale("100·cos", 100.0, "mean"),
    # arXiv:2104.08718, section 3
    "hessel": Scale("2.5·max(cos, 0)", 2.5, "sample", ("A photo depicts {}",)),
}


def fill_template(template: str, prompt: str) -> str:
    """The prompt instead of ``{}``, with one article instead of two ("a photo of the a cat" ->
    "a photo of a cat").

    Attend-and-Excite's code replaces "a a" and "the a" by "a" anywhere in the text. This does so to
    whole words only, which is the same for that paper's prompts; the code also makes "a zebrand a
    cat" of "a zebra and a cat". Where the template ends in a full stop, the prompt's own is left
    out. Raises ValueError if the template has not exactly one ``{}``.
    """
    if template.count("{}") != 1:
        raise ValueError(
            f"template {template!r} has {show_count(template.count('{}'), 'field')} for the "
            "prompt: "
            f"expected one {{}}"
        )
    if template == "{}":
        return prompt
    text = template.replace(
        "{}", prompt.strip().rstrip(".") if template.endswith(".") else prompt.strip()
    )
    return re.sub(r"\b(?:a|the) (an?)\b", r"\1", text, flags=re.IGNORECASE)


def split_prompt(prompt: str) -> list[str]:
    """The parts of a prompt between " and "s or, where there is none, between " with "s; empty
    where there is neither.

    Attend-and-Excite's rule for its prompts of two things. Of three its code looks at the first two
    only; here all count.
    """
    for word in ("and", "with"):
        parts = [part.strip() for part in re.split(rf"\s{word}\s", prompt, flags=re.IGNORECASE)]
        if len(parts) > 1 and all(parts):
            return parts
    return []


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


def scale_cosines(cosines: Tensor, scale: str) -> Tensor:
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
            f"{show_count(len(images), 'image')} but {show_count(len(parts), 'list')} of parts: "
            "give one list per image"
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
            fill_template(template, "")
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
                [fill_template(template, prompt) for prompt in some for template in self.templates]
            )
            for i, prompt in enumerate(some):
                mine = slice(i * count, (i + 1) * count)
                self.memory[prompt] = mean_direction(vectors[mine]), any(cut[mine])
        if not prompts:
            return self.model.texts([])
        return torch.stack([self.memory[p][0] for p in prompts]), [
            self.memory[p][1] for p in prompts
        ]


class Score(Protocol):
    """A number for each image and its prompt."""

    name: str
    floor: str  # As `Scale.floor`
    truncated: int  # Images so far whose text was longer than the model reads

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
        own = (
            [repr(templates[0]) if len(templates) == 1 else f"{len(templates)} templates"]
            if templates != scale.templates
            else []
        )
        return f"{title}[{', '.join([*models, scale.label, *own])}]"

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
        return scale_cosines(cosine(self.model.images(images), texts), self.scale)


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
        return scale_cosines(
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
                f"{show_count(len(captions), 'caption')} but "
                f"{show_count(len(prompts), 'prompt')}: give one prompt per caption"
            )
        wanted, cut = self.prompts(prompts)
        written, _ = self.model.texts(captions)
        self.truncated += sum(cut)
        return scale_cosines(cosine(written, wanted), self.scale)


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
            f"{show_count(len(images), 'image')} but {given} as prompts: give a list with one "
            "prompt per image"
        )


def build(context: ScoringContext) -> list[AlignmentScorer]:
    """A scorer for each score of each model in ``evaluation.aligners``: a CLIP's of the prompt and
    of its weakest half, a BLIP's of both heads; the captions that a BLIP writes are compared by the
    first CLIP. A second model of one kind has ``_2`` behind its key. Raises as `load_aligner`."""
    scores = _scores(context.evaluation.aligners, context.device)
    titles = [score.name.partition("[")[0] for score in scores]
    number = [titles[:i].count(title) + 1 for i, title in enumerate(titles)]
    keys = [title if n == 1 else f"{title}_{n}" for title, n in zip(titles, number, strict=True)]
    about = describe_plan(context.prompts)
    return [AlignmentScorer(score, key, about) for score, key in zip(scores, keys, strict=True)]


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it."""
    if any(split_prompt(prompt.text) for prompt in prompts):
        return {}
    weakest = (f"{score}_weakest_part" for score in ("clip_score", "siglip_score", "blip_itc"))
    return dict.fromkeys(weakest, 'no prompt has parts (joined by "and" or "with")')


def check_aligners(names: Sequence[str]) -> None:
    """Whether the models are there and of kinds that can score; loads none. Raises
    FileNotFoundError or ValueError."""
    kinds = [kind_of(name) for name in names]
    captioners = [name for name, kind in zip(names, kinds, strict=True) if kind is BlipCaptioner]
    if captioners and len(captioners) == len(names):
        raise ValueError(
            f"evaluation.aligners={list(names)}: captions are compared by a CLIP; name one beside "
            f"{captioners[0]}"
        )


def _scores(names: Sequence[str], device: str) -> list[Score]:
    models = [load_aligner(name, device=device) for name in names]
    embedders = [model for model in models if not isinstance(model, BlipCaptioner)]
    scores: list[Score] = []
    for model in models:
        if isinstance(model, BlipCaptioner):
            if not embedders:
                raise ValueError(
                    f"evaluation.aligners={list(names)}: captions are compared by a CLIP; "
                    f"name one beside {model.label}"
                )
            scores.append(CaptionSimilarity(model, embedders[0]))
        else:
            scores += [Similarity(model), WeakestPart(model)]
        if isinstance(model, BlipMatcher):
            scores.append(MatchProbability(model))
    return scores


class AlignmentScorer:
    """The mean of a score over all images that have one; under ``key`` in the table and in the
    numbers. ``prompts_from`` says how much of which benchmarks the prompts are."""

    def __init__(self, score: Score, key: str, prompts_from: Sequence[str] = ()) -> None:
        self.score, self.key, self.prompts_from = score, key, prompts_from
        self.total, self.images = torch.zeros((), dtype=torch.float64), 0
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; nan for an image without a score."""
        scores = self.score(images, [prompt.text for prompt in prompts])
        defined = ~scores.isnan()
        self.total += scores[defined].double().sum()
        self.images += int(defined.sum())
        return {self.key: scores.tolist()}

    def finish(self) -> dict[str, float]:
        """As `Scorer`; nan where no image has a score."""
        mean = float(self.total / self.images) if self.images else float("nan")
        facts = {"score": self.score.name, "images": self.images, **self.score.facts}
        if self.prompts_from:
            facts["prompts_from"] = "; ".join(self.prompts_from)
        if not self.images:
            facts["undefined"] = "no image has a score"
        self.facts = {self.key: facts}
        floored = self.score.floor == "mean" and mean < 0  # Not where it is nan
        return {self.key: 0.0 if floored else mean}
