"""One run from one resolved config: data, method, training, evaluation, result.

    python -m lightning_modules.train run.yaml    # Writes beside run.yaml; sweeps make such files
    python -m lightning_modules.train run.yaml --remeasure    # Scores the kept images again
    # With "evaluation: {draw_only: true}" in run.yaml: draws the images, lists them and stops
    python -m lightning_modules.train --help

What run.yaml leaves out has its default. A setting in it that the method, the data or the other
settings never read is refused; only a file that names every setting, as sweeps write it, may hold
some.

On ``trainer.devices`` above 1 torchrun starts it: see ``lightning_modules.training.distributed``.

The adapter is stored in ``<output>/adapters/<key>``, where the key is made of everything that
training depends on: runs that differ only in their evaluation share it, and a repeated run does not
train again.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.conditions import check_read, list_changed_data
from conf.custom_backbone import describe_widening
from conf.describe import show_count
from conf.files import DiskFull, named_when_full, to_json, write_atomically
from conf.pipes import ends_with_reader
from conf.places import as_path, check_folder
from conf.prompts import Extent
from conf.schema import SHIPPED, Run
from conf.seeds import resolve_seeds
from conf.spec import fewest_objects, methods
from conf.threads import wait_passively
from lightning_modules.methods.registry import build_method
from lightning_modules.tracking.provenance import measuring_tags
from lightning_modules.training.checks import (
    DRAW_FIRST,
    DetectionsMissing,
    check,
    check_backbone,
    check_configs,
)
from lightning_modules.training.contents import changed_contents, contents_of
from lightning_modules.training.fit import Pruned, train_or_load_adapter
from lightning_modules.training.keys import adapter_folder, training_key
from lightning_modules.training.preemption import STATUS, Preempted, raising_preempted
from lightning_modules.training.progress import DRAWN, Clock
from lightning_modules.training.quiet import silence_libraries
from lightning_modules.training.remeasure import (
    DRAFT,
    PENDING,
    Earlier,
    NotKept,
    adopt,
    discard,
    remeasure,
)
from lightning_modules.training.versions import made_by, measured_by

if TYPE_CHECKING:
    from datamodules.loading import PairedDataModule
    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.evaluation.evaluate import EvaluationResult
    from lightning_modules.methods.base import Method
    from lightning_modules.tracking.mlflow import SeedRun, Tracking

__all__ = ["check", "main", "run", "training_key"]

REMEASURE = "--remeasure"
Progress = Callable[[str, float], None]
# Of a run's progress
SHARES = {"data": (0.0, 0.05), "train": (0.05, 0.5), "evaluate": (0.5, 1.0)}


def run(
    config: Run, folder: Path, tracking: Tracking | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Trains, evaluates, writes ``folder``/result.json (the returned dict) and, with ``tracking``,
    a nested MLflow run.

    Where ``folder`` holds such a run of fewer prompts, only new images are drawn, and the result
    replaces that one once it is whole; with ``tracking``, whoever keeps the MLflow run does that
    (`remeasure.adopt`), and it is `remeasure.PENDING` until then.

    ``progress`` gets a line and the share of the run that is done. "seconds" of the result says
    where the time went: start (imports, the backbone), data, train, sample, score. With
    ``trainer.devices`` above 1 all processes of torchrun call this: the first writes and tracks,
    each returns the result. With ``evaluation.draw_only`` nothing is measured, and drawn.json is
    written instead, whose "drawn" says where the images are listed (`evaluation.manifest`). Raises
    ValueError or FileNotFoundError before any long work when the config cannot be run, DiskFull,
    with the path, where something cannot be written. Raises `Preempted` after SIGTERM or SIGUSR1,
    where this process has no other use for them; a training has then written a checkpoint.
    """
    config, folder = conf.with_homes(config), as_path(folder)
    check(config)
    _check_places(config, folder)
    with raising_preempted(), named_when_full(folder):
        return _start(config, folder, tracking, progress, Clock())


def _check_places(config: Run, folder: Path) -> None:
    """Raises ValueError where results cannot be written."""
    check_folder("output", config.output)
    check_folder("folder", folder)


def _start(
    config: Run,
    folder: Path,
    tracking: Tracking | None,
    progress: Progress | None,
    clock: Clock,
) -> dict[str, Any]:
    from lightning_modules.tracking.mlflow import SeedRun
    from lightning_modules.training import distributed

    with distributed.group(config.trainer.devices, config.trainer.accelerator):
        earlier = distributed.once(lambda: Earlier.find(config, folder))
        if not distributed.is_first():
            return _run(config, folder, None, None, clock, earlier)
        folder.mkdir(parents=True, exist_ok=True)
        conf.write(conf.as_run(config), folder / "run.yaml")
        if tracking is None or earlier is not None:
            result = _run(config, folder, None, progress, clock, earlier)
            if tracking is None and earlier is not None and "drawn" not in result:
                adopt(folder)
                discard(folder)
            return result
        with SeedRun(tracking) as seed_run:
            return _run(config, folder, seed_run, progress, clock)


