"""Words of a caption and the runs of them that may be noun phrases, by a light tagger: word lists
and the words beside a word.

A noun phrase is a run of words between words that cannot be part of one. Most of these are of
closed classes (prepositions, conjunctions, pronouns, auxiliaries). Verbs are told from nouns by
where they stand: "throws" after "the man" is a verb, "stand" after "tv" a noun, "watch" after
"people" a verb, "parked" before "car" part of its phrase and after "car" its end.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from datamodules.phrases.categories import words
from datamodules.phrases.lexicon import (
    LISTS,
    NOUNS_IN_ING,
    Token,
    is_adverb,
    is_in,
    is_plural,
    third_person,
    third_persons,
)


def find_runs(tokens: list[Token], barred: Collection[int] = ()) -> list[list[int]]:
    """The runs of words that may be noun phrases, by their places among the tokens, without the
    determiners before them. Tokens that are ``barred`` are part of none."""
    runs: list[list[int]] = []
    run: list[int] = []
    finite = False  # Whether a verb of the third person was met
    for i in range(len(tokens) + 1):
        # "A dog named Max", "a sign reading open", 'a sign that says "stop" stands'
        verb = (
            i + 1 in barred and any(is_in(tokens[i], kind) for kind in ("naming", "reading"))
        ) or (i - 1 in barred and i < len(tokens) and tokens[i].text in third_persons())
        if i not in barred and not verb and _continues(tokens, run, i, finite):
            if not is_in(tokens[i], "determiners"):
                run.append(i)
            continue
        finite = finite or (i < len(tokens) and tokens[i].text in third_persons())
        if run:
            runs.append(run)
        run = []
    return runs


def _continues(tokens: list[Token], run: list[int], i: int, finite: bool) -> bool:
    """Whether the word at ``i`` is part of the noun phrase that ``run`` began, or begins one."""
    if i == len(tokens) or not tokens[i].text[0].isalnum():
        return False
    token = tokens[i]
    if is_in(token, "determiners"):
        return not run
    if _is_function(tokens, run, i) or (
        is_in(token, "after_nouns")
        and (run or not (i and is_in(tokens[i - 1], "determiners")))
        and not _noun_follows(tokens, i)
    ):
        return False
    return not _is_verb(tokens, run, i, finite) and not is_adverb(token.text)


def _is_function(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether a word is of a closed class: "can" is not in "a trash can next to it"."""
    text = tokens[i].text
    if text not in LISTS["function"]:
        return text.endswith("n't")
    if text in LISTS["after_determiners"] and i and is_in(tokens[i - 1], "determiners"):
        return not _noun_follows(tokens, i)  # "the round table"
    if text != "can" or not (run or (i and is_in(tokens[i - 1], "determiners"))):
        return True
    after = tokens[i + 1].text if i + 1 < len(tokens) else "."
    return after in LISTS["after_can"] or after in LISTS["verbs"] or is_adverb(after)


