"""What finds the noun phrases of a caption: the light tagger (`nouns`), or a spaCy pipeline that
the user has installed. What counts as an object is the same for both (`nouns.cut`)."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from datamodules.batch import Phrase
from datamodules.phrases.asides import find_asides
from datamodules.phrases.lexicon import tokenise
from datamodules.phrases.nouns import cut, noun_spans
from datamodules.phrases.pipelines import LIGHT, find_pipeline, tagger_identity

# Parts of a pipeline that no noun phrase depends on
UNUSED = ("ner", "lemmatizer", "textcat")


class Tagger(Protocol):
    """``spans``: the characters (start, end) of each noun phrase of a caption, from left to right,
    articles and other companions left out. ``identity`` changes with what they are."""

    @property
    def identity(self) -> str: ...

    def spans(self, caption: str) -> list[tuple[int, int]]: ...


class LightTagger:
    """`nouns.noun_spans`."""

    @property
    def identity(self) -> str:
        return tagger_identity(LIGHT)

    def spans(self, caption: str) -> list[tuple[int, int]]:
        return noun_spans(caption)


LIGHT_TAGGER = LightTagger()


class SpacyTagger:
    """The ``noun_chunks`` of the spaCy pipeline ``name``, the name of an installed package or a
    folder. Raises ValueError as `find_pipeline`, and where the pipeline marks no noun chunks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = tagger_identity(name)
        self._load()

    def spans(self, caption: str) -> list[tuple[int, int]]:
        tokens = tokenise(caption)
        asides = find_asides(caption, tokens)
        spans = []
        for chunk in self._pipeline(caption).noun_chunks:
            inside = [
                i
                for i, token in enumerate(tokens)
                if chunk.start_char <= token.start and token.end <= chunk.end_char
            ]
            if content := cut(tokens, inside, asides):
                spans.append((content[0].start, content[-1].end))
        return spans

    def _load(self) -> None:
        find_pipeline(self.name)
        import spacy

        try:
            self._pipeline: Any = spacy.load(self.name, exclude=UNUSED)
            list(self._pipeline("a photo of a cat").noun_chunks)
        except (OSError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"data.tagger={self.name!r} gives no noun chunks ({str(error).splitlines()[0]}): "
                f"expected a pipeline with a parser such as en_core_web_sm, or {LIGHT}"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "identity": self.identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._load()


def load_tagger(name: str) -> Tagger:
    """The tagger that ``data.tagger`` names. Raises ValueError as `SpacyTagger`."""
    return LIGHT_TAGGER if name == LIGHT else SpacyTagger(name)


def name_objects(text: str, tagger: Tagger = LIGHT_TAGGER) -> list[Phrase]:
    """The noun phrases of a text, without masks."""
    nowhere = torch.zeros(0, 0, dtype=torch.bool)
    return [Phrase(text[start:end], start, end, nowhere) for start, end in tagger.spans(text)]
