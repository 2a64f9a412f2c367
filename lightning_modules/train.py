"""One run from one resolved config: data, method, training, evaluation, result.

    python -m lightning_modules.train run.yaml             # writes beside run.yaml; `sweeps` makes such files
    torchrun --standalone --nproc-per-node=2 -m lightning_modules.train run.yaml      # on trainer.devices=2 (`distributed`: on machines)
    python -m lightning_modules.train --help

The adapter lands in ``<output>/adapters/<digest>``, keyed by everything that training depends on: runs that differ in their evaluation
alone share it, and a run that is repeated does not train again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.schema import Run
from lightning_modules.checks import check, evaluated

if TYPE_CHECKING:
    from datamodules.loading import PairedDataModule
    from lightning_modules.backbone import Backbone
    from lightning_modules.evaluate import Evaluated
    from lightning_modules.method import Method
    from lightning_modules.tracking import SeedRun, Tracking

Progress = Callable[[str, float], None]
SHARES = {"data": (0.0, 0.05), "train": (0.05, 0.5), "evaluate": (0.5, 1.0)}  # of a run's progress


def run(config: Run, folder: Path, tracking: Tracking | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Trains, evaluates, writes ``folder``/result.json (the returned dict) and, with ``tracking``, a nested MLflow run.

    ``progress`` gets a line and the share of the run that is done. With ``trainer.devices`` above 1 all processes of torchrun call this
    alike: the first writes and tracks, each returns the result. Raises ValueError or FileNotFoundError before any long work when the config
    cannot be run.
    """
    check(config)
    from lightning_modules import distributed

    with distributed.group(config.trainer.devices, config.trainer.accelerator):
        if not distributed.first():
            return _run(config, folder, None, None)
        folder.mkdir(parents=True, exist_ok=True)
        conf.write(conf.as_run(config), folder / "run.yaml")
        if tracking is None:
            return _run(config, folder, None, progress)
        from lightning_modules.tracking import SeedRun

        with SeedRun(tracking) as seed_run:
            return _run(config, folder, seed_run, progress)


def training_key(config: Run) -> str:
    """Digest of what training depends on: the backbone's weights, where they lie on disk, the images of a scene of one's own, and every
    setting but those of evaluation, later overrides, output, logging and loading. Of batch and devices their product counts."""
    from lightning_modules.backbone import weights_digest
    from lightning_modules.data import data_digest

    facts = conf.to_dict(conf.as_run(config))
    for group, key in (("data", "eval_images"), ("data", "workers"), ("trainer", "log_every"), ("trainer", "checkpoint_every")):
        del facts[group][key]
    facts = {key: value for key, value in facts.items() if key not in ("evaluation", "evaluate_with", "output")}
    facts["trainer"]["batch"] *= facts["trainer"].pop("devices")
    # An adapter to start from is what its weights are, wherever they lie.
    start = weights_digest(config.method.init) if config.method.init else None
    facts["method"].pop("init")
    # So is a scene of one's own, which may be painted over in its place.
    facts["data"]["root"] = data_digest(config) or config.data.root
    return conf.digest({**facts, "weights": weights_digest(config.backbone.path), "start": start})


