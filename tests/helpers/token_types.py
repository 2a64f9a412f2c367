"""Token types from a tokenizer's own attention mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_modules.attention.token_types import token_types_by_end


def list_token_types(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """What stands at each index of the encoded captions, uint8 [B, T]."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    return token_types_by_end(encoded.attention_mask.sum(1) - 1, encoded.input_ids.shape[1])
