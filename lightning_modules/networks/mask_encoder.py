"""Masks to tokens: what a target mask tells the cross-attention layers (MCGM, arXiv 2410.00483,
section 3.1 and its released code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("per_mask", "union", "merged", "conv")
# The released encoder takes 64 x 64 pixels; latents of SDXL at 1024 pixels would have four times as
# many
MAX_SIDE = 64


def union(masks: Tensor) -> Tensor:
    """[B, n, H, W] -> [B, 1, H, W]: all masks laid over each other; blank without any."""
    if masks.shape[1] == 0:
        return masks.new_zeros(len(masks), 1, *masks.shape[2:])
    return masks.amax(1, keepdim=True)


class MaskEncoder(nn.Module):
    """Target masks [B, n, H, W] in [0, 1] -> tokens [B, m, D], in float32, and which of them come
    from a mask that is not blank, bool [B, m]. A blank mask gives a token of zeros or, with
    ``encode_blank``, what the layers make of it: their bias (the released code).

    ``per_mask``: one linear layer over the pixels of a mask, a token a mask (the released code);
    ``union``: the same of all masks laid over each other, one token; ``merged``: as many tokens as
    the text has, of the union, which `merge` mixes into the text without making it longer;
    ``conv``: a token a mask from strided convolutions over the mask and the coordinates of its
    pixels, then one linear layer over what they leave of the plane.

    ``width`` is D; masks are brought to squares of ``side`` pixels by ``resize``, "area" or
    "nearest" (the released code); ``text_length`` is the length of the text in tokens. Raises
    ValueError on another ``kind``.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        side: int,
        text_length: int,
        resize: str = "area",
        encode_blank: bool = False,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(
                f"mask encoder {kind!r} is unknown: expected one of {', '.join(KINDS)}"
            )
        self.kind, self.side, self.text_length = kind, min(side, MAX_SIDE), text_length
        self.resize, self.encode_blank = resize, encode_blank
        features = self.side**2
        if kind == "merged":
            self.spread = nn.Conv2d(1, text_length, 1)
            self.mix = nn.Conv1d(2 * text_length, text_length, 1)
            # The text passes as it is at the start: without it nothing that the backbone knows
            # would be left.
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]
            nn.init.dirac_(self.mix.weight[:, :text_length])
        if kind == "conv":
            hidden = max(width // 4, 16)
            halvings = max(self.side.bit_length() - 3, 1)  # Down to 4 x 4 pixels
            layers: list[nn.Module] = []
            for i in range(halvings):
                inputs = 3 if i == 0 else hidden
                layers += [nn.Conv2d(inputs, hidden, 3, stride=2, padding=1), nn.SiLU()]
            self.convolve = nn.Sequential(*layers)
            features = hidden * (-(-self.side // 2**halvings)) ** 2
        self.project = nn.Linear(features, width)

    def forward(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = masks.float()
        if self.kind in ("union", "merged"):
            masks = union(masks)
        count, objects = masks.shape[:2]
        if objects == 0:
            shown = torch.zeros(count, 0, dtype=torch.bool, device=masks.device)
            return masks.new_zeros(count, 0, self.project.out_features), shown
        if masks.shape[-2:] != (self.side, self.side):
            masks = F.interpolate(masks, (self.side, self.side), mode=self.resize)
        shown = masks.flatten(2).any(2)  # [B, n]
        if self.kind == "merged":
            tokens = self.project(self.spread(masks).flatten(2))  # [B, T, D]
            shown = shown.expand(-1, self.text_length)
        elif self.kind == "conv":
            planes = self.convolve(self._with_coordinates(masks.flatten(0, 1)))
            tokens = self.project(planes.flatten(1)).unflatten(0, (count, objects))
        else:
            tokens = self.project(masks.flatten(2))  # [B, n, D]
        return tokens if self.encode_blank else tokens * shown[..., None], shown

    def merge(self, text: Tensor, tokens: Tensor, shown: Tensor) -> Tensor:
        """Text states [B, T, D] with the T mask tokens of ``merged`` mixed in; the text itself
        where the mask is blank."""
        mixed = self.mix(torch.cat([text.float(), tokens], dim=1)).to(text.dtype)
        return torch.where(shown[:, :1, None], mixed, text)

    def _with_coordinates(self, masks: Tensor) -> Tensor:
        """[N, H, W] -> [N, 3, H, W]: the mask, and inside it the coordinates of its pixels, from -1
        to 1."""
        line = torch.linspace(-1, 1, self.side, device=masks.device)
        return torch.stack([masks, masks * line[None, None, :], masks * line[None, :, None]], dim=1)
