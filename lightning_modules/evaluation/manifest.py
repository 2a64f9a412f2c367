"""Images that are drawn before anything judges them (``evaluation.draw_only``), and the list by
which a detector's results are keyed.

A list lies in ``<output>/images`` and has JSON lines, one image a line (broken here to fit):

    {"image": "3f0c/8a41.png", "prompt": "a photo of a cat", "split": "test", "id": "7",
     "seed": 0, "noise": 7, "noise_number": 0}

``image`` is the path of the file below the list's own folder and the key of a file of detections
(`metrics.detectors`); ``seed`` is the run's (its ``sampling_seed`` where that is apart), ``noise``
the seed of the image's noise and ``noise_number`` which of its prompt's it is, from 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.describe import show_count
from conf.files import to_json, write_atomically
from conf.seeds import resolve_seeds
from lightning_modules.evaluation.evaluate import Emit, draw
from lightning_modules.evaluation.mask_adherence import target_masks
from lightning_modules.evaluation.plan import plan_evaluation
from lightning_modules.training import distributed
from lightning_modules.training.progress import DRAWN, Clock

if TYPE_CHECKING:
    import pandas as pd

    from conf.schema import Run
    from lightning_modules.evaluation.images import ImageStore
    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.methods.base import Method
    from lightning_modules.tracking.mlflow import SeedRun

__all__ = [
    "describe_drawn",
    "draw_and_list",
    "end_drawn",
    "list_images",
    "read_manifest",
    "rows_of_scores",
    "write_manifest",
]


# Beside those that JSON escapes: readers take them for the end of a line, or for no text at all
LINE_ENDS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def draw_and_list(
    method: Method,
    datamodule: Any,
    config: Run,
    trained: str | None,
    emit: Emit,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Draws what is not there yet and writes the list; ``images``, how many there are, and
    ``manifest``, where it is. Settings as for `evaluate`; on several processes each draws its
    share."""
    evaluation, clock = config.evaluation, clock or Clock()
    prompts = plan_evaluation(datamodule, config)
    targets = target_masks(prompts, evaluation) if evaluation.follow_masks else None
    images = draw(method, datamodule, config, trained, prompts, targets, emit)
    clock("sample")
    rows = list_images(images, prompts, resolve_seeds(config).sampling)
    # Other runs, and this one with other prompts, have images in the same folder
    path = Path(f"{images.folder}-{conf.digest({'rows': rows})}.jsonl")
    count = len({row["image"] for row in rows})
    if distributed.is_first():
        write_manifest(path, rows)
        emit(f"sampling: {show_count(count, 'image')} listed in {path}", 1.0)
    return {"images": count, "manifest": str(path)}


def end_drawn(
    drawn: dict[str, Any],
    contents: dict[str, str],
    clock: Clock,
    folder: Path,
    seed_run: SeedRun | None,
) -> dict[str, Any]:
    """Writes into the run's ``folder`` what it ends with in place of a result, and returns that;
    its MLflow run is no finished one. ``drawn``: of `draw_and_list`."""
    result = {"drawn": drawn, "metrics": {}, "contents": contents, "seconds": clock.seconds}
    write_atomically(folder / DRAWN, to_json(result))
    if seed_run is not None:
        seed_run.note({"drawn": str(drawn["images"])})
        seed_run.end_as("KILLED", describe_drawn(drawn["images"], drawn["manifest"])[0])
    return result


def list_images(images: ImageStore, prompts: Iterable[Prompt], seed: int) -> list[dict[str, Any]]:
    """The rows of a run's list."""
    return [
        _row(images.name(i), p.text, p.split, p.id, seed, p.noise, p.number)
        for i, p in enumerate(prompts)
    ]


def rows_of_scores(table: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """The same of scores.parquet, of a run that was measured; older code did not note the number of
    an image's noise there."""
    columns = (table[name] for name in ("image", "prompt", "split", "id", "noise"))
    numbers = table["number"].tolist() if "number" in table else [None] * len(table)
    return [
        _row(image, prompt, split, key, seed, int(noise), number)
        for image, prompt, split, key, noise, number in zip(*columns, numbers, strict=True)
    ]


def _row(
    image: str, prompt: str, split: str, key: Any, seed: int, noise: int, number: int | None
) -> dict[str, Any]:
    return {
        "image": image,
        "prompt": prompt,
        "split": split,
        "id": str(key),
        "seed": seed,
        "noise": noise,
        "noise_number": number,
    }


def _to_line(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    return LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes a list in which each image stands once; how many there are."""
    once = {row["image"]: _to_line(row) for row in rows}
    write_atomically(path, "".join(f"{line}\n" for line in once.values()))
    return len(once)


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The rows of a list. Raises FileNotFoundError."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def describe_drawn(count: int, path: Path | str) -> list[str]:
    """Lines on what is drawn, where, and how a detector's results are keyed."""
    return [
        f"drawn, not measured: {show_count(count, 'image')} below {Path(path).parent}",
        f"listed in {path}: 'image' in each line is the path there, and the key of its line in a "
        'file of detections: {"image": …, "detections": [{"label", "box", "score"}, …]}',
    ]
