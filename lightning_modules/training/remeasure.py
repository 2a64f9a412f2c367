"""A finished run measured again with the code of today: its kept images are scored, nothing is
drawn or trained; or measured on more prompts, of which only the new ones are drawn (`Earlier`).

What looks at the method, not at images, is kept as it was, with the code that measured it then.
The new result is written beside the old one, in ``<folder>/remeasured``, and replaces it once it is
whole: stopped at any moment, the folder has one or the other, and `adopt` ends what was begun.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.describe import show_count
from conf.files import (
    create_folder,
    is_damage,
    read_kept,
    to_json,
    write_atomically,
)
from conf.prompts import Extent, with_prompts
from conf.schema import Run
from lightning_modules.training.contents import changed_contents, contents_of
from lightning_modules.training.versions import DIAGNOSTICS, join_parts, measured_by

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from datamodules.build import Emit
    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.metrics.registry import Columns

__all__ = [
    "DRAFT",
    "PENDING",
    "Earlier",
    "NotKept",
    "adopt",
    "discard",
    "read_pending",
    "remeasure",
]

PENDING = "remeasured"  # Folder of a whole new result that is not yet the only one
DRAFT = ".more-prompts"  # Folder of one that is being made
RESULT, SCORES = "result.json", "scores.parquet"
PROMPT = ("split", "id", "prompt", "noise")  # Columns of SCORES
FILES = (SCORES, "prompts.parquet", RESULT)  # The last one counts: it comes last


class NotKept(ValueError):
    """The images of a run are not there any more, or are those of other prompts."""


class Earlier:
    """The finished run in a folder that is to get more prompts: its ``result``, of which `keep`
    hands on what was measured of the method itself."""

    def __init__(self, folder: Path) -> None:
        """Raises NotKept where there is none."""
        self.result, self.table = _read(folder)
        self.is_part = False

    @classmethod
    def find(cls, config: Run, folder: Path) -> Earlier | None:
        """The one in ``folder`` that has fewer prompts than ``config`` asks for; None if there is
        no such."""
        asked = conf.with_eval_overrides(config).evaluation.prompts
        if not (folder / RESULT).is_file():
            return None
        try:
            earlier = cls(folder)
        except NotKept:
            return None
        return earlier if Extent.read(earlier.result).lacks(asked) else None

    def recall(self, names: Sequence[str], prompts: Sequence[Prompt]) -> Columns | None:
        """The columns of what looks at the method, for the images of these names and prompts; None
        where its own images are not among them: then the method is another."""
        from lightning_modules.evaluation.diagnostics import keep_columns

        self.is_part = set(self.table["image"]) <= set(names)
        return keep_columns(self.table, prompts) if self.is_part else None

    def join(self, new: dict[str, Any]) -> dict[str, Any]:
        """The ``new`` result, of all prompts, in the place of this one."""
        if not self.is_part:
            return new
        old, phases = self.result, new["seconds"]
        return new | {
            "metrics": new["metrics"] | _keep(old, "metrics", new["metrics"]),
            "undefined": new["undefined"] | _keep(old, "undefined", new["undefined"]),
            "contents": old.get("contents", {}) | new["contents"],
            "measured": _join_measured(old, new["measured"]),
            "seconds": {
                phase: old.get("seconds", {}).get(phase, 0.0) + seconds
                for phase, seconds in phases.items()
            },
            "added_seconds": phases,
        }


class KeptImages:
    """Images by their names, folder and file, below ``root``."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        """Raises NotKept where one is missing."""
        self.root, self.names = root, names
        missing = [name for name in names if not (root / name).is_file()]
        if missing:
            raise NotKept(
                f"{len(missing)} of {show_count(len(names), 'image')} not kept below {root}, "
                f"such as {missing[0]}"
            )

    def name(self, row: int) -> str:
        return self.names[row]

    def load(self, rows: Sequence[int]) -> Tensor:
        """uint8 [len(rows), 3, H, W]. Raises NotKept for one that was cut off."""
        from lightning_modules.evaluation.images import DamagedImage, load_images

        try:
            return load_images([self.root / self.names[row] for row in rows])
        except DamagedImage as error:
            raise NotKept(f"{error.path} is damaged ({error.reason})") from error


def remeasure(config: Run, folder: Path, emit: Emit = lambda text, share: None) -> dict[str, Any]:
    """Scores the images that the finished run in ``folder`` kept, with these settings and the code
    of today, and returns the new result, which lies in ``folder``/`PENDING` until `adopt`.

    Raises NotKept, and ValueError or FileNotFoundError where a run with these settings does.
    """
    from datamodules.build import build_data
    from lightning_modules.evaluation.diagnostics import keep_columns
    from lightning_modules.evaluation.evaluate import prepare_scorers, score, write_scores
    from lightning_modules.evaluation.mask_adherence import target_masks
    from lightning_modules.evaluation.plan import plan_evaluation
    from lightning_modules.methods.registry import method_class
    from lightning_modules.tracking.provenance import provenance
    from lightning_modules.training import distributed

    old, table = _read(folder)
    config = with_prompts(config, Extent.read(old).asked)
    images = KeptImages(Path(config.output) / "images", table["image"].tolist())
    datamodule = build_data(config, emit)
    config = method_class(config.method.name).complete(config, datamodule)
    late = conf.with_eval_overrides(config)
    prompts = plan_evaluation(datamodule, late)
    _compare_prompts(prompts, table)
    device = str(distributed.device(config.trainer.accelerator))
    scorers = prepare_scorers(late, datamodule, prompts, device, lambda text, share: None)
    scores, columns = score(scorers, prompts, images, emit)
    targets = target_masks(prompts, late.evaluation) if late.evaluation.follow_masks else None
    scored = {f"eval/{key}": value for key, value in scores.metrics.items()}
    values, undefined = scores._replace(metrics=scored).split_undefined()
    contents = _check_contents(old.get("contents", {}), contents_of(config, datamodule, None))
    new = old | {
        "contents": contents,
        "metrics": values | _keep(old, "metrics", scored),
        "undefined": undefined | _keep(old, "undefined", scored),
        "facts": scores.facts,
        "measured": _join_measured(old, measured_by(config, scores.metric_of))
        | {"versions": provenance()},
    }
    shutil.rmtree(folder / PENDING, ignore_errors=True)
    with create_folder(folder / PENDING) as draft:
        columns |= keep_columns(table, prompts)
        write_scores(draft, prompts, images, columns, late.evaluation.keep_images, targets)
        write_atomically(draft / RESULT, to_json(new))
    return new


def read_pending(folder: Path) -> dict[str, Any] | None:
    """The new result in ``folder``/`PENDING`; None without one, or with one that was cut off, which
    is dropped with a line."""
    pending = folder / PENDING
    if not pending.is_dir():
        return None
    whole = read_kept(pending, _read, then="the result is as it was")
    return None if whole is None else whole[0]


def adopt(folder: Path) -> dict[str, Any] | None:
    """Puts the whole new result of ``folder``/`PENDING` in the place of the old one, and returns
    it; None without one, or with one that was cut off, which is dropped with a line. May be
    repeated; `discard` ends it."""
    pending = folder / PENDING
    if read_pending(folder) is None:
        return None
    for name in FILES:
        if not (pending / name).is_file():
            (folder / name).unlink(missing_ok=True)
    files = [path for path in sorted(pending.rglob("*")) if path.is_file()]
    for path in sorted(
        files, key=lambda path: FILES.index(path.name) if path.name in FILES else -1
    ):
        write_atomically(folder / path.relative_to(pending), path.read_bytes())
    result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


def discard(folder: Path) -> None:
    """Removes what `adopt` has put in place."""
    pending = folder / PENDING
    if pending.is_dir():
        # Not a part of it may be taken for the whole
        (pending / RESULT).unlink(missing_ok=True)
        shutil.rmtree(pending)


def _read(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The result of a finished run and the table of its images."""
    import pandas as pd

    for name in (RESULT, SCORES):
        if not (folder / name).is_file():
            raise NotKept(f"{folder} has no {name}: it is no finished run that was evaluated")
    try:
        path = folder / RESULT
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict) or not isinstance(result.get("metrics"), dict):
            raise ValueError("it holds no metrics")
        path = folder / SCORES
        table = pd.read_parquet(path)
        table[[*PROMPT, "image"]]
    except Exception as error:
        if not is_damage(error):
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise NotKept(f"{path} is damaged ({reason})") from error
    if table["image"].isna().any():
        raise NotKept(f"{folder / SCORES} does not say where its images are")
    return result, table


