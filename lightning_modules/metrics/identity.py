"""Whether a generated subject is the one that was learnt: features of what lies inside the masks,
compared by their cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from lightning_modules.embedded.judge import Judge

MARGIN = 1.1  # side of the square around a subject, over the longer side of its box


class FeatureMaps(Protocol):
    def maps(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 [N, d, h, w] on the CPU."""
        ...


def masked_similarity(
    features_a: Tensor, masks_a: Tensor, features_b: Tensor, masks_b: Tensor
) -> Tensor:
    """Cosine between the mean feature inside one mask and the mean feature inside another, pair by
    pair.

    Masks are brought to the size of the feature maps by area, so that a cell counts as much as the
    mask covers of it and small subjects are not lost. features: [N, d, h, w]; masks: bool [N, H,
    W]; the sides of a and b may differ, N and d may not.

    Returns float32 [N] in [-1, 1]; nan where a mask is empty. Raises ValueError if the shapes do
    not fit.
    """
    if features_a.ndim != 4 or features_b.ndim != 4 or features_a.shape[:2] != features_b.shape[:2]:
        shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
        raise ValueError(
            f"feature maps must be [N, d, h, w] with the same N and d on both sides, not {shapes}"
        )
    return F.cosine_similarity(
        _masked_mean(features_a, masks_a), _masked_mean(features_b, masks_b), dim=1
    )


def _masked_mean(features: Tensor, masks: Tensor) -> Tensor:
    if masks.ndim != 3 or len(masks) != len(features):
        raise ValueError(
            f"expected one mask [H, W] for each of {len(features)} feature maps, not "
            f"{list(masks.shape)}"
        )
    # [N, 1, h, w]
    weight = F.interpolate(masks.float()[:, None], features.shape[2:], mode="area").to(
        features.device
    )
    return (features.float() * weight).sum((2, 3)) / weight.sum((2, 3))  # 0 / 0 is nan on purpose


class JudgeFeatures:
    """What the first layers of the embedded world's judge see around each cell, 16 x 16 cells of 48
    channels, standardised on renders.

    They tell colours and, less, shapes. ``judge``: the shipped one by default.
    """

    def __init__(self, judge: Judge | None = None) -> None:
        from lightning_modules.embedded.judge import Judge

        self.judge = judge if judge is not None else Judge.load()

    def maps(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, 64, 64] -> float32 [N, 48, 16, 16] on the CPU."""
        local = self.judge.maps(images).local
        channels = local.shape[1]
        mean, sd = (
            v[:channels, None, None] for v in (self.judge.feature_mean, self.judge.feature_sd)
        )
        return ((local - mean) / sd).cpu()


class DinoFeatures:
    """A vision transformer of transformers, such as facebook/dino-vitb16 (Break-A-Scene's identity
    measure) or a DINOv2.

    ``model``: hub id or local folder; only safetensors weights are read. Images are brought to the
    model's own size by antialiased bicubic interpolation and normalised as its image processor
    says.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        batch: int = 16,
    ) -> None:
        """Raises FileNotFoundError when nothing can be loaded from there, ValueError when it is no
        transformer over image patches."""
        from transformers import AutoImageProcessor, AutoModel

        try:
            processor = AutoImageProcessor.from_pretrained(model, revision=revision)
            self.model: Any = AutoModel.from_pretrained(
                model, revision=revision, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            expected = (
                "expected a hub id or a folder of a vision transformer with safetensors weights"
            )
            raise FileNotFoundError(
                f"feature extractor {model!r} cannot be loaded ({first}): {expected}"
            ) from error
        config = self.model.config
        if not hasattr(config, "patch_size") or not hasattr(config, "image_size"):
            raise ValueError(
                f"feature extractor {model!r} is a {config.model_type}: expected a vision "
                "transformer such as vit or dinov2"
            )
        self.size, self.grid = config.image_size, config.image_size // config.patch_size
        self.mean, self.sd = (
            torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std)
        )
        self.model.requires_grad_(False).eval().to(device)
        self.device, self.batch = torch.device(device), batch

    def maps(self, images: Tensor) -> Tensor:
        """The last layer's patch features: uint8 [N, 3, H, W] -> float32 [N, d, h, w] on the
        CPU."""
        # Class and register tokens come first
        patches = self._states(self._normalised(images))[:, -(self.grid**2) :]
        return patches.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)

    def subjects(self, images: Tensor, masks: Tensor) -> Tensor:
        """The class token of each subject alone: cut out by its mask, on the mean colour, in a
        square ``MARGIN`` times its longer side.

        images: uint8 [N, 3, H, W]; masks: bool [N, H, W]. Returns float32 [N, d] on the CPU, nan
        where a mask is empty. The cosine of a subject and its generation is Break-A-Scene's
        identity similarity.
        """
        if masks.shape != (len(images), *images.shape[2:]) or masks.dtype != torch.bool:
            shape = [len(images), *images.shape[2:]]
            raise ValueError(
                f"expected a bool mask for each image, {shape}, not {masks.dtype} "
                f"{list(masks.shape)}"
            )
        there = masks.flatten(1).any(1)
        result = torch.full((len(images), self.model.config.hidden_size), torch.nan)
        if there.any():
            crops = torch.cat(
                [
                    self._crop(image, mask)
                    for image, mask in zip(images[there], masks[there], strict=True)
                ]
            )
            result[there] = self._states(crops)[:, 0]
        return result

    def _crop(self, image: Tensor, mask: Tensor) -> Tensor:
        ys, xs = mask.nonzero(as_tuple=True)
        x0, x1, y0, y1 = int(xs.min()), int(xs.max()) + 1, int(ys.min()), int(ys.max()) + 1
        side = round(MARGIN * max(x1 - x0, y1 - y0))
        left, top = (side - (x1 - x0)) // 2, (side - (y1 - y0)) // 2
        square = self.mean.expand(3, side, side).clone() * 255
        inside = mask[y0:y1, x0:x1]
        square[:, top : top + y1 - y0, left : left + x1 - x0][:, inside] = image[:, y0:y1, x0:x1][
            :, inside
        ].float()
        return self._normalised(square[None])

    def _normalised(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] of 0 to 255 -> float32 [N, 3, size, size]."""
        resized = F.interpolate(
            images.float(),
            (self.size, self.size),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        return (resized.clamp(0, 255) / 255 - self.mean) / self.sd

    @torch.no_grad()
    def _states(self, inputs: Tensor) -> Tensor:
        """The last layer's states, float32 [N, T, d]."""
        with torch.autocast(self.device.type, enabled=False):
            parts = [
                self.model(pixel_values=chunk.to(self.device)).last_hidden_state.float().cpu()
                for chunk in inputs.split(self.batch)
            ]
        return torch.cat(parts)
