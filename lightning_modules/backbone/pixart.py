"""What PixArt (alpha: arXiv 2310.00426, Sigma: 2403.04692) has where Stable Diffusion has a UNet
and CLIP: a transformer that predicts a variance beside the noise, and T5, whose padding the
cross-attention never reads.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SENTINELS = 100  # tokens that T5 was trained with and no text has


def is_pixart(pipeline: Any) -> bool:
    return type(getattr(pipeline, "transformer", None)).__name__ == "PixArtTransformer2DModel"


def text_length(pipeline: Any) -> int:
    """How many tokens the stock pipeline gives T5, padding included: 120 (alpha) or 300 (Sigma)."""
    return inspect.signature(type(pipeline).encode_prompt).parameters["max_sequence_length"].default


def prepared(prompt: str) -> str:
    """The prompt as the stock pipeline gives it to T5 (with ``clean_caption=False``)."""
    return prompt.lower().strip()


def size_conditions(
    transformer: Any, batch: int, resolution: int, like: Tensor
) -> dict[str, Tensor | None]:
    """The embedded size and aspect ratio of square images of ``resolution`` pixels: of alpha at
    1024 pixels; None elsewhere."""
    if not transformer.use_additional_conditions:
        return {"resolution": None, "aspect_ratio": None}
    sides = torch.full((batch, 2), float(resolution), device=like.device, dtype=like.dtype)
    return {"resolution": sides, "aspect_ratio": torch.ones_like(sides[:, :1])}


def noise_of(output: Tensor, channels: int) -> Tensor:
    """The first half of a transformer's output [B, 2 C, h, w]: the other is the learned variance,
    which no scheduler here takes."""
    return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * channels else output


def build_tokenizer(folder: Path, length: int, size: int = 0) -> Any:
    """A T5 tokenizer in which every word of the embedded world is one token; its files land in
    ``folder``.

    A ``size`` above what the words need is filled with pieces that no text has, so that there are
    as many tokens as T5 has. Padding, EOS and the unknown token are 0, 1 and 2, as there.
    """
    from transformers import T5Tokenizer

    from datamodules.shapes.world import words

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    pieces += [(chr(code), -9.0) for code in range(33, 127) if not chr(code).isupper()]
    pieces += [(f"\u2581{word}", -3.0) for word in words() if word.isalnum()]
    pieces += [(f"<unused{i}>", -99.0) for i in range(size - len(pieces) - SENTINELS)]
    T5Tokenizer(vocab=pieces, extra_ids=SENTINELS, model_max_length=length).save_pretrained(folder)
    return T5Tokenizer.from_pretrained(folder)
