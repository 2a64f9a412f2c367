"""Trains an embedded backbone from nothing: first the autoencoder, then text encoders and UNet
together on its latents. ``embedded`` is trained on careless captions (``--captions web``),
``embedded_strong`` longer and on clean ones; their cards have the commands.

    python -m lightning_modules.pretrain                 # both stages; the same command resumes
    python -m lightning_modules.pretrain --stage vae     # one of them
    python -m lightning_modules.pretrain --stage export  # the newest checkpoint as float16 folders

Colour-shape combinations of `datamodules.shapes.vocabulary.HELD_OUT` never occur in what it sees.
The figures of the result come from `python -m lightning_modules.grade`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import lightning as L
import torch
from diffusers.training_utils import EMAModel
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from conf.data.shapes import CLEAN, WEB
from conf.files import create_folder, read_json, write_atomically
from conf.pipes import ends_with_reader
from conf.places import find_obstacle
from conf.values import option, path_option
from datamodules.batch import Batch, collate
from datamodules.shapes.dataset import write_dataset
from datamodules.shapes.module import ShapesDataset
from datamodules.shapes.rendering import SIZE
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.weights import shipped_folder
from lightning_modules.embedded.pipeline import build_pipeline
from lightning_modules.training.callbacks import ProgressLines, print_line
from lightning_modules.training.checkpoints import LAST, KeptCheckpoints, find_checkpoint
from losses.denoising import denoising_loss

# In the working folder: latents of the training images; the words of the command that differ from
# their defaults
LATENTS, SETTINGS = "latents.safetensors", "settings.json"


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


class DenoiserTraining(L.LightningModule):
    """v-prediction on latents, text encoders and UNet together, captions dropped at ``drop`` for
    classifier-free guidance.

    The learning rate warms up, stays, and falls linearly to a twentieth over the last quarter of
    the steps, so that the number of steps can be raised while training runs. What is exported is
    the exponential moving average.
    """

    def __init__(
        self, backbone: Backbone, lr: float, steps: int, drop: float = 0.1, decay: float = 0.999
    ) -> None:
        super().__init__()
        self.backbone, self.lr, self.steps, self.drop = backbone, lr, steps, drop
        self.trained = nn.ModuleList([backbone.unet, *backbone.text.encoders])
        self.trained.requires_grad_(True).train()
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
        timesteps = (
            (strata**0.8 * self.backbone.schedule.num_timesteps)
            .long()
            .clamp_max(self.backbone.schedule.num_timesteps - 1)
        )
        noised, target = self.backbone.schedule.add_noise(
            latents, torch.randn_like(latents), timesteps
        )
        text = self.backbone.text.encode(batch.captions)
        keep = (torch.rand(count, device=self.device) >= self.drop).to(text.hidden.dtype)
        text.hidden = text.hidden * keep[:, None, None]
        text.pooled = text.pooled * keep[:, None] if text.pooled is not None else None
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


class LossCurve(L.Callback):
    """Mean loss over every ``every`` steps, with the seconds they took and the CPU seconds of this
    process, kept in a JSON file across resumptions."""

    def __init__(self, path: Path, every: int = 100) -> None:
        self.path, self.every, self.sum = path, every, 0.0
        self.began, self.cpu = time.monotonic(), time.process_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # noqa: ANN001
        self.sum += float(outputs["loss"])
        if trainer.global_step % self.every == 0:
            curve = read_json(self.path) or []
            seconds = round(time.monotonic() - self.began, 1)
            cpu = round(time.process_time() - self.cpu, 1)
            self.began, self.cpu = time.monotonic(), time.process_time()
            curve = [point for point in curve if point["step"] < trainer.global_step]
            curve.append(
                {
                    "step": trainer.global_step,
                    "loss": round(self.sum / self.every, 5),
                    "seconds": seconds,
                    "cpu_seconds": cpu,
                }
            )
            write_atomically(self.path, json.dumps(curve))
            self.sum = 0.0


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


def fit(
    module: L.LightningModule,
    data: Dataset,
    folder: Path,
    steps: int,
    batch: int,
    precision: str,
    label: str,
) -> None:
    """Trains to ``steps``, going on from the newest checkpoint in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = L.Trainer(
        max_steps=steps,
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            ModelCheckpoint(
                folder,
                save_last=True,
                save_top_k=0,
                every_n_train_steps=250,
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            ),
            ProgressLines(label),
            LossCurve(folder / "loss.json"),
        ],
        plugins=[KeptCheckpoints()],
    )
    loader: DataLoader[Batch] = DataLoader(
        data, batch, shuffle=True, drop_last=True, collate_fn=collate
    )
    last = find_checkpoint(folder, print_line)
    trainer.fit(module, loader, ckpt_path=last, weights_only=True)
    trainer.save_checkpoint(folder / LAST)


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


