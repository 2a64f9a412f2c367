"""A pretrained diffusers model as one object: SD1.x, SD2.x, SDXL, PixArt and the embedded one
behind the same five calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.batch import Phrase
from lightning_modules.attention import Site, sites
from lightning_modules.attention.token_positions import (
    CutOffError,
    Offsets,
    common_positions,
    offsets,
)
from lightning_modules.backbone import pixart
from lightning_modules.backbone.text import TextCondition
from lightning_modules.backbone.token_types import TokenTypeCache

if TYPE_CHECKING:
    from datamodules.cache import TextCache

EMBEDDED = Path(__file__).parents[1] / "embedded" / "assets" / "backbone"


def weights_digest(path: str) -> str | None:
    """Digest of the weight files below a local folder (or the embedded one), None for a hub id,
    whose revision says the same.

    Files of more than 64 MB count by size and time of change alone: reading gigabytes would take
    longer than it is worth.
    """
    folder = EMBEDDED if path == "embedded" else Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    # Settings of schedulers and tokenizers change images as weights do.
    for file in sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".json", ".txt", ".model")
    ):
        facts = file.stat()
        digest.update(f"{file.relative_to(folder)} {facts.st_size} ".encode())
        digest.update(
            file.read_bytes() if facts.st_size <= 64 * 2**20 else str(facts.st_mtime_ns).encode()
        )
    return digest.hexdigest()[:16]


class Backbone:
    """A frozen diffusers pipeline and the few things that training and sampling do with it.

    Deliberately no `nn.Module`: a method that holds one has the frozen weights neither in its
    checkpoint nor in its optimiser. ``denoiser`` is the pipeline's UNet, or PixArt's transformer.
    Raises ValueError on a pipeline that has neither.
    """

    def __init__(self, pipeline: Any, source: str, revision: str | None = None) -> None:
        self.pixart = pixart.is_pixart(pipeline)
        self.denoiser_name = "transformer" if self.pixart else "unet"
        if getattr(pipeline, self.denoiser_name, None) is None:
            raise ValueError(
                f"{source!r} is a {type(pipeline).__name__}: expected Stable Diffusion 1.x, "
                "2.x or XL, or PixArt"
            )
        self.pipeline, self.source, self.revision = pipeline, source, revision
        self.denoiser, self.vae, self.scheduler = (
            getattr(pipeline, self.denoiser_name),
            pipeline.vae,
            pipeline.scheduler,
        )
        second = getattr(pipeline, "text_encoder_2", None)
        self.text_encoders = [pipeline.text_encoder] + ([second] if second is not None else [])
        self.tokenizers = [pipeline.tokenizer] + (
            [pipeline.tokenizer_2] if second is not None else []
        )
        self.sdxl = second is not None
        for module in (self.denoiser, self.vae, *self.text_encoders):
            module.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        # PixArt's cross-attention is given a mask, which says what there is to know
        self.token_types: TokenTypeCache | None = None
        if not self.pixart:
            self.token_types = TokenTypeCache(
                self.text_encoders[0], self.tokenizers[0].eos_token_id, self.sdxl
            )
        # Captions that were encoded before; of no use where an encoder or its tokens are changed
        self.texts: TextCache | None = None
        self._alphas = torch.as_tensor(self.scheduler.alphas_cumprod, dtype=torch.float64)

    @classmethod
    def load(cls, path: str, dtype: str = "float32", revision: str | None = None) -> Backbone:
        """``path`` is "embedded", a diffusers folder, or a hub id; only safetensors weights are
        read.

        Raises FileNotFoundError, in one line, when nothing can be loaded from there.
        """
        from diffusers import DiffusionPipeline

        folder = str(EMBEDDED) if path == "embedded" else path
        if path == "embedded" and not (EMBEDDED / "model_index.json").exists():
            raise FileNotFoundError(
                "the embedded backbone is not there: train it with `python -m "
                "lightning_modules.pretrain`"
            )
        try:
            pipeline = DiffusionPipeline.from_pretrained(
                folder,
                torch_dtype=getattr(torch, dtype),
                revision=revision,
                use_safetensors=True,
                add_watermarker=False,
            )
        except (OSError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            # What transformers falls back to where it cannot read sentencepiece's file
            if "tiktoken" in first:
                cure = "T5's tokenizer needs sentencepiece: pip install -e .[pixart]"
                raise FileNotFoundError(
                    f"backbone.path={path!r} cannot be loaded: {cure}"
                ) from error
            expected = "expected 'embedded', a diffusers folder or a hub id"
            raise FileNotFoundError(
                f"backbone.path={path!r} cannot be loaded ({first}): {expected}"
            ) from error
        return cls(pipeline, path, revision)

    @property
    def unet(self) -> Any:
        """The denoiser of a model that has a UNet; AttributeError elsewhere."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @property
    def prediction_type(self) -> str:
        return self.scheduler.config.prediction_type

    @property
    def timesteps(self) -> int:
        return self.scheduler.config.num_train_timesteps

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of one image at the model's own size."""
        side = self.denoiser.config.sample_size
        return self.denoiser.config.in_channels, side, side

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latent_size(self, resolution: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a square image of ``resolution`` pixels a
        side.

        Raises ValueError where a transformer's patches would not cover them.
        """
        side = round(resolution / self.vae_scale_factor)
        if self.pixart and side % (patch := self.denoiser.config.patch_size):
            raise ValueError(
                f"backbone.resolution={resolution}: PixArt expects a multiple of "
                f"{self.vae_scale_factor * patch} pixels"
            )
        return self.denoiser.config.in_channels, side, side

    def sites(self, resolution: int | None = None) -> list[Site]:
        """All attention layers, with their resolution for images of ``resolution`` pixels a side;
        the model's own size without."""
        return sites(self.denoiser, None if resolution is None else self.latent_size(resolution)[1])

    def to(self, device: torch.device | str) -> Backbone:
        self.pipeline.to(device)
        return self

    def fingerprint(self) -> str:
        """Digest of the autoencoder's weights and scaling: what cached latents depend on."""
        return _digest(str(self.vae.config.scaling_factor), self.vae)

    def text_fingerprint(self) -> str:
        """Digest of the text encoders' weights and of the tokenizers: what cached texts depend
        on."""
        vocabularies = [sorted(tokenizer.get_vocab().items()) for tokenizer in self.tokenizers]
        return _digest(
            str((vocabularies, [self.text_length for _ in self.tokenizers])), *self.text_encoders
        )

    @property
    def text_length(self) -> int:
        """Tokens of an encoded text, padding included."""
        return (
            pixart.text_length(self.pipeline)
            if self.pixart
            else self.tokenizers[0].model_max_length
        )

    def tokenize(self, prompts: list[str], which: int = 0) -> Tensor:
        """Token ids [B, T], padded and cut to `text_length`."""
        return self._tokenized(prompts, which).input_ids

    def _tokenized(self, prompts: list[str], which: int = 0) -> Any:
        texts = [pixart.prepared(prompt) for prompt in prompts] if self.pixart else prompts
        return self.tokenizers[which](
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.text_length,
            return_tensors="pt",
        )

    def token_names(self, prompt: str) -> list[str]:
        """The prompt's tokens as text, padding left out: "BOS" first (not of T5), "EOS" last."""
        given = self._tokenized([prompt])
        words = self.tokenizers[0].convert_ids_to_tokens(
            given.input_ids[0][: int(given.attention_mask.sum())].tolist()
        )
        if self.pixart:
            return [*(word.removeprefix("\u2581") for word in words[:-1]), "EOS"]
        return ["BOS", *(word.removesuffix("</w>") for word in words[1:-1]), "EOS"]

    def positions(
        self,
        caption: str,
        phrases: Sequence[str | tuple[int, int]],
        known: Sequence[Offsets] | None = None,
    ) -> list[list[int]]:
        """The positions of each phrase's tokens in the encoded caption; ``known`` and what is
        raised as of `tokens.common_positions`."""
        return common_positions(
            self.tokenizers,
            caption,
            phrases,
            length=self.text_length,
            lower=self.pixart,
            known=known,
        )

    def locate_phrases(
        self, captions: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> tuple[list[list[Phrase]], list[list[list[int]]]]:
        """For each caption those of its linked phrases that the encoder sees whole, and the
        positions of each one's tokens."""
        standing = [offsets(tokenizer, captions, self.pixart) for tokenizer in self.tokenizers]
        kept, positions = [list[Phrase]() for _ in captions], [list[list[int]]() for _ in captions]
        for i, (caption, found) in enumerate(zip(captions, phrases, strict=True)):
            known = [of[i] for of in standing]
            for phrase in found:
                with suppress(CutOffError):
                    positions[i] += self.positions(caption, [(phrase.start, phrase.end)], known)
                    kept[i].append(phrase)
        return kept, positions

    def encode_prompts(self, prompts: list[str]) -> TextCondition:
        """The prompts as stock pipelines encode them: SDXL concatenates the penultimate states of
        both encoders, PixArt reads lower case.

        Those that ``texts`` holds all of are read from there.
        """
        if self.texts is not None:
            with suppress(LookupError):
                return self._from_cache(self.texts.get(prompts))
        if self.pixart:
            encoder, given = (
                self.text_encoders[0],
                self._tokenized(prompts).to(self.text_encoders[0].device),
            )
            hidden = encoder(given.input_ids, attention_mask=given.attention_mask).last_hidden_state
            return TextCondition(hidden.to(encoder.dtype), mask=given.attention_mask)
        outputs = [
            encoder(self.tokenize(prompts, i).to(encoder.device), output_hidden_states=self.sdxl)
            for i, encoder in enumerate(self.text_encoders)
        ]
        if not self.sdxl:
            return TextCondition(outputs[0].last_hidden_state)
        return TextCondition(
            torch.cat([o.hidden_states[-2] for o in outputs], dim=-1), outputs[1].text_embeds
        )

    @torch.no_grad()
    def encoded(self, prompts: list[str]) -> dict[str, Tensor]:
        """What `TextCache` keeps of the prompts: `encode_prompts`, by name, and ``ids`` [B, T] of
        the first tokenizer."""
        text = self.encode_prompts(prompts)
        parts = {"hidden": text.hidden, "pooled": text.pooled, "mask": text.mask}
        return {"ids": self.tokenize(prompts)} | {
            name: part for name, part in parts.items() if part is not None
        }

    def _from_cache(self, found: dict[str, Tensor]) -> TextCondition:
        text = TextCondition(
            **{name: part.to(self.device) for name, part in found.items() if name != "ids"}
        )
        if self.token_types is not None:
            self.token_types.remember(
                text.hidden[:, -1, : self.text_encoders[0].config.hidden_size], found["ids"]
            )
        return text

    def encode_empty(self, count: int) -> TextCondition:
        """The unconditional half of classifier-free guidance: zeros where the pipeline says so
        (SDXL), else the empty prompt."""
        one = self.encode_prompts([""])
        if self.sdxl and self.pipeline.config.force_zeros_for_empty_prompt:
            one = one.map(torch.zeros_like)
        return one.map(lambda part: part.expand(count, *part.shape[1:]))

    def context(self, text: TextCondition) -> Tensor:
        """The text's states as cross-attention is given them, [B, T, D]: PixArt projects T5's
        first."""
        return self.denoiser.caption_projection(text.hidden) if self.pixart else text.hidden

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> scaled latents [B, C, h, w], the mode of the
        posterior."""
        vae, parts = self._safe_vae(), []
        for part in images.split(_together(images.shape[-2] * images.shape[-1])):
            posterior = vae.encode(part.to(self.device, vae.dtype)).latent_dist
            parts.append((posterior.mode() * vae.config.scaling_factor).to(self.dtype))
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> uint8 images [B, 3, H, W] on the CPU."""
        parts, vae = [], self._safe_vae()
        for part in latents.split(
            _together(latents.shape[-2] * latents.shape[-1] * self.vae_scale_factor**2)
        ):
            images = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor).sample
            parts.append(
                ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()
            )
        return torch.cat(parts)

    def _safe_vae(self) -> Any:
        """SDXL's autoencoder overflows in float16 (its ``force_upcast``): it computes in float32
        then, until `restored_pipeline` is asked for."""
        if self.vae.dtype == torch.float16 and self.vae.config.get("force_upcast"):
            self.vae.to(torch.float32)
        return self.vae

    def restored_pipeline(self) -> Any:
        """The diffusers pipeline, every part in the dtype that it was loaded in."""
        self.vae.to(self.dtype)
        return self.pipeline

    def predict(
        self, latents: Tensor, timesteps: Tensor, text: TextCondition, resolution: int
    ) -> Tensor:
        """The prediction (epsilon or v) [B, C, h, w]; ``resolution`` in pixels fills SDXL's time
        ids (original, crop, target) and PixArt's size conditions."""
        if self.pixart:
            sizes = pixart.size_conditions(self.denoiser, len(latents), resolution, text.hidden)
            output = self.denoiser(
                latents, text.hidden, timesteps, sizes, encoder_attention_mask=text.mask
            ).sample
            return pixart.noise_of(output, latents.shape[1])
        added = None
        if self.sdxl:
            ids = torch.tensor(
                [resolution, resolution, 0, 0, resolution, resolution],
                device=latents.device,
                dtype=text.hidden.dtype,
            )
            added = {"text_embeds": text.pooled, "time_ids": ids.expand(len(latents), -1)}
        return self.denoiser(
            latents, timesteps, encoder_hidden_states=text.hidden, added_cond_kwargs=added
        ).sample

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """(noised latents, training target) at ``timesteps``: the target is the noise, or v =
        sqrt(a) e - sqrt(1-a) x."""
        # Roots are taken in float64 on the CPU: 1 - a in half precision is off by a tenth at small
        # t, and not every device has float64.
        alpha = self._alphas[timesteps.cpu()].view(-1, 1, 1, 1)
        signal, spread = (
            root.to(latents.dtype).to(latents.device) for root in (alpha.sqrt(), (1 - alpha).sqrt())
        )
        noised = signal * latents + spread * noise
        if self.prediction_type == "v_prediction":
            return noised, signal * noise - spread * latents
        if self.prediction_type == "epsilon":
            return noised, noise
        raise ValueError(
            f"the backbone predicts {self.prediction_type!r}: expected 'epsilon' or 'v_prediction'"
        )

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a) at ``timesteps``, float32 [B]."""
        alpha = self._alphas[timesteps.cpu()]
        return (alpha / (1 - alpha)).float().to(timesteps.device)


def initial_noise(seeds: list[int], shape: tuple[int, int, int]) -> Tensor:
    """float32 [B, C, h, w]; each row depends on its own seed alone, so that the batching changes no
    image."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def _together(pixels: int) -> int:
    """How many images of so many pixels an autoencoder takes at once: its activations at full
    resolution are hundreds of channels wide."""
    return max(1, min(64, 8 * 512**2 // pixels))


def _digest(facts: str, *modules: Any) -> str:
    digest = hashlib.sha256(facts.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            # In float32, into which some autoencoders are turned when they are first used.
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: list[str],
    seeds: list[int],
    steps: int,
    guidance: float,
    resolution: int,
    batch: int = 64,
) -> Tensor:
    """uint8 images [N, 3, H, W]: the backbone's own scheduler, both halves of classifier-free
    guidance in one call of the denoiser.

    Raises ValueError when ``prompts`` and ``seeds`` differ in length.
    """
    if len(prompts) != len(seeds):
        raise ValueError(
            f"{len(prompts)} prompts but {len(seeds)} seeds: expected one seed for each prompt"
        )
    shape = backbone.latent_size(resolution)
    images = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        text = backbone.encode_prompts(prompts[rows])
        count = len(text.hidden)
        both = backbone.encode_empty(count) + text if guidance > 1 else text
        scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
        scheduler.set_timesteps(steps, device=backbone.device)
        latents = (
            initial_noise(seeds[rows], shape).to(backbone.device, backbone.dtype)
            * scheduler.init_noise_sigma
        )
        for t in scheduler.timesteps:
            inputs = scheduler.scale_model_input(
                torch.cat([latents] * 2) if guidance > 1 else latents, t
            )
            prediction = backbone.predict(inputs, t.expand(len(inputs)), both, resolution)
            if guidance > 1:
                without, given = prediction.chunk(2)
                prediction = without + guidance * (given - without)
            latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
        images.append(backbone.decode(latents))
    return torch.cat(images)
