"""The adapter of a run: loaded from the folder that all runs share, or trained into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from conf.files import drop
from conf.schema import Run
from conf.seeds import resolve_seeds
from conf.spec import data_kind
from lightning_modules.methods.adapter_file import CARD
from lightning_modules.methods.damage import find_damage
from lightning_modules.methods.registry import build_method
from lightning_modules.training.preemption import Notice, noticing_signals

if TYPE_CHECKING:
    import lightning as L

    from datamodules.loading import PairedDataModule
    from lightning_modules.methods.base import Method
    from lightning_modules.tracking.mlflow import SeedRun

__all__ = ["Pruned", "train_or_load_adapter"]

Progress = Callable[[str, float], None]


class Pruned(Exception):
    """The training was asked to stop; the message says at which step."""


def train_or_load_adapter(
    config: Run,
    method: Method,
    datamodule: PairedDataModule,
    target: Path | None,
    folder: Path,
    seed_run: SeedRun | None,
    emit: Progress,
    verify: Callable[[], None] = lambda: None,
) -> Method:
    """``method``, built for the evaluation, installed and with the adapter in ``target``, which is
    trained first where there is none; a method without a target trains nothing. ``verify`` is
    called by all processes before an adapter is stored: it raises ValueError where none may be.

    Raises Pruned where the file ``PRUNE`` in ``folder`` asked the training to stop.
    """
    import torch

    from lightning_modules.training import distributed

    if target is None:
        method.install()
        return method.eval()
    with _lock(target, emit):
        if not distributed.once(lambda: _is_whole(target, emit)):
            torch.manual_seed(resolve_seeds(config).init)
            learner = build_method(config, method.backbone)
            if config.method.init:
                learner.load_weights(config.method.init)
            _encode(config, learner, datamodule, emit)
            with noticing_signals() as notice:
                _train(config, learner, datamodule, target, folder, seed_run, emit, verify, notice)
            learner.remove()
        else:
            emit(f"training: adapter {target.name} is there already", 1.0)
    method.install()
    method.load_weights(target)
    return method.eval()


def _is_whole(target: Path, emit: Progress) -> bool:
    """Whether there is an adapter in ``target``. One that was cut off is dropped, with a line."""
    if not (target / CARD).exists():
        return False
    if (damage := find_damage(target)) is None:
        return True
    path, reason = damage
    drop(path, emit, reason, "trained again")
    drop(target)
    return False


@contextmanager
def _lock(target: Path, emit: Progress) -> Iterator[None]:
    """One trial at a time trains an adapter; the others wait and load it. The lock goes when its
    process ends, however that happens."""
    from lightning_modules.training import distributed

    if not distributed.is_first():
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
    """Attaches what is encoded once for all steps (``data.cache``): the latents of the training
    images, the states of their captions."""
    from datamodules.cache import TextCache, cache_latents, latent_facts, text_facts

    backbone, dataset, data = method.backbone, datamodule.train_set, config.data
    folder, dtype = Path(config.output) / "cache", config.backbone.dtype

    def tell(text: str, share: float) -> None:
        emit(text, 0.0)

    if dataset.encodable and data.cache != "none":
        # A scene's dataset counts its mirror images as images of its own.
        flips = data.flip and data_kind(config) != "scene"
        facts = latent_facts(
            backbone.autoencoder.fingerprint(),
            dtype,
            config.backbone.resolution,
            "centre",
            dataset.digest(),
            flips,
        )
        encode = backbone.autoencoder.encode
        if config.method.latents == "sample":
            facts, encode = facts | {"kind": "posteriors"}, backbone.autoencoder.encode_posterior
        records = getattr(dataset, "records", None)
        where = (lambda row: records[row].path) if records is not None else "image {}".format
        dataset.latents = cache_latents(
            folder / "latents",
            facts,
            dataset,
            encode,
            where=where,
            on_error=data.on_error,
            emit=tell,
        )
    backbone.text.cache = None
    if data.cache == "all":
        facts = text_facts(backbone.text.fingerprint(), dtype)
        backbone.text.cache = TextCache.fill(
            folder / "texts", facts, dataset.texts(), backbone.text.encode_for_cache, emit=tell
        )


def _train(
    config: Run,
    method: Method,
    datamodule: PairedDataModule,
    target: Path,
    folder: Path,
    seed_run: SeedRun | None,
    emit: Progress,
    verify: Callable[[], None],
    notice: Notice,
) -> None:
    """Trains to the end, from the newest checkpoint on; the adapter appears in ``target`` when all
    is done. After a signal it ends sooner, with a checkpoint."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from lightning_modules.evaluation.cost import track_resources, write_training_cost
    from lightning_modules.tracking.ran import write_ran
    from lightning_modules.tracking.watch import TrainingWatch
    from lightning_modules.training import distributed
    from lightning_modules.training.callbacks import (
        MetricLines,
        ProgressLines,
        StopOnRequest,
        StopOnSignal,
        Stopped,
    )
    from lightning_modules.training.checkpoints import find_checkpoint

    every = config.trainer.log_every
    checkpoints = target.with_name(f"{target.name}.checkpoints")
    callbacks: list[L.Callback] = [
        ProgressLines("training", every=2.0, emit=emit),
        ModelCheckpoint(
            checkpoints,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=config.trainer.checkpoint_every,
            enable_version_counter=False,
        ),
        StopOnSignal(notice, checkpoints, config.trainer.checkpoint_every),
        request := StopOnRequest(every, folder),
        watch := TrainingWatch(method.backbone),
    ]
    tracked = distributed.once(lambda: seed_run is not None)
    if seed_run is not None:
        callbacks.append(MetricLines(every, seed_run.log_metrics))
    if tracked:
        callbacks += method.callbacks(datamodule.train_set, every, seed_run)
    trainer = _trainer(config, method, callbacks)
    last = distributed.once(lambda: str(find_checkpoint(checkpoints, emit) or ""))
    try:
        with (
            track_resources(method.backbone.device) as cost,
            _gradient_checkpointing(method.backbone.denoiser, config),
        ):
            trainer.fit(
                method,
                datamodule=datamodule,
                ckpt_path=last or None,
                weights_only=True,
            )
    except Stopped as stop:
        emit(f"training: stopped by a signal {stop}, with a checkpoint", 0.0)
        return
    except FloatingPointError:
        # A training that resumed there would end in the same way.
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit; the caller needs to know what it was.
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    if not request.stopped:
        # The cost of the parts before an interruption is unknown.
        if distributed.is_first() and not last:
            write_training_cost(target, cost)
        try:
            verify()
        except ValueError:
            # A training that went on from there would not be of one content either
            distributed.once(lambda: shutil.rmtree(checkpoints, ignore_errors=True))
            raise
        distributed.once(lambda: write_ran(target, watch.facts))
        distributed.once(lambda: method.save_adapter(target))
    if distributed.is_first():
        shutil.rmtree(checkpoints, ignore_errors=True)
    if request.stopped:
        raise Pruned(f"at step {trainer.global_step} of {config.trainer.steps}")


def _trainer(config: Run, method: Method, callbacks: list[L.Callback]) -> L.Trainer:
    import lightning as L
    from lightning.pytorch.strategies import DDPStrategy

    from lightning_modules.training import distributed
    from lightning_modules.training.checkpoints import KeptCheckpoints

    settings, here = config.trainer, distributed.local_processes()
    ddp = DDPStrategy(find_unused_parameters=method.find_unused_parameters)
    return L.Trainer(
        max_steps=settings.steps,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        precision=settings.precision,  # type: ignore[arg-type]
        accelerator=settings.accelerator,
        devices=here,
        num_nodes=settings.devices // here,
        strategy=ddp if settings.devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=callbacks,
        plugins=[KeptCheckpoints()],
    )


@contextmanager
def _gradient_checkpointing(denoiser: Any, config: Run) -> Iterator[None]:
    """With ``trainer.gradient_checkpointing`` the denoiser keeps only the inputs of its blocks
    inside the block, and runs them again in the backward pass."""
    active = config.trainer.gradient_checkpointing
    if active:
        denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if active:
            denoiser.disable_gradient_checkpointing()