def _run(config: Run, folder: Path, seed_run: SeedRun | None, progress: Progress | None) -> dict[str, Any]:
    from lightning_modules import distributed
    from lightning_modules.tracking import provenance

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

        seconds: dict[str, float] = {}
        mark = time.monotonic()

        def clock(phase: str) -> None:
            nonlocal mark
            seconds[phase] = round(time.monotonic() - mark, 2)
            mark = time.monotonic()

        from lightning_modules.backbone import Backbone
        from lightning_modules.data import build_data, draw_prior, wants_prior, with_subjects
        from lightning_modules.prompts import plan
        from lightning_modules.scoring import reference_folder, scorers

        backbone = Backbone.load(config.backbone.path, config.backbone.dtype, config.backbone.revision)
        # Here, not when training begins: what is not trained is sampled on the same device as what is.
        backbone.to(distributed.device(config.trainer.accelerator))
        backbone_parameters = sum(p.numel() for p in backbone.unet.parameters())  # now, since methods put theirs into its layers
        datamodule = build_data(config, emit("data"), with_prior=False)
        config = with_subjects(config, datamodule)
        evaluation = evaluated(config).evaluation
        if evaluation.prompts and first:
            prompts = plan(datamodule, evaluation, config.seed)
            scorers(evaluation, datamodule, prompts, reference_folder(config), str(backbone.device), emit("data"))
        method = build_method(evaluated(config), backbone)
        method.remove()
        method.check_data(datamodule.train_set)
        if wants_prior(config):
            # After all that can be refused: it takes minutes on a large backbone.
            distributed.once(lambda: draw_prior(config, backbone, emit("data")))
            datamodule = build_data(config, emit("data"))
        if first:
            (folder / "data.json").write_text(json.dumps(datamodule.manifest(), indent=1))
        clock("data")
        method = _trained(config, method, datamodule, seed_run, emit("train"))
        clock("train")
        metrics: dict[str, float] = {}
        facts: dict[str, dict[str, Any]] = {}
        if evaluation.prompts:
            metrics, facts = _evaluated(config, method, datamodule, folder, emit("evaluate"))
        clock("evaluate")

    def finish() -> dict[str, Any]:
        result = {
            "metrics": metrics,
            "facts": facts,
            "counts": {
                "trained_parameters": sum(p.numel() for p in method.parameters()) if method.trains else 0,
                "backbone_parameters": backbone_parameters,
            },
            "seconds": seconds,
            "scores": "scores.parquet" if metrics else None,
            "versions": provenance(),
        }
        if seed_run is not None:
            seed_run.log_metrics(metrics)
            seed_run.log_metrics({f"seconds/{phase}": value for phase, value in seconds.items()})
        draft = folder / f".result.{os.getpid()}"
        draft.write_text(json.dumps(result, indent=1))
        draft.replace(folder / "result.json")
        if seed_run is not None:
            seed_run.log_artifacts(folder)
        return result

    return distributed.once(finish)


def build_method(config: Run, backbone: Backbone) -> Method:
    import lightning_modules

    kind = getattr(lightning_modules, lightning_modules.METHODS[config.method.name])
    return kind(backbone, config.method, config.trainer, config.backbone.resolution, config.seed)


def _trained(config: Run, method: Method, datamodule: PairedDataModule, seed_run: SeedRun | None, emit: Progress) -> Method:
    """``method``, built for the evaluation, with its trained adapter: freshly trained, or read from the shared folder."""
    import torch

    from lightning_modules import distributed

    if not method.trains:
        return method.eval()
    backbone = method.backbone
    target = Path(config.output) / "adapters" / training_key(config)
    if not distributed.once((target / "adapter.json").exists):
        torch.manual_seed(config.seed)
        trained = build_method(config, backbone)
        if config.method.init:
            trained.load_weights(config.method.init)
        _encode(config, trained, datamodule, emit)
        _fit(config, trained, datamodule, target, seed_run, emit)
        trained.remove()
    else:
        emit(f"training: adapter {target.name} is there already", 1.0)
    method.install()
    method.load_weights(target)
    return method.eval()


def _encode(config: Run, method: Method, datamodule: PairedDataModule, emit: Progress) -> None:
    """Attaches what is encoded once for all steps, as far as ``data.cache`` says: the training images' latents, the captions' states."""
    from datamodules.cache import TextCache, cache_latents, latent_facts, text_facts

    backbone, dataset, data = method.backbone, datamodule.train_set, config.data
    folder, dtype = Path(config.output) / "cache", config.backbone.dtype

    def told(text: str, share: float) -> None:
        emit(text, 0.0)

    if dataset.encodable and data.cache != "none":
        # A scene's dataset has its mirror images among those that it counts.
        flips = data.flip and data.name != "scene"
        facts = latent_facts(backbone.fingerprint(), dtype, config.backbone.resolution, "centre", dataset.digest(), flips)
        records = getattr(dataset, "records", None)
        where = (lambda row: records[row].path) if records is not None else "image {}".format
        dataset.latents = cache_latents(
            folder / "latents", facts, dataset, backbone.encode_images, where=where, on_error=data.on_error, emit=told
        )
    backbone.texts = None
    if data.cache == "all":
        facts = text_facts(backbone.text_fingerprint(), dtype)
        backbone.texts = TextCache.fill(folder / "texts", facts, dataset.texts(), backbone.encoded, emit=told)


