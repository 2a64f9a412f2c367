"""Latents and text embeddings, computed once and read again; which facts they depend on."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from conf.describe import show_count
from conf.files import write_atomically
from datamodules.formats.index import DataError
from datamodules.shards import Emit, Rows, Shards, fill


class Encodable(Protocol):
    """A dataset of which ``image(i)`` [3, H, W] is defined for i below ``encodable``."""

    @property
    def encodable(self) -> int: ...
    def image(self, index: int, /) -> Tensor: ...


def latent_facts(
    fingerprint: str, dtype: str, resolution: int, crop: str, files: str, flips: bool = False
) -> dict[str, Any]:
    """What latents depend on: digest of the autoencoder's weights, the dtype it computes in, side
    of the images in pixels, how they were cut out ("centre", …), digest of the dataset's files
    (names, sizes, order), whether each stands beside its mirror image."""
    facts = {"kind": "latents", "autoencoder": fingerprint, "dtype": dtype, "files": files}
    return facts | {"resolution": resolution, "crop": crop, "flips": flips}


class Latents(Rows):
    """Rows [C, h, w] or, beside those of the mirror image, [2, C, h, w]. ``broken`` are the files
    that could not be decoded, by row: asking for one raises DataError, as its image does."""

    def __init__(self, shards: Shards, where: Callable[[int], str | Path]) -> None:
        super().__init__(shards, "latents")
        marked = Rows(shards, "broken").gather(range(shards.count)).nonzero().flatten().tolist()
        self.broken = {row: str(where(row)) for row in marked}

    def _view(self, row: int) -> Tensor:
        view = super()._view(row)
        if self.broken and (path := self.broken.get(operator.index(row) % len(self))):
            raise DataError(
                f"{path}: image could not be decoded when latents were cached: replace it, or "
                f"delete {self.shards.folder} to try again"
            )
        return view


def cache_latents(
    folder: Path,
    facts: Mapping[str, Any],
    dataset: Encodable,
    encode: Callable[[Tensor], Tensor],
    *,
    where: Callable[[int], str | Path] = "image {}".format,
    on_error: str = "raise",
    emit: Emit | None = None,
    batch: int = 32,
) -> Latents:
    """Latents of all images of ``dataset``, which ``encode`` makes of images [B, 3, H, W] in [-1,
    1]; ``facts`` come from `latent_facts`.

    ``where(i)`` is the file of image i. Raises as `datamodules.shards.fill` does, DataError with
    the file when latents are not finite (a float16 autoencoder that overflowed). An image that
    cannot be decoded raises DataError; with ``on_error="skip"`` it is noted as broken.
    """

    def image(row: int) -> tuple[Tensor, bool]:
        try:
            return dataset.image(row), False
        except DataError:
            if on_error == "raise":
                raise
            # Grey is encoded in its place; who asks for the row gets an error
            return torch.zeros(3, facts["resolution"], facts["resolution"]), True

    def compute(rows: list[int]) -> dict[str, Tensor]:
        decoded, broken = zip(*map(image, rows), strict=True)
        images = torch.stack(decoded)
        # An autoencoder does not turn a mirror image into mirrored latents.
        latents = (
            torch.stack([encode(images), encode(images.flip(-1))], dim=1)
            if facts["flips"]
            else encode(images)
        )
        return {"latents": latents, "broken": torch.tensor(broken)}

    count = dataset.encodable
    shards = fill(
        folder, facts, count, compute, what="latents", where=where, emit=emit, batch=batch
    )
    latents = Latents(shards, where)
    for row in latents.broken:
        if on_error == "raise":
            # It was filled with on_error="skip"
            latents[row]
        if emit:
            emit(f"latents: {latents.broken[row]} cannot be decoded", 1.0)
    return latents


def text_facts(fingerprint: str, dtype: str) -> dict[str, Any]:
    """What encoded texts depend on besides the texts: digest of the encoders' weights and
    tokenizers, the dtype they compute in."""
    return {"kind": "text", "encoders": fingerprint, "dtype": dtype}


class TextCache:
    """What text encoders give for known texts, by the text. Of no use to a method that changes the
    encoders or their tokens.

    Captions are kept whole. One that is dropped for classifier-free guidance is ``""`` when the
    batch is made, and ``""`` is always there. Texts are found through a sorted file of digests that
    is read by memory map: no process holds all the captions.
    """

    def __init__(self, shards: Shards) -> None:
        self.rows = dict(shards)
        self.path = shards.folder / "texts.npy"
        self._digests: np.ndarray | None = None

    @classmethod
    def fill(
        cls,
        folder: Path,
        facts: Mapping[str, Any],
        texts: Iterable[str],
        encode: Callable[[list[str]], dict[str, Tensor]],
        *,
        emit: Emit | None = None,
        batch: int = 64,
    ) -> TextCache:
        """Encodes those of the distinct ``texts`` that are not there yet. ``encode`` gives for some
        texts tensors [n, …] by name, the same names every time: hidden [n, T, D], perhaps pooled
        [n, P] and others. ``facts`` come from `text_facts`.

        Raises as `datamodules.shards.fill` does; the text is named where a file would be.
        """
        by_digest = {_digest(text): text for text in {*texts, ""}}
        digests = np.array(sorted(by_digest))
        ordered = [by_digest[digest] for digest in digests.tolist()]

        def compute(rows: list[int]) -> dict[str, Tensor]:
            return encode([ordered[row] for row in rows])

        facts = {**facts, "texts": hashlib.sha256(digests.tobytes()).hexdigest()[:16]}
        shards = fill(
            folder,
            facts,
            len(ordered),
            compute,
            what="texts",
            where=lambda row: repr(ordered[row]),
            emit=emit,
            per_shard=64,
            batch=batch,
        )
        cache = cls(shards)
        with FileLock(shards.folder / "locks" / "texts"):
            write_atomically(cache.path, lambda draft: np.save(draft, digests))
        return cache

    def get(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the texts were encoded to, by name, [len(texts), …] each. Raises LookupError for a
        text that was never encoded, ValueError where a file was cut off since."""
        rows = self._find(texts)
        if missing := [text for text, row in zip(texts, rows, strict=True) if row is None]:
            raise LookupError(
                f"{missing[0]!r} is not in the cache of {show_count(len(self), 'text')}: fill it "
                "with all "
                "captions of the dataset"
            )
        return {name: of_name.gather(rows) for name, of_name in self.rows.items()}  # type: ignore[arg-type]

    def __contains__(self, text: str) -> bool:
        return self._find([text]) != [None]

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def _find(self, texts: Sequence[str]) -> list[int | None]:
        if self._digests is None:
            try:
                self._digests = np.load(self.path, mmap_mode="r")
            except (ValueError, EOFError) as error:
                raise ValueError(
                    f"{self.path} cannot be read ({error}): the same command computes it again"
                ) from error
        digests = [_digest(text) for text in texts]
        rows = np.searchsorted(self._digests, digests).clip(max=len(self) - 1).tolist()
        return [
            row if self._digests[row] == digest else None
            for row, digest in zip(rows, digests, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_digests": None}


def _digest(text: str) -> bytes:
    # Hexadecimal: numpy cuts zeros off the end of bytes
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest().encode()
