"""What looks at the stored images of an evaluation: each scorer gives columns, a value for each
image, and numbers over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from conf import load as conf
from conf.schema import Evaluation, Run
from lightning_modules.evaluation.plan import Prompt, real_rows
from lightning_modules.metrics.composition import Composition, GenEval
from lightning_modules.metrics.detection import judge_image
from lightning_modules.metrics.distribution import FeatureDistance
from lightning_modules.metrics.reference import reference

if TYPE_CHECKING:
    from lightning_modules.embedded.judge import Judge
    from lightning_modules.metrics import alignment
    from lightning_modules.metrics.detection import Detector
    from lightning_modules.metrics.features import Extractor

# Of several processes the first alone scores: no metric waits for the others
ALONE: dict[str, Any] = {"sync_on_compute": False}
CHUNK = 64  # images that are looked at at once
DENSITY_K = 5  # the neighbour of density / coverage, as in their paper

Columns = dict[str, list[Any]]
Emit = Callable[[str, float], None]


class Scorer(Protocol):
    """``add`` sees all images once, in order; ``finish`` comes after the last. ``facts`` say then
    what each number was measured with."""

    facts: dict[str, dict[str, Any]]

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """``images`` are uint8 [n, 3, H, W], ``names`` those of their files, one for each of the
        prompts."""
        ...

    def finish(self) -> dict[str, float]: ...


def scorers(
    config: Evaluation,
    datamodule: Any,
    prompts: Sequence[Prompt],
    folder: Path,
    device: str,
    emit: Emit,
) -> list[Scorer]:
    """All that the config asks for; reference statistics of real images are kept below ``folder``.
    Made once before a training, too: what cannot be had, or what no prompt says, is known then, and
    the real images are looked at once.

    Raises ValueError, FileNotFoundError or ImportError, in one line, where one of them cannot be
    had.
    """
    found: list[Scorer] = []
    if config.detector == "judge":
        from lightning_modules.embedded.judge import Judge

        found.append(JudgeScorer(Judge.load()))
    elif config.detector != "none":
        found.append(GenEvalScorer(_detector(config, device), prompts))
    if config.extractor != "none":
        from lightning_modules.metrics.features import extractor

        chosen = extractor(config.extractor, config.extractor_weights or None, device=device)
        found.append(DistributionScorer(chosen, datamodule, prompts, config, folder, emit))
    used: set[str] = set()
    for scorer in _aligners(config.aligners, device):
        title = scorer.name.partition("[")[0]
        key = next(
            name for name in (title, *(f"{title}_{i}" for i in range(2, 100))) if name not in used
        )
        used.add(key)
        found.append(AlignmentScorer(scorer, key))
    return found


def reference_folder(config: Run) -> Path:
    return Path(config.output) / "cache" / "reference"


def _detector(config: Evaluation, device: str) -> Detector:
    from lightning_modules.metrics.color_classifiers import color_classifier
    from lightning_modules.metrics.detectors import detector

    if config.detector.endswith(".jsonl"):
        return detector("file", path=config.detector)
    chosen = None
    if config.color_classifier != "none":
        chosen = (
            color_classifier("mean")
            if config.color_classifier == "mean"
            else color_classifier("clip", model=config.color_classifier, device=device)
        )
    return detector("transformers", chosen, model=config.detector, device=device)


def _aligners(names: Sequence[str], device: str) -> list[alignment.Scorer]:
    """Scores of each model: a CLIP's of the prompt and of its weakest half, a BLIP's of both heads;
    a BLIP that writes captions has them compared by the first CLIP."""
    from lightning_modules.metrics import alignment
    from lightning_modules.metrics.vision_language import BlipCaptioner, BlipMatcher, aligner

    models = [aligner(name, device=device) for name in names]
    embedders = [model for model in models if not isinstance(model, BlipCaptioner)]
    found: list[alignment.Scorer] = []
    for model in models:
        if isinstance(model, BlipCaptioner):
            if not embedders:
                raise ValueError(
                    f"evaluation.aligners={list(names)}: captions are compared by a CLIP; "
                    f"name one beside {model.label}"
                )
            found.append(alignment.CaptionSimilarity(model, embedders[0]))
        else:
            found += [alignment.Similarity(model), alignment.WeakestPart(model)]
        if isinstance(model, BlipMatcher):
            found.append(alignment.MatchProbability(model))
    return found


class JudgeScorer:
    """The embedded world: objects, colours and places as its judge sees them (`metrics.detection`),
    over all images and by split."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.whole = Composition(**ALONE)
        self.parts: dict[str, Composition] = {}
        self.scores: list[float] = []
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        wanted = [prompt.target for prompt in prompts]
        detections = self.judge.detect(images)
        scores = self.judge.target_scores(images, wanted).tolist()
        self.whole.update(detections, wanted)
        for prompt, found in zip(prompts, detections, strict=True):
            self.parts.setdefault(prompt.split, Composition(**ALONE)).update(
                [found], [prompt.target]
            )
        self.scores += scores
        verdicts = [
            judge_image(found, target) for found, target in zip(detections, wanted, strict=True)
        ]
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
        self.facts = {
            key: {"detector": "judge", "images": int(part["n_images"])}
            for key, part in parts.items()
        }
        self.facts |= {
            key: {"detector": "judge", "images": len(self.scores)}
            for key in (*whole, "score")
            if key != "n_images"
        }
        return {
            **whole,
            "score": sum(self.scores) / len(self.scores),
            **{key: part["success"] for key, part in parts.items()},
        }


