"""The embedded backbone before training: SDXL's wiring at a size that two CPU cores can train.

Two CLIP text encoders whose penultimate hidden states are concatenated, a pooled embedding and six
time ids beside the timestep, an `AutoencoderKL` (64 px -> 16x16x8) and a UNet with cross-attention
at 16x16 and 8x8. Below 8x8 maps of this world are near uniform, so there is no level below.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from datamodules.shapes.rendering import SIZE
from datamodules.shapes.vocabulary import words

CONTEXT = 36  # Tokens; the longest caption of the embedded world has 34 with BOS and EOS
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(
    folder: Path,
    length: int = CONTEXT,
    pad_token: str = EOS,
    size: int = 0,
    vocabulary: Iterable[str] | None = None,
) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer in which every word of the ``vocabulary``, by default that of the
    embedded world, is one token; its two files land in ``folder``.

    Captions are cut and padded to ``length`` tokens. A ``size`` above what the words need is filled
    with tokens that no text has, so that BOS and EOS are the last two of that many ids, as in
    CLIP's own vocabulary.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    vocab = symbols + [s + "</w>" for s in symbols]
    merges: list[tuple[str, str]] = []
    for word in words() if vocabulary is None else vocabulary:
        # Merges of earlier words come first and may cut this one otherwise than letter by letter,
        # so they are applied before.
        parts = _merge([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            vocab.append(parts[0] + parts[1])
            parts[:2] = [parts[0] + parts[1]]
    vocab += [f"<|unused{i}|>" for i in range(size - len(vocab) - 2)]
    vocab += [BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n"
    )
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=length,
        pad_token=pad_token,
    )


def _merge(parts: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding of one word: of all adjacent pairs, the one merged earliest in ``merges``
    is joined first."""
    while len(parts) > 1:
        ranked = [
            (merges.index(pair), i)
            for i, pair in enumerate(zip(parts, parts[1:], strict=False))
            if pair in merges
        ]
        if not ranked:
            break
        _, i = min(ranked)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=SIZE,
        force_upcast=False,
        mid_block_add_attention=False,  # Fully convolutional, so that it can be trained on crops
    )


def build_text_encoders(
    tokenizer: CLIPTokenizer, kind: Any = CLIPTextModel
) -> tuple[Any, CLIPTextModelWithProjection]:
    """The first of this ``kind``: SDXL takes no pooled embedding of it, SD3 does."""
    # Three layers each: SDXL reads the penultimate hidden state, so two of them act on the
    # cross-attention.
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CONTEXT,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    first = kind(CLIPTextConfig(hidden_size=64, intermediate_size=256, projection_dim=64, **common))
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(hidden_size=128, intermediate_size=512, projection_dim=128, **common)
    )
    return first, second


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=8,
        out_channels=8,
        block_out_channels=(48, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4),  # Diffusers reads this as the number of heads
        use_linear_projection=True,
        cross_attention_dim=64 + 128,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 128,
        norm_num_groups=8,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


def build_pipeline(folder: Path, seed: int = 0) -> StableDiffusionXLPipeline:
    """The whole untrained pipeline; the tokenizer's files are written below ``folder``."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    first, second = build_text_encoders(tokenizer)
    return StableDiffusionXLPipeline(
        vae=build_vae(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=build_unet(),
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
