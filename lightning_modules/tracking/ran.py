"""What ran, beside what was asked for.

Settings say what was asked for. Lightning trains in bfloat16 where float16 is not to be had, a
filter leaves fewer images than were asked for, a warm-up may never reach its peak: so what a run
records of itself is read from the trainer, the optimiser, the denoiser and the images (`watch`),
and what is not as it was asked for is named (`list_differences`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.files import read_json, to_json, write_atomically
from conf.seeds import TRAINING_SEEDS, resolve_seeds, training_seeds
from conf.spec import data_kind, methods

if TYPE_CHECKING:
    from conf.schema import Run

__all__ = [
    "RAN",
    "count_prompts",
    "list_differences",
    "ran_tags",
    "read_ran",
    "write_ran",
]

RAN = "ran.json"  # Beside an adapter, among images and in a trial's folder
TAG_LENGTH = 5000  # MLflow takes 8000 characters


def count_prompts(prompts: Sequence[Any], cut: Sequence[str] = ()) -> dict[str, Any]:
    """Of what was scored: ``images``, ``prompts`` by split, how many images a prompt has, and where
    there are any, ``prompts_cut``: prompts whose text is among ``cut``, which were not read to
    their end."""
    each = Counter((prompt.split, prompt.index) for prompt in prompts)
    counts = sorted(set(each.values()))
    short = len({(p.split, p.index) for p in prompts if p.text in {*cut}}) if cut else 0
    return {
        "images": len(prompts),
        "prompts": dict(Counter(split for split, _ in each)),
        "images_per_prompt": counts[0] if len(counts) == 1 else counts,
        **({"prompts_cut": short} if short else {}),
    }


# --- kept beside what was made --------------------------------------------------------------------


def write_ran(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keeps the facts of what made the adapter or the images in ``folder``."""
    write_atomically(folder / RAN, to_json(facts))


def read_ran(folder: Path | None) -> dict[str, Any]:
    """The facts of what made the adapter or the images in ``folder``; none where older code did,
    or where the file is damaged, which is dropped."""
    then = "what ran is not known"
    return read_json(folder / RAN, then=then) or {} if folder else {}


# --- asked and ran --------------------------------------------------------------------------------


def list_differences(
    config: Run, late: Run, training: Mapping[str, Any], sampling: Mapping[str, Any]
) -> dict[str, str]:
    """Setting -> "asked 16-mixed, ran bf16-mixed" for each one that what ran does not bear out.

    ``config`` are the settings of the training, ``late`` those of the evaluation.
    """
    trainer, evaluation = config.trainer, late.evaluation
    sides: list[tuple[str, Any, Any]] = []
    if training:
        rates, decays = training.get("peak_lr", []), training.get("weight_decay", [])
        images, resumed = config.data.train_images, training.get("resumed_at")
        several = "trainer.batch * trainer.devices * trainer.accumulate"
        sides += [
            ("trainer.precision", trainer.precision, training.get("precision")),
            ("trainer.steps", trainer.steps, training.get("steps")),
            (several, trainer.batch * trainer.devices * trainer.accumulate, training.get("batch")),
            ("trainer.devices", trainer.devices, training.get("devices")),
            ("trainer.clip", trainer.clip, training.get("clip")),
            # The peak may lie before a training was resumed
            ("trainer.lr", trainer.lr, None if resumed else _nearest(trainer.lr, rates)),
            ("trainer.weight_decay", trainer.weight_decay, max(decays, default=None)),
            (
                "trainer.gradient_checkpointing",
                trainer.gradient_checkpointing,
                training.get("checkpointed"),
            ),
            ("backbone.dtype", config.backbone.dtype, training.get("dtype")),
            ("backbone.resolution", config.backbone.resolution, training.get("resolution")),
            *_compare_seeds(config, training),
        ]
        read = training.get("captions", 0)
        sides.append(("captions read whole", read, read - training.get("captions_cut", 0)))
        # Few images of a scene are shown again and again
        counted = data_kind(config) != "scene" and not methods()[config.method.name].draws_data
        if counted and images is not None and training.get("images", images) < images:
            sides.append(("data.train_images", images, training["images"]))
    if sampling:
        sides += [
            ("backbone.dtype", late.backbone.dtype, sampling.get("dtype")),
            ("backbone.resolution", late.backbone.resolution, sampling.get("resolution")),
            ("backbone.channels_last", late.backbone.channels_last, sampling.get("channels_last")),
            ("backbone.compile", late.backbone.compile, _as_bool(sampling.get("compiled"))),
            ("evaluation.steps", evaluation.steps, _fewer(sampling.get("calls"), evaluation.steps)),
            ("evaluation.noise_seeds", evaluation.noise_seeds, sampling.get("images_per_prompt")),
        ]
        for split, count in sampling.get("prompts", {}).items():
            sides.append((f"evaluation.prompts of {split}", evaluation.prompts, count))
        whole = sum(sampling.get("prompts", {}).values())
        sides.append(("prompts read whole", whole, whole - sampling.get("prompts_cut", 0)))
    device = {"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator)
    used = training.get("device") or sampling.get("device")
    if device != "auto" and used != "mps":
        sides.append(("trainer.accelerator", device, used))
    return {
        key: f"asked {_show(asked)}, ran {_show(ran)}"
        for key, asked, ran in sides
        if asked is not None and ran is not None and not _same(asked, ran)
    }


def _compare_seeds(config: Run, training: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    asked = training_seeds(config)
    if isinstance(asked, int) and "seed" in training:
        return [("seed", asked, training["seed"])]
    seeds = zip(TRAINING_SEEDS, resolve_seeds(config), strict=False)
    return [(key, seed, training.get(key, training.get("seed"))) for key, seed in seeds]


def _nearest(asked: float, rates: Sequence[float]) -> float | None:
    """The peak of the group whose rate is the asked one, else the highest."""
    same = (rate for rate in rates if _same(asked, rate))
    return next(same, max(rates, default=None))


def _fewer(calls: int | None, steps: int) -> int | None:
    """Some schedulers ask the denoiser twice in a step."""
    return calls if calls is not None and calls < steps else None


def _as_bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _same(asked: Any, ran: Any) -> bool:
    if isinstance(asked, float) and isinstance(ran, int | float):
        return math.isclose(asked, ran, rel_tol=1e-6)
    return bool(asked == ran)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def ran_tags(ran: Mapping[str, Any]) -> dict[str, str]:
    """What ran as MLflow tags: ``ran.training`` and ``ran.sampling``, and ``differs`` where they
    are not as asked."""
    tags = {}
    for part in ("training", "sampling", "differs"):
        facts = ran.get(part)
        if facts:
            text = "; ".join(f"{key}: {_show(value)}" for key, value in facts.items())
            tags[part if part == "differs" else f"ran.{part}"] = text[:TAG_LENGTH]
    return tags
