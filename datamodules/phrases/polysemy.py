"""Prompts of words that mean two things, plain and with a word that says which:
Separate-and-Enhance (arXiv 2312.06712) names such words (mouse, orange) as a limit of training on
many concepts.

The words are COCO's categories, so that any detector of these can say whether the wanted one is
there. Lists and prompts are our own.
"""

from __future__ import annotations

from datamodules.concepts import with_article
from datamodules.formats.prompt_forms import find_words
from datamodules.formats.prompt_lines import PromptRecord

# word -> (what says which meaning is wanted, COCO's category of that meaning)
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
PARTNERS = ("dog", "cat", "car", "chair", "clock", "banana")  # of one meaning


def make_polysemous() -> dict[str, list[PromptRecord]]:
    """``plain`` and ``disambiguated``: the same 48 pairs in the same order, what is wanted is the
    same in both."""
    sets: dict[str, list[PromptRecord]] = {"plain": [], "disambiguated": []}
    for word, (clear, category) in AMBIGUOUS.items():
        for partner in PARTNERS:
            for name, said in (("plain", word), ("disambiguated", clear)):
                text = f"a photo of {with_article(said)} and {with_article(partner)}"
                spans = find_words(text, [[said], [partner]])
                wanted = {
                    "tag": "two_object",
                    "include": [{"class": category, "count": 1}, {"class": partner, "count": 1}],
                }
                number = len(sets[name])
                sets[name].append(
                    PromptRecord(
                        number,
                        text,
                        name,
                        tuple(filter(None, spans)),
                        wanted,
                        f"polysemy:{number + 1}",
                    )
                )
    return sets
