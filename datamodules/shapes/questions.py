"""What an image of the embedded world is asked, by what its prompt names."""

from __future__ import annotations

from collections import Counter

from datamodules.formats.questions import NUMBERS, Question, yes_no
from datamodules.phrases.categories import plural
from datamodules.shapes.reading import Mention, Reading

__all__ = ["ask_for"]


def ask_for(reading: Reading) -> tuple[Question, ...]:
    """A question for each kind of thing that is named, "Is there a red circle?", whose right
    answers are what makes an image right; then those for sizes, patterns, numbers and the
    relation, which need it."""
    wanted: Counter[str] = Counter()
    for mention in reading.mentions:
        wanted[_thing(mention)] += mention.number or 2
    questions = [yes_no(_is_there(thing, count), "object") for thing, count in wanted.items()]
    place = {thing: i for i, thing in enumerate(wanted)}
    for mention in reading.mentions:
        thing, count = _thing(mention), mention.number or 2
        needs: tuple[int, ...] = (place[thing],)
        for word, skill in ((mention.size, "size"), (mention.pattern, "pattern")):
            if word:
                questions.append(yes_no(_is_there(f"{word} {thing}", count), skill, needs))
        if mention.number and count > 1:
            asked = f"How many {_several(thing)} are there?"
            total = NUMBERS[wanted[thing]]
            questions.append(Question(asked, total, needs=needs, skill="counting"))
    if reading.relation:
        one, other = (_thing(mention) for mention in reading.mentions[:2])
        asked = f"Is {_with_article(one)} {reading.relation} {_with_article(other)}?"
        needs = tuple(dict.fromkeys((place[one], place[other])))
        questions.append(yes_no(asked, "relation", needs))
    return tuple(dict.fromkeys(questions))


def _thing(mention: Mention) -> str:
    return " ".join(filter(None, [mention.color, mention.shape]))


def _several(thing: str) -> str:
    *words, shape = thing.split()
    return " ".join([*words, plural(shape)])


def _with_article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _is_there(thing: str, count: int) -> str:
    if count == 1:
        return f"Is there {_with_article(thing)}?"
    return f"Are there {NUMBERS[count]} {_several(thing)}?"
