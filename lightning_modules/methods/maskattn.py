"""MaskAttn-SDXL (arXiv 2509.15357): gates on the attention of a frozen UNet, trained on the
denoising loss.

The paper gives gates no other reason to close; ``gate.supervision`` adds one when asked
(`gating.signal`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from conf.schema import Gate
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gates import Gates
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.gate_diagnostics import (
    GateDiagnostics,
    GateMaps,
    draw_gate_maps,
    measure_gates,
)
from lightning_modules.methods import gate_supervision as gate_signal
from lightning_modules.methods.base import Method
from lightning_modules.training import distributed
from losses.attention import enhance_loss, separate_loss

if TYPE_CHECKING:
    from conf.schema import Run
    from lightning_modules.tracking.mlflow import SeedRun

KIND_OF = {"cross": "cross", "self": "self", "both": None}


class MaskAttn(Method):
    """Gate heads at the chosen sites; installed on construction, `remove` gives the stock backbone
    back.

    Raises ValueError when no site fits ``gate.stage``, ``gate.placement`` and ``gate.attention``.
    """

    name = "maskattn"
    observes = True

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        self.adapter = self.build()
        chosen = config.separate
        wanted = (
            nearest(select(backbone.sites(resolution)), chosen.side)
            if config.gate.supervision == "separate_enhance"
            else None
        )
        # maps that gates shall keep apart
        self.capture = (
            None
            if wanted is None
            else Capture(wanted, heads="keep" if chosen.heads == "each" else "mean")
        )
        self.leaves_out = self.capture is not None  # gates behind the last map
        # What the gates did since it was last read, in training
        self.window: GateRecord | None = None
        self.install()

    def build(self) -> Gates:
        """New gates with the weights that torch's generator draws now."""
        gate = self.config.gate
        chosen = select(
            self.backbone.sites(self.resolution),
            gate.stage,
            gate.placement,
            kind=KIND_OF[gate.attention],
        )
        return Gates(chosen, gate, self.backbone.text.token_types)

    @property
    def gates(self) -> Gates:
        assert isinstance(self.adapter, Gates)
        return self.adapter

    def install(self) -> None:
        if not self.gates.is_attached:
            self.gates.to(self.backbone.device)
            self.gates.attach(self.backbone.denoiser)

    def remove(self) -> None:
        self.gates.detach()

    # --- training --------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.window = self.window or GateRecord(live=True)
        self.gates.record = self.window
        # Without the denoising loss no gradient passes through the backbone, and none is prepared.
        # Maps are of the gated attention: their losses need it to act.
        self.gates.watch_only = self.config.gate.denoising_weight == 0 and self.capture is None
        if self.capture is not None:
            self.capture.tokens = self._phrases(batch)[1]
        try:
            with torch.set_grad_enabled(not self.gates.watch_only), self._captured():
                return super().training_step(batch, batch_idx)
        finally:
            self.gates.record, self.gates.watch_only = None, False

    def _captured(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.capture is None else self.capture.attached(self.backbone.unet)

    def _separate_enhance(self, rows: Tensor) -> Tensor:
        """The losses of Separate-and-Enhance on the maps of the gated attention, for the samples
        ``rows`` [B]: a gate that closes where another object is keeps their maps apart."""
        assert self.capture is not None
        chosen, present = self.config.separate, self.capture.maps.present & rows[:, None]
        maps = self.capture.maps.mean()  # [B, objects, heads, H, W]
        separate, enhance = (
            separate_loss(maps, present),
            enhance_loss(maps, present, chosen.kernel, chosen.sigma),
        )
        return chosen.separate_weight * separate + chosen.enhance_weight * enhance

    @torch.enable_grad()
    def with_extra(self, loss: Tensor, batch: Batch, timesteps: Tensor) -> Tensor:
        assert self.window is not None
        gate = self.config.gate
        closed, counted = distributed.sum_over_ranks(self.window.tally()).tolist()
        self.log("train/gate_closed", closed / counted if counted else 0.0)
        total = gate.denoising_weight * loss
        done = (
            min(self.global_step / max(self.recipe.steps, 1), 1.0)
            if self._trainer is not None
            else 0.0
        )
        weight = gate_signal.weight_now(gate, done)
        if gate.supervision == "none" or weight == 0:
            return total
        rows = gate_signal.in_range(gate, timesteps, self.backbone.schedule.num_timesteps)
        if gate.supervision == "separate_enhance":
            signal = self._separate_enhance(rows)
        elif gate.supervision == "density":
            signal = gate_signal.density_signal(gate, self.window, rows)
        else:
            signal = gate_signal.mask_signal(
                gate, self.window, self.gates.sites, *self._phrases(batch), rows
            )
        self.log("train/signal", signal)
        return total + weight * signal

    def _phrases(self, batch: Batch) -> tuple[list, list]:
        """The batch's phrases and the positions of their tokens."""
        if batch.phrases is None:
            raise ValueError(
                "gate.supervision=masks needs phrases with masks: set the training set's "
                "with_phrases"
            )
        return self.backbone.text.locate_phrases(batch.captions, batch.phrases)

    # --- use --------------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        return self.config.gate.supervision != "oracle"

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
    ) -> Tensor:
        """As `Method.generate`; oracle gates draw each prompt twice (`gating.oracle`)."""
        if self.trains:
            return super().generate(prompts, seeds, masks, steps, guidance, batch)
        from lightning_modules.embedded.judge import Judge
        from lightning_modules.methods.oracle_layout import layout

        judge, images = Judge.load(), []
        for start in range(0, len(prompts), batch):
            texts, noises = prompts[start : start + batch], seeds[start : start + batch]
            self.remove()
            untouched = super().generate(texts, noises, masks, steps, guidance, batch)
            self.install()
            phrases = [
                layout(text, found, self.resolution)
                for text, found in zip(texts, judge.detect(untouched), strict=True)
            ]
            self.gates.layout = self.backbone.text.locate_phrases(texts, phrases)
            try:
                images.append(super().generate(texts, noises, masks, steps, guidance, batch))
            finally:
                self.gates.layout = None
        return torch.cat(images)

    @contextmanager
    def observed(self, guidance: float) -> Iterator[dict[str, float]]:
        """``gate_closed``: share of free gates that are closed over all sites, locations, tokens
        and steps, conditional half; the same by token kind and span of timesteps."""
        result: dict[str, float] = {}
        with self.gates.recording(conditional_half=guidance > 1) as record:
            yield result
        record = record.all_reduce(self.gates.sites)
        result["gate_closed"] = record.share_closed()
        result |= {
            f"gate_closed_{name}": share
            for name, share in record.shares().items()
            if not name.startswith("site/")
        }

    def callbacks(self, dataset: Any, every: int, tracker: SeedRun | None) -> list[L.Callback]:
        """As `Method.callbacks`: counts of gates under ``gates/``, and their pictures."""
        # All processes begin to count again at the same steps
        store = None if tracker is None else tracker.log_metrics
        counts = GateDiagnostics(every, dataset, self.seed, store)
        if tracker is None:
            return [counts]
        picture = partial(tracker.log_image, "gates/training")
        return [counts, GateMaps(dataset, self.seed, picture)]

    def diagnostics(self, datamodule: Any, config: Run, folder: Path) -> dict[str, float]:
        """As `Method.diagnostics`: what became of the gates, and pictures of them."""
        evaluation = config.evaluation
        found = measure_gates(self, datamodule.eval_sets[evaluation.splits[0]], config.seed)
        draw_gate_maps(self, datamodule, evaluation, config.seed, folder)
        return found

    def adapter_config(self) -> dict[str, Any]:
        return {"gate": asdict(self.config.gate)}

    @classmethod
    def from_card(cls, card: dict[str, Any], backbone: Backbone) -> Method:
        config = MethodConfig(name=cls.name, gate=Gate(**card["config"]["gate"]))
        return cls(backbone, config, TrainerConfig(), card["resolution"])
