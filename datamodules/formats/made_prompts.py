"""Prompts that are made, not read: the pairs of the Attend-and-Excite protocol, and words that mean
two things, plain and with a word that says which.

Separate-and-Enhance (arXiv 2312.06712) names such words (mouse, orange) as a limit of training on
many concepts. They are COCO's categories, so that any detector of these can say whether the right
thing is there. The lists of words with two meanings and their prompts are this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datamodules.concepts import with_article
from datamodules.formats.prompt_forms import ANIMALS, COLORS, OBJECTS, WORN, find_words
from datamodules.formats.prompt_lines import PromptRecord, read_pair

# Given in place of a file: these prompts are made
PAIRS, POLYSEMY = MADE = ("attend_and_excite", "polysemy")
# Word -> (words for the meaning that is asked for, COCO's category of that meaning)
AMBIGUOUS = {
    "mouse": ("computer mouse", "mouse"),
    "orange": ("orange fruit", "orange"),
    "kite": ("toy kite", "kite"),
    "tie": ("neck tie", "tie"),
    "bat": ("baseball bat", "baseball bat"),
    "remote": ("remote control", "remote"),
    "keyboard": ("computer keyboard", "keyboard"),
    "apple": ("apple fruit", "apple"),
}
# Of one meaning
PARTNERS = ("dog", "cat", "car", "chair", "clock", "banana")


def make_pairs(seed: int = 0) -> list[PromptRecord]:
    """The 276 prompts of the Attend-and-Excite protocol: 66 of two animals, 144 of an animal and an
    object, 66 of two objects.

    As published: the 12 animals, 12 objects and 11 colours, the order within a prompt, "a" before
    vowels too, and that an animal goes *with* glasses, a crown or a bow, which have no colour then
    (36 prompts). The published colours were drawn once. Here ``seed`` draws them, each on its own:
    the 174 coloured prompts differ from the published ones. To have those, read the published list
    as a file of kind ``pairs``.
    """
    rng = np.random.Generator(np.random.PCG64(seed))

    def shade() -> str:
        return COLORS[int(rng.integers(len(COLORS)))]

    def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
        return [(one, other) for i, one in enumerate(words) for other in words[i + 1 :]]

    texts = [f"a {one} and a {other}" for one, other in pairs(ANIMALS)]
    for animal in ANIMALS:
        texts += [
            f"a {animal} with a {thing}" if thing in WORN else f"a {animal} and a {shade()} {thing}"
            for thing in OBJECTS
        ]
    texts += [f"a {shade()} {one} and a {shade()} {other}" for one, other in pairs(OBJECTS)]
    return [
        replace(read_pair(text), id=i, place=f"{PAIRS}:{i + 1}") for i, text in enumerate(texts)
    ]


def make_polysemous() -> dict[str, list[PromptRecord]]:
    """``plain`` and ``disambiguated``: the same 48 pairs in the same order; what the image shall
    show is the same in both."""
    sets: dict[str, list[PromptRecord]] = {"plain": [], "disambiguated": []}
    for word, (clear, category) in AMBIGUOUS.items():
        for partner in PARTNERS:
            for name, noun in (("plain", word), ("disambiguated", clear)):
                text = f"a photo of {with_article(noun)} and {with_article(partner)}"
                spans = tuple(filter(None, find_words(text, [[noun], [partner]])))
                include = [{"class": category, "count": 1}, {"class": partner, "count": 1}]
                wanted = {"tag": "two_object", "include": include}
                number = len(sets[name])
                place = f"{POLYSEMY}:{number + 1}"
                sets[name].append(PromptRecord(number, text, name, spans, wanted, place))
    return sets