def _run(
    config: Run,
    folder: Path,
    seed_run: SeedRun | None,
    progress: Progress | None,
    clock: Clock,
    earlier: Earlier | None = None,
) -> dict[str, Any]:
    silence_libraries()
    from datamodules.build import build_data
    from lightning_modules.evaluation.evaluate import EvaluationResult, evaluate
    from lightning_modules.evaluation.manifest import draw_and_list, end_drawn
    from lightning_modules.tracking.mlflow import TAG_LENGTH
    from lightning_modules.training import distributed
    from lightning_modules.training.needs import check_batches, check_needs, has_needs

    with _log(folder, progress) as emit:
        clock("start")
        datamodule: PairedDataModule | None = None
        if has_needs(config):  # What the data lack is said before any weights are loaded
            datamodule = build_data(config, emit("data"))
            check_batches(config, datamodule)
            shares = check_needs(config, datamodule, emit("data"))
            clock("data")
        else:
            shares = []
        backbone = _load_backbone(config, emit("data"))
        # Now: methods put theirs into its layers.
        backbone_parameters = sum(p.numel() for p in backbone.denoiser.parameters())
        clock("start")
        given = config
        if datamodule is None:
            datamodule = build_data(config, emit("data"))
            check_batches(config, datamodule)
        config, method, notes = _prepare(config, backbone, datamodule, folder, emit("data"), shares)
        if seed_run is not None and notes:
            seed_run.note({"data.notes": "\n".join(notes)[:TAG_LENGTH]})
        contents = distributed.once(lambda: contents_of(given, datamodule, emit("data")))
        verify = lambda: _check_unchanged(given, contents)  # noqa: E731
        clock("data")
        target = adapter_folder(config, datamodule) if method.trains else None
        try:
            method = train_or_load_adapter(
                config, method, datamodule, target, folder, seed_run, emit("train"), verify
            )
        except Pruned as stop:
            result = {"pruned": str(stop), "metrics": {}, "seconds": clock.seconds}
            return distributed.once(lambda: _write(result, folder))
        clock("train")
        late, outcome = conf.with_eval_overrides(config), EvaluationResult({}, {}, {})
        key, into = target.name if target else None, folder
        if late.evaluation.draw_only:
            drawn = draw_and_list(method, datamodule, late, key, emit("evaluate"), clock)
            verify()
            return distributed.once(lambda: end_drawn(drawn, contents, clock, folder, seed_run))
        if late.evaluation.measures:
            more = {}
            if earlier is not None:
                into, more = folder / DRAFT, {"recall": earlier.recall}
                distributed.once(lambda: shutil.rmtree(into, ignore_errors=True))
            outcome = evaluate(method, datamodule, late, key, into, emit("evaluate"), clock, **more)
        ran = distributed.once(lambda: _gather_ran(config, late, target, into, emit("evaluate")))
    trained = sum(p.numel() for p in method.parameters()) if target else 0
    counts = {
        "trained_parameters": ran["training"].get("trained_parameters", trained),
        "backbone_parameters": backbone_parameters,
    }
    verify()
    return distributed.once(
        lambda: _finish(config, outcome, counts, ran, contents, clock, folder, seed_run, earlier)
    )


@contextmanager
def _log(folder: Path, progress: Progress | None) -> Iterator[Callable[[str], Progress]]:
    """Gives, for a phase of ``SHARES``, the function that takes its lines and the share of it that
    is done; they go to log.txt (of the first process) and to ``progress``."""
    from lightning_modules.training import distributed

    began = time.monotonic()
    path = folder / "log.txt" if distributed.is_first() else Path(os.devnull)
    with path.open("a", encoding="utf-8") as log:

        def emit(phase: str) -> Progress:
            low, high = SHARES[phase]

            def line(text: str, share: float) -> None:
                with named_when_full(path):
                    print(f"{time.monotonic() - began:7.1f} s  {text}", file=log, flush=True)
                if progress:
                    progress(text, low + share * (high - low))

            return line

        yield emit


