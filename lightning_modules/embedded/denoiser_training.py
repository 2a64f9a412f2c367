"""Text encoders and denoiser of the embedded backbones, a UNet or an MM-DiT, trained together on
latents."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import torch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from conf.files import read_json, write_atomically
from datamodules.batch import Batch
from datamodules.shapes.module import ShapesDataset
from datamodules.shapes.rendering import SIZE
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.families.stable_diffusion_3 import SEQUENCE
from lightning_modules.backbone.schedules import FLOW
from lightning_modules.embedded.autoencoder_training import LATENTS
from lightning_modules.embedded.fitting import fit
from lightning_modules.embedded.mmdit import (
    LastTokenForMany,
    build_mmdit_pipeline,
    merge_zeros,
)
from lightning_modules.embedded.pipeline import build_pipeline
from lightning_modules.training.checkpoints import LAST
from losses.denoising import denoising_loss

__all__ = ["SETTINGS", "DenoiserTraining", "export", "train_denoiser"]

SETTINGS = "settings.json"  # In the working folder: the words that differ from their defaults


class DenoiserTraining(L.LightningModule):
    """The backbone's own target (v, or the velocity of a flow) on latents, text encoders and
    denoiser together, captions dropped at ``drop`` for classifier-free guidance.

    The learning rate warms up, stays, and falls linearly to a twentieth over the last quarter of
    the steps, so that the number of steps can be raised while training runs. What is exported is
    the exponential moving average.
    """

    def __init__(
        self, backbone: Backbone, lr: float, steps: int, drop: float = 0.1, decay: float = 0.999
    ) -> None:
        super().__init__()
        self.backbone, self.lr, self.steps, self.drop = backbone, lr, steps, drop
        self.trained = nn.ModuleList([backbone.denoiser, *backbone.text.encoders])
        self.trained.requires_grad_(True).train()
        if backbone.schedule.prediction_type == FLOW:
            backbone.denoiser.set_attn_processor(LastTokenForMany(SEQUENCE))
        self.average = EMAModel(
            self.trained.parameters(), decay=decay, use_ema_warmup=True, power=0.75
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.latents is not None
        latents, count = batch.latents, len(batch)
        # One timestep from each of B equal strata: the same uniform distribution with less noise in
        # the gradient. The power leans to the noisy side, where the layout is decided.
        strata = (
            torch.arange(count, device=self.device) + torch.rand(count, device=self.device)
        ) / count
        schedule = self.backbone.schedule
        levels = (strata**0.8 * schedule.num_timesteps).long().clamp_max(schedule.num_timesteps - 1)
        timesteps = schedule.timesteps_at(levels)
        noised, target = schedule.add_noise(latents, torch.randn_like(latents), timesteps)
        text, empty = self.backbone.text.encode(batch.captions), self.backbone.text.encode_empty(1)
        keep = torch.rand(count, device=self.device) >= self.drop
        text.hidden = torch.where(keep[:, None, None], text.hidden, empty.hidden.to(text.hidden))
        if text.pooled is not None and empty.pooled is not None:
            text.pooled = torch.where(keep[:, None], text.pooled, empty.pooled.to(text.pooled))
        if schedule.prediction_type == FLOW:
            text = merge_zeros(text, SEQUENCE)
        # On a CPU the backward pass of the fused attention takes twice as long as plain products
        with sdpa_kernel(SDPBackend.MATH):
            predicted = self.backbone.predict(noised, timesteps, text, SIZE)
        loss = denoising_loss(predicted, target)
        self.log("train/loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:  # noqa: ANN001
        self.average.step(self.trained.parameters())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.average.load_state_dict(checkpoint["average"])

    def configure_optimizers(self):  # noqa: ANN201
        optimizer = torch.optim.AdamW(
            self.trained.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01
        )

        def factor(step: int) -> float:
            return min((step + 1) / 200, 1.0, max(0.05, (self.steps - step) / (0.25 * self.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def load_work(folder: Path) -> Backbone:
    """The pipeline being trained, of the architecture that the folder's settings name: its
    autoencoder is the trained one, the rest starts at random."""
    from diffusers import AutoencoderKL

    words = read_json(folder / SETTINGS) or []
    build = build_mmdit_pipeline if "mmdit" in words else build_pipeline
    pipeline = build(folder / "work")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vae.register_to_config(shift_factor=pipeline.vae.config.shift_factor)
    pipeline.register_modules(vae=vae)
    return Backbone(pipeline, str(folder))


def encode_images(path: Path, backbone: Backbone, data: ShapesDataset) -> Tensor:
    """Latents of the whole split, read from ``path`` where they were encoded before."""
    from safetensors.torch import load_file, save_file

    if path.exists():
        return load_file(path)["latents"]
    parts = []
    for start in range(0, len(data), 256):
        images = torch.stack([data.image(i) for i in range(start, min(start + 256, len(data)))])
        parts.append(backbone.autoencoder.encode(images))
    latents = torch.cat(parts)
    write_atomically(path, lambda draft: save_file({"latents": latents}, draft))
    return latents


def train_denoiser(folder: Path, data: ShapesDataset, steps: int, batch: int, lr: float) -> None:
    """Trains text encoders and denoiser on latents of the whole split, encoded once."""
    backbone = load_work(folder)
    data.latents, data.train = encode_images(folder / LATENTS, backbone, data), True
    fit(
        DenoiserTraining(backbone, lr, steps),
        data,
        folder / "denoiser_training",
        steps,
        batch,
        "bf16-mixed",
        "denoiser",
    )


def export(folder: Path, target: Path, dtype: torch.dtype = torch.float16) -> None:
    """The averaged weights of the newest checkpoint as a diffusers folder at ``target``."""
    backbone = load_work(folder)
    module = DenoiserTraining(backbone, lr=0.0, steps=1)
    checkpoint = torch.load(
        folder / "denoiser_training" / LAST, map_location="cpu", weights_only=True
    )
    module.load_state_dict(checkpoint["state_dict"])
    module.average.load_state_dict(checkpoint["average"])
    module.average.copy_to(module.trained.parameters())
    # The export does not say where it was made
    backbone.vae.register_to_config(_name_or_path="vae")
    if backbone.schedule.prediction_type == FLOW:
        backbone.denoiser.set_attn_processor(JointAttnProcessor2_0())
    backbone.pipeline.to(dtype=dtype).save_pretrained(target, safe_serialization=True)
    for config in target.glob("text_encoder*/config.json"):
        # transformers would load float16 files as float16 and diffusers its own as float32: a stock
        # call would get a mixture.
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n"
        )
    print(f"exported step {checkpoint['global_step']} to {target}", flush=True)
