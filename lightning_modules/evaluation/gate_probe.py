"""What gates do on a fixed set of images: noised as in training, one forward pass, no sampling."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from datamodules.coco import CocoDataset
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gate_targets import on_plane
from lightning_modules.attention.gates import Gates
from lightning_modules.evaluation.probe import Probe
from lightning_modules.methods.maskattn import MaskAttn

IMAGES = 16  # the first of a split; timesteps are spread evenly over them


def examine(method: MaskAttn, dataset: CocoDataset, seed: int) -> dict[str, float]:
    """What became of the gates in training that ``seed`` began, how well they know the objects, and
    what they cost; nothing of gates that are not trained."""
    if not method.trains:
        return {}
    probe = GateProbe(method, dataset, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = method.build().to(method.backbone.device)
    return {
        **probe.changes(start),
        **probe.masks(),
        "overhead": probe.overhead(),
        "parameters": float(method.gates.parameter_count()),
    }


class GateProbe(Probe):
    """What gates do with a fixed set of images."""

    method: MaskAttn

    def __init__(
        self, method: MaskAttn, dataset: CocoDataset, seed: int, images: int = IMAGES
    ) -> None:
        super().__init__(method, dataset, seed, images)

    @torch.no_grad()
    def run(self, gates: Gates | None = None) -> GateRecord:
        """What the method's gates, or others in their place, do with the images."""
        method = self.method
        # Anew: gates know the kinds of the latest texts' tokens alone
        text = method.backbone.encode_prompts(self.captions)
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

    def changes(self, start: Gates) -> dict[str, float]:
        """``gates_reopened``: of the gates closed under ``start``, the share that is open now (0
        when none was closed); ``gates_shut``: of those that were open, the share that is closed
        now."""
        before, now = self.run(start), self.run()
        reopened = shut = was_closed = was_open = 0.0
        for site, old in before.gates.items():
            first, last, read = old > 0.5, now.gates[site] > 0.5, now.read(site)
            reopened += float((~first & last).sum())
            shut += float((first & ~last).sum())
            was_closed += float((~first).sum())
            was_open += float((first & read).sum())
        return {
            "gates_reopened": reopened / max(was_closed, 1.0),
            "gates_shut": shut / max(was_open, 1.0),
        }

    def masks(self) -> dict[str, float]:
        """``gate_mask_iou``: intersection over union of where a phrase's gates are open and where
        its object is, the mean over phrases, tokens and cross-attention sites; with every gate open
        it is the objects' share of the plane. NaN-free: nothing without phrases."""
        record, values = self.run(), []
        placed = self.method.backbone.locate_phrases(self.captions, self.phrases)
        for site in self.method.gates.sites:
            if site.kind != "cross":
                continue
            gate = record.gates[site.name] > 0.5  # [B, N, T]
            for b, found in enumerate(zip(*placed, strict=True)):
                for phrase, at in zip(*found, strict=True):
                    mask = on_plane(phrase.mask, gate.shape[1]).to(gate.device)
                    opened = gate[b][:, at]  # [N, tokens]
                    union = (opened | mask[:, None]).sum(0).clamp_min(1)
                    values += ((opened & mask[:, None]).sum(0) / union).tolist()
        return {"gate_mask_iou": statistics.fmean(values)} if values else {}

    @torch.no_grad()
    def overhead(self, rounds: int = 3) -> float:
        """Time of a forward pass of the model with the gates over that without, medians of passes
        that take turns."""
        text = self.method.backbone.encode_prompts(self.captions)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(rounds + 1):
            for gated in (True, False):
                (self.method.install if gated else self.method.remove)()
                start = time.perf_counter()
                self._finish(self.method.predict(self.noised, self.timesteps, text))
                seconds[gated].append(time.perf_counter() - start)
        self.method.install()
        return statistics.median(seconds[True][1:]) / statistics.median(seconds[False][1:])

    @staticmethod
    def _finish(prediction: Tensor) -> None:
        prediction.flatten()[0].item()  # waits for a GPU
