"""Masks to tokens: what a target mask tells the cross-attention layers (MCGM, arXiv 2410.00483,
section 3.1 and its released code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("per_mask", "union", "merged", "conv")
# The released encoder's input has 64 x 64 places; latents of SDXL at 1024 pixels would have four
# times as many
WIDEST = 64


def union(masks: Tensor) -> Tensor:
    """[B, n, H, W] -> [B, 1, H, W]: all masks laid over each other; blank without any."""
    return (
        masks.amax(1, keepdim=True)
        if masks.shape[1]
        else masks.new_zeros(len(masks), 1, *masks.shape[2:])
    )


class MaskEncoder(nn.Module):
    """Target masks [B, n, H, W] in [0, 1] -> tokens [B, m, D], in float32, and whether each says
    anything, bool [B, m].

    ``per_mask``: one linear layer over the places of a mask, a token a mask (the released code);
    ``union``: the same of all masks laid over each other, one token; ``merged``: as many tokens as
    the text has, of the union, which `merge` mixes into the text without making it longer;
    ``conv``: a token a mask from strided convolutions over the mask and the coordinates of its
    places, then one linear layer over what they leave of the plane. A blank mask gives a token of
    zeros. ``text`` is the length of the text in tokens.

    ``side`` is the side of the square that masks are brought to by area. Raises ValueError on
    another ``kind``.
    """

    def __init__(self, kind: str, width: int, side: int, text: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(
                f"mask encoder {kind!r} is unknown: expected one of {', '.join(KINDS)}"
            )
        self.kind, self.side, self.text = kind, min(side, WIDEST), text
        places = self.side**2
        if kind == "merged":
            self.spread = nn.Conv2d(1, text, 1)
            self.mix = nn.Conv1d(2 * text, text, 1)
            # The text passes as it is at the start: without it nothing that the backbone knows
            # would be left.
            nn.init.zeros_(self.mix.weight)
            nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]
            nn.init.dirac_(self.mix.weight[:, :text])
        if kind == "conv":
            hidden = max(width // 4, 16)
            halvings = max(self.side.bit_length() - 3, 1)  # down to 4 x 4 places
            layers: list[nn.Module] = []
            for i in range(halvings):
                layers += [
                    nn.Conv2d(3 if i == 0 else hidden, hidden, 3, stride=2, padding=1),
                    nn.SiLU(),
                ]
            self.convolve = nn.Sequential(*layers)
            places = hidden * (-(-self.side // 2**halvings)) ** 2
        self.project = nn.Linear(places, width)

    def forward(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = masks.float()
        if self.kind in ("union", "merged"):
            masks = union(masks)
        if masks.shape[1] == 0:
            return masks.new_zeros(len(masks), 0, self.project.out_features), masks.new_zeros(
                len(masks), 0, dtype=torch.bool
            )
        if masks.shape[-2:] != (self.side, self.side):
            masks = F.interpolate(masks, (self.side, self.side), mode="area")
        said = masks.flatten(2).any(2)  # [B, n]
        if self.kind == "merged":
            tokens = self.project(self.spread(masks).flatten(2))  # [B, T, D]
            said = said.expand(-1, self.text)
        elif self.kind == "conv":
            tokens = self.project(
                self.convolve(self._with_place(masks.flatten(0, 1))).flatten(1)
            ).unflatten(0, masks.shape[:2])
        else:
            tokens = self.project(masks.flatten(2))  # [B, n, D]
        return tokens * said[..., None], said

    def merge(self, text: Tensor, tokens: Tensor, said: Tensor) -> Tensor:
        """Text states [B, T, D] with the T mask tokens of ``merged`` mixed in; untouched where the
        mask is blank."""
        mixed = self.mix(torch.cat([text.float(), tokens], dim=1)).to(text.dtype)
        return torch.where(said[:, :1, None], mixed, text)

    def _with_place(self, masks: Tensor) -> Tensor:
        """[N, H, W] -> [N, 3, H, W]: the mask, and inside it the coordinates of its places, from -1
        to 1."""
        line = torch.linspace(-1, 1, self.side, device=masks.device)
        return torch.stack([masks, masks * line[None, None, :], masks * line[None, :, None]], dim=1)