def _is_verb(tokens: list[Token], run: list[int], i: int, finite: bool) -> bool:
    """Whether a word is used as a verb, or as a participle after its noun."""
    text = tokens[i].text
    before = tokens[i - 1].text if i else ""
    if _is_verb_by_place(tokens, run, i):
        return True
    determined = before in LISTS["determiners"] and before != "both"
    denied = before.endswith("n't")
    after_verb_word = (before in LISTS["before_verbs"] or denied) and not run
    follows = _noun_follows(tokens, i)
    if text.endswith("ing") and len(text) > 4:
        if text in LISTS["compounds_in_ing"] and follows:
            # "People flying kites", but "a kitchen cutting board"
            return bool(run) and _is_doer(tokens, run, text)
        if text in NOUNS_IN_ING and not (
            not _precedes_of(tokens, i)
            and _has_noun(tokens, run)
            and (
                _determiner_follows(tokens, i)
                or is_plural(tokens[run[-1]].text)
                or (text in LISTS["sports_in_ing"] and not follows)
            )
        ):
            doing = text in LISTS["sports_in_ing"] and before in LISTS["auxiliaries"]
            return not run and (doing or _determiner_follows(tokens, i))
        if run and not all(is_in(tokens[j], "adjectives") for j in run):
            return True
        return not determined and not run and (after_verb_word or not follows)
    if text == "set" and run and is_in(tokens[run[-1]], "before_set"):
        return False
    if text == "set" and _precedes_of(tokens, i):
        return False
    if _is_participle(text):
        if run and text in LISTS["verbs"] and _object_follows(tokens, i):  # "men cut cake"
            last = tokens[run[-1]].text
            several = is_plural(last) and last not in LISTS["first_plurals"]
            return several or (_is_person(last) and _is_joined(tokens, run))
        if run:
            return not follows
        return not follows or before in LISTS["auxiliaries"]
    if text in third_persons():
        if after_verb_word and before in LISTS["singular_subjects"]:
            return True
        if not run:
            if i > 1 and is_adverb(before) and _is_agent(tokens[i - 2].text):
                return True  # "Man gently pets cat"
            return _determiner_follows(tokens, i) or (finite and _follows_verb(tokens, i))
        last = tokens[run[-1]].text
        if last not in LISTS["adjectives_like_nouns"] and not _has_noun(tokens, run):
            return False
        if _is_agent(last) and (not _noun_follows(tokens, i) or _object_follows(tokens, i)):
            return True  # "A woman drinks from a cup", "woman pours tea"
        if text == "sets" and last in LISTS["before_set"]:
            return False
        if text in LISTS["verbs_of_ways"] and _way_follows(tokens, i):
            return not is_plural(last)  # "the river winds through", "the sun sets over"
        if not finite and _object_follows(tokens, i) and _is_told_of_one(tokens, i):
            return True  # "Man in hat cuts cake"
        if text in LISTS["verbs_with_directions"] and _direction_follows(tokens, i):
            return not is_plural(tokens[run[-1]].text)
        if _is_singular(tokens, run) or _determiner_follows(tokens, i):
            return not is_plural(tokens[run[-1]].text) or _determiner_follows(tokens, i)
        return text not in LISTS["nouns_like_verbs"] or text in LISTS["verbs_above_all"]
    if text in LISTS["verbs"]:
        if determined:
            return False
        if not run:
            if i == 0:  # "Surf boards", "Surf a wave"
                return not follows or _determiner_follows(tokens, i)
            if text in LISTS["pure_verbs"]:
                return True
            opens = after_verb_word or tokens[i - 1].text in LISTS["verbs"]
            if before == "and" and not _determiner_follows(tokens, i):
                return _is_bare_verb(tokens, i - 2)  # "laugh and play", but "a shirt and tie"
            return opens
        noun = tokens[run[-1]]
        if is_plural(noun.text):
            return noun.text not in LISTS["first_plurals"]
        if is_in(noun, "people") and tokens[run[0] - 1].text == "the":
            return _determiner_follows(tokens, i) or not follows
        if noun.text in LISTS["first_plurals"] or not _has_noun(tokens, run):
            return False
        if text in LISTS["pure_verbs"] or _determiner_follows(tokens, i):
            return True
        if is_in(noun, "collectives") and not follows:
            return True
        if _is_living(noun.text) and (
            _is_joined(tokens, run) and not follows or _plural_at(tokens, i + 1)
        ):
            return True  # "A cow and her calf stand", "A couple feed pigeons"
        if _is_person(noun.text) and _is_joined(tokens, run) and _object_follows(tokens, i):
            return True  # "Man and woman share umbrella"
        if _is_seen_to(tokens, run, i):
            return True
        # "An onion and a carrot lie on a board", but "a sofa and a tv stand in a room"
        ends = _determiner_follows(tokens, i) or (
            is_plural(tokens[i + 1].text)
            if follows
            else third_person(text) not in LISTS["nouns_like_verbs"]
        )
        return _is_joined(tokens, run) and i + 1 < len(tokens) and ends
    return False


