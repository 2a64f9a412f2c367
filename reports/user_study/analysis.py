"""What the answers of a study say: preference, ratings, agreement, and what speaks against believing them. `wording` says it in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from reports.statistics import sign_flip_p
from reports.user_study.answers import Answer, Check, Gathered
from reports.user_study.measures import (
    Mean,
    Share,
    clustered_mean,
    clustered_share,
    krippendorff_alpha,
)

__all__ = ["ALPHA", "Analysis", "Attention", "Of", "Row", "analyse", "of_question"]

ALPHA = 0.05


@dataclass(frozen=True)
class Of:
    """One question over all pairs. Cells are in the order left=, right= of the study; shares are those of the left= cell.

    `preference`, `left_side` and their p are None where every answer was "no difference", which they leave out.
    """

    question: str
    chosen: tuple[int, int]  # answers for each cell
    undecided: int  # "no difference"
    preference: Share | None
    halved: Share  # with "no difference" as half an answer for each
    binomial_p: float | None  # exact and two-sided, as if answers were independent
    people: tuple[int, int, int]  # participants who chose the left= cell more often, the right= cell, both equally often
    people_p: float  # sign-flip test over the mean answers of participants
    items_p: float  # and over those of items
    left_side: Share | None  # of the image that stood left, whatever its cell
    side_p: float | None
    ratings: tuple[Mean, Mean]
    difference: Mean  # rating of the left= cell less that of the right= cell, paired
    alpha_choice: float
    alpha_rating: float
    seconds: float  # median of a question

    @property
    def answers(self) -> int:
        return sum(self.chosen) + self.undecided

    @property
    def clear(self) -> bool:
        """True where a preference can be claimed: see `wording.rule`."""
        if self.preference is None or max(self.people_p, self.items_p) >= ALPHA:
            return False
        return self.preference.low > 0.5 or self.preference.high < 0.5


@dataclass(frozen=True)
class Row:
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
class Attention:
    """Attention checks: how many were answered, how many failed, and by whom."""

    asked: int
    failed: int
    who: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """`attentive` is `questions` again without participants who failed a check; empty where nobody did, or everybody."""

    gathered: Gathered
    questions: list[Of]
    rows: list[Row]
    attention: Attention
    attentive: list[Of]
    minutes: float  # median of what a participant took for all questions on pairs


def analyse(gathered: Gathered) -> Analysis:
    """See `Analysis`."""
    attention = _attention(gathered.checks)
    careful = [one for one in gathered.answers if one.participant not in attention.who]
    totals: Counter[str] = Counter()
    for one in gathered.answers:
        totals[one.participant] += one.seconds  # type: ignore[assignment]
    return Analysis(
        gathered=gathered,
        questions=_questions(gathered.answers),
        rows=_rows(gathered),
        attention=attention,
        attentive=_questions(careful) if attention.who else [],
        minutes=float(np.median(list(totals.values()))) / 60,
    )


def _questions(answers: Sequence[Answer]) -> list[Of]:
    kinds = [question for question in ("text", "mask") if any(one.question == question for one in answers)]
    return [of_question(question, [one for one in answers if one.question == question]) for question in kinds]


def of_question(question: str, answers: Sequence[Answer]) -> Of:
    """One question's numbers from all answers to it, at least one."""
    people, items = sorted({one.participant for one in answers}), sorted({one.item for one in answers})
    shape = len(people), len(items)
    choice, side = np.full(shape, math.nan), np.full(shape, math.nan)  # 1: left= cell, or left side; .5: no difference
    rating = np.full((2, *shape), math.nan)
    for one in answers:
        at = people.index(one.participant), items.index(one.item)
        choice[at] = 0.5 if one.choice is None else 1.0 - one.choice
        side[at] = {"left": 1.0, "none": math.nan, "right": 0.0}[one.side]
        rating[(slice(None), *at)] = one.ratings
    decided = np.where(choice == 0.5, math.nan, choice)
    first, second = int((choice == 1).sum()), int((choice == 0).sum())
    lefts, rights = int((side == 1).sum()), int((side == 0).sum())
    leaning = np.nanmean(choice, axis=1) - 0.5  # of each participant
    any_decided = first + second > 0
    return Of(
        question=question,
        chosen=(first, second),
        undecided=len(answers) - first - second,
        preference=clustered_share(decided) if any_decided else None,
        halved=clustered_share(choice),
        binomial_p=float(stats.binomtest(first, first + second).pvalue) if any_decided else None,
        people=(int((leaning > 0).sum()), int((leaning < 0).sum()), int((leaning == 0).sum())),
        people_p=sign_flip_p(leaning.tolist()),
        items_p=sign_flip_p((np.nanmean(choice, axis=0) - 0.5).tolist()),
        left_side=clustered_share(side) if any_decided else None,
        side_p=float(stats.binomtest(lefts, lefts + rights).pvalue) if any_decided else None,
        ratings=(clustered_mean(rating[0]), clustered_mean(rating[1])),
        difference=clustered_mean(rating[0] - rating[1]),
        alpha_choice=krippendorff_alpha(choice, "nominal"),
        alpha_rating=krippendorff_alpha(np.concatenate(list(rating), axis=1), "ordinal"),  # every image is a unit
        seconds=float(np.median([one.seconds for one in answers])),
    )


def _attention(checks: Sequence[Check]) -> Attention:
    failed = [one for one in checks if not one.passed]
    return Attention(len(checks), len(failed), tuple(sorted({one.participant for one in failed})))


def _rows(gathered: Gathered) -> list[Row]:
    """Pairs in the order of their prompts, with the questions of each."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for one in gathered.answers:
        groups.setdefault((one.item, one.question), []).append(one)
    rows = []
    for (name, question), answers in groups.items():
        item = gathered.key.items[name]
        first, second = (sum(one.choice == cell for one in answers) for cell in (0, 1))
        ratings = np.mean([one.ratings for one in answers], axis=0)
        rows.append(
            Row(
                name, question, item.prompt, item.split, item.seed, (first, second), len(answers) - first - second,
                (float(ratings[0]), float(ratings[1])), float(np.median([one.seconds for one in answers])),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: (row.question != "text", row.split, row.prompt, row.seed, row.item))
