"""The autoencoder of the embedded backbones, trained from nothing."""

from __future__ import annotations

import math
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from conf.files import create_folder
from datamodules.batch import Batch
from datamodules.shapes.module import ShapesDataset
from lightning_modules.embedded.fitting import fit
from lightning_modules.embedded.pipeline import build_pipeline

__all__ = ["LATENTS", "train_autoencoder"]

LATENTS = "latents.safetensors"  # In the working folder: of the training images


class AutoencoderTraining(L.LightningModule):
    """Reconstruction (squared and absolute error) on random crops of half the side: a quarter of
    the cost of whole images.

    The posterior's standard deviation is held at ``SPREAD`` instead of being learnt: a free one
    drowns the small objects of this world at first. What is left of the KL divergence is then the
    square of the mean.
    """

    SPREAD = 0.1

    def __init__(self, vae: nn.Module, lr: float, steps: int, kl: float) -> None:
        super().__init__()
        self.vae, self.lr, self.steps, self.kl = vae, lr, steps, kl

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        assert batch.images is not None
        side = batch.images.shape[-1] // 2
        top, left = torch.randint(side + 1, (2,)).tolist()
        images = batch.images[..., top : top + side, left : left + side]
        posterior = self.vae.encode(images).latent_dist
        mean = posterior.mean.float()
        error = self.vae.decode(mean + self.SPREAD * torch.randn_like(mean)).sample.float() - images
        held = (posterior.logvar.float() - 2 * math.log(self.SPREAD)).square().mean()
        loss = (
            error.square().mean()
            + 0.2 * error.abs().mean()
            + self.kl * mean.square().mean()
            + 1e-3 * held
        )
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):  # noqa: ANN201 - Lightning's own union
        optimizer = torch.optim.AdamW(self.vae.parameters(), lr=self.lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.lr, total_steps=self.steps + 1, pct_start=0.05
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class PixelDataset(Dataset):
    """Every image of a split in memory as uint8 (12 kB each), given out as `ShapesDataset` does."""

    def __init__(self, dataset: ShapesDataset) -> None:
        self.dataset = dataset
        self.pixels = torch.stack([dataset.pixels(i) for i in range(len(dataset))])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict:
        record = self.dataset.records[index]
        return {"id": record.id, "caption": "", "image": self.pixels[index].float() / 127.5 - 1}


def train_autoencoder(folder: Path, data: ShapesDataset, steps: int, batch: int) -> None:
    """Trains the autoencoder, sets its scaling factor from 2,048 images, saves it to
    ``folder``/vae."""
    vae = build_pipeline(folder / "work").vae
    images = PixelDataset(data)
    fit(
        AutoencoderTraining(vae, lr=3e-3, steps=steps, kl=1e-3),
        images,
        folder / "vae_training",
        steps,
        batch,
        "bf16-mixed",
        "vae",
    )
    vae.eval()
    with torch.no_grad():
        some = torch.stack([images[i]["image"] for i in range(min(2048, len(images)))])
        modes = torch.cat([vae.encode(part).latent_dist.mode() for part in some.split(128)])
        vae.register_to_config(scaling_factor=round(1 / modes.std().item(), 5))
        pairs = zip(modes.split(128), some.split(128), strict=True)
        error = torch.cat(
            [(vae.decode(m).sample - images).abs().mean((1, 2, 3)) for m, images in pairs]
        )
    print(
        (
            f"vae: scaling factor {vae.config.scaling_factor}, mean absolute error "
            f"{error.mean().item() * 127.5:.2f} of 255"
        ),
        flush=True,
    )
    (folder / LATENTS).unlink(missing_ok=True)
    with create_folder(folder / "vae", replace=True) as draft:
        vae.save_pretrained(draft)