def _is_verb_by_place(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether a word can only be a verb where it stands, whatever it is."""
    text = tokens[i].text
    if not run:
        before = tokens[i - 1].text if i else ""
        if before in LISTS["subjects"]:
            return True
        if before in ("and", "then") and is_plural(text) and _determiner_follows(tokens, i):
            return True  # "swings and misses the ball"
        return before in LISTS["infinitives"] and _determiner_follows(tokens, i)
    last = tokens[run[-1]].text
    if not _has_noun(tokens, run) or last in LISTS["containers"] or not text[0].isalpha():
        return False
    if not is_plural(text):  # "Workers haul a boat"
        return is_plural(last) and _determiner_follows(tokens, i)
    if last in LISTS["first_plurals"] or last.endswith(("'s", "\u2019s")):
        return False
    if _is_person(last) or last in LISTS["agents"]:  # "woman texts friend", "man hoses down"
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        stands = after in LISTS["verbs"] and i + 2 < len(tokens)  # "student desks stand in"
        if after in LISTS["directions"] or (_object_follows(tokens, i) and not stands):
            return True
    # "A truck hauls lumber", "the truck hauls a boat", "seagulls circles above"
    return (
        _is_singular(tokens, run)
        or _determiner_follows(tokens, i)
        or (last.endswith("s") and is_plural(last))
    )


def _follows_verb(tokens: list[Token], i: int) -> bool:
    """Whether a form of the third person without a noun of its own is a second verb: "jumps and
    barks", "opens the door and lights a candle", but "a table and lights"."""
    if i == 0 or tokens[i - 1].text not in ("and", "then", "but", ","):
        return False
    text = tokens[i].text
    ends = i + 1 == len(tokens) or not tokens[i + 1].text[0].isalnum()
    return (
        text not in LISTS["nouns_like_verbs"]
        or (_object_follows(tokens, i) and not _plural_at(tokens, i + 1))  # "and cuts cake"
        or _determiner_follows(tokens, i)
        or (text in LISTS["verbs_above_all"] and (ends or not _noun_follows(tokens, i)))
        or (
            not ends
            and (tokens[i + 1].text in ("to", "at", "from") or _direction_follows(tokens, i))
        )
    )


def _is_seen_to(tokens: list[Token], run: list[int], i: int) -> bool:
    """Whether a verb without ending is one after a singular: of what was seen ("watch a plane fly
    over"), or of what a herd does ("a herd of zebra stand in")."""
    if _noun_follows(tokens, i):
        return False
    if _is_of_group(tokens, run) or _is_of_several(tokens, run):
        return True
    first = run[0] - 1
    if first >= 0 and is_in(tokens[first], "determiners"):
        first -= 1
    seen = first >= 0 and is_in(tokens[first], "seeing")
    return seen and (
        _is_person(tokens[run[-1]].text)
        or third_person(tokens[i].text) not in LISTS["nouns_like_verbs"]
    )


def _is_of_group(tokens: list[Token], run: list[int]) -> bool:
    """Whether a run stands after "a herd of"."""
    first = run[0]
    return first > 1 and tokens[first - 1].text == "of" and is_in(tokens[first - 2], "groups")


def _is_of_several(tokens: list[Token], run: list[int]) -> bool:
    """Whether a run stands after "strips of"."""
    first = run[0]
    return first > 1 and tokens[first - 1].text == "of" and is_plural(tokens[first - 2].text)


def _is_doer(tokens: list[Token], run: list[int], doing: str) -> bool:
    """Whether a run ends with whoever may be ``doing`` something: several, a person, an animal."""
    last = tokens[run[-1]].text
    if (is_plural(last) and last not in LISTS["first_plurals"]) or _is_person(last):
        return True
    return doing not in LISTS["animals_do_not"] and (
        last in _animals() or _is_of_group(tokens, run)
    )


@cache
def _animals() -> frozenset[str]:
    names = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"]
    return frozenset(word for name in names for word in words(name))


def _is_person(text: str) -> bool:
    return text in words("person") and text != "baby"


def _is_living(text: str) -> bool:
    return _is_person(text) or text in _animals()


def _is_agent(text: str) -> bool:
    """Whether a singular names whoever does something: a person, an animal."""
    return not is_plural(text) and (
        _is_living(text) or text in LISTS["agents"] or text in LISTS["animals"]
    )


def _is_told_of_one(tokens: list[Token], i: int) -> bool:
    """Whether what stands before ``i`` is one agent and what belongs to it, without a verb: "man in
    hat", "woman wearing dress"."""
    start = 1 if is_in(tokens[0], "determiners") else 0
    for j in range(start, i - 1):
        after = tokens[j + 1].text
        if after in LISTS["with_agents"] or (after.endswith("ing") and after not in NOUNS_IN_ING):
            ends = LISTS["ends_of_agents"]
            return _is_agent(tokens[j].text) and not any(t.text in ends for t in tokens[j + 1 : i])
        if is_in(tokens[j], "function"):
            return False
    return False


def _object_follows(tokens: list[Token], i: int) -> bool:
    """Whether the next word is a noun or an adjective by itself: no form of a verb that follows a
    noun ("baby swings hang", "hands holding", "boots made")."""
    if not _noun_follows(tokens, i):
        return False
    text = tokens[i + 1].text
    if text in LISTS["pictures"] or text in third_persons():
        return text in LISTS["nouns_like_verbs"]
    if text.endswith("ing") and text not in NOUNS_IN_ING:
        return _noun_follows(tokens, i + 1) and text in LISTS["compounds_in_ing"]
    if _is_participle(text):
        return _noun_follows(tokens, i + 1)
    if text in LISTS["verbs"] and third_person(text) not in LISTS["nouns_like_verbs"]:
        return _noun_follows(tokens, i + 1)  # "crosses finish line"
    return True


def _way_follows(tokens: list[Token], i: int) -> bool:
    return i + 1 < len(tokens) and is_in(tokens[i + 1], "ways")


def _plural_at(tokens: list[Token], i: int) -> bool:
    if i >= len(tokens) or tokens[i].text in third_persons():
        return False
    return is_plural(tokens[i].text)


def _is_bare_verb(tokens: list[Token], i: int) -> bool:
    """Whether the word at ``i`` is a verb after a plural, as in "kids laugh"."""
    return i > 0 and is_in(tokens[i], "verbs") and is_plural(tokens[i - 1].text)


def _direction_follows(tokens: list[Token], i: int) -> bool:
    """Whether a verb of motion goes on: "heads down", "stops to take"."""
    after = [token.text for token in tokens[i + 1 : i + 3]] + ["", ""]
    return after[0] in LISTS["directions"] or (after[0] == "to" and after[1] in LISTS["verbs"])


def _has_noun(tokens: list[Token], run: list[int]) -> bool:
    return bool(run) and not all(
        is_in(tokens[j], "adjectives") or is_in(tokens[j], "companions") for j in run
    )


def _is_participle(text: str) -> bool:
    if text in LISTS["irregular"]:
        return True
    return text.endswith("ed") and len(text) > 3 and text not in LISTS["nouns_in_ed"]


def _is_singular(tokens: list[Token], run: list[int]) -> bool:
    """Whether the determiner before a run is of one thing."""
    return run[0] > 0 and is_in(tokens[run[0] - 1], "singular")


def _is_joined(tokens: list[Token], run: list[int]) -> bool:
    """Whether a run is the last of several that "and" joins."""
    before = run[0] - 1
    if before >= 0 and is_in(tokens[before], "determiners"):
        before -= 1
    return before >= 0 and tokens[before].text == "and"


def _noun_follows(tokens: list[Token], i: int) -> bool:
    """Whether the next word may be a noun or an adjective of the same phrase."""
    if i + 1 >= len(tokens):
        return False
    text = tokens[i + 1].text
    if text in LISTS["after_nouns"] and not _noun_follows(tokens, i + 1):
        return False  # "a kite flying high in the sky", but "high mountains"
    return (
        text[0].isalpha()
        and text not in LISTS["determiners"]
        and text not in LISTS["function"]
        and text not in LISTS["companions"]
        and not is_adverb(text)
    )


def _precedes_of(tokens: list[Token], i: int) -> bool:
    return i + 1 < len(tokens) and tokens[i + 1].text == "of"


def _determiner_follows(tokens: list[Token], i: int) -> bool:
    return i + 1 < len(tokens) and is_in(tokens[i + 1], "determiners")