def load_work(folder: Path) -> Backbone:
    """The pipeline being trained: its autoencoder is the trained one, the rest starts at random."""
    from diffusers import AutoencoderKL

    pipeline = build_pipeline(folder / "work")
    pipeline.register_modules(vae=AutoencoderKL.from_pretrained(folder / "vae"))
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
    """Trains text encoders and UNet on latents of the whole split, encoded once."""
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
    backbone.pipeline.to(dtype=dtype).save_pretrained(target, safe_serialization=True)
    for config in target.glob("text_encoder*/config.json"):
        # transformers would load float16 files as float16 and diffusers its own as float32: a stock
        # call would get a mixture.
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n"
        )
    print(f"exported step {checkpoint['global_step']} to {target}", flush=True)


@ends_with_reader
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stage",
        choices=("all", "vae", "denoiser", "export"),
        default="all",
        help="what to run (default: all)",
    )
    parser.add_argument(
        "--output",
        type=path_option,
        default=Path("runs/pretrain"),
        help="working folder (default: runs/pretrain)",
    )
    parser.add_argument(
        "--target",
        type=path_option,
        default=shipped_folder("embedded"),
        help="where the result is exported to (default: the package's backbone embedded)",
    )
    parser.add_argument(
        "--images",
        type=option(int, 1, 10_000_000),
        default=32_000,
        help="training images to render (default: 32000)",
    )
    parser.add_argument(
        "--captions",
        choices=("web", "clean"),
        default="web",
        help="how carelessly the training captions are written (default: web)",
    )
    parser.add_argument(
        "--zipf",
        type=option(float, 0, 100),
        default=0.0,
        help="how unequally frequent combinations are: the exponent of Zipf's law (default: 0)",
    )
    parser.add_argument(
        "--vae-steps",
        type=option(int, 1, 100_000_000),
        default=4000,
        help="autoencoder steps (default: 4000)",
    )
    parser.add_argument(
        "--steps",
        type=option(int, 1, 100_000_000),
        default=6000,
        help="denoiser steps (default: 6000)",
    )
    parser.add_argument(
        "--batch",
        type=option(int, 1, 65_536),
        default=32,
        help="samples a step in both stages (default: 32)",
    )
    parser.add_argument(
        "--lr",
        type=option(float, 0, 1000),
        default=1e-3,
        help="peak learning rate of the denoiser (default: 1e-3)",
    )
    parser.add_argument(
        "--threads",
        type=option(int, 1, 1024),
        default=torch.get_num_threads(),
        help="CPU threads (default: all)",
    )
    args = parser.parse_args(argv)
    if reason := find_obstacle(args.output):
        parser.error(f"--output {args.output} cannot be written to: {reason}")
    if args.images < args.batch:
        parser.error(f"--images {args.images} make no batch of --batch {args.batch}: lower it")
    torch.set_num_threads(args.threads)
    L.seed_everything(0, verbose=False)
    if args.stage != "export":
        words = [
            word
            for name in ("images", "captions", "zipf", "vae_steps", "steps", "batch", "lr")
            if (value := getattr(args, name)) != parser.get_default(name)
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        write_atomically(args.output / SETTINGS, json.dumps(words))
        careless = CLEAN if args.captions == "clean" else WEB
        write_dataset(args.output / "shapes", {"train": args.images}, 0, careless, args.zipf)
        data = ShapesDataset(args.output / "shapes", "train", SIZE)
        if args.stage in ("all", "vae") and not (args.output / "vae" / "config.json").exists():
            train_autoencoder(args.output, data, args.vae_steps, args.batch)
        if args.stage in ("all", "denoiser"):
            train_denoiser(args.output, data, args.steps, args.batch, args.lr)
    if args.stage in ("all", "export"):
        export(args.output, args.target)


if __name__ == "__main__":
    main()
