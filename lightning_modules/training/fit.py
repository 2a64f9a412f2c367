"""The adapter of a run: read from the folder that all runs share, or trained into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from conf.schema import Run
from conf.spec import data_sets
from lightning_modules.methods.registry import build_method
from lightning_modules.training.keys import training_key

if TYPE_CHECKING:
    from datamodules.loading import PairedDataModule
    from lightning_modules.methods.base import Method
    from lightning_modules.tracking.mlflow import SeedRun

__all__ = ["Pruned", "build_method", "trained"]

Progress = Callable[[str, float], None]


class Pruned(Exception):
    """The training was asked to end; the message says at which step."""


def trained(
    config: Run,
    method: Method,
    datamodule: PairedDataModule,
    folder: Path,
    seed_run: SeedRun | None,
    emit: Progress,
) -> Method:
    """``method``, built for the evaluation, with its trained adapter: freshly trained, or read from
    the shared folder.

    Raises Pruned where the file ``prune`` in ``folder`` asked the training to end.
    """
    import torch

    from lightning_modules.training import distributed

    if not method.trains:
        method.install()
        return method.eval()
    backbone = method.backbone
    target = Path(config.output) / "adapters" / training_key(config)
    with _alone(target, emit):
        if not distributed.once((target / "adapter.json").exists):
            torch.manual_seed(config.seed)
            learner = build_method(config, backbone)
            if config.method.init:
                learner.load_weights(config.method.init)
            _encode(config, learner, datamodule, emit)
            _fit(config, learner, datamodule, target, folder, seed_run, emit)
            learner.remove()
        else:
            emit(f"training: adapter {target.name} is there already", 1.0)
    method.install()
    method.load_weights(target)
    return method.eval()


@contextmanager
def _alone(target: Path, emit: Progress) -> Iterator[None]:
    """One trial at a time trains an adapter; others wait, and find it there. The lock goes when its
    process does, in whatever way."""
    from lightning_modules.training import distributed

    if not distributed.first():
        yield
        return
    locks = target.parent.parent / "cache" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{target.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        emit("training: another trial trains this adapter, waiting for it", 0.0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _encode(config: Run, method: Method, datamodule: PairedDataModule, emit: Progress) -> None:
    """Attaches what is encoded once for all steps, as far as ``data.cache`` says: the training
    images' latents, the captions' states."""
    from datamodules.cache import TextCache, cache_latents, latent_facts, text_facts

    backbone, dataset, data = method.backbone, datamodule.train_set, config.data
    folder, dtype = Path(config.output) / "cache", config.backbone.dtype

    def told(text: str, share: float) -> None:
        emit(text, 0.0)

    if dataset.encodable and data.cache != "none":
        # A scene's dataset has its mirror images among those that it counts.
        flips = data.flip and data_sets()[data.name].kind != "scene"
        facts = latent_facts(
            backbone.autoencoder.fingerprint(),
            dtype,
            config.backbone.resolution,
            "centre",
            dataset.digest(),
            flips,
        )
        records = getattr(dataset, "records", None)
        where = (lambda row: records[row].path) if records is not None else "image {}".format
        dataset.latents = cache_latents(
            folder / "latents",
            facts,
            dataset,
            backbone.autoencoder.encode,
            where=where,
            on_error=data.on_error,
            emit=told,
        )
    backbone.text.cache = None
    if data.cache == "all":
        facts = text_facts(backbone.text.fingerprint(), dtype)
        backbone.text.cache = TextCache.fill(
            folder / "texts", facts, dataset.texts(), backbone.text.encode_for_cache, emit=told
        )


@contextmanager
def _checkpointing(denoiser: Any, wanted: bool) -> Iterator[None]:
    """Inside the block the denoiser keeps the inputs of its blocks alone and runs them again in the
    backward pass."""
    if wanted:
        denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if wanted:
            denoiser.disable_gradient_checkpointing()


def _fit(
    config: Run,
    method: Method,
    datamodule: PairedDataModule,
    target: Path,
    folder: Path,
    seed_run: SeedRun | None,
    emit: Progress,
) -> None:
    """Trains to the end, going on from the newest checkpoint; the adapter appears at ``target``
    when all is done."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy

    from lightning_modules.evaluation import cost as costs
    from lightning_modules.training import distributed
    from lightning_modules.training.callbacks import MetricLines, ProgressLines, StopOnRequest

    recipe = config.trainer
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    callbacks: list[L.Callback] = [
        ProgressLines("training", every=2.0, emit=emit),
        ModelCheckpoint(
            checkpoints, save_last=True, save_top_k=0, every_n_train_steps=recipe.checkpoint_every
        ),
        request := StopOnRequest(recipe.log_every, folder),
    ]
    tracked = distributed.once(lambda: seed_run is not None)
    if seed_run is not None:
        callbacks.append(MetricLines(recipe.log_every, seed_run.log_metrics))
    if tracked:
        callbacks += method.callbacks(datamodule.train_set, recipe.log_every, seed_run)
    here = distributed.local_processes()
    trainer = L.Trainer(
        max_steps=recipe.steps,
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        precision=recipe.precision,  # type: ignore[arg-type]
        accelerator=recipe.accelerator,
        devices=here,
        num_nodes=recipe.devices // here,
        strategy=DDPStrategy(find_unused_parameters=method.leaves_out)
        if recipe.devices > 1
        else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=callbacks,
    )
    last = checkpoints / "last.ckpt"
    going_on = distributed.once(last.exists)
    try:
        with (
            costs.track_resources(method.backbone.device) as cost,
            _checkpointing(method.backbone.denoiser, recipe.gradient_checkpointing),
        ):
            trainer.fit(
                method,
                datamodule=datamodule,
                ckpt_path=str(last) if going_on else None,
                weights_only=True,
            )
    except FloatingPointError:
        # Going on from there would end likewise.
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit; whoever called wants to know what it was.
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    if not request.stopped:
        # Of a training in pieces nobody knows what the others took
        if distributed.first() and not going_on:
            costs.write_training_cost(target, cost)
        distributed.once(lambda: method.save_adapter(target))
    if distributed.first():
        shutil.rmtree(checkpoints, ignore_errors=True)
    if request.stopped:
        raise Pruned(f"at step {trainer.global_step} of {recipe.steps}")
