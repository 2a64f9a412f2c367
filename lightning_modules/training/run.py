"""One run from one resolved config: data, method, training, evaluation, result.

    python -m lightning_modules.train run.yaml             # writes beside run.yaml; `sweeps` makes such files
    torchrun --standalone --nproc-per-node=2 -m lightning_modules.train run.yaml      # on trainer.devices=2 (`distributed`: on machines)
    python -m lightning_modules.train --help

The adapter lands in ``<output>/adapters/<digest>``, keyed by everything that training depends on:
runs that differ in their evaluation alone share it, and a run that is repeated does not train
again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.schema import Run
from lightning_modules.methods.registry import build_method
from lightning_modules.training.checks import check, check_backbone
from lightning_modules.training.fit import Pruned, trained
from lightning_modules.training.keys import code_version, training_key
from lightning_modules.training.progress import Clock

if TYPE_CHECKING:
    from datamodules.loading import PairedDataModule
    from lightning_modules.evaluation.evaluate import EvaluationResult
    from lightning_modules.methods.base import Method
    from lightning_modules.tracking.mlflow import SeedRun, Tracking

Progress = Callable[[str, float], None]
SHARES = {"data": (0.0, 0.05), "train": (0.05, 0.5), "evaluate": (0.5, 1.0)}  # of a run's progress


def run(
    config: Run, folder: Path, tracking: Tracking | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Trains, evaluates, writes ``folder``/result.json (the returned dict) and, with ``tracking``,
    a nested MLflow run.

    ``progress`` gets a line and the share of the run that is done. "seconds" of the result says
    where the time went: start (imports, the backbone), data, train, sample, score. With
    ``trainer.devices`` above 1 all processes of torchrun call this alike: the first writes and
    tracks, each returns the result. Raises ValueError or FileNotFoundError before any long work
    when the config cannot be run.
    """
    check(config)
    clock = Clock()
    from lightning_modules.training import distributed

    with distributed.group(config.trainer.devices, config.trainer.accelerator):
        if not distributed.first():
            return _run(config, folder, None, None, clock)
        folder.mkdir(parents=True, exist_ok=True)
        conf.write(conf.as_run(config), folder / "run.yaml")
        if tracking is None:
            return _run(config, folder, None, progress, clock)
        from lightning_modules.tracking.mlflow import SeedRun

        with SeedRun(tracking) as seed_run:
            return _run(config, folder, seed_run, progress, clock)


