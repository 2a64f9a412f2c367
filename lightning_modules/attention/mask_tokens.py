"""Tokens that are appended to the text at chosen sites: mask tokens (MCGM, arXiv 2410.00483,
section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attention.hooks import TokenHook
from lightning_modules.attention.sites import Site


class ExtraTokens(TokenHook):
    """Appends ``tokens`` [B, n, D] to the text at ``chosen`` sites, at positions T … T + n - 1;
    they pass through the layer's own key and value projections and are never gated.

    ``strength`` (a number, or [B, n]) multiplies how much an extra token counts, p ~ strength *
    exp(l): 1 as any token, 0 not at all. ``present`` [B, n] takes out tokens that a sample does not
    have. ``where`` [B, n, H, W] in [0, 1] multiplies the strength location by location, averaged
    over the area of a location: a token acts inside its mask alone. In a batch of twice as many
    samples the first half, the unconditional one of classifier-free guidance, gets zero tokens of
    the same strength; with ``where`` they act nowhere, as a blank mask would have it. ``tokens``
    may be set anew before every forward pass, and get a gradient; None appends nothing.
    """

    def __init__(
        self,
        chosen: Sequence[Site],
        tokens: Tensor | None = None,
        strength: Tensor | float = 1.0,
        present: Tensor | None = None,
        where: Tensor | None = None,
    ) -> None:
        self.sites = list(chosen)
        self.set(tokens, strength, present, where)

    def set(
        self,
        tokens: Tensor | None,
        strength: Tensor | float = 1.0,
        present: Tensor | None = None,
        where: Tensor | None = None,
    ) -> None:
        """Other tokens from the next forward pass on. Raises ValueError on shapes that do not fit
        and on a negative strength."""
        if tokens is not None:
            shape = tuple(tokens.shape[:2])
            for what, value in (("strength", strength), ("present", present)):
                if isinstance(value, Tensor) and tuple(value.shape) != shape:
                    raise ValueError(
                        f"{what} {tuple(value.shape)} does not fit tokens "
                        f"{tuple(tokens.shape)}: expected {shape}"
                    )
            if where is not None and (where.dim() != 4 or tuple(where.shape[:2]) != shape):
                raise ValueError(
                    f"where {tuple(where.shape)} does not fit tokens {tuple(tokens.shape)}: "
                    f"expected {shape} + (H, W)"
                )
            if float(torch.as_tensor(strength).min()) < 0:
                raise ValueError(
                    f"strength={strength} is negative: expected 0 (no "
                    "effect) or more, 1 as any token"
                )
        self.tokens, self.strength, self.present, self.where = tokens, strength, present, where

    def begin(self) -> _Appending | None:
        if self.tokens is None:
            return None
        weight = torch.as_tensor(self.strength, dtype=torch.float32).expand(self.tokens.shape[:2])
        weight = weight.to(self.tokens.device).detach()
        if self.present is not None:
            weight = weight * self.present.to(weight)
        if self.where is not None:
            return _Appending(self.tokens, weight, self.where.to(weight).detach())
        # Equal numbers need no mask: the layer stays a plain scaled-dot-product attention.
        return _Appending(self.tokens, None if bool((weight == 1).all()) else weight)


class _Appending:
    """One forward pass with extra tokens. Layers share what they are given: one longer text, and
    one bias for each plane."""

    def __init__(
        self, tokens: Tensor, strength: Tensor | None, where: Tensor | None = None
    ) -> None:
        self.tokens, self.strength, self.where = tokens, strength, where
        # a context, and it with the tokens behind it
        self._texts: tuple[Tensor, Tensor] | None = None
        self._logs: dict[tuple[int, int], Tensor] = {}

    def append(
        self, context: Tensor, weight: Tensor | None, bias: Tensor | None, plane: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """``context`` [B, T, D] with the tokens behind it, and the gates [B, N, T] and bias [B,
        heads, 1 or N, T] that go with it.

        ``plane`` is height and width of the layer's locations.
        """
        added = self.tokens.shape[1]
        if self._texts is None or self._texts[0] is not context:
            self._texts = (context, self._longer(context))
        if weight is not None:
            weight = F.pad(weight, (0, added), value=1.0)
        if self.strength is not None:
            if plane not in self._logs:
                self._logs[plane] = self._log(self.strength, context, plane)
            bias = (
                self._logs[plane] if bias is None else F.pad(bias, (0, added)) + self._logs[plane]
            )
        elif bias is not None:
            bias = F.pad(bias, (0, added))
        return self._texts[1], weight, bias

    def _longer(self, context: Tensor) -> Tensor:
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
                f"extra tokens for {len(tokens)} samples in a batch of {len(context)}: {expected}"
            )
        return torch.cat([context, tokens.to(context.dtype)], dim=1)

    def _log(self, strength: Tensor, context: Tensor, plane: tuple[int, int]) -> Tensor:
        """What is added to the logits, [B, 1, 1 or N, T + n]: a factor s before exp(l) is log s
        added to l; -inf takes a token out."""
        strength = strength[:, None]  # [B, 1, n]
        if self.where is not None:
            strength = strength * self._inside(self.where, plane)
        if len(context) == 2 * len(self.tokens):
            first = torch.zeros_like if self.where is not None else torch.clone
            strength = torch.cat([first(strength), strength])
        return F.pad(strength.to(context.dtype).log(), (context.shape[1], 0))[:, None]

    def _inside(self, where: Tensor, plane: tuple[int, int]) -> Tensor:
        """[B, N, n]: how much of each location is inside."""
        if where.shape[1] == 0:  # `interpolate` takes no empty input
            return where.new_zeros(len(where), plane[0] * plane[1], 0)
        return F.interpolate(where, plane, mode="area").flatten(2).transpose(1, 2)


class MergedText(TokenHook):
    """Puts other states in the text's place at ``chosen`` sites: ``merge`` takes the conditional
    text [B, T, D] and gives [B, T, D].

    In a batch of twice as many samples as ``samples`` the first half, the unconditional one of
    classifier-free guidance, stays as it is. ``merge`` may be set anew before every forward pass;
    None changes nothing.
    """

    def __init__(self, chosen: Sequence[Site]) -> None:
        self.sites = list(chosen)
        self.merge: Callable[[Tensor], Tensor] | None = None
        self.samples = 0

    def begin(self) -> _Merging | None:
        return None if self.merge is None else _Merging(self.merge, self.samples)


class _Merging:
    """One forward pass with other text."""

    def __init__(self, merge: Callable[[Tensor], Tensor], samples: int) -> None:
        self.merge, self.samples = merge, samples

    def append(
        self, context: Tensor, weight: Tensor | None, bias: Tensor | None, plane: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As `_Appending.append`, with nothing behind the text."""
        if len(context) not in (self.samples, 2 * self.samples):
            raise ValueError(
                f"masks of {self.samples} samples in a batch of {len(context)}: expected as "
                "many, or half with guidance"
            )
        untouched, text = context[: -self.samples], context[-self.samples :]
        return torch.cat([untouched, self.merge(text)]), weight, bias
