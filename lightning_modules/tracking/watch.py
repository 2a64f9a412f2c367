"""Looks at a training and at sampling while they run, and notes what they are (see `ran`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import nn

from conf.seeds import TRAINING_SEEDS

__all__ = ["TrainingWatch", "describe_sampling", "watch_denoiser"]


@contextmanager
def watch_denoiser(backbone: Any) -> Iterator[dict[str, Any]]:
    """Fills the dict with how the denoiser is called inside the block: ``device``, ``dtype`` of the
    weights, ``computes_in`` (autocast's dtype where it acts), ``resolution`` in pixels, the most
    ``rows`` of a call, the number of ``calls``, the processors of its ``attention``, how many
    blocks are ``compiled``, whether they are ``checkpointed`` and its weights ``channels_last``.
    Nothing of what draws without a denoiser."""
    seen: dict[str, Any] = {}

    def look(denoiser: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen["calls"] = seen.get("calls", 0) + 1
        if inputs:
            seen["rows"] = max(seen.get("rows", 0), len(inputs[0]))
        if seen["calls"] > 1 or not inputs:
            return
        kind = inputs[0].device.type
        autocast = torch.is_autocast_enabled(kind)
        weights = next(denoiser.parameters()).dtype
        seen.update(
            device=kind,
            dtype=_name(weights),
            computes_in=_name(torch.get_autocast_dtype(kind) if autocast else weights),
            resolution=inputs[0].shape[-1] * backbone.vae_scale_factor,
            **_describe_denoiser(denoiser),
        )

    denoiser = getattr(backbone, "denoiser", None)
    if denoiser is None:
        yield seen
        return
    handle = denoiser.register_forward_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


def _describe_denoiser(denoiser: Any) -> dict[str, Any]:
    processors = getattr(denoiser, "attn_processors", {}).values()
    maps = [weight for weight in denoiser.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
    return {
        "attention": sorted({type(processor).__name__ for processor in processors}),
        "compiled": sum(module._compiled_call_impl is not None for module in denoiser.modules()),
        "checkpointed": any(
            getattr(module, "gradient_checkpointing", False) for module in denoiser.modules()
        ),
        "channels_last": bool(maps)
        and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in maps),
    }


class TrainingWatch(L.Callback):
    """Reads from a training what it is: ``facts``, whole when it has ended."""

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.facts: dict[str, Any] = {}
        self._rates: list[float] = []
        self._seen: dict[str, Any] | None = None
        self._captions = self._cut = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        trained = [weight for group in groups for weight in group["params"]]
        loader: Any = trainer.train_dataloader
        each = loader.batch_size
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        seeds = (torch.initial_seed(), datamodule.seed, pl_module.seeds.timestep)
        self._rates = [0.0] * len(groups)
        self.facts = {
            "precision": str(trainer.precision),
            "accelerator": trainer.strategy.root_device.type,
            "devices": trainer.world_size,
            "strategy": type(trainer.strategy).__name__,
            "batch": each * trainer.world_size * trainer.accumulate_grad_batches,
            "accumulate": trainer.accumulate_grad_batches,
            "images": len(loader.dataset),
            "optimizer": type(trainer.optimizers[0]).__name__,
            "weight_decay": [group["weight_decay"] for group in groups],
            "clip": trainer.gradient_clip_val,
            "trained_parameters": sum(weight.numel() for weight in trained),
            "trained_dtype": sorted({_name(weight.dtype) for weight in trained}),
            "noise_schedule": _describe_scheduler(self.backbone),
            **_name_seeds(seeds),
            "threads": torch.get_num_threads(),
            "resumed_at": trainer.global_step,
        }

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, *_: Any) -> None:
        if (text := getattr(self.backbone, "text", None)) is not None:
            self._captions += len(batch.captions)
            self._cut += len(text.find_cut(batch.captions))
        if self._seen is None:  # Now: what looks at the method before its first step is no training
            self._watch = watch_denoiser(self.backbone)
            self._seen = self._watch.__enter__()
        groups = trainer.optimizers[0].param_groups
        self._rates = [
            max(most, group["lr"]) for most, group in zip(self._rates, groups, strict=True)
        ]

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._stop()
        seen = {k: value for k, value in (self._seen or {}).items() if k not in ("rows", "calls")}
        self.facts |= {"steps": trainer.global_step, "peak_lr": self._rates, **seen}
        if self._cut:  # In this process, and since a resumed training went on
            self.facts |= {"captions": self._captions, "captions_cut": self._cut}

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._seen is not None:
            self._watch.__exit__(None, None, None)


def describe_sampling(backbone: Any, seen: Mapping[str, Any], prompts: int) -> dict[str, Any]:
    """The facts of a batch of ``prompts`` that was drawn while ``watch_denoiser`` looked."""
    facts = {key: value for key, value in seen.items() if key not in ("rows", "checkpointed")}
    if not facts:
        return {}
    return facts | {
        "scheduler": _describe_scheduler(backbone),
        "guided": seen.get("rows", 0) > prompts,
        "batch": prompts,
        "threads": torch.get_num_threads(),
    }


def _describe_scheduler(backbone: Any) -> str:
    return f"{type(backbone.scheduler).__name__} ({backbone.schedule.prediction_type})"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _name_seeds(seeds: Sequence[int]) -> dict[str, int]:
    """``seed`` where all of a training's are the same."""
    if len({*seeds}) == 1:
        return {"seed": seeds[0]}
    return dict(zip(TRAINING_SEEDS, seeds, strict=True))
