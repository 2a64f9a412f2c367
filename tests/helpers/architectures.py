"""Stable Diffusion 1.4, 1.5, 2.1-base, SDXL-base 1.0 and PixArt-XL-2-512x512 without their weights:
at full size, or small with the same wiring.

The values are those of the published configs, one JSON file each below ``assets/configs``; its part
"tiny" says what is smaller there. The tokenizer knows a few words, with CLIP's (or T5's) length,
since the real vocabulary comes with the weights alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, PixArtTransformer2DModel, UNet2DConditionModel

CONFIGS = Path(__file__).parent / "configs"
# 1.4 and 1.5 differ in their weights alone
FILES = {"sd14": "sd1", "sd15": "sd1", "sd21": "sd21", "sdxl": "sdxl", "pixart": "pixart"}
TRANSFORMERS = ("pixart",)
NAMES = tuple(name for name in FILES if name not in TRANSFORMERS)  # those with a UNet
SCALES = ("full", "tiny")
# What is recorded of the authors' code was recorded with these
WORDS = [
    *("a", "an", "and", "photo", "of", "the", ",", ".", "red", "orange", "yellow", "green", "cyan"),
    *("blue", "purple", "white", "circle", "square", "triangle", "diamond", "cross", "ring"),
    *("left", "right", "above", "below", "with", "on", "in", "next", "to"),
]
SENTINELS = 100  # Tokens that T5 was trained with and no text has


def config(name: str, scale: str = "full") -> dict[str, Any]:
    """What an architecture is made of: the arguments of "unet" (PixArt: "transformer"), "vae",
    "text_encoder", "tokenizer" and "scheduler" (SDXL wiring: "text_encoder_2" and "tokenizer_2"
    too), the class of its "pipeline", the side of its "image" in pixels and, but for PixArt,
    "force_zeros_for_empty_prompt".

    Raises ValueError on another name or scale.
    """
    if name not in FILES:
        raise ValueError(f"architecture {name!r} is unknown: expected one of {', '.join(FILES)}")
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r} is unknown: expected one of {', '.join(SCALES)}")
    full = json.loads((CONFIGS / f"{FILES[name]}.json").read_text())
    tiny = full.pop("tiny")
    if scale == "full":
        return full
    return {
        key: full[key] | tiny.get(key, {})
        if isinstance(full[key], dict)
        else tiny.get(key, full[key])
        for key in full
    }


def build_unet(
    name: str,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scale: str = "full",
    **changes: Any,
) -> UNet2DConditionModel:
    """The UNet, its config's values replaced by ``changes``: without memory on the meta device,
    elsewhere with random weights."""
    from diffusers import UNet2DConditionModel

    arguments = config(name, scale)["unet"] | changes
    return _build(
        UNet2DConditionModel,
        arguments,
        device,
        dtype,
        torch.Generator(_real(device)).manual_seed(seed),
    )


def build_transformer(
    name: str,
    device: torch.device | str = "meta",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scale: str = "full",
    **changes: Any,
) -> PixArtTransformer2DModel:
    """As `build_unet`, of PixArt; with ``sample_size=128`` that of PixArt-XL-2-1024-MS, which is
    told the size of its images."""
    from diffusers import PixArtTransformer2DModel

    arguments = config(name, scale)["transformer"] | changes
    return _build(
        PixArtTransformer2DModel,
        arguments,
        device,
        dtype,
        torch.Generator(_real(device)).manual_seed(seed),
    )


def build_pipeline(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scale: str = "full",
    **changes: Any,
) -> DiffusionPipeline:
    """The stock pipeline with random weights, ready for a `Backbone`; the tokenizers' files are
    written below ``folder``.

    ``changes`` replace values of the UNet's (or the transformer's) config. "tiny" keeps blocks,
    levels, encoders, prediction type, the factor of 8 between pixels and latents, and the text
    configs' ``eos_token_id`` of 2 (CLIP then pools at the largest token id), at small widths with
    one layer a block; of a transformer's blocks there are six. On the meta device nothing has
    memory.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from lightning_modules.embedded.pipeline import build_tokenizer

    parts = config(name, scale)
    generator = torch.Generator(_real(device)).manual_seed(seed)
    scheduler = parts["scheduler"]
    components: dict[str, Any] = {
        "scheduler": getattr(diffusers, scheduler.pop("class"))(**scheduler)
    }
    if name in TRANSFORMERS:
        components |= _t5(parts, Path(folder), scale, device, dtype, generator)
        components["transformer"] = _build(
            diffusers.PixArtTransformer2DModel,
            parts["transformer"] | changes,
            device,
            dtype,
            generator,
        )
        components["vae"] = _build(diffusers.AutoencoderKL, parts["vae"], device, dtype, generator)
        return getattr(diffusers, parts["pipeline"])(**components)
    for suffix, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        if "text_encoder" + suffix not in parts:
            continue
        text = parts["text_encoder" + suffix]
        size = text["vocab_size"] if scale == "full" else 0
        tokenizer = build_tokenizer(
            Path(folder) / f"tokenizer{suffix}",
            size=size,
            vocabulary=WORDS,
            **parts["tokenizer" + suffix],
        )
        text["vocab_size"] = len(tokenizer)
        components["tokenizer" + suffix] = tokenizer
        components["text_encoder" + suffix] = _build(
            kind, {"config": CLIPTextConfig(**text)}, device, dtype, generator
        )
    components["unet"] = _build(
        diffusers.UNet2DConditionModel, parts["unet"] | changes, device, dtype, generator
    )
    components["vae"] = _build(diffusers.AutoencoderKL, parts["vae"], device, dtype, generator)
    if "text_encoder_2" in parts:
        extra = {
            "force_zeros_for_empty_prompt": parts["force_zeros_for_empty_prompt"],
            "add_watermarker": False,
        }
    else:
        extra = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
    return getattr(diffusers, parts["pipeline"])(**components, **extra)


