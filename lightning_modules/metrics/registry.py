"""The scorers of an evaluation, by the names of their files.

A metric is ``conf/metric/NAME.py``, what it declares, and ``lightning_modules/metrics/NAME.py``
with a function ``build(context)`` that returns its scorers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from conf.schema import Evaluation
from conf.spec import measured_metrics
from lightning_modules.metrics.correction import CorrectedScorer, read_rates

if TYPE_CHECKING:
    from lightning_modules.evaluation.plan import Prompt
    from lightning_modules.metrics.detection import Detector

CHUNK = 64  # Images that are looked at at once

Columns = dict[str, list[Any]]
Emit = Callable[[str, float], None]


class Scorer(Protocol):
    """``add`` sees all images once, in order; ``finish`` comes after the last. Then ``facts`` say
    what each number was measured with: ``fid`` -> {"extractor": …, "n_fake": …, …}; a scorer that
    needs all images for its columns of scores.parquet has them in ``columns`` then.

    A metric that each image has a value of has a column of its name (see `conf.spec.Metric`)."""

    @property
    def facts(self) -> dict[str, dict[str, Any]]: ...

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """``images`` are uint8 [n, 3, H, W], ``names`` those of their files, one for each of the
        prompts. Returns columns of scores.parquet: a value for each image."""
        ...

    def finish(self) -> dict[str, float]:
        """The numbers over all images."""
        ...


def check_images(images: Tensor) -> None:
    """Raises ValueError unless images are uint8 [N, 3, H, W]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"expected uint8 images [N, 3, H, W] of 0 to 255, not {images.dtype} "
            f"{list(images.shape)}: clamp, scale and round floats first, which would be rescaled "
            "twice"
        )


@dataclass
class ScoringContext:
    """What scorers are built from. ``cache``: a folder in which they may keep what depends on real
    images alone; ``emit`` gets lines of progress and the share done."""

    evaluation: Evaluation
    prompts: Sequence[Prompt]
    datamodule: Any
    cache: Path
    device: str = "cpu"
    emit: Emit = lambda text, share: None

    @cached_property
    def detector(self) -> Detector:
        """The detector that ``evaluation.detector`` names, shared by all metrics that ask it."""
        from lightning_modules.metrics.detectors import SharedDetector, build_detector

        return SharedDetector(build_detector(self.evaluation, self.device))


def undefined_by_prompts(evaluation: Evaluation, prompts: Sequence[Prompt]) -> dict[str, str]:
    """Value -> why none of these prompts gives it; of metrics whose file has ``undefined(prompts,
    evaluation)``. Raises as `build_scorers` where a detector has nothing to look for."""
    reasons: dict[str, str] = {}
    for name, metric in measured_metrics(evaluation).items():
        if metric.scores_images:
            module = import_module(f"lightning_modules.metrics.{name}")
            if tell := getattr(module, "undefined", None):
                reasons |= tell(prompts, evaluation)
    return reasons


def build_scorers(context: ScoringContext) -> dict[str, list[Scorer]]:
    """All scorers that the evaluation asks for, by the names of their metrics. Built once before a
    training, too: what cannot be had, or what no prompt asks for, is known then, and the real
    images are looked at once.

    Raises ValueError, FileNotFoundError or ImportError, in one line, where one of them cannot be
    had.
    """
    measured = measured_metrics(context.evaluation)
    scorers: dict[str, list[Scorer]] = {
        name: import_module(f"lightning_modules.metrics.{name}").build(context)
        for name, metric in measured.items()
        if metric.scores_images
    }
    if not context.evaluation.judge_errors:
        return scorers
    keys = {output.key for metric in measured.values() for output in metric.outputs}
    errors = read_rates(Path(context.evaluation.judge_errors), [*keys])
    return {name: [CorrectedScorer(one, errors) for one in some] for name, some in scorers.items()}
