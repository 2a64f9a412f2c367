"""What looks at the stored images of an evaluation: each scorer gives columns, a value for each image, and numbers over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from conf import load as conf
from conf.schema import Evaluation
from lightning_modules.metrics.composition import Composition, GenEval
from lightning_modules.metrics.detection import judge_image
from lightning_modules.metrics.distribution import FeatureDistance
from lightning_modules.metrics.reference import reference
from lightning_modules.prompts import Prompt, real_rows

if TYPE_CHECKING:
    from lightning_modules.metrics import alignment
    from lightning_modules.metrics.detectors import Detector
    from lightning_modules.metrics.extractors import Extractor
    from lightning_modules.metrics.judge import Judge

CHUNK = 64  # images that are looked at at once
DENSITY_K = 5  # the neighbour of density / coverage, as in their paper

Columns = dict[str, list[Any]]
Emit = Callable[[str, float], None]


class Scorer(Protocol):
    """``add`` sees all images once, in order; ``finish`` comes after the last. ``facts`` say then what each number was measured with."""

    facts: dict[str, dict[str, Any]]

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """``images`` are uint8 [n, 3, H, W], ``names`` those of their files, one for each of the prompts."""
        ...

    def finish(self) -> dict[str, float]: ...


def scorers(config: Evaluation, datamodule: Any, prompts: Sequence[Prompt], folder: Path, device: str, emit: Emit) -> list[Scorer]:
    """All that the config asks for; reference statistics of real images are kept below ``folder``.

    Raises ValueError, FileNotFoundError or ImportError, in one line, where one of them cannot be had.
    """
    found: list[Scorer] = []
    if config.detector == "judge":
        from lightning_modules.metrics.judge import Judge

        found.append(Judged(Judge.load()))
    elif config.detector != "none":
        found.append(Wanted(_detector(config, device), prompts))
    if config.extractor != "none":
        from lightning_modules.metrics.extractors import extractor

        chosen = extractor(config.extractor, config.extractor_weights or None, device=device)
        found.append(Distances(chosen, datamodule, prompts, config, folder, emit))
    found += [Aligned(scorer) for scorer in _aligners(config.aligners, device)]
    return found


def check_models(config: Evaluation) -> None:
    """Loads the models of `scorers` once and forgets them: what cannot be had is known before a training. Raises as they do."""
    if config.detector not in ("judge", "none"):
        _detector(config, "cpu")
    if config.extractor not in ("judge", "none"):
        from lightning_modules.metrics.extractors import extractor

        extractor(config.extractor, config.extractor_weights or None)
    _aligners(config.aligners, "cpu")


def _detector(config: Evaluation, device: str) -> Detector:
    from lightning_modules.metrics.colorists import colorist
    from lightning_modules.metrics.detectors import detector

    if config.detector.endswith(".jsonl"):
        return detector("file", path=config.detector)
    chosen = {"none": None, "mean": lambda: colorist("mean")}.get(
        config.colorist, lambda: colorist("clip", model=config.colorist, device=device)
    )
    return detector("transformers", chosen and chosen(), model=config.detector, device=device)


def _aligners(names: Sequence[str], device: str) -> list[alignment.Scorer]:
    """Scores of each model: a CLIP's of the prompt and of its weakest half, a BLIP's of both heads; a BLIP that writes captions has them
    compared by the first CLIP."""
    from lightning_modules.metrics import alignment
    from lightning_modules.metrics.vision_language import BlipCaptioner, BlipMatcher, aligner

    models = [aligner(name, device=device) for name in names]
    embedders = [model for model in models if not isinstance(model, BlipCaptioner)]
    found: list[alignment.Scorer] = []
    for model in models:
        if isinstance(model, BlipCaptioner):
            if not embedders:
                raise ValueError(f"evaluation.aligners={list(names)}: captions are compared by a CLIP; name one beside {model.label}")
            found.append(alignment.CaptionSimilarity(model, embedders[0]))
        else:
            found += [alignment.Similarity(model), alignment.WeakestPart(model)]
        if isinstance(model, BlipMatcher):
            found.append(alignment.MatchProbability(model))
    return found


class Judged:
    """The embedded world: objects, colours and places as its judge sees them (`metrics.detection`), over all images and by split."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.whole = Composition()
        self.parts: dict[str, Composition] = {}
        self.scores: list[float] = []
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        wanted = [prompt.target for prompt in prompts]
        detections = self.judge.detect(images)
        scores = self.judge.target_scores(images, wanted).tolist()
        self.whole.update(detections, wanted)
        for prompt, found in zip(prompts, detections, strict=True):
            self.parts.setdefault(prompt.split, Composition()).update([found], [prompt.target])
        self.scores += scores
        verdicts = [judge_image(found, target) for found, target in zip(detections, wanted, strict=True)]
        return {
            "success": [verdict.success for verdict in verdicts],
            "score": [round(score, 6) for score in scores],
            "wanted_objects": [verdict.wanted for verdict in verdicts],
            "right_objects": [verdict.objects for verdict in verdicts],
            "extra_objects": [verdict.extra for verdict in verdicts],
        }

    def finish(self) -> dict[str, float]:
        parts = {f"success_{split}": part.compute() for split, part in self.parts.items()}
        whole = self.whole.compute()
        self.facts = {key: {"detector": "judge", "images": int(part["n_images"])} for key, part in parts.items()}
        self.facts |= {key: {"detector": "judge", "images": len(self.scores)} for key in (*whole, "score") if key != "n_images"}
        return {**whole, "score": sum(self.scores) / len(self.scores), **{key: part["success"] for key, part in parts.items()}}