def _compare_prompts(prompts: Sequence[Prompt], table: pd.DataFrame) -> None:
    """Raises NotKept unless the images were drawn of these prompts on this noise."""
    now = [(p.split, str(p.id), p.text, p.noise) for p in prompts]
    columns = [table[name] for name in PROMPT]
    then = list(zip(*columns, strict=True))
    if len(now) != len(then):
        raise NotKept(
            f"its images are of {show_count(len(then), 'prompt')}: there are {len(now)} now"
        )
    for own, kept in zip(now, then, strict=True):
        if own != kept:
            raise NotKept(
                f"its images are of other prompts or other noise: {kept[2]!r} (noise {kept[3]}) "
                f"where there is {own[2]!r} (noise {own[3]}) now"
            )


def _check_contents(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """What the new result is of: what made the images, and what measures them now. Raises NotKept
    for data that are others now: real images, masks and prompts are theirs."""
    measuring = {key: digest for key, digest in now.items() if key.startswith("evaluation.")}
    if changed := [key for key in changed_contents(before, now) if key not in measuring]:
        raise NotKept(f"{changed[0]} holds something else than when its images were drawn")
    made = {key: value for key, value in before.items() if not key.startswith("evaluation.")}
    return made | measuring


def _keep(old: dict[str, Any], entry: str, scored: Container[str]) -> dict[str, Any]:
    """The values that no scorer gave: those of the method itself."""
    measured = old.get("measured")
    by_scorers = set(measured["of"]) if measured else set(old.get("facts", {}))
    return {
        key: value
        for key, value in old.get(entry, {}).items()
        if key not in scored and key.removeprefix("eval/") not in by_scorers
    }


def _join_measured(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new measuring, with what measured the method itself as it was."""
    parts = dict(new["parts"])
    del parts[DIAGNOSTICS]
    kept = (old.get("measured") or {"parts": {}})["parts"]
    if DIAGNOSTICS in kept:
        parts[DIAGNOSTICS] = kept[DIAGNOSTICS]
    return new | {"parts": parts, "code": join_parts(parts)}
