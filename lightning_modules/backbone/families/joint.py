"""What SD3 and FLUX share: transformers of joint attention, trained by flow matching."""

from __future__ import annotations

from abc import ABC
from typing import Any

from conf.describe import show_count
from lightning_modules.backbone.families.base import Family


class JointTransformer(Family, ABC):
    """A transformer whose layers attend over image and text at once."""

    denoiser_name = "transformer"
    clip = False
    is_joint = True
    is_flow = True
    shifts_latents = True
    most_shift = 1.15  # What the stock pipeline takes where the scheduler does not say it

    def check(self, source: str) -> None:
        super().check(source)
        for part, length in zip(self.text_parts, self.token_lengths, strict=False):
            encoder = getattr(self.pipeline, f"text_encoder{part}", None)
            if encoder is None:
                continue
            most = getattr(encoder.config, "max_position_embeddings", None) or length
            name = f"tokenizer{part}.model_max_length"
            fits = isinstance(length, int) and length <= most
            self.expect(source, name, length, fits, f"at most {show_count(most, 'token')}")

    def step_options(
        self, scheduler: Any, steps: int, latent_size: tuple[int, int, int]
    ) -> dict[str, Any]:
        """The shift of an image of this size, where the scheduler has none of its own."""
        if not scheduler.config.get("use_dynamic_shifting"):
            return {}
        return {"mu": self.shift_of(scheduler, latent_size)}

    def shift_of(self, scheduler: Any, latent_size: tuple[int, int, int]) -> float:
        """On the straight line through the scheduler's two points (number of patches, shift)."""
        config, (_, height, width) = scheduler.config, latent_size
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", self.most_shift)
        slope = (high - low) / (many - few)
        patches = (height // self.patch_size) * (width // self.patch_size)
        return patches * slope + (low - slope * few)
