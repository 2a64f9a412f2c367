"""One evaluation for all methods: the plan's prompts and noise (`prompts`) -> images on disk, each
drawn once (`images`) -> what is said of them (`scoring`), as numbers and as a table with a row for
each image.

Reference images for FID and precision / recall are the real images behind the same prompts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from conf.schema import Evaluation, Run
from datamodules.loading import ranks, share
from lightning_modules.embedded.judge import Judge
from lightning_modules.evaluation.diagnostics import diagnose
from lightning_modules.evaluation.images import Images, image_facts
from lightning_modules.evaluation.mask_adherence import as_given, following, target_masks
from lightning_modules.evaluation.plan import Prompt, plan, real_images
from lightning_modules.evaluation.scoring import CHUNK, Columns, reference_folder, scorers
from lightning_modules.methods.base import Method
from lightning_modules.metrics.intervals import wilson
from lightning_modules.training import distributed
from lightning_modules.training.progress import Clock

if TYPE_CHECKING:
    import pandas as pd

Emit = Callable[[str, float], None]
DRAWING = 0.9  # of an evaluation's progress


class EvaluationResult(NamedTuple):
    """Metrics as flat floats under ``eval/``, and what each was measured with: ``fid`` ->
    {"extractor": …, "n_fake": …, …}."""

    metrics: dict[str, float]
    facts: dict[str, dict[str, Any]]


def evaluate(
    method: Method,
    datamodule: Any,
    config: Run,
    trained: str | None,
    folder: Path,
    emit: Emit,
    clock: Clock | None = None,
) -> EvaluationResult:
    """Draws what is not there yet, scores all, and leaves in ``folder`` ``scores.parquet``,
    ``prompts.parquet`` and the first images as ``samples/*.png``.

    ``config`` is that of the evaluation, ``trained`` the key of the adapter; ``clock`` learns what
    sampling and scoring took. On several processes each draws its share, and the first alone
    scores: the others get nothing.
    """
    evaluation = config.evaluation
    prompts = plan(datamodule, evaluation, config.seed)
    targets = target_masks(prompts, evaluation) if evaluation.follow_masks else None
    first = distributed.first()
    device = str(method.backbone.device)
    folders, quiet = reference_folder(config), lambda text, share: emit(text, 0.0)
    looking = scorers(evaluation, datamodule, prompts, folders, device, quiet) if first else []
    clock = clock or Clock()
    clock("score")
    images = Images(
        Path(config.output) / "images", image_facts(config, prompts, trained), len(prompts)
    )
    draw(method, prompts, evaluation, images, emit, targets if method.takes_masks else None)
    clock("sample")
    if not first:
        return EvaluationResult({}, {})
    table: Columns = {}
    for start in range(0, len(prompts), CHUNK):
        rows = range(start, min(start + CHUNK, len(prompts)))
        chunk, names = images.load(rows), [images.name(row) for row in rows]
        for scorer in looking:
            for name, values in scorer.add(prompts[rows.start : rows.stop], chunk, names).items():
                table.setdefault(name, []).extend(values)
        emit(
            (f"scoring: image {rows.stop}/{len(prompts)}"),
            DRAWING + (1 - DRAWING) * rows.stop / len(prompts),
        )
    metrics = {key: value for scorer in looking for key, value in scorer.finish().items()}
    facts = {key: value for scorer in looking for key, value in scorer.facts.items()}
    metrics |= images.observed or {}
    if targets is not None:
        real = real_images(datamodule, prompts).repeat_interleave(evaluation.noise_seeds, 0)
        metrics |= following(Judge.load(), images.load(range(len(prompts))), real, prompts, targets)
    keep(folder, prompts, images, table, evaluation.keep_images, targets)
    adapter = Path(config.output) / "adapters" / trained if trained else None
    metrics |= diagnose(method, datamodule, config, prompts, adapter, folder)
    clock("score")
    return EvaluationResult({f"eval/{key}": value for key, value in metrics.items()}, facts)


def draw(
    method: Method,
    prompts: list[Prompt],
    config: Evaluation,
    images: Images,
    emit: Emit,
    masks: list[list[Tensor]] | None = None,
) -> None:
    """Draws the images that are not there, in the same batches whatever is missing; returns when
    those of all processes are there."""

    def wanting() -> list[int]:
        found = images.missing()
        # What it observes is of all images
        everything = method.observes and (found or images.observed is None)
        return list(range(len(prompts))) if everything else found

    # One process looks: for the others, some of what is missing may have been drawn when they look.
    missing = set(distributed.once(wanting))
    every = list(range(0, len(prompts), config.batch))
    rank, world = ranks()
    chosen = [
        s
        for s in (every[i] for i in share(len(every), rank, world))
        if missing & set(range(s, s + config.batch))
    ]
    began, done = time.monotonic(), 0
    if chosen:
        images.check_space(len(missing), method.resolution)
    with method.observed(config.guidance) as observed:
        for number, start in enumerate(chosen):
            chunk = prompts[start : start + config.batch]
            noises = [p.noise for p in chunk]
            given = masks and as_given(chunk, masks[start : start + config.batch], config)
            found = method.generate(
                [p.text for p in chunk], noises, given, config.steps, config.guidance, config.batch
            )
            for i, image in enumerate(found):
                images.save(start + i, image)
            done += len(chunk)
            left = (time.monotonic() - began) / (number + 1) * (len(chosen) - number - 1)
            wanted = sum(min(config.batch, len(prompts) - s) for s in chosen)
            emit(
                (f"sampling: image {done}/{wanted}, {left:.0f} s left"),
                DRAWING * (number + 1) / len(chosen),
            )
    if method.observes and missing:
        images.observe(done, observed)
    if not missing:
        emit(f"sampling: all {len(prompts)} images are there already", DRAWING)
    distributed.barrier()


def keep(
    folder: Path,
    prompts: list[Prompt],
    images: Images,
    table: Columns,
    count: int,
    targets: list[list[Tensor]] | None,
) -> None:
    """``scores.parquet``, a row for each image, ``prompts.parquet``, a row for each prompt that was
    judged, and of each split the first ``count`` prompts' images as PNG; beside them their target
    masks, as one picture each in which target i has the value i + 1."""
    import pandas as pd

    shutil.rmtree(folder / "samples", ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    samples: list[str | None] = []
    masks: list[str | None] = []
    for i, prompt in enumerate(prompts):
        name = f"samples/{i:04d}.png" if prompt.index < count else None
        if name:
            Image.fromarray(images.load([i])[0].permute(1, 2, 0).numpy()).save(folder / name)
        samples.append(name)
        mask = name.replace(".png", "-mask.png") if name and targets and targets[i] else None
        if mask and targets:
            numbered = torch.stack(
                [(number + 1) * target for number, target in enumerate(targets[i])]
            ).amax(0)
            Image.fromarray(numbered.to(torch.uint8).numpy()).save(folder / mask)
        masks.append(mask)
    columns = {
        "split": [p.split for p in prompts],
        "id": [str(p.id) for p in prompts],
        "prompt": [p.text for p in prompts],
        "noise": [p.noise for p in prompts],
        "image": [images.name(i) for i in range(len(prompts))],
        "sample": samples,
        "mask": masks,
        **table,
    }
    frame = pd.DataFrame(columns)
    frame.to_parquet(folder / "scores.parquet", index=False)
    if "success" in frame and frame["success"].notna().any():
        _prompt_scores(frame.dropna(subset="success")).to_parquet(
            folder / "prompts.parquet", index=False
        )


def _prompt_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each prompt: its ``images``, how many are ``right``, their ``share`` and its 95 % Wilson
    interval ``low`` to ``high``."""
    import pandas as pd

    rows = []
    for (split, name, prompt), group in frame.groupby(["split", "id", "prompt"], sort=False):
        images, right = len(group), int(group["success"].astype(bool).sum())
        low, high = wilson(right, images)
        rows.append(
            {
                "split": split,
                "id": name,
                "prompt": prompt,
                "images": images,
                "right": right,
                "share": right / images,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)