def _run(
    config: Run, folder: Path, seed_run: SeedRun | None, progress: Progress | None, clock: Clock
) -> dict[str, Any]:
    from lightning_modules.tracking.mlflow import provenance
    from lightning_modules.training import distributed

    _quiet()
    began, first = time.monotonic(), distributed.first()
    with (folder / "log.txt" if first else Path(os.devnull)).open("a") as log:

        def emit(phase: str) -> Progress:
            low, high = SHARES[phase]

            def line(text: str, share: float) -> None:
                print(f"{time.monotonic() - began:7.1f} s  {text}", file=log, flush=True)
                if progress:
                    progress(text, low + share * (high - low))

            return line

        from datamodules.build import build_data
        from lightning_modules.backbone.acceleration import accelerate, slow_format
        from lightning_modules.backbone.backbone import Backbone
        from lightning_modules.evaluation.evaluate import prepare_scorers
        from lightning_modules.evaluation.plan import plan
        from lightning_modules.training.data import (
            attach_prior,
            draw_prior,
            wants_prior,
            with_subjects,
        )

        backbone = Backbone.load(
            config.backbone.path, config.backbone.dtype, config.backbone.revision
        )
        check_backbone(config, backbone)
        accelerate(backbone, config.backbone)
        # Here, not when training begins: what is not trained is sampled on the same device as what
        # is.
        backbone.to(distributed.device(config.trainer.accelerator))
        if slow := slow_format(config, backbone.device):
            emit("data")(slow, 0.0)
        # Now, since methods put theirs into its layers
        backbone_parameters = sum(p.numel() for p in backbone.denoiser.parameters())
        clock("start")
        datamodule = build_data(config, emit("data"))
        config = with_subjects(config, datamodule)
        late = conf.with_eval_overrides(config)
        if late.evaluation.prompts and first:
            prompts = plan(datamodule, late.evaluation, late.seed)
            prepare_scorers(late, datamodule, prompts, str(backbone.device), emit("data"))
        method = build_method(late, backbone)
        method.remove()
        method.check_data(datamodule.train_set)
        if wants_prior(config):
            # After all that can be refused: it takes minutes on a large backbone.
            distributed.once(lambda: draw_prior(config, backbone, emit("data")))
            attach_prior(config, datamodule)
        if first:
            (folder / "data.json").write_text(json.dumps(datamodule.manifest(), indent=1))
        clock("data")
        try:
            method = trained(config, method, datamodule, folder, seed_run, emit("train"))
        except Pruned as stop:
            pruned = str(stop)
            return distributed.once(
                lambda: _write(folder, {"pruned": pruned, "metrics": {}, "seconds": clock.seconds})
            )
        clock("train")
        metrics: dict[str, float] = {}
        facts: dict[str, dict[str, Any]] = {}
        if late.evaluation.prompts:
            metrics, facts = _evaluated(config, method, datamodule, folder, emit("evaluate"), clock)

    def finish() -> dict[str, Any]:
        result = {
            "metrics": metrics,
            "facts": facts,
            "counts": {
                "trained_parameters": sum(p.numel() for p in method.parameters())
                if method.trains
                else 0,
                "backbone_parameters": backbone_parameters,
            },
            "seconds": clock.seconds,
            "scores": "scores.parquet" if metrics else None,
            "versions": provenance() | {"code": code_version()},
        }
        if seed_run is not None:
            seed_run.log_metrics(metrics)
            seed_run.log_metrics(
                {f"seconds/{phase}": value for phase, value in clock.seconds.items()}
            )
        _write(folder, result)
        if seed_run is not None:
            seed_run.log_artifacts(folder)
        return result

    return distributed.once(finish)


def _write(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """``result`` as result.json, which is there as a whole or not at all."""
    draft = folder / f".result.{os.getpid()}"
    draft.write_text(json.dumps(result, indent=1))
    draft.replace(folder / "result.json")
    return result


def _evaluated(
    config: Run,
    method: Method,
    datamodule: PairedDataModule,
    folder: Path,
    emit: Progress,
    clock: Clock,
) -> EvaluationResult:
    from lightning_modules.evaluation.evaluate import evaluate

    trained = training_key(config) if method.trains else None
    return evaluate(
        method, datamodule, conf.with_eval_overrides(config), trained, folder, emit, clock
    )


def _quiet() -> None:
    """Keeps advertisements and notes of the libraries out of a sweep's progress."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Each of them sets its level when it is imported: an earlier setting would not last.
    import lightning.pytorch  # noqa: F401
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for library in (diffusers, transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()
    # The last of them is not true of ours: the datamodule goes on where it stopped.
    for note in (
        "does not have many workers",
        r"isinstance\(treespec,",
        "torch_dtype. is deprecated",
        "dataloader is not resumable",
    ):
        warnings.filterwarnings("ignore", f".*{note}")


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    # Read when torch is loaded: else each process says that its search for unused parameters found
    # none in the first step.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from lightning_modules.training import distributed

    path = Path(argv[0])
    try:
        config = conf.read_run(path)
        check(config)
        result = run(
            config,
            path.parent,
            progress=lambda text, share: print(f"{share:4.0%}  {text}", flush=True),
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(
            (f"error{'' if distributed.first() else f' in process {distributed.rank()}'}: {error}"),
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        if distributed.first():
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    if not distributed.first():
        return 0
    for key, value in result["metrics"].items():
        print(f"{key:24s} {value:.4f}")
    print(path.parent / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
