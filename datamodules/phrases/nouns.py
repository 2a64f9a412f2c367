"""The noun phrases of a caption, without a parser: MaskAttn-SDXL trains on captions with at least
two of them.

A noun phrase is taken to be a run of words between words that cannot be part of one: prepositions,
conjunctions, auxiliaries, verbs of captions, punctuation. A run counts when it holds a word that is
not an article, a numeral, a pronoun or another mere companion of nouns. Rough, and meant for
choosing captions: what it gets wrong are verbs that are not listed and nouns that look like verbs.
"""

from __future__ import annotations

import re


def word_set(text: str) -> frozenset[str]:
    """The words of a text that blanks divide."""
    return frozenset(text.split())


BREAKS = word_set(
    """
    about above across after against along alongside amid among and are around as at atop away back
    be because before behind being below beneath beside besides between beyond but by can could did
    do does down during each except for from had has have he her him his if in inside into is it its
    it's like may near next nor of off on onto or out outside over past round she so some than that
    the their them then there these they this those through to together toward towards under
    underneath until up upon very was were what when where which while who whose will with within
    without would sits sit stands stand lies lie lays holds hold rides ride walks walk runs run
    plays play eats eat looks look wears wear shows show flies fly hangs hang carries carry uses use
    goes go leans lean rests rest drives drive jumps jump sleeps sleep watches watch parked seated
    dressed covered filled surrounded placed made taken topped stacked lined attached located set
    shown gathered
    """
)
COMPANIONS = word_set(
    "one two three four five six several many few most all both other more own left right "
    "top bottom front"
)
NOUNS_IN_ING = word_set(
    "building ceiling railing evening morning wedding clothing painting king ring string wing thing"
)


def noun_phrases(caption: str) -> list[str]:
    """The noun phrases of an English caption, from left to right, articles and mere companions left
    out."""
    return [" ".join(word for word, _, _ in phrase) for phrase in _runs(caption)]


def noun_spans(caption: str) -> list[tuple[int, int]]:
    """For each of `noun_phrases` the characters of the caption from its first word up to the end of
    its last."""
    return [(phrase[0][1], phrase[-1][2]) for phrase in _runs(caption)]


def _runs(caption: str) -> list[list[tuple[str, int, int]]]:
    """The words of each noun phrase, with their characters from start up to end."""
    phrases: list[list[tuple[str, int, int]]] = []
    run: list[tuple[str, int, int]] = []

    def close() -> None:
        nonlocal run
        content = [part for part in run if part[0] not in COMPANIONS and not part[0].isdigit()]
        if content:
            phrases.append(content)
        run = []

    for match in re.finditer(r"[a-z]+(?:['-][a-z]+)*|\d+|[^\sa-z\d]", caption.lower()):
        token = match.group()
        verb = token.endswith("ing") and token not in NOUNS_IN_ING
        article = token in ("a", "an", "another")
        if token in BREAKS or verb or not token[0].isalnum() or (article and run):
            close()
        elif not article:
            run.append((token, match.start(), match.end()))
    close()
    return phrases
