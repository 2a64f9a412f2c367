"""Which tokens a text was made of, known from its states alone."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor

from lightning_modules.attention.token_positions import kinds_by_end, unknown_kinds


class TokenTypeCache:
    """Remembers which tokens the latest texts were made of, so that what sees only their states can
    tell words from padding.

    It listens to the first text encoder: a stock pipeline that encodes its prompts itself is
    understood, too.
    """

    def __init__(self, encoder: Any, eos: int, penultimate: bool, texts: int = 8) -> None:
        self.eos, self.penultimate = eos, penultimate
        # (last states [n, C], kinds [n, T]) of the latest calls
        self.past: deque[tuple[Tensor, Tensor]] = deque(maxlen=texts)
        self.latest: tuple[Any, Tensor] | None = None
        encoder.register_forward_hook(self._listen, with_kwargs=True)

    def _listen(self, encoder: Any, args: tuple, kwargs: dict, output: Any) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        hidden = (
            getattr(output, "hidden_states", None)
            if self.penultimate
            else getattr(output, "last_hidden_state", None)
        )
        if ids is None or hidden is None:
            return
        # The last token has seen all the others.
        last = (hidden[-2] if self.penultimate else hidden)[:, -1]
        self.remember(last.detach().clone(), ids)

    def remember(self, last: Tensor, ids: Tensor) -> None:
        """Texts of the token ids [n, T] have the states ``last`` [n, C] at their last token."""
        self.past.append((last, self._kinds(ids)))

    def _kinds(self, ids: Tensor) -> Tensor:
        """uint8 [n, T]: the first EOS ends the words, and padding, which may have the same id,
        follows."""
        ends = ids == self.eos
        return kinds_by_end(
            torch.where(ends.any(1), ends.int().argmax(1), ids.shape[1]), ids.shape[1]
        )

    def __call__(self, hidden: Tensor) -> Tensor:
        """uint8 [B, T]: `tokens.BOS`, `WORD`, `EOS` or `PADDING` for a text [B, T, C]; words behind
        BOS where it is not known (zeros)."""
        if self.latest is not None and self.latest[0]() is hidden:
            return self.latest[1]
        kinds = unknown_kinds(hidden)
        for states, known in self.past:
            if known.shape[1] != hidden.shape[1]:
                continue
            same = (hidden[:, None, -1, : states.shape[1]] == states.to(hidden)).all(-1)  # [B, n]
            found = same.any(1)
            kinds[found] = known.to(kinds.device)[same.int().argmax(1)[found]]
        self.latest = (weakref.ref(hidden), kinds)
        return kinds
