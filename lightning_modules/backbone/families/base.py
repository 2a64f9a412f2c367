"""What a family of pipelines says of itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from conf.describe import show_count
from lightning_modules.attention.token_types import JoinedTokenTypes, TokenTypeCache
from lightning_modules.backbone.text import TextCondition

# Others decode with noise of their own, or are no autoencoders of images
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL")


class Family(ABC):
    """How the denoiser of one pipeline is called, and how its text is encoded."""

    label: str  # As errors name it
    # Stock pipelines that draw as `sample` does; what is derived from them differs in arguments
    pipelines: ClassVar[tuple[str, ...]]
    denoiser_name = "unet"  # The pipeline's attribute
    text_parts: ClassVar[tuple[str, ...]] = ("",)  # Endings of its encoders' and tokenizers' names
    # The stretches of an encoded text, each by the numbers of the tokenizers that make it together
    stretches: tuple[tuple[int, ...], ...] = ((0,),)
    clip = True  # Whether CLIP reads the text, which placeholders and training the encoders need
    lower_case = False  # Whether the text is put in lower case
    # What some stock pipelines do and others do not: whether they standardise latents by the VAE's
    # mean and deviation, tell the scheduler that they begin at its first step, and of a single step
    # take the scheduler's estimate of the clean latents
    standardizes_latents = False
    starts_at_first_sigma = False
    keeps_single_estimate = False
    learns_variance = False  # Whether the denoiser may predict a variance, which is left out
    is_joint = False  # Whether image and text attend to each other in one layer
    is_flow = False  # Whether it predicts the velocity of a flow (SD3, FLUX)
    shifts_latents = False  # Whether latents are shifted by the VAE's ``shift_factor``

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @classmethod
    def matches(cls, pipeline: Any) -> bool:
        """Whether ``pipeline`` is of this family."""
        return any(kind.__name__ in cls.pipelines for kind in type(pipeline).__mro__)

    def check(self, source: str) -> None:
        """Refuses parts of the pipeline from ``source`` that need what a text-to-image pipeline is
        not given, or that the stock pipeline would use otherwise. Raises ValueError."""
        denoiser, vae = getattr(self.pipeline, self.denoiser_name), self.pipeline.vae
        self.expect(source, self.denoiser_name, denoiser, denoiser is not None, "a denoiser")
        autoencoder, channels = type(vae).__name__, vae.config.get("latent_channels")
        known = " or ".join(AUTOENCODERS)
        self.expect(source, "vae", autoencoder, autoencoder in AUTOENCODERS, known)
        levels, scale = vae.config.get("block_out_channels"), vae.config.get("scaling_factor")
        good = isinstance(levels, list | tuple) and len(levels) > 0
        self.expect(source, "vae.block_out_channels", levels, good, "a list of channels")
        good = isinstance(scale, int | float) and 0 < scale < math.inf
        self.expect(source, "vae.scaling_factor", scale, good, "a number above 0")
        self.check_channels(source, channels)
        side, name = denoiser.config.get("sample_size"), f"{self.denoiser_name}.sample_size"
        self.expect(source, name, side, side is None or isinstance(side, int), "one number")
        if self.shifts_latents:
            shift = vae.config.get("shift_factor")
            good = isinstance(shift, int | float) and math.isfinite(shift)
            self.expect(source, "vae.shift_factor", shift, good, "a number")
        for key in ("latents_mean", "latents_std") if self.standardizes_latents else ():
            values = vae.config.get(key)
            fits = values is None or len(values) == channels
            self.expect(source, f"vae.{key}", values, fits, f"{show_count(channels, 'number')}")

    def check_channels(self, source: str, channels: int) -> None:
        """Refuses a denoiser that does not take and give the VAE's latents. Raises ValueError."""
        config = getattr(self.pipeline, self.denoiser_name).config
        given, name = config.in_channels, f"{self.denoiser_name}.in_channels"
        self.expect(source, name, given, given == channels, f"as many as the VAE, {channels}")
        given, name = config.out_channels, f"{self.denoiser_name}.out_channels"
        halves = (None, channels, 2 * channels) if self.learns_variance else (channels,)
        self.expect(source, name, given, given in halves, f"as many as the VAE, {channels}")

    def expect(self, source: str, name: str, value: Any, fits: bool, expected: str) -> None:
        """Raises ValueError unless the ``value`` of ``name`` ``fits``."""
        if not fits:
            raise ValueError(
                f"{source!r} has {name}={value}, not what a {self.label} pipeline draws from text "
                f"with: expected {expected}"
            )

    def step_options(
        self, scheduler: Any, steps: int, latent_size: tuple[int, int, int]
    ) -> dict[str, Any]:
        """What the stock pipeline gives the scheduler's ``set_timesteps`` beside so many steps, for
        latents of this size."""
        return {}

    def is_guided(self, guidance: float) -> bool:
        """Whether both halves of classifier-free guidance are computed: a guidance-distilled UNet
        is told the scale instead."""
        denoiser = getattr(self.pipeline, self.denoiser_name)
        return guidance > 1 and denoiser.config.get("time_cond_proj_dim") is None

    @property
    def own_size(self) -> tuple[int, int]:
        """(channels, side) of the latents that the model was made for."""
        config = getattr(self.pipeline, self.denoiser_name).config
        return config.in_channels, config.sample_size

    @property
    def patch_size(self) -> int:
        """Latents per patch, along one side."""
        return getattr(self.pipeline, self.denoiser_name).config.get("patch_size", 1)

    @property
    def text_length(self) -> int:
        """Tokens of an encoded text, padding included."""
        return sum(self.token_lengths[stretch[0]] for stretch in self.stretches)

    @property
    def token_lengths(self) -> list[int]:
        """How many tokens each tokenizer gives its encoder, padding included."""
        return [self.pipeline.tokenizer.model_max_length] * len(self.text_parts)

    def prepare(self, prompt: str) -> str:
        """The prompt as the stock pipeline gives it to the tokenizers."""
        return prompt

    def name_tokens(self, tokens: list[str]) -> list[str]:
        """The tokens of a text by one tokenizer, padding left out, as a reader knows them."""
        if tokens[-1] == "</s>":  # T5, which has no BOS
            return [*(token.removeprefix("\u2581") for token in tokens[:-1]), "EOS"]
        return ["BOS", *(token.removesuffix("</w>") for token in tokens[1:-1]), "EOS"]

    @abstractmethod
    def encode(self, encoders: list[Any], tokens: list[Any]) -> TextCondition:
        """The text as the stock pipeline encodes it, from what each tokenizer gave
        (``input_ids`` and ``attention_mask`` [B, T])."""

    def project_text(self, denoiser: Any, text: TextCondition) -> Tensor:
        """The text's states as cross-attention is given them, [B, T, D]."""
        return text.hidden

    @abstractmethod
    def predict(
        self,
        denoiser: Any,
        latents: Tensor,
        timesteps: Tensor,
        text: TextCondition,
        resolution: int,
        guidance: float = 1.0,
    ) -> Tensor:
        """The prediction (epsilon or v) [B, C, h, w] for images of ``resolution`` pixels a side;
        ``guidance`` is what a guidance-distilled UNet is told, 1 for none."""

    def token_types(self) -> TokenTypeCache | JoinedTokenTypes | None:
        """What tells words from padding; None where a mask comes with the text."""
        return TokenTypeCache(self.pipeline.text_encoder, self.pipeline.tokenizer.eos_token_id)