class Wanted:
    """Prompts that say what they want in GenEval's form, by GenEval's rules over any detector; others are not judged."""

    def __init__(self, detector: Detector, prompts: Sequence[Prompt]) -> None:
        self.detector = detector
        specs = {(p.split, p.index): dict(p.wanted) for p in prompts if p.wanted}
        if not specs:
            raise ValueError(f"evaluation.detector={detector.name}, but no prompt says what it wants: set it to none, or use data=prompts")
        self.places = {key: i for i, key in enumerate(specs)}
        self.metric = GenEval(list(specs.values()))
        self.right: dict[str, list[bool]] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        from lightning_modules.metrics.geneval import geneval_correct

        detections = self.detector.detect(images, names)
        known = [i for i, prompt in enumerate(prompts) if prompt.wanted]
        self.metric.update([detections[i] for i in known], [self.places[prompts[i].split, prompts[i].index] for i in known])
        right: list[bool | None] = [None] * len(prompts)
        for i in known:
            right[i] = geneval_correct(detections[i], prompts[i].wanted or {}, **self.metric.rules)
            self.right.setdefault(prompts[i].split, []).append(bool(right[i]))
        return {"success": right}

    def finish(self) -> dict[str, float]:
        found = self.metric.compute()
        values = {"success": found["images_right"], **{key: value for key, value in found.items() if key != "images_right"}}
        values |= {f"success_{split}": sum(right) / len(right) for split, right in self.right.items()}
        self.facts = {key: {**self.detector.facts, **self.metric.facts} for key in values if not key.startswith("n_")}
        return values


class Distances:
    """FID, KID, precision / recall and density / coverage between the images and the real ones behind the same prompts."""

    def __init__(
        self, extractor: Extractor, datamodule: Any, prompts: Sequence[Prompt], config: Evaluation, folder: Path, emit: Emit
    ) -> None:
        places = [(datamodule.eval_sets[split], row) for split, rows in real_rows(prompts).items() for row in rows]
        if any(not hasattr(dataset, "pixels") for dataset, _ in places):
            raise ValueError(f"evaluation.extractor={config.extractor} compares with real images, which prompts have not: set it to none")
        self.extractor, self.k = extractor, config.precision_recall_k
        which = ["fid", "kid", "precision", "recall"]
        if min(len(places), len(prompts)) > DENSITY_K:
            which += ["density", "coverage"]

        def compute(numbers: list[int]) -> Tensor:
            return extractor(torch.stack([places[i][0].pixels(places[i][1]) for i in numbers]))

        side = int(places[0][0].pixels(places[0][1]).shape[-1])
        digests = {split: getattr(datamodule.eval_sets[split], "digest", None) for split in real_rows(prompts)}
        about = {**extractor.facts, "resolution": side}
        self.facts: dict[str, dict[str, Any]] = {}
        if all(digests.values()):
            data = conf.digest({split: [digest(), real_rows(prompts)[split]] for split, digest in digests.items() if digest})
            facts = {**about, "data": data, "n": len(places)}
            kept = reference(folder, facts, compute, emit, CHUNK)
            self.metric = FeatureDistance(self.k, which, DENSITY_K, about=about, reference=kept)
        else:
            self.metric = FeatureDistance(self.k, which, DENSITY_K, about=about)
            for start in range(0, len(places), CHUNK):
                self.metric.update(compute(list(range(start, min(start + CHUNK, len(places))))), real=True)

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        self.metric.update(self.extractor(images), real=False)
        return {}

    def finish(self) -> dict[str, float]:
        found = {key: value for key, value in self.metric.compute().items() if not key.startswith("n_")}
        told = {key: value for key, value in self.metric.facts().items() if key not in ("data", "n", "small")}
        own = {"fid": ("warning",), "precision": ("k", "strict"), "recall": ("k", "strict")}
        own |= dict.fromkeys(("density", "coverage"), ("density_k", "strict"))
        special = {"warning", "k", "strict", "density_k"}
        self.facts = {
            key: {name: value for name, value in told.items() if name not in special or name in own.get(key, ())} for key in found
        }
        return found


class Aligned:
    """How well images fit their prompts, by a model of images and texts."""

    def __init__(self, scorer: alignment.Scorer) -> None:
        from lightning_modules.metrics.alignment import Alignment

        self.scorer, self.metric = scorer, Alignment(scorer)
        self.key = scorer.name.partition("[")[0]
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        return {self.key: self.metric(images, [prompt.text for prompt in prompts]).tolist()}

    def finish(self) -> dict[str, float]:
        found = self.metric.compute()
        self.facts = {self.key: {"score": self.scorer.name, "images": int(found["n_images"]), **self.scorer.facts}}
        return {self.key: found[self.scorer.name]}