def _load_backbone(config: Run, emit: Progress) -> Backbone:
    from lightning_modules.backbone import acceleration
    from lightning_modules.backbone.backbone import Backbone
    from lightning_modules.training import distributed

    settings = config.backbone
    if settings.path not in SHIPPED:
        check_configs(config)
    backbone = Backbone.load(settings.path, settings.dtype, settings.revision)
    check_backbone(config, backbone)
    acceleration.accelerate(backbone, settings)
    # Here, not when training begins: a method that trains nothing samples on the same device.
    backbone.to(distributed.device(config.trainer.accelerator))
    cpu = backbone.device.type == "cpu"
    if widened := describe_widening(settings.path, settings.dtype, cpu):
        emit(widened, 0.0)
    if only_draws := backbone.schedule.describe():
        emit(only_draws, 0.0)
    if slow := acceleration.find_slow_format(config, backbone.device):
        emit(slow, 0.0)
    return backbone


def _prepare(
    config: Run,
    backbone: Backbone,
    datamodule: PairedDataModule,
    folder: Path,
    emit: Progress,
    shares: Sequence[str] = (),
) -> tuple[Run, Method, list[str]]:
    """Everything that can still be refused, then the long work on the data. The method is the one
    to evaluate, not installed yet; the last are notes on the data, ``shares`` among them."""
    import torch

    from lightning_modules.evaluation.evaluate import prepare_scorers
    from lightning_modules.evaluation.plan import (
        check_objects,
        find_cut,
        plan_evaluation,
        with_splits,
    )
    from lightning_modules.methods.registry import method_class
    from lightning_modules.metrics.benchmarks import describe_plan
    from lightning_modules.metrics.registry import undefined_by_prompts
    from lightning_modules.training import distributed

    config = with_splits(method_class(config.method.name).complete(config, datamodule), datamodule)
    late = conf.with_eval_overrides(config)
    if late.evaluation.measures and distributed.is_first():
        prompts = plan_evaluation(datamodule, late)
        for line in describe_plan(prompts):
            emit(f"data: {line}", 0.0)
        if cut := find_cut(backbone, prompts):
            emit(
                f"data: {show_count(len(cut), 'prompt')} longer than the text encoder reads "
                f"({backbone.text.length} tokens): the end counts for nothing that is drawn, such "
                f"as that of {cut[0][:60]!r}",
                0.0,
            )
        if late.evaluation.draw_only:  # What no prompt asks for is known without the models
            undefined_by_prompts(late.evaluation, prompts)
        else:
            prepare_scorers(late, datamodule, prompts, str(backbone.device), emit)
    with torch.random.fork_rng(devices=[]):
        # What is trained on each prompt alone starts from here
        torch.manual_seed(resolve_seeds(late).init)
        method = build_method(late, backbone)
    method.remove()
    if config.method.init and method.trains:
        method.check_weights(config.method.init)
    if late.evaluation.measures and method.takes_objects:
        prompts = plan_evaluation(datamodule, late)
        check_objects(backbone, datamodule, prompts, fewest_objects(late.method))
    method.check_data(datamodule.train_set)
    method.extend_data(config, datamodule, emit)
    if distributed.is_first():
        manifest = datamodule.manifest()
        notes = [*manifest.get("notes", []), *shares]
        for note in notes:
            emit(f"data: {note}", 0.0)
        write_atomically(folder / "data.json", json.dumps(manifest | {"notes": notes}, indent=1))
        return config, method, notes
    return config, method, []


def _check_unchanged(config: Run, contents: dict[str, str]) -> None:
    """Raises ValueError where a file that the trial reads was changed since it began. All processes
    call it."""
    if changed := changed_contents(contents, contents_of(config)):
        raise ValueError(
            f"{changed[0]} changed while this trial read it: what came of it is not kept; start "
            "again"
        )


