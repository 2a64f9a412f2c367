"""One evaluation plan for all methods: the same prompts and noise -> images -> what the judge says of them.

Prompts are the first captions of the evaluation splits, in the order of the dataset. Noise j of prompt i of split k under run seed s
is seeded by (s, j, k, i) alone, so that every cell of a sweep draws on the same noise: comparisons are paired. Reference images for FID and
precision / recall are the real images behind the same prompts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from conf.schema import Evaluation
from datamodules.batch import Phrase
from datamodules.coco import CocoDataModule, CocoDataset
from lightning_modules.following import as_given, following, target_masks
from lightning_modules.method import Method
from lightning_modules.metrics.composition import Composition
from lightning_modules.metrics.detection import Target, judge_image
from lightning_modules.metrics.distribution import FeatureDistance
from lightning_modules.metrics.judge import Judge

Emit = Callable[[str, float], None]


@dataclass(frozen=True)
class Prompt:
    """A prompt, what its image should show, and the seed of its noise."""

    split: str
    index: int
    id: int
    text: str
    target: Target
    noise: int
    phrases: tuple[Phrase, ...] = ()  # words whose objects have a place in the real image
    names: tuple[str, ...] = ()       # what each of these objects is in plain words


def plan(datamodule: CocoDataModule, config: Evaluation, seed: int) -> list[Prompt]:
    """``config.prompts`` prompts of each split.

    Raises ValueError when a split is unknown, or holds fewer images than prompts are asked for.
    """
    prompts = []
    for k, split in enumerate(config.splits):
        if split not in datamodule.eval_sets:
            raise ValueError(f"evaluation.splits names {split!r}: this dataset has {', '.join(datamodule.eval_sets)}")
        dataset = datamodule.eval_sets[split]
        if len(dataset) < config.prompts:
            have = f"split {split!r} has {len(dataset)} images"
            raise ValueError(f"evaluation.prompts={config.prompts} but {have}: set data.eval_images higher")
        for i in range(config.prompts):
            caption = dataset.caption(i)
            for j in range(config.noise_seeds):
                noise = ((j * 1000 + seed) * 100 + k) * 1_000_000 + i
                target, phrases = _target(dataset, i, caption.relation), dataset.phrases(i)
                names = [_name(dataset, i, phrase) for phrase in phrases]
                prompts.append(Prompt(split, i, dataset.records[i].id, caption.text, target, noise, tuple(phrases), tuple(names)))
    return prompts


def _target(dataset: CocoDataset, index: int, relation: str | None) -> Target:
    return Target([(o.color or "", o.label) for o in dataset.instances(index)], relation)


def _name(dataset: CocoDataset, index: int, phrase: Phrase) -> str:
    """Colour and kind of the object that a phrase means; a placeholder's own words say neither."""
    same = [thing for thing in dataset.instances(index) if torch.equal(thing.mask, phrase.mask)]
    return f"{same[0].color or ''} {same[0].label}".strip() if same else phrase.text


def real_images(datamodule: CocoDataModule, prompts: list[Prompt]) -> Tensor:
    """uint8 [N, 3, H, W]: the images that the prompts were written of, each once."""
    places = dict.fromkeys((p.split, p.index) for p in prompts)
    return torch.stack([datamodule.eval_sets[split].pixels(index) for split, index in places])


def evaluate(method: Method, datamodule: CocoDataModule, config: Evaluation, seed: int, folder: Path, emit: Emit) -> dict[str, float]:
    """Generates, judges, keeps samples in ``folder``; metrics as flat floats under ``eval/``."""
    prompts = plan(datamodule, config, seed)
    targets = target_masks(prompts, config) if config.follow_masks else None
    images, observed = generate(method, prompts, config, emit, targets if method.takes_masks else None)
    judge = Judge.load()
    detections = judge.detect(images)
    wanted = [p.target for p in prompts]
    scores = judge.target_scores(images, wanted)

    everything = Composition()
    everything.update(detections, wanted)
    metrics = {**everything.compute(), "score": float(scores.mean())}
    for split in config.splits:
        rows = [i for i, p in enumerate(prompts) if p.split == split]
        part = Composition()
        part.update([detections[i] for i in rows], [wanted[i] for i in rows])
        metrics[f"success_{split}"] = part.compute()["success"]
    distance = FeatureDistance(config.precision_recall_k)
    real = real_images(datamodule, prompts)
    distance.update(judge.features(real), real=True)
    distance.update(judge.features(images), real=False)
    metrics |= {key: value for key, value in distance.compute().items() if key in ("fid", "precision", "recall")}
    metrics |= observed
    if targets is not None:
        metrics |= following(judge, images, real.repeat_interleave(config.noise_seeds, 0), prompts, targets)

    success = [judge_image(found, target).success for found, target in zip(detections, wanted, strict=True)]
    _keep(folder, prompts, images, success, scores, config.keep_images, targets)
    return {f"eval/{key}": value for key, value in metrics.items()}


def generate(
    method: Method, prompts: list[Prompt], config: Evaluation, emit: Emit, masks: list[list[Tensor]] | None = None
) -> tuple[Tensor, dict[str, float]]:
    """(uint8 images [N, 3, H, W], what the method observed of itself meanwhile), with a line of progress after each batch."""
    parts, began = [], time.monotonic()
    with method.observed(config.guidance) as observed:
        for start in range(0, len(prompts), config.batch):
            chunk = prompts[start : start + config.batch]
            noises = [p.noise for p in chunk]
            given = masks and as_given(chunk, masks[start : start + config.batch], config)
            parts.append(method.generate([p.text for p in chunk], noises, given, config.steps, config.guidance, config.batch))
            done = start + len(chunk)
            left = (time.monotonic() - began) / done * (len(prompts) - done)
            emit(f"sampling: image {done}/{len(prompts)}, {left:.0f} s left", done / len(prompts))
    return torch.cat(parts), observed


def _keep(
    folder: Path,
    prompts: list[Prompt],
    images: Tensor,
    success: list[bool],
    scores: Tensor,
    keep: int,
    targets: list[list[Tensor]] | None = None,
) -> None:
    """``samples.json`` with the outcome of every prompt, and PNGs of the first ``keep`` of each split; beside them their target masks, as
    one picture each in which target i has the value i + 1."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    names: list[str | None] = []
    masks: list[str | None] = []
    for i, prompt in enumerate(prompts):
        name = f"samples/{i:04d}.png" if prompt.index < keep else None
        if name:
            Image.fromarray(images[i].permute(1, 2, 0).numpy()).save(folder / name)
        names.append(name)
        mask = name.replace(".png", "-mask.png") if name and targets and targets[i] else None
        if mask and targets:
            numbered = torch.stack([(number + 1) * target for number, target in enumerate(targets[i])]).amax(0)
            Image.fromarray(numbered.to(torch.uint8).numpy()).save(folder / mask)
        masks.append(mask)
    content = {
        "prompts": [{"split": p.split, "prompt": p.text, "id": p.id, "noise": p.noise} for p in prompts],
        "images": names,
        "masks": masks,
        "success": success,
        "score": [round(s, 6) for s in scores.tolist()],
    }
    (folder / "samples.json").write_text(json.dumps(content))
