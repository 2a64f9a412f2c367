"""What gates do: measured and drawn at the end, watched and drawn while they are trained.

A method with gates brings these in its ``callbacks`` and ``diagnostics``. Such a method has
``gates`` (`Gates`), ``build_gates()`` (fresh ones), and ``window``, the `GateRecord` of its
training since somebody took it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from conf.files import to_json, write_atomically
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gates import Gates
from lightning_modules.evaluation.diagnostics import Probe
from lightning_modules.evaluation.figures import draw_maps
from lightning_modules.evaluation.plan import find_objects, plan
from losses.gates import mask_to_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

    from conf.schema import Evaluation
    from conf.seeds import Seeds
    from datamodules.captioned import CaptionedDataModule, CaptionedDataset

IMAGES = 16  # The first of a split; timesteps are spread evenly over them
TIMED = 4  # Of these, on which passes are timed
WATCHED = 8  # Images on which changes of gates are counted in training
DRAWN_PER_SPLIT = 2  # Prompts drawn of each evaluation split: its first ones
DRAWN_IN_TRAINING = 4
PICTURES = 4  # Of a training, beside the one of its start


def measure_gates(method: Any, dataset: CaptionedDataset, seeds: Seeds) -> dict[str, float]:
    """What became of the gates in training that ``seeds.init`` began, how well they know the
    objects, and what they cost; nothing of gates that are not trained."""
    if not method.trains:
        return {}
    probe = GateProbe(method, dataset, seeds.sampling, IMAGES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.init)
        start = method.build_gates().to(method.backbone.device)
    now = probe.run()
    return {
        **probe.changes(start, now),
        **probe.mask_iou(now),
        "overhead": probe.overhead(),
        "parameters": float(method.gates.parameter_count()),
    }


class GateProbe(Probe):
    """What gates do with a fixed set of images."""

    method: Any

    @torch.no_grad()
    def run(self, gates: Gates | None = None) -> GateRecord:
        """What the method's gates, or others in their place, do with the images."""
        method = self.method
        # Again: gates know the token types of the latest texts alone
        text = method.backbone.text.encode(self.captions)
        if gates is None:
            with method.gates.recording(live=True) as record:
                method.predict(self.noised, self.timesteps, text)
            return record
        method.remove()
        try:
            with gates.attached(method.backbone.denoiser), gates.recording(live=True) as record:
                method.predict(self.noised, self.timesteps, text)
        finally:
            method.install()
        return record

    def changes(self, start: Gates, now: GateRecord | None = None) -> dict[str, float]:
        """``gates_reopened``: of the free gates closed under ``start``, the share that is open now;
        ``gates_shut``: of those that were open, the share that is closed now. NaN where there were
        none. Gates that a rule holds are not counted: they can do neither. ``now``: of `run`,
        where it ran already."""
        before, now = self.run(start), now or self.run()
        reopened = shut = was_closed = was_open = 0.0
        for site, old in before.gates.items():
            first, last, free = old > 0.5, now.gates[site] > 0.5, now.free[site]
            reopened += float((~first & last & free).sum())
            shut += float((first & ~last & free).sum())
            was_closed += float((~first & free).sum())
            was_open += float((first & free).sum())
        return {
            "gates_reopened": reopened / was_closed if was_closed else math.nan,
            "gates_shut": shut / was_open if was_open else math.nan,
        }

    def mask_iou(self, now: GateRecord | None = None) -> dict[str, float]:
        """``gate_mask_iou``: intersection over union of where a phrase's gates are open and where
        its object is, the mean over phrases, tokens and cross-attention sites; with every gate open
        it is the objects' share of the plane. NaN-free: nothing without phrases. ``now`` as of
        `changes`."""
        record, values = now or self.run(), []
        located = self.method.backbone.text.locate_phrases(self.captions, self.phrases)
        for site in self.method.gates.sites:
            if site.kind != "cross":
                continue
            gate = record.gates[site.name] > 0.5  # [B, N, T]
            for b, sample in enumerate(zip(*located, strict=True)):
                for phrase, at in zip(*sample, strict=True):
                    mask = mask_to_pixels(phrase.mask, gate.shape[1]).to(gate.device)
                    opened = gate[b][:, at]  # [N, tokens]
                    union = (opened | mask[:, None]).sum(0).clamp_min(1)
                    values += ((opened & mask[:, None]).sum(0) / union).tolist()
        return {"gate_mask_iou": statistics.fmean(values)} if values else {}

    @torch.no_grad()
    def overhead(self, rounds: int = 3) -> float:
        """Time of a forward pass of the model with the gates over that without, on the first
        `TIMED` images, medians of passes that take turns."""
        text = self.method.backbone.text.encode(self.captions[:TIMED])
        given = self.noised[:TIMED], self.timesteps[:TIMED], text
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds + 1):
            for gated in (True, False):
                (self.method.install if gated else self.method.remove)()
                start = time.perf_counter()
                prediction = self.method.predict(*given)
                prediction.flatten()[0].item()  # Waits for a GPU
                seconds[gated].append(time.perf_counter() - start)
        self.method.install()
        return statistics.median(seconds[True][1:]) / statistics.median(seconds[False][1:])


