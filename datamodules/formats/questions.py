"""Questions to which an image of a prompt should give the right answers.

People's own files have them below ``questions``, a list of

* ``"is there a cat?"``: yes is the right answer,
* ``["how many cats are there?", "two"]``,
* ``{"question": "what color is the cat?", "answer": "red", "choices": ["red", "blue"],
  "needs": [0], "skill": "color"}``: ``choices`` are answers of which one is right, ``needs`` the
  places of questions that make sense of this one: where one of these is answered wrong, it is too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.formats.bad_lines import (
    BadLine,
    expect,
    keep_on_one_line,
    read_words,
    refuse_misspelt,
)

__all__ = ["NUMBERS", "Question", "read_question", "read_questions", "yes_no"]

YES, NO = "yes", "no"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
KEYS = ("question", "answer", "choices", "needs", "skill")


@dataclass(frozen=True)
class Question:
    """A question, its right answer, the answers to choose from (none: what kind of answer it is
    says which), the places of the questions that it depends on among those of its prompt, and what
    it asks a model to be able to do."""

    text: str
    answer: str = YES
    choices: tuple[str, ...] = ()
    needs: tuple[int, ...] = ()
    skill: str = ""

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The answers among which the right one should be likeliest, itself included; empty where
        nobody knows any other."""
        if self.choices:
            return self.choices
        word = self.answer.lower()
        if word in (YES, NO):
            return (YES, NO)
        if word in NUMBERS:
            return NUMBERS
        return tuple(map(str, range(11))) if word in map(str, range(11)) else ()


def yes_no(text: str, skill: str = "", needs: Sequence[int] = ()) -> Question:
    """A question to which yes is the right answer."""
    return Question(text, YES, (), tuple(needs), skill)


def read_questions(content: Any) -> tuple[Question, ...]:
    """The questions of a person's own line. Raises BadLine."""
    detail = f"questions {str(content)[:60]!r}: expected a list of questions"
    expect(isinstance(content, list), detail, "wrong questions")
    questions = tuple(read_question(one, i) for i, one in enumerate(content))
    check_needs(questions)
    return questions


def read_question(content: Any, index: int = 0) -> Question:
    """One of a list, in any of the three forms. Raises BadLine."""
    what = f"question {index}"
    if isinstance(content, str):
        content = {"question": content}
    if isinstance(content, list):
        detail = f"{what} is {content!r}: expected [question, answer]"
        expect(len(content) == 2, detail, "wrong questions")
        content = {"question": content[0], "answer": content[1]}
    detail = f"{what} is {content!r}: expected words, [question, answer] or an object"
    expect(isinstance(content, dict), detail, "wrong questions")
    refuse_misspelt(content, KEYS, what)
    choices, needs = content.get("choices") or [], content.get("needs") or []
    good = isinstance(choices, list) and all(isinstance(one, str) for one in choices)
    expect(good, f"choices {choices!r} of {what}: expected a list of words", "wrong questions")
    good = isinstance(needs, list) and all(type(one) is int for one in needs)
    expect(good, f"needs {needs!r} of {what}: expected a list of places", "wrong questions")
    given = {"answer": read_answer(content["answer"], what)} if "answer" in content else {}
    skill = read_words(content, "skill") if content.get("skill") else ""
    return make_question(
        read_words(content, "question"), choices=choices, needs=needs, skill=skill, **given
    )


def make_question(
    text: str,
    answer: str = YES,
    choices: Sequence[str] = (),
    needs: Sequence[int] = (),
    skill: str = "",
) -> Question:
    """Raises BadLine where the answer is none of the choices."""
    kept = tuple(keep_on_one_line(str(one)).strip() for one in choices)
    detail = f"answer {answer!r} of {text!r} is none of the choices {', '.join(kept)}"
    expect(not kept or answer in kept, detail, "wrong questions")
    return Question(text, answer, kept, tuple(needs), skill)


def read_answer(answer: Any, what: str) -> str:
    """Words, or a number as words. Raises BadLine."""
    good = isinstance(answer, str | int) and str(answer).strip()
    expect(good, f"answer {answer!r} of {what}: expected words", "wrong questions")
    return {True: YES, False: NO}[answer] if isinstance(answer, bool) else str(answer).strip()


def check_needs(questions: Sequence[Question]) -> None:
    """Raises BadLine where a question needs one that is not there, or itself in the end."""
    for index, question in enumerate(questions):
        for need in question.needs:
            detail = (
                f"question {index} needs {need}: expected the places of other questions, from 0 to "
                f"{len(questions) - 1}"
            )
            expect(0 <= need < len(questions) and need != index, detail, "wrong questions")
    for index in range(len(questions)):
        if index in _all_needs(questions, index):
            raise BadLine("wrong questions", f"question {index} needs itself in the end")


def _all_needs(questions: Sequence[Question], index: int) -> set[int]:
    found: set[int] = set()
    waiting = [*questions[index].needs]
    while waiting:
        need = waiting.pop()
        if need not in found:
            found.add(need)
            waiting += questions[need].needs
    return found


def join_needs(
    named: Mapping[int, Sequence[int]], order: Sequence[int]
) -> tuple[list[tuple[int, ...]], list[tuple[int, int]]]:
    """Of questions by number, in this ``order``, the places of those that each needs (0: none), and
    the pairs (number, needed number) that are left out: not there, or the question itself."""
    place = {number: i for i, number in enumerate(order)}
    needs, lost = [], []
    for number in order:
        wanted = [one for one in dict.fromkeys(named[number]) if one]
        lost += [(number, one) for one in wanted if one not in place or one == number]
        needs.append(tuple(place[one] for one in wanted if one in place and one != number))
    return needs, lost