class GenEvalScorer:
    """Prompts that say what they want in GenEval's form, over any detector: by GenEval's rules, and
    those of T2I-CompBench's plane by its spatial score, which knows more relations. What neither
    can judge is counted in the facts."""

    def __init__(self, detector: Detector, prompts: Sequence[Prompt]) -> None:
        from lightning_modules.metrics.geneval import check_spec

        self.detector = detector
        asked = {(p.split, p.index): dict(p.wanted) for p in prompts if p.wanted}
        if not asked:
            raise ValueError(
                f"evaluation.detector={detector.name}, but no prompt says what it wants: "
                "set it to none, or use data=prompts"
            )
        self.specs: dict[tuple[str, int], dict[str, Any]] = {}
        self.spatial: dict[tuple[str, int], dict[str, Any]] = {}
        for place, spec in asked.items():
            with suppress(ValueError):
                check_spec(spec)
                self.specs[place] = spec
            if spec.get("tag") == "spatial":
                self.spatial[place] = spec
        if not (self.specs or self.spatial):
            raise ValueError(
                f"evaluation.detector={detector.name}: no prompt wants what can be judged; "
                "set it to none"
            )
        self.unjudged = len(asked.keys() - self.specs.keys() - self.spatial.keys())
        self.places = {key: i for i, key in enumerate(self.specs)}
        self.metric = GenEval(list(self.specs.values()), **ALONE) if self.specs else None
        self.right: dict[str, list[bool]] = {}
        self.scores: list[float] = []
        self.side = 0
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        from lightning_modules.metrics.geneval import geneval_correct
        from lightning_modules.metrics.t2i_spatial import t2i_spatial

        self.side = int(images.shape[-1])
        right: list[bool | None] = [None] * len(prompts)
        spatial: list[float | None] = [None] * len(prompts)
        for i, (prompt, found) in enumerate(
            zip(prompts, self.detector.detect(images, names), strict=True)
        ):
            place = (prompt.split, prompt.index)
            if self.metric is not None and place in self.specs:
                self.metric.update([found], [self.places[place]])
                right[i] = geneval_correct(found, self.specs[place], **self.metric.rules)
                self.right.setdefault(prompt.split, []).append(bool(right[i]))
            if place in self.spatial:
                spatial[i] = t2i_spatial(found, self.spatial[place], self.side)
                self.scores.append(float(spatial[i] or 0))
        return ({"success": right} if self.specs else {}) | (
            {"spatial": spatial} if self.spatial else {}
        )

    def finish(self) -> dict[str, float]:
        from lightning_modules.metrics.t2i_spatial import spatial_facts

        values: dict[str, float] = {}
        about = {**self.detector.facts, "prompts_not_judged": self.unjudged}
        if self.metric is not None:
            found = self.metric.compute()
            values = {
                "success": found["images_right"],
                **{key: value for key, value in found.items() if key != "images_right"},
            }
            values |= {
                f"success_{split}": sum(right) / len(right) for split, right in self.right.items()
            }
            self.facts = {
                key: {**about, **self.metric.facts} for key in values if not key.startswith("n_")
            }
        if self.scores:
            values["spatial"] = sum(self.scores) / len(self.scores)
            self.facts["spatial"] = {
                **about,
                **spatial_facts(self.side),
                "images": len(self.scores),
            }
        return values


