"""Stable Diffusion 3 and 3.5 and FLUX.1 without their weights: at full size, or small with the same
wiring (`helpers.architectures` has the rest). The values are those of the published configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from helpers.architectures import CONFIGS, WORDS, _build, _real, t5_tokenizer
from torch import nn

NAMES = ("sd3", "sd35_medium", "sd35_large", "flux_dev", "flux_schnell")


def joint_config(name: str, scale: str = "full") -> dict[str, Any]:
    """What an architecture is made of: the arguments of its parts, and the classes of "pipeline"
    and transformer ("class")."""
    full = json.loads((CONFIGS / f"{name}.json").read_text())
    tiny = full.pop("tiny")
    if scale == "full":
        return full
    return {
        key: value | tiny.get(key, {}) if isinstance(value, dict) else tiny.get(key, value)
        for key, value in full.items()
    }


def build_joint_transformer(
    name: str, device: str = "cpu", scale: str = "tiny", seed: int = 0, **changes: Any
) -> Any:
    """The transformer, its config's values replaced by ``changes``."""
    import diffusers

    parts = joint_config(name, scale)
    generator = torch.Generator(_real(device)).manual_seed(seed)
    kind = getattr(diffusers, parts["class"])
    return _build(kind, parts["transformer"] | changes, device, torch.float32, generator)


def build_joint_pipeline(
    name: str, folder: Path, device: str = "cpu", scale: str = "tiny", seed: int = 0, **changes: Any
) -> Any:
    """The stock pipeline with random weights, ready for a `Backbone`."""
    import diffusers
    import transformers

    from lightning_modules.embedded.pipeline import build_tokenizer

    parts = joint_config(name, scale)
    generator = torch.Generator(_real(device)).manual_seed(seed)
    flux = parts["pipeline"] == "FluxPipeline"
    scheduler = parts["scheduler"]
    components: dict[str, Any] = {
        "scheduler": getattr(diffusers, scheduler.pop("class"))(**scheduler)
    }

    def make(kind: type[nn.Module], arguments: dict[str, Any]) -> Any:
        return _build(kind, arguments, device, torch.float32, generator)

    for suffix in ("", "_2", "_3"):
        if f"text_encoder{suffix}" not in parts:
            continue
        text, given = parts[f"text_encoder{suffix}"], parts[f"tokenizer{suffix}"]
        where = Path(folder) / f"tokenizer{suffix}"
        if "d_model" in text:
            tokenizer = t5_tokenizer(where, **given)
            text["vocab_size"] = text["vocab_size"] if scale == "full" else len(tokenizer)
            kind, config = transformers.T5EncoderModel, transformers.T5Config(**text)
        else:
            size = text["vocab_size"] if scale == "full" else 0
            tokenizer = build_tokenizer(where, size=size, vocabulary=WORDS, **given)
            text["vocab_size"] = len(tokenizer)
            kind = transformers.CLIPTextModel if flux else transformers.CLIPTextModelWithProjection
            config = transformers.CLIPTextConfig(**text)
        components[f"tokenizer{suffix}"] = tokenizer
        components[f"text_encoder{suffix}"] = make(kind, {"config": config})
    transformer = getattr(diffusers, parts["class"])
    components["transformer"] = make(transformer, parts["transformer"] | changes)
    components["vae"] = make(diffusers.AutoencoderKL, parts["vae"])
    return getattr(diffusers, parts["pipeline"])(**components)
