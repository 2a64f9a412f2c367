"""The judge of the embedded world answers questions: "Is there a red circle?", "How many blue rings
are there?", "Is a red circle left of a blue square?", 'Does this figure show "a red circle"?'."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from datamodules.formats.questions import NO, NUMBERS, YES
from datamodules.shapes.reading import Mention, read_prompt
from lightning_modules.embedded.judge import Judge
from lightning_modules.embedded.targets import read_target
from lightning_modules.metrics.answerers import Ask
from lightning_modules.metrics.detection import Detection, judge_image, relation_holds

__all__ = ["JudgeAnswerer", "answer_question"]

SHOWN = re.compile(r'does this (?:figure|image) show "(.+)"\?', re.IGNORECASE)


class JudgeAnswerer:
    """An oracle: what it sees is certain to it, so that an answer has the probability 1 or 0."""

    label, template = "judge", "{}"
    identity = ""  # It sees an image in less time than it takes to look up

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.facts: dict[str, Any] = {"model": self.label, "template": self.template}

    def probabilities(self, images: Tensor, asked: Sequence[Sequence[Ask]]) -> list[list[float]]:
        """As `Answerer`. Raises as `answer_question`."""
        return [
            [float(answer_question(question, seen) == answer.lower()) for question, answer in pairs]
            for seen, pairs in zip(self.judge.detect(images), asked, strict=True)
        ]


def answer_question(question: str, seen: Sequence[Detection]) -> str:
    """yes, no or a number in words, by what was detected in an image. Things may be more than are
    asked for, as in success. Raises ValueError for a question about anything else."""
    if shown := SHOWN.search(question):
        return _yes(judge_image(seen, read_target(shown[1])).success)
    mentions, relation = read_prompt(question)
    if not mentions:
        raise ValueError(
            f"the judge of the embedded world cannot answer {question!r}: expected a question "
            "about its coloured shapes; name a model in evaluation.vqa"
        )
    found = [_find(mention, seen) for mention in mentions]
    if question.lower().startswith("how many"):
        return NUMBERS[min(len(found[0]), len(NUMBERS) - 1)]
    if not all(
        len(things) >= (mention.number or 1)
        for mention, things in zip(mentions, found, strict=True)
    ):
        return NO
    if relation is None:
        return YES
    first, second = found[:2]
    if _same(*mentions[:2]):
        second = second[1:]
    return _yes(bool(second) and relation_holds(first[0].centre, second[0].centre, relation))


def _yes(right: bool) -> str:
    return YES if right else NO


def _same(one: Mention, other: Mention) -> bool:
    return (one.color, one.shape) == (other.color, other.shape)


def _find(mention: Mention, seen: Sequence[Detection]) -> list[Detection]:
    """The things that a mention names, surest first."""
    wanted = {
        "label": mention.shape,
        "color": mention.color,
        "size": mention.size,
        "pattern": mention.pattern,
    }
    said = {key: word for key, word in wanted.items() if word is not None}
    found = [one for one in seen if all(getattr(one, key) == word for key, word in said.items())]
    return sorted(found, key=lambda one: -one.score)