class DistributionScorer:
    """FID, KID, precision / recall and density / coverage between the images and the real ones
    behind the same prompts."""

    def __init__(
        self,
        extractor: Extractor,
        datamodule: Any,
        prompts: Sequence[Prompt],
        config: Evaluation,
        folder: Path,
        emit: Emit,
    ) -> None:
        places = [
            (datamodule.eval_sets[split], row)
            for split, rows in real_rows(prompts).items()
            for row in rows
        ]
        if any(not hasattr(dataset, "pixels") for dataset, _ in places):
            raise ValueError(
                f"evaluation.extractor={config.extractor} compares with real images, which "
                "prompts have not: set it to none"
            )
        self.extractor, self.k = extractor, config.precision_recall_k
        which = ["fid", "kid", "precision", "recall"]
        if min(len(places), len(prompts)) > DENSITY_K:
            which += ["density", "coverage"]

        def compute(numbers: list[int]) -> Tensor:
            return extractor(torch.stack([places[i][0].pixels(places[i][1]) for i in numbers]))

        side = int(places[0][0].pixels(places[0][1]).shape[-1])
        digests = {
            split: getattr(datamodule.eval_sets[split], "digest", None)
            for split in real_rows(prompts)
        }
        about = {**extractor.facts, "resolution": side}
        self.facts: dict[str, dict[str, Any]] = {}
        if all(digests.values()):
            data = conf.digest(
                {
                    split: [digest(), real_rows(prompts)[split]]
                    for split, digest in digests.items()
                    if digest
                }
            )
            facts = {**about, "data": data, "n": len(places)}
            kept = reference(folder, facts, compute, emit, CHUNK)
            self.metric = FeatureDistance(
                self.k, which, DENSITY_K, about=about, reference=kept, **ALONE
            )
        else:
            self.metric = FeatureDistance(self.k, which, DENSITY_K, about=about, **ALONE)
            for start in range(0, len(places), CHUNK):
                self.metric.update(
                    compute(list(range(start, min(start + CHUNK, len(places))))), real=True
                )

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        self.metric.update(self.extractor(images), real=False)
        return {}

    def finish(self) -> dict[str, float]:
        found = {
            key: value for key, value in self.metric.compute().items() if not key.startswith("n_")
        }
        told = {
            key: value
            for key, value in self.metric.facts().items()
            if key not in ("data", "n", "small")
        }
        own = {"fid": ("warning",), "precision": ("k", "strict"), "recall": ("k", "strict")}
        own |= dict.fromkeys(("density", "coverage"), ("density_k", "strict"))
        special = {"warning", "k", "strict", "density_k"}
        self.facts = {
            key: {
                name: value
                for name, value in told.items()
                if name not in special or name in own.get(key, ())
            }
            for key in found
        }
        return found


class AlignmentScorer:
    """How well images fit their prompts, by a model of images and texts."""

    def __init__(self, scorer: alignment.Scorer, key: str) -> None:
        from lightning_modules.metrics.alignment import Alignment

        self.scorer, self.metric, self.key = scorer, Alignment(scorer, **ALONE), key
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        return {self.key: self.metric(images, [prompt.text for prompt in prompts]).tolist()}

    def finish(self) -> dict[str, float]:
        found = self.metric.compute()
        self.facts = {
            self.key: {
                "score": self.scorer.name,
                "images": int(found["n_images"]),
                **self.scorer.facts,
            }
        }
        return {self.key: found[self.scorer.name]}
