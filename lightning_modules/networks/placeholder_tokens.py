"""Learned placeholder tokens ("<asset0>") for the text encoders of a backbone: textual inversion as
Break-A-Scene uses it.

Each token is one row per text encoder, in a small parameter of its own behind the stock embedding
table: the table is neither resized nor trained, so that weight decay and momentum cannot move a
stock word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from conf.describe import show_count
from conf.files import write_atomically
from conf.places import as_path
from lightning_modules.attention.saving import allow_saving, refuse_saving
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.offloading import refuse_offloaded

ENCODERS = ("text_encoder", "text_encoder_2")
NOT_SAVED = "placeholder tokens"
NOISE = 0.1  # of the rows' standard deviation, around their mean


class Subjects(nn.Module):
    """One trained row per placeholder and text encoder: ``rows.text_encoder`` (and
    ``rows.text_encoder_2``), float32 [k, d].

    A row starts as that of the first sub-token of its word in ``init`` (Break-A-Scene, "first
    sub-token of the initializer word"). Where that is None it starts at the mean of the table's
    rows plus normal noise of a tenth of their standard deviation in each dimension, which torch's
    global generator draws: tokens that start alike could not part. With ``wordless="table_end"`` it
    starts there as in the released code of Break-A-Scene: k placeholders at the first k of the last
    2k stock rows, in CLIP rare words, but BOS where there is one placeholder alone.

    Placeholders match whatever their case, and inside a word, too: "<asset0>" is safe, "sky" would
    also be found in "skyline".

    Raises ValueError on no placeholder, one that is empty, has a space, is listed twice, differs
    from another in case alone, is already in the vocabulary of a tokenizer, is not read as one
    token, would share its file with another or be another's second vector ("toy_1" beside "toy");
    on ``init`` of another length or with a word that has no token; while other subjects are
    installed; and on a family whose text CLIP alone does not read (PixArt, SD3, FLUX.1).
    """

    def __init__(
        self,
        backbone: Backbone,
        tokens: Sequence[str],
        init: Sequence[str | None],
        wordless: str = "mean",
    ) -> None:
        super().__init__()
        if not backbone.family.clip:
            raise ValueError(
                f"placeholders {', '.join(tokens)} are words of CLIP: {backbone.family.label} has "
                "T5; leave them out, or take another backbone"
            )
        self.backbone, self.tokens = backbone, tuple(tokens)
        # Places in the backbone: what was there, and what is there while these are installed
        self._undo: list[tuple[Any, str, Any]] = []
        self._placed: list[tuple[Any, str, Any]] = []
        self._releases: list[Callable[[], None]] = []
        _refuse_others(backbone)
        for encoder in backbone.text.encoders:
            refuse_offloaded(encoder)
        _check(self.tokens, init)
        self.tokenizers = [
            _extended(tokenizer, self.tokens) for tokenizer in backbone.text.tokenizers
        ]
        # The first placeholder's id
        self.bases = [len(tokenizer) for tokenizer in backbone.text.tokenizers]
        self.rows = nn.ParameterDict()
        for name, tokenizer, encoder in zip(
            ENCODERS, backbone.text.tokenizers, backbone.text.encoders, strict=False
        ):
            table = encoder.get_input_embeddings().weight.detach()
            ends: Sequence[Tensor | None] = [None] * len(init)
            if wordless == "table_end":
                ends = list(table[len(tokenizer) - 2 * len(init) :][: len(init)])
            self.rows[name] = nn.Parameter(
                torch.stack(
                    [
                        _first_row(table, tokenizer, word, end)
                        for word, end in zip(init, ends, strict=True)
                    ]
                )
            )

    # --- in the backbone --------------------------------------------------------------------------

    @property
    def is_installed(self) -> bool:
        return bool(self._undo)

    def install(self) -> None:
        """Puts the placeholders into the backbone and its pipeline, which from then on understand
        them; again it does nothing.

        Each tokenizer gives place to a copy with the added tokens, each embedding table to one that
        looks the new ids up in ``rows``, and the encoders pool at EOS (`fix_pooling`). Raises
        ValueError while other subjects are installed, and when the vocabulary is another one than
        these were made for.
        """
        if self.is_installed:
            return
        _refuse_others(self.backbone)
        self._refuse_vocabularies(self.backbone.text.tokenizers)
        self.to(self.backbone.device)
        pipeline = self.backbone.pipeline
        self._set(self.backbone.text, "tokenizers", self.tokenizers)
        for name, tokenizer, encoder, base in zip(
            ENCODERS, self.tokenizers, self.backbone.text.encoders, self.bases, strict=False
        ):
            self._set(pipeline, _tokenizer_of(name), tokenizer)
            embeddings = _inner(encoder).embeddings
            self._set(
                embeddings,
                "token_embedding",
                _Table(embeddings.token_embedding, self.rows, name, base),
            )
            for holder in _poolers(encoder):
                self._set(holder, "eos_token_id", tokenizer.eos_token_id)
        models = [self.backbone.denoiser, *self.backbone.text.encoders]
        self._releases = [
            *(m.register_forward_pre_hook(self._check_in_place).remove for m in models),
            *(refuse_saving(encoder, NOT_SAVED) for encoder in self.backbone.text.encoders),
        ]

    def _check_in_place(self, *_: Any) -> None:
        """Before a forward pass. Raises ValueError where a text would be read without the
        placeholders."""
        for owner, name, mine in self._placed:
            now = getattr(owner, name, None)
            if now is None or now is mine:  # None reads nothing
                continue
            raise ValueError(
                f"{name} of {type(owner).__name__} has been replaced by another "
                f"{type(now).__name__} while {', '.join(self.tokens)} are in the one before: put "
                "that back, or take the method out with its remove()"
            )
        for tokenizer, base in zip(self.tokenizers, self.bases, strict=True):
            ids = tokenizer.convert_tokens_to_ids(list(self.tokens))
            if ids != list(range(base, base + len(ids))):
                raise ValueError(
                    f"{', '.join(self.tokens)} have been taken out of a {type(tokenizer).__name__} "
                    "from outside (unload_textual_inversion): take the method out with its "
                    "remove(), and load its adapter again"
                )

    def remove(self) -> None:
        """Takes them out again: the backbone is the stock one afterwards, with the same tokenizers,
        modules and config values."""
        for release in self._releases:
            release()
        self._releases, self._placed = [], []
        while self._undo:
            target, name, value = self._undo.pop()
            setattr(target, name, value)

    def _set(self, target: Any, name: str, value: Any) -> None:
        self._undo.append((target, name, getattr(target, name)))
        if name != "eos_token_id":
            self._placed.append((target, name, value))
        setattr(target, name, value)

    def _refuse_vocabularies(self, tokenizers: Sequence[Any]) -> None:
        found = [
            base if tokenizer is mine else len(tokenizer)
            for tokenizer, mine, base in zip(tokenizers, self.tokenizers, self.bases, strict=True)
        ]
        if found != self.bases:
            raise ValueError(
                f"the tokenizers have {found} tokens: expected {self.bases}, as when these "
                "subjects were made"
            )

    # --- out of it --------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> list[Path]:
        """Writes one textual-inversion file per token and encoder, and returns their paths.

        ``asset0.safetensors`` holds the one key "<asset0>", float32 [1, d], for the first encoder,
        ``asset0_2.safetensors`` that for the second one of SDXL. A stock pipeline opens them with
        ``load_textual_inversion(path)``, the second with ``tokenizer=`` and ``text_encoder=`` in a
        call of its own; the pooled embedding is right only after `fix_pooling`.
        """
        folder = as_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, rows in self.rows.items():
            for token, row in zip(self.tokens, rows.detach().cpu(), strict=True):
                paths.append(folder / f"{_stem(token)}{name.removeprefix(ENCODERS[0])}.safetensors")
                tensors = {token: row[None].clone()}
                write_atomically(paths[-1], partial(save_file, tensors, metadata={"format": "pt"}))
        return paths

    @torch.no_grad()
    def materialise(self, pipeline: Any) -> Any:
        """A stock pipeline with the tokens in it for good, as `load_textual_inversion` and
        `fix_pooling` would put them.

        ``pipeline``, which may be the backbone's, is not changed: the new one has tokenizers and
        embedding tables of its own and shares all other weights. Later training of ``rows`` does
        not reach it. Raises ValueError on another vocabulary.
        """
        self._refuse_vocabularies([getattr(pipeline, _tokenizer_of(name)) for name in self.rows])
        new = copy(pipeline)
        for name, tokenizer, base in zip(self.rows, self.tokenizers, self.bases, strict=True):
            setattr(new, _tokenizer_of(name), deepcopy(tokenizer))
            setattr(new, name, self._with_rows(getattr(pipeline, name), name, base))
        fix_pooling(new)
        return new

    def _with_rows(self, encoder: Any, name: str, base: int) -> Any:
        """The encoder with a table of its own and the other's weights; what it is told still
        reaches `Backbone.token_types`."""
        table = encoder.get_input_embeddings()
        table = table if isinstance(table, _Table) else _Table(table, self.rows, name, base)
        # Looked up and not read, so that weights which are cast for each call are the latest.
        weight = table(torch.arange(base + len(self.tokens), device=encoder.device))
        # Modules that hang on an encoder without being part of it (trained weights put into it) are
        # not copied with it.
        guests = [value for value in vars(encoder).values() if isinstance(value, nn.Module)]
        shared = [
            *encoder.parameters(),
            *guests,
            *(p for guest in guests for p in guest.parameters()),
            self.backbone.text.token_types,
            self,
        ]
        encoder = deepcopy(encoder, {id(part): part for part in shared})
        # Whether they are in the place of the original is not the copy's concern.
        hooks = encoder._forward_pre_hooks
        for number, hook in list(hooks.items()):
            if getattr(hook, "__self__", None) in (self, *guests):
                del hooks[number]
        allow_saving(encoder, NOT_SAVED)
        encoder.set_input_embeddings(nn.Embedding.from_pretrained(weight, freeze=True))
        for config in (_inner(encoder).config, encoder.config):
            config.vocab_size = len(weight)
        return encoder


class _Table(nn.Module):
    """An embedding table whose ids from ``base`` on are the trained rows, in the table's own dtype.

    Both modules have one and the same dict of parameters: their names in the encoder are the stock
    ones, a weight that is replaced is so in both, and the rows belong to the subjects alone.
    """

    def __init__(self, stock: nn.Module, rows: nn.ParameterDict, name: str, base: int) -> None:
        super().__init__()
        self._parameters = stock._parameters
        self._hidden = (stock, rows)  # inside a tuple a module is no submodule
        self._name, self._base = name, base

    def forward(self, ids: Tensor) -> Tensor:
        stock, rows = self._hidden
        if rows[self._name].device != ids.device:  # The pipeline has moved, without the rows
            rows.to(ids.device)
        words = stock(ids.clamp(max=self._base - 1))  # [B, T, d]
        # Looked up for every text, with a gradient of zero where it is not used: no parameter is
        # left out of a step.
        subjects = F.embedding((ids - self._base).clamp(min=0), rows[self._name])
        return torch.where((ids >= self._base)[..., None], subjects.to(words), words)


def fix_pooling(pipeline: Any) -> None:
    """Makes the text encoders of a stock pipeline pool at EOS, for good; no text without added
    tokens changes.

    The published configs have ``eos_token_id`` 2, which CLIP takes as "pool at the largest token
    id": with added tokens, whose ids lie above that of EOS, SDXL's pooled embedding would be taken
    at a placeholder.
    """
    for name in ENCODERS:
        if getattr(pipeline, name, None) is not None:
            for holder in _poolers(getattr(pipeline, name)):
                holder.eos_token_id = getattr(pipeline, _tokenizer_of(name)).eos_token_id


def _inner(encoder: Any) -> Any:
    """The part that embeds and pools: the encoder itself, or what one with a projection wraps."""
    return getattr(encoder, "text_model", encoder)


def _poolers(encoder: Any) -> list[Any]:
    """All that say where to pool: the module at work, and the configs that are saved with it."""
    return [_inner(encoder), _inner(encoder).config, encoder.config]


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _stem(token: str) -> str:
    return re.sub(r"[^\w-]+", "", token) or "token"


def _refuse_others(backbone: Backbone) -> None:
    if any(
        isinstance(encoder.get_input_embeddings(), _Table) for encoder in backbone.text.encoders
    ):
        raise ValueError("other subjects are installed in this backbone: remove() them first")


def _check(tokens: tuple[str, ...], init: Sequence[str | None]) -> None:
    """What is wrong with placeholders whatever the tokenizer."""
    if not tokens:
        raise ValueError("no placeholder: expected at least one, such as '<asset0>'")
    if len(tokens) != len(init):
        raise ValueError(
            f"{show_count(len(tokens), 'placeholder')} but {show_count(len(init), 'init word')}: "
            "expected one each, "
            "None where there is none"
        )
    known: dict[str, str] = {}
    files: dict[str, str] = {}
    for token in tokens:
        if token.split() != [token]:
            raise ValueError(
                f"placeholder {token!r} is empty or has a "
                "space: expected one word, such as '<asset0>'"
            )
        if other := known.get(token.lower()):
            raise ValueError(
                f"placeholders {other!r} and {token!r} are the same to a tokenizer, which "
                "ignores case: rename one"
            )
        known[token.lower()] = token
        for file in (_stem(token).lower(), f"{_stem(token)}_2".lower()):
            if other := files.get(file):
                raise ValueError(
                    f"placeholders {other!r} and {token!r} would both be saved as "
                    f"{file}.safetensors: rename one"
                )
            files[file] = token


def _extended(tokenizer: Any, tokens: tuple[str, ...]) -> Any:
    """A copy of the tokenizer with the placeholders behind its vocabulary, in their order."""
    vocabulary, base = tokenizer.get_vocab(), len(tokenizer)
    for token in tokens:
        # A word stands in the vocabulary in lower case and with a mark of its end, so it is encoded
        # to be found.
        if token.lower() in vocabulary or len(tokenizer.tokenize(token)) == 1:
            raise ValueError(
                f"placeholder {token!r} is already in the vocabulary: expected a new word, "
                "such as '<asset0>'"
            )
    extended = deepcopy(tokenizer)
    extended.add_tokens(list(tokens))
    for i, token in enumerate(tokens):
        first = token.removesuffix("_1")
        if first != token and first in extended.added_tokens_encoder:
            raise ValueError(
                f"placeholder {token!r} is the second vector of {first!r} to a stock "
                "pipeline: rename one"
            )
        if extended(token, add_special_tokens=False).input_ids != [base + i]:
            raise ValueError(
                f"placeholder {token!r} is not read as one token: expected a new word, such "
                "as '<asset0>'"
            )
    return extended


def _first_row(table: Tensor, tokenizer: Any, word: str | None, end: Tensor | None) -> Tensor:
    """float32 [d] on the CPU; ``end`` is that of a placeholder without a word, if any."""
    if word is not None:
        ids = tokenizer(word, add_special_tokens=False).input_ids
        if not ids:
            raise ValueError(
                f"init word {word!r} has no token: expected a word, or None for the mean of all"
            )
        return table[ids[0]].float().cpu().clone()
    if end is not None:
        return end.float().cpu().clone()
    spread, mean = (value.cpu() for value in torch.std_mean(table.float(), dim=0))
    return mean + NOISE * spread * torch.randn(mean.shape)
