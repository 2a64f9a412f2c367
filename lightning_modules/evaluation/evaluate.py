"""One evaluation for all methods: the plan's prompts and noise (`plan`) -> images on disk, each
drawn once (`images`) -> what metrics say of them (`metrics.registry`) and what is measured of the
method itself (`diagnostics`), as numbers and as a table with a row for each image.

Real images for FID and precision / recall are those behind the same prompts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from conf.describe import show_count
from conf.files import create_folder, write_atomically
from conf.schema import Evaluation, Run
from conf.spec import metrics
from datamodules.loading import ranks, share
from lightning_modules.backbone.sampling import sampling_as
from lightning_modules.evaluation.diagnostics import Diagnosis, diagnose
from lightning_modules.evaluation.images import ImageStore, image_facts, image_keys
from lightning_modules.evaluation.mask_adherence import mask_guidance, target_masks
from lightning_modules.evaluation.plan import (
    Prompt,
    find_cut,
    find_objects,
    plan_evaluation,
    shown_prompts,
)
from lightning_modules.metrics.registry import (
    CHUNK,
    Columns,
    Scorer,
    ScoringContext,
    build_scorers,
)
from lightning_modules.tracking.ran import count_prompts, read_ran, write_ran
from lightning_modules.tracking.undefined import split_undefined
from lightning_modules.tracking.watch import describe_sampling, watch_denoiser
from lightning_modules.training import distributed
from lightning_modules.training.progress import Clock

if TYPE_CHECKING:
    import pandas as pd

    from datamodules.batch import Phrase
    from lightning_modules.methods.base import Method
    from lightning_modules.methods.mask_targets import PromptMasks

Emit = Callable[[str, float], None]
DRAWING = 0.9  # Of an evaluation's progress


class Images(Protocol):
    """Images on disk, by their rows in the plan."""

    def name(self, row: int) -> str:
        """Folder and file."""
        ...

    def load(self, rows: Sequence[int]) -> Tensor:
        """uint8 [len(rows), 3, H, W]."""
        ...


class EvaluationResult(NamedTuple):
    """Metrics as flat floats under ``eval/``, what each was measured with: ``fid`` ->
    {"extractor": …, "n_fake": …, …}, and the metric whose scorer gave it: ``fid`` ->
    "distribution"; what is measured of the method is not in the last."""

    metrics: dict[str, float]
    facts: dict[str, dict[str, Any]]
    metric_of: dict[str, str]

    def split_undefined(self) -> tuple[dict[str, float], dict[str, str]]:
        """The metrics that are numbers, and why the others are none."""
        reasons = {}
        declared = {key: why for one in metrics().values() for key, why in one.without.items()}
        for key in self.metrics:
            name = key.removeprefix("eval/")
            own = (why for start, why in declared.items() if f"{name}_".startswith(f"{start}_"))
            reasons[key] = self.facts.get(name, {}).get("undefined") or next(own, "")
        return split_undefined(self.metrics, reasons)


def prepare_scorers(
    config: Run, datamodule: Any, prompts: list[Prompt], device: str, emit: Emit
) -> dict[str, list[Scorer]]:
    """The scorers of an evaluation (`build_scorers`); statistics of real images are kept in the
    cache of ``config.output``."""
    cache = Path(config.output) / "cache"
    return build_scorers(
        ScoringContext(config.evaluation, prompts, datamodule, cache, device, emit)
    )


def evaluate(
    method: Method,
    datamodule: Any,
    config: Run,
    trained: str | None,
    folder: Path,
    emit: Emit,
    clock: Clock | None = None,
    recall: Callable[[Sequence[str], Sequence[Prompt]], Columns | None] = lambda *_: None,
) -> EvaluationResult:
    """Draws what is not there yet, scores all, and leaves in ``folder`` ``scores.parquet``,
    ``prompts.parquet`` and the first images as ``samples/*.png``.

    ``config`` is that of the evaluation, ``trained`` the key of the adapter; ``clock`` learns what
    sampling and scoring took. On several processes each draws its share, and the first alone
    scores: the others get nothing. What is known of the method itself is not measured:
    ``recall`` gives its columns for images by name and prompt, None where it is not known.
    """
    evaluation = config.evaluation
    prompts = plan_evaluation(datamodule, config)
    targets = target_masks(prompts, evaluation) if evaluation.follow_masks else None
    first, scorers = distributed.is_first(), {}
    if first:
        device = str(method.backbone.device)
        quiet = lambda text, share: emit(text, 0.0)  # noqa: E731
        scorers = prepare_scorers(config, datamodule, prompts, device, quiet)
    clock = clock or Clock()
    clock("score")
    images = draw(method, datamodule, config, trained, prompts, targets, emit)
    clock("sample")
    if not first:
        return EvaluationResult({}, {}, {})
    scores, table = score(scorers, prompts, images, emit)
    adapter = Path(config.output) / "adapters" / trained if trained else None
    known = recall([images.name(row) for row in range(len(prompts))], prompts)
    if known is None:
        diagnosis = diagnose(method, datamodule, config, prompts, adapter, folder)
    else:
        diagnosis = Diagnosis({}, known)
    metrics = scores.metrics | (images.stats or {}) | diagnosis.metrics
    table |= diagnosis.columns | images.columns()
    write_scores(folder, prompts, images, table, evaluation.keep_images, targets)
    cut = find_cut(method.backbone, prompts)
    write_ran(folder, read_ran(images.folder) | count_prompts(prompts, cut))
    clock("score")
    metrics = {f"eval/{key}": value for key, value in metrics.items()}
    return scores._replace(metrics=metrics)


def draw(
    method: Method,
    datamodule: Any,
    config: Run,
    trained: str | None,
    prompts: list[Prompt],
    targets: list[list[Tensor]] | None,
    emit: Emit,
) -> ImageStore:
    """The images of all prompts below ``config.output``, those that were not there drawn; settings
    as for `evaluate`, ``targets``: the prompts' masks, where they are followed."""
    evaluation = config.evaluation
    told = mask_guidance(prompts, targets, evaluation) if targets and method.takes_masks else None
    objects = find_objects(datamodule, prompts) if method.takes_objects else None
    facts = image_facts(config, trained, told is not None)
    keys = image_keys(prompts, told, objects)
    images = ImageStore(Path(config.output) / "images", facts, keys)
    with sampling_as(method.backbone, evaluation):
        draw_missing(method, prompts, evaluation, images, emit, told, objects)
    return images


def draw_missing(
    method: Method,
    prompts: list[Prompt],
    config: Evaluation,
    images: ImageStore,
    emit: Emit,
    masks: Sequence[PromptMasks] | None = None,
    objects: list[list[Phrase]] | None = None,
) -> None:
    """Draws the images that are not there, and only these; returns when those of all processes are
    there.

    The first prompts of all splits come first, so that fewer prompts are drawn in the batches that
    begin a drawing of more, and more added to them in those that end it, where the number of images
    is a multiple of the batch.
    """

    def find_missing() -> tuple[list[int], list[list[int]]]:
        missing = images.missing(lambda text, share: emit(text, 0.0))
        known = images.measured() if method.collects_stats else {*images.keys}
        rows = {*missing, *(row for row, key in enumerate(images.keys) if key not in known)}
        ordered = sorted(rows, key=lambda row: (prompts[row].place, row))
        return missing, images.plan_batches(ordered, config.batch)

    # One process looks: for the others, some of what is missing may have been drawn when they look
    missing, batches = distributed.once(find_missing)
    todo = [batches[i] for i in share(len(batches), *ranks())]
    if missing:
        images.check_space(len(missing), method.resolution)
    began, done, total, lacking = time.monotonic(), 0, sum(map(len, todo)), set(missing)
    for number, rows in enumerate(todo, 1):
        chunk = [prompts[row] for row in rows]
        texts, noises = [p.text for p in chunk], [p.noise for p in chunk]
        guide = [masks[row] for row in rows] if masks is not None else None
        named = {"objects": [objects[row] for row in rows]} if objects else {}
        backbone = getattr(method, "backbone", None)
        looking: AbstractContextManager[dict[str, Any]] = (
            watch_denoiser(backbone) if number == 1 else nullcontext({})
        )
        with looking as seen, method.collect_stats(config.guidance) as stats:
            pictures = method.generate(
                texts, noises, guide, config.steps, config.guidance, config.batch, **named
            )
        if number == 1:
            facts = describe_sampling(backbone, seen, len(chunk))
            write_ran(images.folder, facts | {"resolution": pictures.shape[-1]})
        for row, picture in zip(rows, pictures, strict=True):
            if row in lacking:  # What is there stays as it is
                images.save(row, picture)
        if method.collects_stats:
            images.write_stats(rows, stats)
        done += len(rows)
        left = (time.monotonic() - began) / number * (len(todo) - number)
        emit(f"sampling: image {done}/{total}, {left:.0f} s left", DRAWING * number / len(todo))
    if not batches:
        emit(f"sampling: {show_count(len(prompts), 'image')}, all there already", DRAWING)
    distributed.barrier()


def score(
    scorers: Mapping[str, Sequence[Scorer]],
    prompts: list[Prompt],
    images: Images,
    emit: Emit,
) -> tuple[EvaluationResult, Columns]:
    """Shows all images to all scorers; their metrics, without ``eval/``, and the columns that they
    give."""
    table: Columns = {}
    for start in range(0, len(prompts), CHUNK):
        rows = range(start, min(start + CHUNK, len(prompts)))
        chunk, names = images.load(rows), [images.name(row) for row in rows]
        for scorer in (each for some in scorers.values() for each in some):
            for name, values in scorer.add(prompts[rows.start : rows.stop], chunk, names).items():
                table.setdefault(name, []).extend(values)
        emit(
            f"scoring: image {rows.stop}/{len(prompts)}",
            DRAWING + (1 - DRAWING) * rows.stop / len(prompts),
        )
    result = EvaluationResult({}, {}, {})
    for name, some in scorers.items():
        for scorer in some:
            numbers = scorer.finish()
            result.metrics.update(numbers)
            result.facts.update(scorer.facts)
            result.metric_of.update(dict.fromkeys(numbers, name))
            table.update(getattr(scorer, "columns", {}))
    return result, table


def write_scores(
    folder: Path,
    prompts: list[Prompt],
    images: Images,
    table: Columns,
    count: int,
    targets: list[list[Tensor]] | None,
) -> None:
    """``scores.parquet``, a row for each image, ``prompts.parquet``, a row for each prompt that was
    judged, and of each split the images of ``count`` prompts as PNG (`shown_prompts`); beside them
    their target masks, as one picture each in which target i has the value i + 1."""
    import pandas as pd

    samples: list[str | None] = [None] * len(prompts)
    masks: list[str | None] = [None] * len(prompts)
    splits = list(dict.fromkeys(prompt.split for prompt in prompts))
    shown = shown_prompts(prompts, count)
    with create_folder(folder / "samples", replace=True) as draft:
        for i, prompt in enumerate(prompts):
            if (prompt.split, prompt.index) not in shown:
                continue
            # The same with more prompts
            name = f"{splits.index(prompt.split)}-{prompt.index:05d}-{prompt.number}"
            samples[i] = f"samples/{name}.png"
            picture = images.load([i])[0].permute(1, 2, 0).numpy()
            Image.fromarray(picture).save(draft / f"{name}.png")
            if targets and targets[i]:
                masks[i] = f"samples/{name}-mask.png"
                numbered = [(number + 1) * target for number, target in enumerate(targets[i])]
                plane = torch.stack(numbered).amax(0).to(torch.uint8)
                Image.fromarray(plane.numpy()).save(draft / f"{name}-mask.png")
    frame = pd.DataFrame(
        {
            "split": [p.split for p in prompts],
            "id": [str(p.id) for p in prompts],
            "prompt": [p.text for p in prompts],
            "noise": [p.noise for p in prompts],
            "number": [p.number for p in prompts],
            "objects": pd.array([p.objects for p in prompts], dtype="Int64"),
            "skill": [" ".join(p.skills) or None for p in prompts],
            "atoms": pd.array([p.atoms for p in prompts], dtype="Int64"),
            "image": [images.name(i) for i in range(len(prompts))],
            "sample": samples,
            "mask": masks,
            **table,
        }
    )
    _write_table(frame, folder / "scores.parquet")
    if "success" in frame and frame["success"].notna().any():
        _write_table(_prompt_scores(frame.dropna(subset="success")), folder / "prompts.parquet")


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda draft: frame.to_parquet(draft, index=False))


def _prompt_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each prompt: its ``images``, how many are ``right``, their ``share`` and its 95 % Wilson
    interval ``low`` to ``high`` (Wilson 1927)."""
    from scipy.stats import binomtest

    success = frame["success"].astype(bool)
    table = success.groupby([frame["split"], frame["id"], frame["prompt"]], sort=False)
    table = table.agg(images="count", right="sum").reset_index()
    table["share"] = table["right"] / table["images"]
    counts = zip(table["right"], table["images"], strict=True)
    intervals = [binomtest(*pair).proportion_ci(0.95, method="wilson") for pair in counts]
    table["low"] = [interval.low for interval in intervals]
    table["high"] = [interval.high for interval in intervals]
    return table