def _finish(
    config: Run,
    outcome: EvaluationResult,
    counts: dict[str, int],
    ran: dict[str, Any],
    contents: dict[str, str],
    clock: Clock,
    folder: Path,
    seed_run: SeedRun | None,
    earlier: Earlier | None = None,
) -> dict[str, Any]:
    """Writes the result, into MLflow too; where it takes the place of an ``earlier`` one, as a
    whole folder beside it."""
    from lightning_modules.tracking.provenance import provenance
    from lightning_modules.tracking.ran import ran_tags

    metrics, undefined = outcome.split_undefined()
    made = made_by(config)
    result = {
        "metrics": metrics,
        "undefined": undefined,
        "facts": outcome.facts,
        "counts": counts,
        "ran": ran,
        "contents": contents,
        "seconds": clock.seconds,
        "scores": "scores.parquet" if outcome.metrics else None,
        "versions": provenance() | {"code": made["code"]},
        "code_parts": made["code_parts"],
        "measured": measured_by(config, outcome.metric_of),
    }
    asked = conf.with_eval_overrides(config).evaluation
    if asked.measures:
        result |= Extent.read(result)._replace(every=asked.prompts is None).facts
    if earlier is not None:
        result = earlier.join(result)
        _write(result, folder / DRAFT)
        shutil.rmtree(folder / PENDING, ignore_errors=True)
        (folder / DRAFT).rename(folder / PENDING)
        (folder / DRAWN).unlink(missing_ok=True)
        return result
    if seed_run is not None:
        seed_run.note(measuring_tags(result))
        seed_run.log_metrics(metrics)
        seed_run.mark_undefined(undefined)
        seed_run.note(ran_tags(ran))
        seed_run.log_metrics({f"seconds/{phase}": value for phase, value in clock.seconds.items()})
    _write(result, folder)
    (folder / DRAWN).unlink(missing_ok=True)
    if seed_run is not None:
        seed_run.log_artifacts(folder)
    return result


def _remeasure(config: Run, folder: Path, emit: Progress) -> dict[str, Any]:
    """Scores the kept images of a finished run again; the result, now in its place."""
    check(config)
    _check_places(config, folder)
    if config.evaluation.draw_only:
        raise ValueError("--remeasure with evaluation.draw_only=true: nothing would be measured")
    silence_libraries()
    try:
        result = remeasure(config, folder, emit)
    except NotKept as error:
        raise ValueError(
            f"{error}: run it again with another text in fresh=, which draws them"
        ) from None
    adopt(folder)
    discard(folder)
    return result


def _gather_ran(
    config: Run, late: Run, target: Path | None, folder: Path, emit: Progress
) -> dict[str, Any]:
    """What trained the adapter and drew the images, read from what ran, and what is not as it was
    asked for (see ``tracking.ran``)."""
    from lightning_modules.tracking.ran import list_differences, read_ran

    training = read_ran(target)
    sampling = read_ran(folder) if late.evaluation.measures else {}
    differs = list_differences(config, late, training, sampling)
    for key, text in differs.items():
        emit(f"{key}: {text}", 1.0)
    if target is None and methods()[config.method.name].learns_with:
        training = {"learns": "on each prompt"}
    return {"training": training, "sampling": sampling, "differs": differs}


def _write(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    write_atomically(folder / "result.json", to_json(result))
    return result


@ends_with_reader
def main(argv: list[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
        return 0
    words = [word for word in argv if word != REMEASURE]
    if len(words) != 1:
        given = " ".join(argv) or "nothing"
        print(f"error: {given}: expected one run.yaml, which holds all settings", file=sys.stderr)
        return 2
    # Read when torch is loaded: else each process says that its search for unused parameters found
    # none in the first step.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    wait_passively()
    from lightning_modules.training import distributed

    path = Path(words[0])
    try:
        if REMEASURE in argv:
            conf.check_whole(path)
        config = conf.read_run(path)
        keys = conf.keys_by_hand(path)
        check_read([config], [*keys, *config.evaluate_with] if keys else list_changed_data(config))
        emit = lambda text, share: print(f"{share:4.0%}  {text}", flush=True)  # noqa: E731
        if REMEASURE in argv:
            result = _remeasure(config, path.parent, emit)
        else:
            result = run(config, path.parent, progress=emit)
    except DetectionsMissing as error:
        command = f"python -m lightning_modules.train {shlex.quote(str(path))}"
        cure = f"write draw_only: true below evaluation: in {path} and say: {command}"
        print(f"error: {error}; {DRAW_FIRST}, {cure}", file=sys.stderr)
        return 2
    except (ValueError, FileNotFoundError, ImportError, DiskFull) as error:
        where = "" if distributed.is_first() else f" in process {distributed.rank()}"
        print(f"error{where}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if distributed.is_first():
            print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    except Preempted as error:
        if distributed.is_first():
            print(f"{error}; the same command resumes from the last checkpoint", file=sys.stderr)
        return STATUS
    if distributed.is_first() and "drawn" in result:
        from lightning_modules.evaluation.manifest import describe_drawn

        print(*describe_drawn(*result["drawn"].values()), sep="\n")
        print(f"then write draw_only: false in {path}: what is there is not drawn again")
    elif distributed.is_first():
        for key, value in result["metrics"].items():
            print(f"{key:24s} {value:.4f}")
        for key, reason in result.get("undefined", {}).items():
            print(f"{key:24s} undefined ({reason})")
        print(path.parent / "result.json")
    return 0
