"""What is asked about images, and scores of the answers.

With p the probability of the right answer to a question, which is right where no other of its
answers is as likely:

* ``vqa_score``: p of yes to 'Does this figure show "PROMPT"? Please answer yes or no.' (VQAScore,
  arXiv 2404.01291)
* ``soft_tifa_am``: the arithmetic mean of p over a prompt's questions; ``soft_tifa_gm``: their
  geometric mean (GenEval 2, arXiv 2512.16853); both averaged over images
* ``answers_product``: the product of p; with a BLIP on T2I-CompBench's prompts its BLIP-VQA (arXiv
  2307.06350)
* ``questions_right``: the share of questions that are right (TIFA, arXiv 2303.11897);
  ``questions_right_in_order``: a question counts as wrong where one that it depends on is (DSG,
  arXiv 2310.18235); ``vqa_success``: all are right
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from conf.contents import digest_contents, list_files
from lightning_modules.backbone.weights import hub_commit
from lightning_modules.metrics.answer_cache import CachedAnswerer
from lightning_modules.metrics.answerers import EXPECTED, WHAT, Answerer
from lightning_modules.metrics.benchmarks import describe_plan
from lightning_modules.metrics.blip_answers import BLIP, BlipAnswerer
from lightning_modules.metrics.chat_answers import ChatAnswerer
from lightning_modules.metrics.loading import one_line_errors
from lightning_modules.metrics.registry import Columns, ScoringContext
from lightning_modules.metrics.vision_language import architecture_of

if TYPE_CHECKING:
    from conf.schema import Evaluation
    from datamodules.formats.questions import Question
    from lightning_modules.evaluation.plan import Prompt

SHOWS = 'Does this figure show "{}"? Please answer yes or no.'
OF_QUESTIONS = (
    *("vqa_success", "questions_right", "questions_right_in_order"),
    *("soft_tifa_am", "soft_tifa_gm", "answers_product"),
)


def build(context: ScoringContext) -> list[VqaScorer]:
    """The scorer with what ``evaluation.vqa`` names; answers of a model are kept in the cache.
    Raises as `load_answerer`."""
    name = context.evaluation.vqa
    answerer: Answerer
    if name == "judge":
        from lightning_modules.embedded.answers import JudgeAnswerer
        from lightning_modules.embedded.judge import Judge

        answerer = JudgeAnswerer(Judge.load())
    else:
        place = Path(name)
        known = hub_commit(name)
        if place.is_dir():
            known = digest_contents(list_files(place), context.cache, f"evaluation.vqa={name}")
        answerer = load_answerer(name, device=context.device, identity=known or name)
    if answerer.identity:
        answerer = CachedAnswerer(answerer, context.cache)
    return [VqaScorer(answerer, describe_plan(context.prompts))]


def undefined(prompts: Sequence[Prompt], evaluation: Evaluation) -> dict[str, str]:
    """Value -> why no prompt gives it."""
    if not any(prompt.questions for prompt in prompts):
        return dict.fromkeys(OF_QUESTIONS, "no prompt has questions")
    if not any(question.needs for prompt in prompts for question in prompt.questions):
        return {"questions_right_in_order": "no question depends on another"}
    return {}


def geometric_mean(values: Sequence[float]) -> float:
    """0 where one of them is."""
    if min(values) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def count_in_order(right: Sequence[bool], questions: Sequence[Question]) -> int:
    """How many questions are right and depend on none that is wrong itself (DSG)."""
    return sum(
        good and all(right[need] for need in question.needs)
        for good, question in zip(right, questions, strict=True)
    )


def score_answers(
    questions: Sequence[Question], answers: Sequence[dict[str, float]]
) -> dict[str, float | bool]:
    """The scores of one image by the probabilities of each question's answers. Raises ValueError
    without questions."""
    if not questions:
        raise ValueError("no question was asked: give at least one")
    values = [given[one.answer] for one, given in zip(questions, answers, strict=True)]
    right = [
        value > max((p for text, p in given.items() if text != one.answer), default=0.5)
        for one, given, value in zip(questions, answers, values, strict=True)
    ]
    return {
        "vqa_success": all(right),
        "questions_right": sum(right) / len(right),
        "questions_right_in_order": count_in_order(right, questions) / len(right),
        "soft_tifa_am": math.fsum(values) / len(values),
        "soft_tifa_gm": geometric_mean(values),
        "answers_product": math.prod(values),
    }


class VqaScorer:
    """Asks about each image whether it shows its prompt, and its prompt's questions.
    ``prompts_from`` says how much of which benchmarks the prompts are."""

    def __init__(self, answerer: Answerer, prompts_from: Sequence[str] = ()) -> None:
        self.answerer, self.prompts_from = answerer, prompts_from
        self.table: dict[str, list[float | bool | None]] = {}
        self.splits: list[str] = []
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, prompts: Sequence[Prompt], images: Tensor, names: Sequence[str]) -> Columns:
        """As `Scorer`; None for an image whose prompt has no questions."""
        asked = [self._ask(prompt) for prompt in prompts]
        found = self.answerer.probabilities(images, asked)
        columns: Columns = {"vqa_score": [values[0] for values in found]}
        for prompt, pairs, values in zip(prompts, asked, found, strict=True):
            known = dict(zip(pairs[1:], values[1:], strict=True))
            answers = [
                {answer: known[self._word(one), answer] for answer in _answers(one)}
                for one in prompt.questions
            ]
            scores = score_answers(prompt.questions, answers) if answers else {}
            for key in OF_QUESTIONS:
                columns.setdefault(key, []).append(scores.get(key))
        if not any(question.needs for prompt in prompts for question in prompt.questions):
            columns["questions_right_in_order"] = [None] * len(prompts)
        self.splits += [prompt.split for prompt in prompts]
        for key, column in columns.items():
            self.table.setdefault(key, []).extend(column)
        return columns

    def _ask(self, prompt: Prompt) -> list[tuple[str, str]]:
        asks = [(self._word(one), answer) for one in prompt.questions for answer in _answers(one)]
        return [(SHOWS.format(prompt.text), "Yes"), *dict.fromkeys(asks)]

    def _word(self, question: Question) -> str:
        return self.answerer.template.format(question.text)

    def finish(self) -> dict[str, float]:
        """As `Scorer`."""
        numbers: dict[str, float] = {}
        for key, column in self.table.items():
            self._average(numbers, key, column)
        for split in dict.fromkeys(self.splits):
            own = [
                value
                for value, its in zip(self.table["vqa_success"], self.splits, strict=True)
                if its == split
            ]
            self._average(numbers, f"vqa_success_{split}", own)
        return numbers

    def _average(
        self, numbers: dict[str, float], key: str, column: Sequence[float | bool | None]
    ) -> None:
        known = [value for value in column if value is not None]
        numbers[key] = math.fsum(known) / len(known) if known else math.nan
        facts = {"answerer": self.answerer.label, "images": len(known), **self.answerer.facts}
        if key == "vqa_score":
            facts["template"] = SHOWS
        if self.prompts_from:
            facts["prompts_from"] = "; ".join(self.prompts_from)
        if not known:
            depends = key == "questions_right_in_order" and numbers.get("questions_right")
            asked = "no question depends on another" if depends else "no prompt has questions"
            facts["undefined"] = asked
        self.facts[key] = facts


def _answers(question: Question) -> tuple[str, ...]:
    """Those that are asked about: the right one and, by the words of its kind, all others."""
    others = [one for one in question.alternatives if one.lower() != question.answer.lower()]
    return (question.answer, *others)


def load_answerer(
    name: str, revision: str | None = None, device: torch.device | str = "cpu", identity: str = ""
) -> Answerer:
    """The model at a hub id or in a local folder. ``identity``: a digest of its weights. Raises as
    `ChatAnswerer`."""
    kind = BlipAnswerer if architecture_of(name, revision) == BLIP else ChatAnswerer
    return kind(name, revision, device, identity=identity)


def check_answerer(name: str) -> None:
    """Whether a model is there and of a kind that answers; loads none. Raises FileNotFoundError or
    ValueError."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as known,
    )

    if (found := architecture_of(name)) == BLIP:
        return
    with one_line_errors(WHAT, name, EXPECTED):
        kind = AutoConfig.from_pretrained(name).model_type
    if kind not in known:
        raise ValueError(
            f"evaluation.vqa={name} is a {found}: expected an image-text-to-text model of "
            f"transformers, such as a Qwen-VL, or a {BLIP}"
        )
