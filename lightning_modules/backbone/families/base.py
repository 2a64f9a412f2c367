"""What a family of pipelines says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from lightning_modules.attention.token_types import TokenTypeCache
from lightning_modules.backbone.text import TextCondition


class Family(ABC):
    """How the denoiser of one pipeline is called, and how its text is encoded."""

    label: str  # As errors name it
    denoiser_name = "unet"  # The pipeline's attribute
    clip = True  # Whether CLIP reads the text, which placeholders and training the encoders need
    lower_case = False  # Whether the text is put in lower case

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    @classmethod
    @abstractmethod
    def matches(cls, pipeline: Any) -> bool:
        """Whether ``pipeline`` is of this family."""

    @property
    def text_length(self) -> int:
        """Tokens of an encoded text, padding included."""
        return self.pipeline.tokenizer.model_max_length

    def prepare(self, prompt: str) -> str:
        """The prompt as the stock pipeline gives it to the tokenizers."""
        return prompt

    def name_tokens(self, tokens: list[str]) -> list[str]:
        """The tokens of a text, padding left out, as a reader knows them."""
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
    ) -> Tensor:
        """The prediction (epsilon or v) [B, C, h, w] for images of ``resolution`` pixels a side."""

    def token_types(self) -> TokenTypeCache | None:
        """What tells words from padding; None where a mask comes with the text."""
        return TokenTypeCache(self.pipeline.text_encoder, self.pipeline.tokenizer.eos_token_id)
