"""A pretrained diffusers model as one object, the same for every family of models."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from lightning_modules.attention import Site, sites
from lightning_modules.backbone.autoencoder import Autoencoder
from lightning_modules.backbone.configs import BackboneConfigs, explain_failure, read_configs
from lightning_modules.backbone.guiders import Guider
from lightning_modules.backbone.offloading import execution_device
from lightning_modules.backbone.quiet import quiet_loading
from lightning_modules.backbone.text import TextCondition, TextEncoders
from lightning_modules.backbone.weights import shipped_folder

# Whether the denoiser that is called now is so by `Backbone.predict`, not by a stock pipeline
PREDICTING = ContextVar("PREDICTING", default=False)


class Backbone(BackboneConfigs):
    """A frozen diffusers pipeline and the few things that training and sampling do with it.

    ``denoiser`` is the pipeline's UNet or transformer, ``text`` its encoders and tokenizers,
    ``autoencoder`` its VAE, ``schedule`` how training adds noise, ``guider`` how sampling joins
    both halves of guidance, and ``family`` what it differs from others in. Deliberately no
    `nn.Module`: a method that holds one has the frozen weights neither in its checkpoint nor in its
    optimiser. Raises ValueError as `BackboneConfigs`.
    """

    def __init__(self, pipeline: Any, source: str, revision: str | None = None) -> None:
        super().__init__(pipeline, source, revision)
        self.text = TextEncoders(self.family)
        self.guider = Guider()
        self.precision = "32-true"
        self.autoencoder = Autoencoder(
            self.vae,
            self.denoiser,
            self.family.standardizes_latents,
            self.family.shifts_latents,
        )
        for module in (self.denoiser, self.vae, *self.text.encoders):
            module.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, path: str, dtype: str = "float32", revision: str | None = None) -> Backbone:
        """``path`` is the name of a backbone that comes with the package (`conf.schema.SHIPPED`), a
        diffusers folder, or a hub id; only safetensors weights are read, and nothing is printed.

        Raises FileNotFoundError, in one line, when nothing can be loaded from there, and
        ValueError as `BackboneConfigs`, before any weights are opened.
        """
        from diffusers import DiffusionPipeline

        path = os.path.expanduser(path)
        shipped = shipped_folder(path)
        if shipped and not (shipped / "model_index.json").exists():
            raise FileNotFoundError(
                f"the backbone {path} is not there: train it with `python -m "
                f"lightning_modules.pretrain --target {shipped}`"
            )
        if not shipped:
            try:
                read_configs(path, revision)
            except ImportError as error:
                raise FileNotFoundError(explain_failure(path, error)) from error
        try:
            with quiet_loading():
                pipeline = DiffusionPipeline.from_pretrained(
                    str(shipped or path),
                    torch_dtype=getattr(torch, dtype),
                    revision=revision,
                    use_safetensors=True,
                    add_watermarker=False,
                    **_list_left_out(str(shipped or path), revision),
                )
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            raise FileNotFoundError(explain_failure(path, error)) from error
        return cls(pipeline, path, revision)

    @property
    def unet(self) -> Any:
        """The denoiser of a model that has a UNet; AttributeError elsewhere."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes, also when its weights are kept elsewhere (offloading)."""
        return execution_device(self.denoiser)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    def sites(self, resolution: int | None = None) -> list[Site]:
        """All attention layers, with their resolution for images of ``resolution`` pixels a side;
        the model's own size without."""
        return sites(self.denoiser, self.latent_size(resolution)[1])

    def to(self, device: torch.device | str) -> Backbone:
        self.pipeline.to(device)
        return self

    def project_text(self, text: TextCondition) -> Tensor:
        """The text's states as cross-attention is given them, [B, T, D]."""
        return self.family.project_text(self.denoiser, text)

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        """The prediction (epsilon, v or velocity) [B, C, h, w] from ``latents`` [B, C, h, w] at
        ``timesteps`` [B]; ``resolution`` in pixels fills SDXL's time ids and PixArt's size
        conditions, ``guidance`` is told to a guidance-distilled denoiser."""
        token = PREDICTING.set(True)
        try:
            return self.family.predict(
                self.denoiser, latents, timesteps, text, resolution, guidance
            )
        finally:
            PREDICTING.reset(token)

    def restored_pipeline(self) -> Any:
        """The diffusers pipeline, every part in the dtype that it was loaded in."""
        self.vae.to(self.dtype)
        return self.pipeline


def _list_left_out(path: str, revision: str | None) -> dict[str, None]:
    """The parts that a pipeline was saved without (SD3's T5): diffusers 0.42 asks for them unless
    it is told that there are none."""
    import diffusers

    try:
        index = diffusers.DiffusionPipeline.load_config(path, revision=revision)
    except (OSError, ValueError):
        return {}  # Opening it says what is wrong
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    optional = getattr(kind, "_optional_components", [])
    return {
        name: None
        for name, value in index.items()
        if value == [None, None] and name not in optional
    }
