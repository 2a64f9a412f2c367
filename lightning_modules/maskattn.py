"""MaskAttn-SDXL (arXiv 2509.15357): gates on the cross-attention of a frozen UNet, trained on the denoising loss alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor

from conf.schema import Gate
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch
from lightning_modules.attention import select
from lightning_modules.attention.gate import Gates
from lightning_modules.backbone import Backbone
from lightning_modules.method import Method


class MaskAttn(Method):
    """Gate heads at the chosen sites; installed on construction, `remove` gives the stock backbone back.

    Raises ValueError when no site fits ``gate.stage`` and ``gate.placement``.
    """

    name = "maskattn"

    def __init__(self, backbone: Backbone, config: MethodConfig, trainer: TrainerConfig, resolution: int, seed: int = 0) -> None:
        super().__init__(backbone, config, trainer, resolution, seed)
        gate = config.gate
        chosen = select(backbone.sites(resolution), gate.stage, gate.placement)
        self.adapter = Gates(chosen, gate.width, gate.bias, gate.threshold, gate.protect == "bos")
        self.install()

    @property
    def gates(self) -> Gates:
        assert isinstance(self.adapter, Gates)
        return self.adapter

    def install(self) -> None:
        if not self.gates.is_attached:
            self.gates.to(self.backbone.device)
            self.gates.attach(self.backbone.unet)

    def remove(self) -> None:
        self.gates.detach()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with self.gates.recording() as record:
            loss = super().training_step(batch, batch_idx)
        self.log("train/gate_closed", record.share_closed())
        return loss

    @contextmanager
    def observed(self, guidance: float) -> Iterator[dict[str, float]]:
        """``gate_closed``: share of unprotected gates that are closed over all sites, locations, tokens and steps, conditional half."""
        result: dict[str, float] = {}
        with self.gates.recording(conditional_half=guidance > 1) as record:
            yield result
        result["gate_closed"] = record.share_closed()

    def adapter_config(self) -> dict[str, Any]:
        return {"gate": asdict(self.config.gate)}

    @classmethod
    def from_card(cls, card: dict[str, Any], backbone: Backbone) -> Method:
        config = MethodConfig(name=cls.name, gate=Gate(**card["config"]["gate"]))
        return cls(backbone, config, TrainerConfig(), card["resolution"])