def _fit(config: Run, method: Method, datamodule: PairedDataModule, target: Path, seed_run: SeedRun | None, emit: Progress) -> None:
    """Trains to the end, going on from the newest checkpoint; the adapter appears at ``target`` when all is done."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy

    from lightning_modules import distributed
    from lightning_modules.gating.diagnostics import GateDiagnostics
    from lightning_modules.gating.maps import GateMaps
    from lightning_modules.maskattn import MaskAttn
    from lightning_modules.progress import MetricLines, ProgressLines

    recipe = config.trainer
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    callbacks: list[L.Callback] = [
        ProgressLines("training", every=2.0, emit=emit),
        ModelCheckpoint(checkpoints, save_last=True, save_top_k=0, every_n_train_steps=recipe.checkpoint_every),
    ]
    tracked = distributed.once(lambda: seed_run is not None)
    if seed_run is not None:
        callbacks.append(MetricLines(recipe.log_every, seed_run.log_metrics))
    if tracked and isinstance(method, MaskAttn):
        # All processes begin to count anew at the same steps.
        store = None if seed_run is None else seed_run.log_metrics
        callbacks.append(GateDiagnostics(recipe.log_every, datamodule.train_set, method.seed, store))
        if seed_run is not None:
            callbacks.append(GateMaps(datamodule.train_set, method.seed, partial(seed_run.log_image, "gates/training")))
    here = distributed.local_processes()
    trainer = L.Trainer(
        max_steps=recipe.steps,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        precision=recipe.precision,  # type: ignore[arg-type]
        accelerator=recipe.accelerator,
        devices=here,
        num_nodes=recipe.devices // here,
        strategy=DDPStrategy(find_unused_parameters=method.leaves_out) if recipe.devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=callbacks,
    )
    last = checkpoints / "last.ckpt"
    going_on = distributed.once(last.exists)
    try:
        trainer.fit(method, datamodule=datamodule, ckpt_path=str(last) if going_on else None, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit; whoever called wants to know what it was.
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    distributed.once(lambda: method.save_adapter(target))
    if distributed.first():
        shutil.rmtree(checkpoints, ignore_errors=True)


def _evaluated(config: Run, method: Method, datamodule: PairedDataModule, folder: Path, emit: Progress) -> Evaluated:
    from lightning_modules import distributed
    from lightning_modules.evaluate import Evaluated, evaluate
    from lightning_modules.gating.maps import draw_gate_maps
    from lightning_modules.gating.probe import examine
    from lightning_modules.maskattn import MaskAttn

    late = evaluated(config)
    metrics, facts = evaluate(method, datamodule, late, training_key(config) if method.trains else None, folder, emit)
    if not distributed.first():
        return Evaluated({}, {})
    if isinstance(method, MaskAttn):
        found = examine(method, datamodule.eval_sets[late.evaluation.splits[0]], config.seed)
        metrics |= {f"eval/{key}": value for key, value in found.items()}
        draw_gate_maps(method, datamodule, late.evaluation, config.seed, folder)
    if late.evaluation.attention:
        from lightning_modules.attention_probe import AttentionProbe

        probe = AttentionProbe(method, datamodule.eval_sets[late.evaluation.splits[0]], config.seed)
        metrics |= {f"eval/{key}": value for key, value in probe.measure().items()}
        probe.draw(folder)
    return Evaluated(metrics, facts)


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
    for note in ("does not have many workers", r"isinstance\(treespec,", "torch_dtype. is deprecated", "dataloader is not resumable"):
        warnings.filterwarnings("ignore", f".*{note}")


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    # Read when torch is loaded: else each process says that its search for unused parameters found none in the first step.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from lightning_modules import distributed

    path = Path(argv[0])
    try:
        config = conf.read_run(path)
        check(config)
        result = run(config, path.parent, progress=lambda text, share: print(f"{share:4.0%}  {text}", flush=True))
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error{'' if distributed.first() else f' in process {distributed.rank()}'}: {error}", file=sys.stderr)
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
