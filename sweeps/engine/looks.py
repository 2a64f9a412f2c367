"""When a sweep with until= has its answer: pure functions of what its comparisons say at a look.

A *look* reads every comparison of the headline on whole data, so many seeds of each cell and so
many prompts of each split, and ends the sweep or names what is measured before the next one.

``until=.05`` goes on until every interval is at most that far to each side, from a pilot of two
seeds and few prompts on. Stopping by width hardly spoils an interval, which is never narrower than
images alone make it; with few seeds a somewhat wider one must be narrow enough, so that a small
variance by luck does not end it (see ``designs``). ``until=settled`` goes on until every comparison
is conclusive, or at most half of the difference that matters to each side. It stops by what is
claimed, so that each look has its share of the error, α / looks planned; settled cells get no more
seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conf.describe import show_count
from reports.statistics import error_of_looks
from sweeps.engine.designs import Costs, Design, Reading, choose_next, cut_to_budget, idle_cells
from sweeps.engine.stopping import SETTLED

__all__ = ["ALPHA", "History", "Look", "Round", "begin_small", "decide", "plan_stages"]

STAGES = (3, 5, 8, 12, 20)  # Seeds at which a sweep is looked at
# The first look of until=HALF where neither seeds= nor evaluation.prompts= says otherwise: with two
# seeds, and of each split its share of so many prompts
PILOT_SEEDS, PILOT_PROMPTS, FEWEST_PROMPTS = 2, 32, 8
ALPHA = 0.05  # Error of intervals: that at least one of a family misses
ALONE = 0.02  # Of one comparison alone whose width ends a sweep
# Verdicts that more data would not add to
OUTCOMES = ("differs", "no difference that matters", "identical in every image", "collapsed")


@dataclass(frozen=True)
class Look:
    """A look that was taken. ``after``: what is measured before the next one, None where it is the
    last; the ``reason`` says why. ``narrow`` and ``settled``: cells of which every comparison is.
    ``seen``: pairs of images that were read; ``seconds`` that trials had taken."""

    design: Design
    level: float
    readings: tuple[Mapping[str, Any], ...] = ()
    narrow: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    seen: int = 0
    seconds: float = 0.0
    after: Design | None = None
    reason: str = ""

    @property
    def widest(self) -> float:
        """Of the comparisons that are not settled, if there are any."""
        left = [r["half"] for r in self.readings if r["cell"] not in self.settled]
        return max(left or [r["half"] for r in self.readings], default=math.nan)

    def describe(self) -> dict[str, Any]:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: list(value) for name, value in own.items() if isinstance(value, tuple)}
        designs = {
            "design": self.design.describe(),
            "after": self.after.describe() if self.after else None,
        }
        return own | lists | designs

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Look:
        lists = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
        after = stored["after"]
        designs = {"design": Design(**stored["design"]), "after": after and Design(**after)}
        return cls(**{**stored, **lists, **designs})


@dataclass(frozen=True)
class Round:
    """The looks of one stop rule, planned and taken. ``until``: SETTLED, a half-width, or empty for
    the look of a command without one.

    ``planned``: seeds at the looks, from the first on; ``spent``: looks before this round that
    claims were made at; ``alone``: there is one comparison, and nothing to pool.
    """

    until: str
    planned: tuple[int, ...]
    spent: int = 0
    primary: str = ""
    first: int = 0  # Number of the first seed
    alone: bool = False
    taken: tuple[Look, ...] = ()

    @property
    def half(self) -> float | None:
        return None if self.until in ("", SETTLED) else float(self.until)

    @property
    def level(self) -> float:
        """Of each interval: a look that may stop by claims has its share of the error. One of two
        cells, with a degree of freedom a seed, ends by its width too often where that is narrow by
        luck: at 95 % it misses in 8 to 9 % of simulated sweeps."""
        if self.until != SETTLED:
            return 1 - (ALONE if self.alone and self.until else ALPHA)
        return 1 - ALPHA / (len(self.planned) + self.spent)

    @property
    def last(self) -> Look | None:
        return self.taken[-1] if self.taken else None

    @property
    def stopped(self) -> str:
        """Why it has ended; empty as long as it goes on."""
        return self.last.reason if self.last and self.last.after is None else ""

    def describe(self) -> dict[str, Any]:
        return {
            "until": self.until,
            "planned": list(self.planned),
            "spent": self.spent,
            "primary": self.primary,
            "first": self.first,
            "alone": self.alone,
            "level": self.level,
            "stopped": self.stopped,
            "taken": [look.describe() for look in self.taken],
        }

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Round:
        kept = {name: stored[name] for name in ("until", "spent", "primary", "first")}
        taken = tuple(map(Look.read, stored["taken"]))
        alone = stored.get("alone", False)  # Older sweeps did not ask
        return cls(**kept, planned=tuple(stored["planned"]), alone=alone, taken=taken)


@dataclass(frozen=True)
class History:
    """All looks at a sweep, round by round: what is stored with it."""

    rounds: tuple[Round, ...] = ()

    @property
    def last(self) -> Round | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def level(self) -> float:
        """Of the intervals that stand now."""
        return self.last.level if self.last else 1 - ALPHA

    def claimed(self, first: int | None = None) -> list[Look]:
        """The looks at the seeds from ``first`` on (default: the last round's) that differences
        were claimed at for good: all of commands without a stop rule, and the last of one. What one
        by claims spends on its looks is in its level."""
        if first is None:
            first = self.last.first if self.last else 0
        own = [r for r in self.rounds if r.first == first]
        return [r.last for r in own if r.last and r.last.after is None]

    @property
    def error(self) -> float:
        """How often such looks claim a difference that is not there, at one of them at least: of
        one comparison, each look at 95 % on the data of those before and more."""
        sizes = [_size(look.design) for look in self.claimed()]
        return error_of_looks(sizes, ALPHA) if sizes else ALPHA

    def replace_last(self, new: Round) -> History:
        return History((*self.rounds[:-1], new))

    def add(self, new: Round) -> History:
        return History((*self.rounds, new))

    def describe(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "looks": len(self.claimed()),
            "error": self.error,
            "rounds": [round_.describe() for round_ in self.rounds],
        }

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> History:
        return cls(tuple(map(Round.read, (stored or {}).get("rounds", ()))))


def _size(design: Design) -> float:
    return sum(design.seeds.values()) * max(1, design.prompts)


def plan_stages(first: int) -> tuple[int, ...]:
    """Seeds at the looks of a sweep that is first looked at with ``first``."""
    return (first, *(stage for stage in STAGES if stage > first))


def begin_small(
    until: str, seeds: int, prompts: int, splits: int, given: Collection[str]
) -> tuple[int, int]:
    """Seeds, and prompts of each split, at the first look of a sweep whose settings say ``seeds``
    and ``prompts``; ``given`` are the keys that its command names."""
    if until == SETTLED:  # A look by claims costs a share of the error: none is too early
        return seeds, prompts
    if "seeds" not in given:
        seeds = min(seeds, PILOT_SEEDS)
    if "evaluation.prompts" not in given:
        prompts = min(prompts, max(FEWEST_PROMPTS, math.ceil(PILOT_PROMPTS / splits)))
    return seeds, prompts


def decide(
    plan: Round,
    readings: Sequence[Reading],
    design: Design,
    costs: Costs,
    *,
    most_prompts: int | None,
    seconds: float = 0.0,
    budget: float | None = None,
) -> Look:
    """The look of ``plan`` that reads ``readings`` on the data of ``design``.

    ``most_prompts``: so many a split has, None where none can be added. ``seconds`` have been spent
    of the ``budget``. Raises ValueError without readings, or with one seed.
    """
    if not readings or any(r.comparison.images_alone for r in readings):
        raise ValueError("expected comparisons of two or more seeds each")
    judged = [r for r in readings if r.cell == plan.primary] or list(readings)
    narrow = _all_of(judged, [r for r in judged if r.sure_half <= _goal(plan, r) * (1 + 1e-9)])
    settled: set[str] = set()
    after, reason = None, ""
    if plan.until == SETTLED:
        # What was settled at one look stays so, and what is narrow costs no error
        settled = _all_of(judged, [r for r in judged if r.verdict in OUTCOMES])
        settled.update(cell for look in plan.taken for cell in look.settled)
    left = [r for r in judged if r.cell not in settled | narrow]
    kept = idle_cells(judged, left)
    if not left:
        reason = _describe_end(plan, {r.cell for r in judged} - settled)
    elif plan.until == SETTLED and len(plan.taken) + 1 >= len(plan.planned):
        reason = f"none of {show_count(len(plan.planned), 'planned look')} is left"
    else:
        after, reason = choose_next(
            left, lambda r: _target(plan, r), design, plan.planned, kept, costs, most_prompts
        )
        if any(r.half <= _goal(plan, r) for r in left):
            reason += "; some widths rest on too few seeds, or images that differ, to end it"
    if after is not None and budget is not None and costs.between(design, after) > budget - seconds:
        after, reason = cut_to_budget(judged, design, after, costs, budget - seconds)
    return Look(
        design=design,
        level=plan.level,
        readings=tuple(r.describe() for r in readings),
        narrow=tuple(sorted(narrow)),
        settled=tuple(sorted(settled)),
        seen=sum(len(r.comparison.seeds) * r.comparison.prompts for r in readings),
        seconds=seconds,
        after=after,
        reason=reason,
    )


def _all_of(readings: Sequence[Reading], good: Sequence[Reading]) -> set[str]:
    """The cells of which every comparison is among ``good``."""
    return {r.cell for r in readings} - {r.cell for r in readings if r not in good}


def _goal(plan: Round, reading: Reading) -> float:
    """The half-width at which a comparison needs no more; 0 where none is enough."""
    return (reading.delta or 0.0) / 2 if plan.half is None else plan.half


def _target(plan: Round, reading: Reading) -> float:
    """The half-width to plan for. Looks that stop by claims double the data at least cost, since
    many comparisons settle long before they are narrow."""
    goal = _goal(plan, reading)
    return goal if plan.half is not None else max(goal, reading.half / math.sqrt(2))


def _describe_end(plan: Round, open_cells: set[str]) -> str:
    if plan.until != SETTLED:
        return f"every half-width is at most {plan.half:g}"
    narrow = ", or as narrow as half the difference that matters" if open_cells else ""
    return f"every comparison is settled{narrow}"
