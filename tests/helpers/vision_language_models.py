"""Tiny CLIP and BLIP folders with random weights, complete enough to be loaded as if from the
hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as t

from lightning_modules.embedded.pipeline import build_tokenizer

WORDS = [
    "a",
    "an",
    "the",
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "star",
    "cat",
    "dog",
    "picture",
    "of",
    "and",
    "with",
    "left",
]
CONTEXT = 12  # tokens that the tiny models read
MEAN, SD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def _save(model: Any, folder: Path, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # The usual starting values are so small that all images and all texts would look the same.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5, generator=generator)
    model.to(dtype).save_pretrained(folder)


def make_clip(
    folder: Path, dtype: torch.dtype = torch.float32, published: bool = False, seed: int = 0
) -> Path:
    """``published``: as OpenAI's folders are, with an ``eos_token_id`` of 2 and plain numbers as
    sizes."""
    tokenizer = build_tokenizer(folder, length=CONTEXT)
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": 2 if published else tokenizer.eos_token_id,
    }
    text = t.CLIPTextConfig(max_position_embeddings=CONTEXT, **ids, **SMALL)
    vision = t.CLIPVisionConfig(image_size=32, patch_size=8, **SMALL)
    _save(
        t.CLIPModel(
            t.CLIPConfig(
                text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
            )
        ),
        folder,
        seed,
        dtype,
    )
    tokenizer.save_pretrained(folder)
    size: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    t.CLIPImageProcessorPil(**size, image_mean=MEAN, image_std=SD).save_pretrained(folder)
    if published:
        does = {
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
        }
        pixels = {"crop_size": 32, "size": 32, "resample": 3, "image_mean": MEAN, "image_std": SD}
        (folder / "preprocessor_config.json").write_text(json.dumps({**does, **pixels}))
    return folder


def make_siglip(folder: Path, seed: int = 0) -> Path:
    tokenizer = build_tokenizer(folder, length=CONTEXT)
    text = t.SiglipTextConfig(
        max_position_embeddings=CONTEXT,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SMALL,
    )
    vision = t.SiglipVisionConfig(image_size=32, patch_size=8, **SMALL)
    config = t.SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    _save(t.SiglipModel(config), folder, seed, torch.float32)
    tokenizer.save_pretrained(folder)
    t.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def make_blip(folder: Path, kind: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """``kind``: the class of transformers."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"]
    vocabulary = {token: i for i, token in enumerate([*special, *WORDS])}
    tokenizer = t.BertTokenizer(vocab=vocabulary, model_max_length=512)
    text = t.BlipTextConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=CONTEXT + 18,
        encoder_hidden_size=16,
        bos_token_id=vocabulary["[DEC]"],
        eos_token_id=2,
        pad_token_id=0,
        sep_token_id=vocabulary["[SEP]"],
        **SMALL,
    )
    vision = t.BlipVisionConfig(image_size=32, patch_size=8, **SMALL)
    config = t.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=8
    )
    _save(getattr(t, kind)(config), folder, seed, dtype)
    tokenizer.save_pretrained(folder)
    t.BlipImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=MEAN, image_std=SD
    ).save_pretrained(folder)
    return folder
