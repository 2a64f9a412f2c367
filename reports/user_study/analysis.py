"""What the answers of a study say: preference, ratings, agreement, and what speaks against them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.statistics import (
    ClusteredMean,
    ClusteredShare,
    clustered_mean,
    clustered_share,
    krippendorff_alpha,
    sign_flip_p,
)
from reports.user_study.answers import CheckAnswer, PairAnswer, Responses

__all__ = [
    "ALPHA",
    "Analysis",
    "AttentionChecks",
    "ItemResult",
    "QuestionResult",
    "analyse",
    "analyse_question",
]

ALPHA = 0.05


@dataclass(frozen=True)
class QuestionResult:
    """One question over all pairs.

    Cells are in the order left=, right= of the study; shares are those of the left= cell.
    ``preference``, ``left_side`` and their p are None where every answer was "no difference", which
    they leave out.
    """

    question: str
    chosen: tuple[int, int]  # Answers for each cell
    undecided: int  # "no difference"
    preference: ClusteredShare | None
    halved: ClusteredShare  # With "no difference" as half an answer for each
    binomial_p: float | None  # Exact and two-sided, as if answers were independent
    people: tuple[int, int, int]  # Participants for the left= cell, the right= cell, neither
    people_p: float  # Sign-flip test over the mean answers of participants
    items_p: float  # And over those of items
    left_side: ClusteredShare | None  # Of the image that stood left, whose ever it was
    side_p: float | None
    ratings: tuple[ClusteredMean, ClusteredMean]
    difference: ClusteredMean  # Rating of the left= cell less that of the right= cell, paired
    alpha_choice: float
    alpha_rating: float
    seconds: float  # Median of a question

    @property
    def answers(self) -> int:
        return sum(self.chosen) + self.undecided

    @property
    def is_clear(self) -> bool:
        """True where a preference can be claimed: see ``words.state_rule``."""
        if self.preference is None or max(self.people_p, self.items_p) >= ALPHA:
            return False
        return self.preference.low > 0.5 or self.preference.high < 0.5


@dataclass(frozen=True)
class ItemResult:
    """One pair and question; ratings and seconds are a mean and a median over participants."""

    item: str
    question: str
    prompt: str
    split: str
    seed: int
    chosen: tuple[int, int]
    undecided: int
    ratings: tuple[float, float]
    seconds: float


@dataclass(frozen=True)
class AttentionChecks:
    """How many checks were answered, how many failed, and by whom."""

    asked: int
    failed: int
    who: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """``attentive`` is ``questions`` again without participants who failed a check.

    It is empty where nobody did, or everybody.
    """

    responses: Responses
    questions: list[QuestionResult]
    items: list[ItemResult]
    attention: AttentionChecks
    attentive: list[QuestionResult]
    minutes: float  # Median of what a participant took for all questions on pairs


def analyse(responses: Responses) -> Analysis:
    attention = _judge_attention(responses.checks)
    careful = [a for a in responses.answers if a.participant not in attention.who]
    seconds: Counter[str] = Counter()
    for answer in responses.answers:
        seconds[answer.participant] += answer.seconds  # type: ignore[assignment]
    return Analysis(
        responses=responses,
        questions=_analyse_questions(responses.answers),
        items=_list_items(responses),
        attention=attention,
        attentive=_analyse_questions(careful) if attention.who else [],
        minutes=float(np.median(list(seconds.values()))) / 60,
    )


def _analyse_questions(answers: Sequence[PairAnswer]) -> list[QuestionResult]:
    by_question = {q: [a for a in answers if a.question == q] for q in ("text", "mask")}
    return [analyse_question(q, own) for q, own in by_question.items() if own]


def analyse_question(question: str, answers: Sequence[PairAnswer]) -> QuestionResult:
    """One question's numbers from all answers to it, at least one."""
    people = sorted({answer.participant for answer in answers})
    items = sorted({answer.item for answer in answers})
    # [participants, items]; 1 for the left= cell, or left side, .5 for no difference
    choice, side = np.full((2, len(people), len(items)), math.nan)
    rating = np.full((2, len(people), len(items)), math.nan)
    for answer in answers:
        at = people.index(answer.participant), items.index(answer.item)
        choice[at] = 0.5 if answer.choice is None else 1.0 - answer.choice
        side[at] = {"left": 1.0, "none": math.nan, "right": 0.0}[answer.side]
        rating[:, *at] = answer.ratings
    decided = np.where(choice == 0.5, math.nan, choice)
    chosen = int((choice == 1).sum()), int((choice == 0).sum())
    leaning = np.nanmean(choice, axis=1) - 0.5  # Of each participant
    any_decided = sum(chosen) > 0
    return QuestionResult(
        question=question,
        chosen=chosen,
        undecided=len(answers) - sum(chosen),
        preference=clustered_share(decided) if any_decided else None,
        halved=clustered_share(choice),
        binomial_p=_binomial_p(decided) if any_decided else None,
        people=(int((leaning > 0).sum()), int((leaning < 0).sum()), int((leaning == 0).sum())),
        people_p=sign_flip_p(leaning.tolist()),
        items_p=sign_flip_p((np.nanmean(choice, axis=0) - 0.5).tolist()),
        left_side=clustered_share(side) if any_decided else None,
        side_p=_binomial_p(side) if any_decided else None,
        ratings=(clustered_mean(rating[0]), clustered_mean(rating[1])),
        difference=clustered_mean(rating[0] - rating[1]),
        alpha_choice=krippendorff_alpha(choice, "nominal"),
        # Every image is a unit
        alpha_rating=krippendorff_alpha(np.concatenate(list(rating), axis=1), "ordinal"),
        seconds=float(np.median([answer.seconds for answer in answers])),
    )


def _binomial_p(values: np.ndarray) -> float:
    """Of as many ones among ones and zeros, against one half."""
    from scipy.stats import binomtest

    return float(binomtest(int((values == 1).sum()), int((~np.isnan(values)).sum())).pvalue)


def _judge_attention(checks: Sequence[CheckAnswer]) -> AttentionChecks:
    failed = [check.participant for check in checks if not check.passed]
    return AttentionChecks(len(checks), len(failed), tuple(sorted(set(failed))))


def _list_items(responses: Responses) -> list[ItemResult]:
    """Pairs in the order of their prompts, with the questions of each."""
    groups: dict[tuple[str, str], list[PairAnswer]] = {}
    for answer in responses.answers:
        groups.setdefault((answer.item, answer.question), []).append(answer)
    results = []
    for (name, question), answers in groups.items():
        item = responses.key.items[name]
        first, second, undecided = (
            sum(answer.choice == cell for answer in answers) for cell in (0, 1, None)
        )
        ratings = np.mean([answer.ratings for answer in answers], axis=0)
        results.append(
            ItemResult(
                item=name,
                question=question,
                prompt=item.prompt,
                split=item.split,
                seed=item.seed,
                chosen=(first, second),
                undecided=undecided,
                ratings=(float(ratings[0]), float(ratings[1])),
                seconds=float(np.median([answer.seconds for answer in answers])),
            )
        )
    return sorted(results, key=lambda r: (r.question != "text", r.split, r.prompt, r.seed, r.item))
