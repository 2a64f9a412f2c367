"""MaskAttn-SDXL (arXiv 2509.15357): gates on the attention of a frozen denoiser, trained on the
denoising loss.

The paper gives gates no other reason to close; ``gate.supervision`` adds one (`gate_supervision`),
or replaces the training by true layouts (`oracle_layout`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from conf.seeds import resolve_seeds
from datamodules.batch import Batch, Phrase
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.sites import Site
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded.judge import Judge
from lightning_modules.evaluation.gate_diagnostics import (
    GateDiagnostics,
    GateMaps,
    draw_gate_maps,
    measure_gates,
)
from lightning_modules.methods.adapter_file import AdapterFile
from lightning_modules.methods.base import ImageStats, Method, Step, StepDraws, Term, weighted_sum
from lightning_modules.methods.gate_supervision import (
    density_supervision,
    mask_supervision,
    supervision_weight,
)
from lightning_modules.methods.oracle_layout import find_layout
from lightning_modules.methods.separate_enhance import separate_enhance_terms
from lightning_modules.training import distributed

if TYPE_CHECKING:
    from conf.schema import Run
    from lightning_modules.backbone.configs import BackboneConfigs
    from lightning_modules.tracking.mlflow import SeedRun

# Which layers are gated -> their kind, None for both
KINDS = {"cross": "cross", "self": "self", "both": None}


class MaskAttn(Method):
    """Gate heads at the sites that the settings name; installed on construction, `remove` gives the
    stock backbone back.

    Raises ValueError when no site fits ``gate.stage``, ``gate.placement`` and ``gate.attention``.
    """

    name = "maskattn"
    collects_stats = True

    adapter: Gates

    def __init__(
        self,
        backbone: Backbone,
        config: MethodConfig,
        trainer: TrainerConfig,
        resolution: int,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        self.adapter = self.build_gates()
        # Where maps are read that gates should keep apart
        self.map_sites: list[Site] = []
        if config.gate.supervision == "separate_enhance":
            self.map_sites = nearest(select(backbone.sites(resolution)), config.separate.side)
        # Gates behind the last map get no gradient
        self.find_unused_parameters = bool(self.map_sites)
        # What the gates did in training since a callback took it
        self.window: GateRecord | None = None
        self.install()

    def build_gates(self) -> Gates:
        """New gates, with the weights that torch's generator draws now."""
        return _build_gates(self.backbone, self.config, self.resolution)

    @classmethod
    def check_backbone(cls, config: Run, backbone: BackboneConfigs) -> None:
        """A UNet's coarsest layers are those of the mid block, neither of encoder nor of decoder.
        Raises ValueError."""
        gate = config.method.gate
        if (
            gate.stage != "low"
            or gate.placement == "both"
            or backbone.family.denoiser_name != "unet"
        ):
            return
        raise ValueError(
            f"method.gate.stage=low with method.gate.placement={gate.placement}: the layers of "
            f"that stage lie in the mid block of {backbone.family.label}; set placement=both"
        )

    @classmethod
    def check_sizes(cls, file: AdapterFile, backbone: Backbone) -> None:
        """As `Method`'s: width and depth of the heads."""
        file.check_size("gate.width", file.largest_side)
        file.check_size("gate.depth", len(file.shapes))
        with torch.device("meta"):
            gates = _build_gates(backbone, file.config, file.resolution)
        file.check_tensors(gates.state_dict())

    @property
    def gates(self) -> Gates:
        return self.adapter

    def install(self) -> None:
        if not self.gates.is_attached:
            self.gates.to(self.backbone.device)
            self.gates.attach(self.backbone.denoiser)
        super().install()

    def remove(self) -> None:
        self.gates.detach()
        super().remove()

    # --- training --------------------------------------------------------------------------------

    def prepare(self, batch: Batch, draws: StepDraws) -> Step:
        """As `Method`'s, with the phrases that masks or maps belong to."""
        step = super().prepare(batch, draws)
        if self.config.gate.supervision in ("masks", "separate_enhance"):
            if batch.phrases is None:
                raise ValueError(
                    "gate.supervision needs phrases with masks: set the training set's with_phrases"
                )
            step.phrases, step.token_indices = self.backbone.text.locate_phrases(
                batch.captions, batch.phrases
            )
        return step

    def run_denoiser(self, step: Step) -> None:
        """The forward pass, in which the gates are recorded and the phrases' maps read."""
        gates = self.gates
        self.window = self.window or GateRecord(live=True)
        gates.record = self.window
        # Without the denoising loss no gradient passes through the backbone, and none is prepared;
        # but losses on maps, which are those of the gated attention, need it.
        gates.watch_only = self.config.gate.denoising_weight == 0 and not self.map_sites
        try:
            with torch.set_grad_enabled(not gates.watch_only), self._reading_maps(step):
                super().run_denoiser(step)
        finally:
            gates.record, gates.watch_only = None, False

    @contextmanager
    def _reading_maps(self, step: Step) -> Iterator[None]:
        if not self.map_sites:
            yield
            return
        heads = "keep" if self.config.separate.heads == "each" else "mean"
        capture = Capture(self.map_sites, step.token_indices, heads)
        with capture.attached(self.backbone.denoiser):
            yield
        step.maps = capture.maps

    def losses(self, step: Step) -> dict[str, Term]:
        gate = self.config.gate
        terms = super().losses(step)
        terms["denoising"] = terms["denoising"]._replace(weight=gate.denoising_weight)
        assert self.window is not None
        closed, counted = distributed.sum_over_ranks(self.window.tally()).tolist()
        if counted:
            self.log("train/gate_closed", closed / counted)

        done = self.global_step / max(self.recipe.steps, 1) if self._trainer is not None else 0.0
        weight = supervision_weight(gate, min(done, 1.0))
        if gate.supervision != "none" and weight > 0:
            terms["signal"] = Term(self._supervision(step, self.window), weight)
        return terms

    def _supervision(self, step: Step, record: GateRecord) -> Tensor:
        """The loss that gives gates another reason to close."""
        gate = self.config.gate
        if step.maps is not None:
            maps, present = step.maps.mean(), step.maps.present
            return weighted_sum(separate_enhance_terms(maps, present, self.config.separate))
        if gate.supervision == "density":
            return density_supervision(gate, record)
        sites = self.gates.sites
        return mask_supervision(gate, record, sites, step.phrases, step.token_indices)

    def callbacks(self, dataset: Any, every: int, tracker: SeedRun | None) -> list[L.Callback]:
        """As `Method`'s: counts of gates under ``gates/``, and their pictures."""
        # All processes begin to count again at the same steps
        store = None if tracker is None else tracker.log_metrics
        counts = GateDiagnostics(every, dataset, self.seeds.timestep, store)
        if tracker is None:
            return [counts]
        picture = partial(tracker.log_image, "gates/training")
        return [counts, GateMaps(dataset, self.seeds.timestep, picture)]

    # --- use -------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        masks: Any = None,
        steps: int = 30,
        guidance: float = 7.5,
        batch: int = 64,
        objects: Sequence[Sequence[Phrase | str]] | None = None,
    ) -> Tensor:
        """As `Method`'s; oracle gates draw each prompt twice (`oracle_layout`)."""
        if self.trains:
            return super().generate(prompts, seeds, masks, steps, guidance, batch, objects)
        judge, images = Judge.load(), []
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            given: Any = (prompts[rows], seeds[rows], masks, steps, guidance, batch)
            given = (*given, None if objects is None else objects[rows])
            self.remove()
            untouched = super().generate(*given)
            self.install()
            phrases = [
                find_layout(prompt, detections, self.resolution)
                for prompt, detections in zip(prompts[rows], judge.detect(untouched), strict=True)
            ]
            self.gates.layout = self.backbone.text.locate_phrases(prompts[rows], phrases)
            try:
                images.append(super().generate(*given))
            finally:
                self.gates.layout = None
        return torch.cat(images)

    @contextmanager
    def collect_stats(self, guidance: float) -> Iterator[ImageStats]:
        """``gate_closed``: share of free gates that are closed over all sites, pixels, tokens and
        steps, conditional half; the same by token type and range of timesteps."""
        guided = self.backbone.family.is_guided(guidance)
        recording = self.gates.recording(conditional_half=guided, by_image=True)
        with super().collect_stats(guidance) as stats, recording as record:
            yield stats
        counts = record.counts_by_image()
        stats["gate_closed"] = counts.pop("", [])
        stats |= {f"gate_closed_{name}": of_images for name, of_images in counts.items()}

    @contextmanager
    def unmeasured(self) -> Iterator[None]:
        record, self.gates.record = self.gates.record, None
        try:
            yield
        finally:
            self.gates.record = record

    def diagnostics(self, datamodule: Any, config: Run, folder: Path) -> dict[str, float]:
        """As `Method`'s: what became of the gates, and pictures of them."""
        evaluation = config.evaluation
        seeds = resolve_seeds(config)
        measured = measure_gates(self, datamodule.eval_sets[evaluation.splits[0]], seeds)
        draw_gate_maps(self, datamodule, evaluation, seeds, folder)
        return measured


def _build_gates(backbone: Backbone, config: MethodConfig, resolution: int) -> Gates:
    gate = config.gate
    sites = select(
        backbone.sites(resolution), gate.stage, gate.placement, kind=KINDS[gate.attention]
    )
    return Gates(sites, gate, backbone.text.token_types)
