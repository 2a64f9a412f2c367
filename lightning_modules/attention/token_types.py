"""Which types of tokens a text was made of: words, or what stands around them."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor

BOS, WORD, EOS, PADDING = range(4)  # Punctuation is a word, too


def token_types_by_end(end: Tensor, length: int, bos: bool = True) -> Tensor:
    """uint8 [B, length]: the token types of texts whose EOS stands at ``end`` [B]; words alone
    behind BOS where that is ``length`` or more. Without ``bos`` the first token is a word, or
    EOS."""
    index = torch.arange(length, device=end.device)  # [T]
    end = end[:, None]
    types = torch.where(index < end, WORD, torch.where(index == end, EOS, PADDING))
    return (types.masked_fill(index == 0, BOS) if bos else types).to(torch.uint8)


def unknown_token_types(text: Tensor) -> Tensor:
    """uint8 [B, T]: what is taken for a text [B, T, C] of which nothing is known, words behind
    BOS."""
    batch, length = text.shape[:2]
    return token_types_by_end(torch.full((batch,), length, device=text.device), length)


class TokenTypeCache:
    """Remembers which tokens the latest texts were made of, so that what sees only their states can
    tell words from padding.

    It listens to the first text encoder: a stock pipeline that encodes its prompts itself is
    understood, too.
    """

    def __init__(
        self,
        encoder: Any,
        eos: int,
        penultimate: bool = False,
        texts: int = 8,
        bos: bool = True,
    ) -> None:
        self.eos, self.penultimate, self.bos = eos, penultimate, bos
        self.width = encoder.config.hidden_size
        # (last states [n, C], types [n, T]) of the latest calls
        self.past: deque[tuple[Tensor, Tensor]] = deque(maxlen=texts)
        self.latest: tuple[Any, Tensor] | None = None
        encoder.register_forward_hook(self._listen, with_kwargs=True)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"latest": None}  # A reference to one tensor is of no use elsewhere

    def _listen(self, encoder: Any, args: tuple, kwargs: dict, output: Any) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        states = getattr(output, "hidden_states" if self.penultimate else "last_hidden_state", None)
        if ids is None or states is None:
            return
        # The last token has seen all the others.
        last = (states[-2] if self.penultimate else states)[:, -1]
        self.remember(last.detach().clone(), ids)

    def remember(self, last: Tensor, ids: Tensor) -> None:
        """Texts of the token ids [n, T] have the states ``last`` [n, C] at their last token."""
        self.past.append((last, self._types(ids)))

    def _types(self, ids: Tensor) -> Tensor:
        """uint8 [n, T]: the first EOS ends the words, and padding, which may have the same id,
        follows."""
        ends, length = ids == self.eos, ids.shape[1]
        first = torch.where(ends.any(1), ends.int().argmax(1), length)
        return token_types_by_end(first, length, self.bos)

    def remember_text(self, hidden: Tensor, ids: Tensor) -> None:
        """The encoded text [n, T, C] was made of these token ids [n, T]."""
        self.remember(hidden[:, -1, : self.width], ids)

    def __call__(self, hidden: Tensor) -> Tensor:
        """uint8 [B, T]: `BOS`, `WORD`, `EOS` or `PADDING` for a text [B, T, C]; words behind
        BOS where it is not known (zeros)."""
        if self.latest is not None and self.latest[0]() is hidden:
            return self.latest[1]
        types = unknown_token_types(hidden)
        for states, known in self.past:
            if known.shape[1] != hidden.shape[1]:
                continue
            same = (hidden[:, None, -1, : states.shape[1]] == states.to(hidden)).all(-1)  # [B, n]
            rows = same.any(1)
            types[rows] = known.to(types.device)[same.int().argmax(1)[rows]]
        self.latest = (weakref.ref(hidden), types)
        return types


class JoinedTokenTypes:
    """Of a text that several encoders have read, one stretch after the other: each stretch is known
    by a cache of its own, or is padding where nobody reads it (None). ``lengths`` are theirs."""

    def __init__(self, caches: list[TokenTypeCache | None], lengths: list[int]) -> None:
        self.caches, self.lengths = caches, lengths

    def remember_text(self, hidden: Tensor, ids: Tensor) -> None:
        """As `TokenTypeCache`'s; ``ids`` of the stretches that are read."""
        read = 0
        for cache, states in zip(self.caches, hidden.split(self.lengths, dim=1), strict=True):
            if cache is not None:
                own = ids[:, read : read + states.shape[1]]
                cache.remember_text(states, own)
                read += states.shape[1]

    def __call__(self, hidden: Tensor) -> Tensor:
        """As `TokenTypeCache`'s."""
        types = [
            torch.full(states.shape[:2], PADDING, dtype=torch.uint8, device=states.device)
            if cache is None
            else cache(states)
            for cache, states in zip(self.caches, hidden.split(self.lengths, dim=1), strict=True)
        ]
        return torch.cat(types, dim=1)