def _t5(
    parts: dict[str, Any],
    folder: Path,
    scale: str,
    device: torch.device | str,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> dict[str, Any]:
    """T5 and its tokenizer."""
    from transformers import T5Config, T5EncoderModel

    tokenizer, text = (
        t5_tokenizer(folder / "tokenizer", **parts["tokenizer"]),
        parts["text_encoder"],
    )
    text["vocab_size"] = text["vocab_size"] if scale == "full" else len(tokenizer)
    encoder = _build(T5EncoderModel, {"config": T5Config(**text)}, device, dtype, generator)
    return {"tokenizer": tokenizer, "text_encoder": encoder}


def t5_tokenizer(folder: Path, length: int, size: int = 0) -> Any:
    """A T5 tokenizer in which each of `WORDS` is one token; its files land in ``folder``.

    A ``size`` above what the words need is filled with pieces that no text has, so that there are
    as many tokens as T5 has. Padding, EOS and the unknown token are 0, 1 and 2, as there.
    """
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(chr(code), -9.0) for code in range(33, 127) if not chr(code).isupper()]
    pieces += [(f"\u2581{word}", -3.0) for word in WORDS if word.isalnum()]
    pieces += [(f"<unused{i}>", -99.0) for i in range(size - len(pieces) - SENTINELS)]
    T5Tokenizer(vocab=pieces, extra_ids=SENTINELS, model_max_length=length).save_pretrained(folder)
    return T5Tokenizer.from_pretrained(folder)


def _real(device: torch.device | str) -> str:
    """Where random numbers for ``device`` come from: the meta device has none."""
    return "cpu" if torch.device(device).type == "meta" else str(device)


def _build(
    kind: type[nn.Module],
    arguments: dict[str, Any],
    device: torch.device | str,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Any:
    """A model made on the meta device and filled on its own one: the default way would draw every
    weight in float32 on the CPU first.

    Weights are normal with variance 1 / inputs and biases zero, so that what is normalised before a
    layer leaves it at unit variance: attention is neither uniform nor one-hot, and activations stay
    finite in half precision.
    """
    with torch.device("meta"):
        # Diffusers' own `to` warns at every change of dtype
        model = nn.Module.to(kind(**arguments), dtype).eval()
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device=device)
    if hasattr(model, "tie_weights"):
        model.tie_weights()  # what was one parameter on the meta device, T5's table, is two now
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(
                    0, (parameter.shape[0] / parameter.numel()) ** 0.5, generator=generator
                )
            else:
                # Scale and shift of a normalisation, or a bias
                parameter.fill_(float(name.endswith("weight")))
        for name, buffer in model.named_buffers():
            buffer.copy_(_buffer(model, name, buffer))
    return model


def _buffer(model: nn.Module, name: str, buffer: Tensor) -> Tensor:
    """What a buffer holds. Raises RuntimeError on one that is not known."""
    owner, _, last = name.rpartition(".")
    if last == "position_ids":
        return torch.arange(buffer.shape[-1])
    if last == "pos_embed":
        from diffusers.models.embeddings import get_2d_sincos_pos_embed

        patches: Any = model.get_submodule(owner)
        side, scale = patches.base_size, patches.interpolation_scale
        grid = patches.pos_embed_max_size or side
        return get_2d_sincos_pos_embed(
            buffer.shape[-1], grid, base_size=side, interpolation_scale=scale, output_type="pt"
        )
    expected = "expected position_ids or pos_embed alone"
    raise RuntimeError(
        f"{type(model).__name__} has a buffer {name} that this module cannot fill: {expected}"
    )
