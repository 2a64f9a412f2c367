"""One evaluation for all methods: the plan's prompts and noise (`prompts`) -> images -> what the judge says of them.

Reference images for FID and precision / recall are the real images behind the same prompts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from conf.schema import Evaluation
from datamodules.coco import CocoDataModule
from lightning_modules.following import as_given, following, target_masks
from lightning_modules.method import Method
from lightning_modules.metrics.composition import Composition
from lightning_modules.metrics.detection import judge_image
from lightning_modules.metrics.distribution import FeatureDistance
from lightning_modules.metrics.judge import Judge
from lightning_modules.prompts import Prompt, plan, real_images

Emit = Callable[[str, float], None]


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
