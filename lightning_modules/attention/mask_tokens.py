"""Tokens that are appended to the text at some sites: mask tokens (MCGM, arXiv 2410.00483, section
3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from conf.describe import show_count
from lightning_modules.attention.hooks import TokenHook
from lightning_modules.attention.sites import Site


class ExtraTokens(TokenHook):
    """Appends ``tokens`` [B, n, D] to the text at ``sites``, as tokens T … T + n - 1; they pass
    through the layer's own key and value projections and are never gated.

    ``scale`` (a number, or [B, n]) multiplies how much an extra token counts, p ~ scale * exp(l): 1
    as any token, 0 not at all. ``present`` [B, n] takes out tokens that a sample does not have.
    ``region`` [B, n, H, W] in [0, 1] multiplies the scale pixel by pixel, brought to a map by
    ``resize``, "area" (the mean over a map's pixel) or "nearest": a token acts inside its mask
    alone. In a batch of twice as many samples the first half, the unconditional one of
    classifier-free guidance, gets zero tokens of the same scale; with ``region`` they act nowhere,
    as a blank mask would have it. ``tokens`` may be set before every forward pass, and get a
    gradient; None appends nothing.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        tokens: Tensor | None = None,
        scale: Tensor | float = 1.0,
        present: Tensor | None = None,
        region: Tensor | None = None,
        resize: str = "area",
    ) -> None:
        self.sites, self.resize = list(sites), resize
        self.set(tokens, scale, present, region)

    def set(
        self,
        tokens: Tensor | None,
        scale: Tensor | float = 1.0,
        present: Tensor | None = None,
        region: Tensor | None = None,
    ) -> None:
        """Other tokens from the next forward pass on. Raises ValueError on shapes that do not fit
        and on a negative scale."""
        if tokens is not None:
            shape = tuple(tokens.shape[:2])
            for what, value in (("scale", scale), ("present", present)):
                if isinstance(value, Tensor) and tuple(value.shape) != shape:
                    raise ValueError(
                        f"{what} {tuple(value.shape)} does not fit tokens "
                        f"{tuple(tokens.shape)}: expected {shape}"
                    )
            if region is not None and (region.dim() != 4 or tuple(region.shape[:2]) != shape):
                raise ValueError(
                    f"region {tuple(region.shape)} does not fit tokens {tuple(tokens.shape)}: "
                    f"expected {shape} + (H, W)"
                )
            if float(torch.as_tensor(scale).min()) < 0:
                raise ValueError(
                    f"scale={scale} is negative: expected 0 (no effect) or more, 1 as any token"
                )
        self.tokens, self.scale, self.present, self.region = tokens, scale, present, region

    def begin(self) -> _AppendedTokens | None:
        if self.tokens is None:
            return None
        scale = torch.as_tensor(self.scale, dtype=torch.float32).expand(self.tokens.shape[:2])
        scale = scale.to(self.tokens.device).detach()
        if self.present is not None:
            scale = scale * self.present.to(scale)
        if self.region is not None:
            region = self.region.to(scale).detach()
            return _AppendedTokens(self.tokens, scale, region, self.resize)
        # Equal numbers need no mask: the layer stays a plain scaled-dot-product attention.
        return _AppendedTokens(self.tokens, None if bool((scale == 1).all()) else scale)


class _AppendedTokens:
    """One forward pass with extra tokens. Layers share what they are given: one longer text, and
    one bias for each map size."""

    def __init__(
        self,
        tokens: Tensor,
        scale: Tensor | None,
        region: Tensor | None = None,
        resize: str = "area",
    ) -> None:
        self.tokens, self.scale, self.region, self.resize = tokens, scale, region, resize
        # A context, and it with the tokens behind it
        self._longer: tuple[Tensor, Tensor] | None = None
        self._biases: dict[tuple[int, int], Tensor] = {}

    def append(
        self, context: Tensor, weight: Tensor | None, bias: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """``context`` [B, T, D] with the tokens behind it, and the gates [B, N, T] and bias [B,
        heads, 1 or N, T] that go with it.

        ``size`` is height and width of the layer's map.
        """
        added = self.tokens.shape[1]
        if self._longer is None or self._longer[0] is not context:
            self._longer = (context, self._append_to(context))
        if weight is not None:
            weight = F.pad(weight, (0, added), value=1.0)
        if bias is not None:
            bias = F.pad(bias, (0, added))
        if self.scale is not None:
            if size not in self._biases:
                self._biases[size] = self._bias(self.scale, context, size)
            bias = self._biases[size] if bias is None else bias + self._biases[size]
        return self._longer[1], weight, bias

    def _append_to(self, context: Tensor) -> Tensor:
        """[B, T + n, D]"""
        tokens = self.tokens
        if tokens.shape[-1] != context.shape[-1]:
            raise ValueError(
                f"extra tokens of width {tokens.shape[-1]}: this site's text has "
                f"{context.shape[-1]}"
            )
        if len(context) == 2 * len(tokens):
            tokens = torch.cat([torch.zeros_like(tokens), tokens])
        if len(context) != len(tokens):
            expected = "expected as many, or half with guidance"
            raise ValueError(
                f"extra tokens for {show_count(len(tokens), 'sample')} in a batch of "
                f"{len(context)}: {expected}"
            )
        return torch.cat([context, tokens.to(context)], dim=1)

    def _bias(self, scale: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:
        """What is added to the logits, [B, 1, 1 or N, T + n]: a factor s before exp(l) is log s
        added to l; -inf takes a token out."""
        scale = scale[:, None]  # [B, 1, n]
        if self.region is not None:
            scale = scale * _cover(self.region, size, self.resize)
        if len(context) == 2 * len(self.tokens):
            first = scale if self.region is None else torch.zeros_like(scale)
            scale = torch.cat([first, scale])
        return F.pad(scale.to(context).log(), (context.shape[1], 0))[:, None]


def _cover(region: Tensor, size: tuple[int, int], resize: str) -> Tensor:
    """How much of each pixel of a map is inside, [B, N, n]."""
    if region.shape[1] == 0:  # `interpolate` takes no empty input
        return region.new_zeros(len(region), size[0] * size[1], 0)
    return F.interpolate(region, size, mode=resize).flatten(2).transpose(1, 2)


class MergedText(TokenHook):
    """Puts other states in the text's place at ``sites``: ``merge`` takes the conditional text [B,
    T, D] and gives [B, T, D].

    In a batch of twice as many samples as ``samples`` the first half, the unconditional one of
    classifier-free guidance, stays as it is. ``merge`` may be set before every forward pass; None
    changes nothing.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = list(sites)
        self.merge: Callable[[Tensor], Tensor] | None = None
        self.samples = 0

    def begin(self) -> _MergedStates | None:
        return None if self.merge is None else _MergedStates(self.merge, self.samples)


class _MergedStates:
    """One forward pass with other text."""

    def __init__(self, merge: Callable[[Tensor], Tensor], samples: int) -> None:
        self.merge, self.samples = merge, samples

    def append(
        self, context: Tensor, weight: Tensor | None, bias: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As `_AppendedTokens.append`, with nothing behind the text."""
        if len(context) not in (self.samples, 2 * self.samples):
            raise ValueError(
                f"masks of {show_count(self.samples, 'sample')} in a batch of {len(context)}: "
                "expected as "
                "many, or half with guidance"
            )
        unconditional, text = context[: -self.samples], context[-self.samples :]
        return torch.cat([unconditional, self.merge(text)]), weight, bias