def draw_gate_maps(
    method: Any, datamodule: CaptionedDataModule, config: Evaluation, seeds: Seeds, folder: Path
) -> None:
    """Writes ``gates.png`` and ``gates.json`` (prompts, tokens, share of open gates by token and
    resolution) to ``folder``.

    A map is the share of sampler steps and cross-attention sites of one resolution at which a
    token's gate was open, by location. Without such sites there is nothing to draw: on
    self-attention tokens are locations.
    """
    if not _cross_sites(method):
        return
    prompts = plan(
        datamodule,
        replace(
            config, noise_seeds=1, prompts=min(DRAWN_PER_SPLIT, config.prompts or DRAWN_PER_SPLIT)
        ),
        seeds.sampling,
        seeds.prompt,
    )
    guided = method.backbone.family.is_guided(config.guidance)
    with method.gates.recording(conditional_half=guided, keep_maps=True) as record:
        texts, noises = [p.text for p in prompts], [p.noise for p in prompts]
        named = {"objects": find_objects(datamodule, prompts)} if method.takes_objects else {}
        given = texts, noises, None, config.steps, config.guidance, len(prompts)
        images = method.generate(*given, **named)
    maps = _by_resolution(method, record.maps)
    tokens = [method.backbone.text.token_names(p.text) for p in prompts]
    content = [
        {
            "prompt": p.text,
            "tokens": tokens[i],
            "open": {
                str(side): [round(float(m[i, ..., t].mean()), 4) for t in range(len(tokens[i]))]
                for side, m in maps.items()
            },
        }
        for i, p in enumerate(prompts)
    ]
    write_atomically(folder / "gates.json", to_json(content))
    write_atomically(folder / "gates.png", draw_maps(images, maps, tokens).save)


class GateDiagnostics(L.Callback):
    """Every ``every`` optimiser steps ``store`` gets, under ``gates/``:

    ``closed/site/…``, ``closed/kind/…``, ``closed/time/…``: share of closed gates since the last
    time, by layer, kind of token and timesteps; ``gradient/closed`` and ``gradient/open``: root
    mean square of the loss's gradient by a closed and by an open gate; ``opened`` and ``shut``: on
    the first training images with fixed noise, the share of free gates that changed state since the
    last time.

    Of several processes all need this callback, one with a ``store``.
    """

    def __init__(
        self,
        every: int,
        dataset: CaptionedDataset,
        seed: int,
        store: Callable[[dict[str, float], int], None] | None,
    ) -> None:
        self.every, self.dataset, self.seed, self.store, self.last = every, dataset, seed, store, -1
        self.before: dict[str, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.store is None:
            return
        self.probe = GateProbe(pl_module, self.dataset, self.seed, WATCHED)
        self._turnover()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self.last or (step % self.every and step != trainer.max_steps):
            return
        self.last = step
        window, pl_module.window = pl_module.window, None
        if window is None:
            return
        window = window.all_reduce(pl_module.gates.sites)
        if self.store is None:
            return
        values = {f"closed/{name}": value for name, value in window.shares().items()}
        values |= {
            f"gradient/{name}": value for name, value in window.gradients().items()
        } | self._turnover()
        self.store({f"gates/{name}": value for name, value in values.items()}, step)

    @torch.no_grad()
    def _turnover(self) -> dict[str, float]:
        record = self.probe.run()
        now = {site: gate > 0.5 for site, gate in record.gates.items()}
        before, self.before = self.before, now
        total = sum(int(record.free[site].expand_as(gate).sum()) for site, gate in now.items())
        if before is None or not total:
            return {}
        opened = sum(int((~before[site] & gate).sum()) for site, gate in now.items())
        shut = sum(int((before[site] & ~gate).sum()) for site, gate in now.items())
        return {"opened": opened / total, "shut": shut / total}


class GateMaps(L.Callback):
    """Draws the gates over the first training images, noised at evenly spread timesteps, and hands
    the picture to ``store`` with the step: before the first step, after each quarter of the
    training, and after the last step."""

    def __init__(
        self, dataset: CaptionedDataset, seed: int, store: Callable[[Image, int], None]
    ) -> None:
        self.dataset, self.seed, self.store, self.last = dataset, seed, store, -1

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.probe = GateProbe(pl_module, self.dataset, self.seed, DRAWN_IN_TRAINING)
        self._look(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (
            trainer.global_step != self.last
            and (trainer.global_step * PICTURES) % trainer.max_steps < PICTURES
        ):
            self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, method: Any) -> None:
        self.last = trainer.global_step
        if not _cross_sites(method):
            return
        maps = _by_resolution(
            method, {name: gate > 0.5 for name, gate in self.probe.run().gates.items()}
        )
        order = self.probe.timesteps.argsort(descending=True).tolist()
        images = torch.stack([self.dataset.pixels(i) for i in order])
        tokens = [method.backbone.text.token_names(self.probe.captions[i]) for i in order]
        titles = [f"t = {int(self.probe.timesteps[i])}" for i in order]
        self.store(
            draw_maps(
                images, {side: opened[order] for side, opened in maps.items()}, tokens, titles
            ),
            self.last,
        )


def _cross_sites(method: Any) -> list[str]:
    """The sites whose gates are of words."""
    return [site.name for site in method.gates.sites if site.kind == "cross"]


def _by_resolution(method: Any, gates: dict[str, Tensor]) -> dict[int, np.ndarray]:
    """Side, the finest first -> mean over the cross-attention sites of that resolution, [B, side,
    side, T]; ``gates`` are [B, N, T]."""
    found: dict[int, list[np.ndarray]] = {}
    for name in _cross_sites(method):
        opened = gates[name].float().cpu()
        side = int(opened.shape[1] ** 0.5)
        found.setdefault(side, []).append(opened.reshape(len(opened), side, side, -1).numpy())
    return {side: np.mean(parts, axis=0) for side, parts in sorted(found.items(), reverse=True)}
