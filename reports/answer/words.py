"""One verdict, and several, in words: the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports import prose
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN, Collapse
from reports.verdicts import COLLAPSED, IDENTICAL, IMAGES_ALONE, UNTRAINED, Verdict

__all__ = [
    "LESS",
    "count_conclusive",
    "describe_bound",
    "describe_collapse",
    "describe_settling",
    "describe_verdict",
    "show_range",
    "show_shift",
    "show_verdict_interval",
    "verdict_word",
]

LESS = "differs, by less than matters"
MOST_SEEDS, MOST_PROMPTS = 100, 10_000  # Beyond these nothing is proposed


def verdict_word(verdict: Verdict) -> str:
    """For tables: "differs: better", "no difference that matters", "open", …"""
    if verdict.verdict == OPEN and verdict.rule == IMAGES_ALONE:
        return f"{OPEN} (one training)"
    if verdict.verdict == COLLAPSED and verdict.fallen == verdict.control:
        return f"control {COLLAPSED}"
    if verdict.verdict != DIFFERS:
        return verdict.verdict
    return f"{DIFFERS}: {verdict.direction}" if verdict.matters else LESS


def show_shift(verdict: Verdict) -> str:
    """The difference with its interval where it has one."""
    mean = prose.show_signed(verdict.mean, verdict.decimals)
    interval = show_verdict_interval(verdict)
    return mean if interval == prose.DASH else f"{mean} {interval}"


def show_verdict_interval(verdict: Verdict) -> str:
    return prose.show_interval(verdict, verdict.decimals)


def show_range(verdict: Verdict) -> str:
    """Between −0.090 and +0.080."""
    if not math.isfinite(verdict.low):
        return f"{prose.show_signed(verdict.mean, verdict.decimals)}, without an interval"
    low, high = (
        prose.show_signed(x, prose.count_digits(x, verdict.decimals, verdict.marks))
        for x in (verdict.low, verdict.high)
    )
    if not verdict.high > verdict.low:
        return f"{low}, without spread to judge it by"
    return f"between {low} and {high}" if low != high else f"{low} to all printed digits"


def describe_verdict(verdict: Verdict) -> str:
    """One verdict with its numbers."""
    delta = prose.show_delta(verdict.metric.delta)
    if verdict.verdict == DIFFERS:
        word = verdict.direction if verdict.matters else f"{LESS} ({delta})"
        return f"{word}: {show_shift(verdict)}"
    if verdict.verdict == NO_DIFFERENCE:
        return f"{NO_DIFFERENCE} ({delta}): {show_shift(verdict)}"
    if verdict.verdict == IDENTICAL:
        return IDENTICAL
    if verdict.verdict == COLLAPSED and verdict.collapse:
        return f"{COLLAPSED} {describe_collapse(verdict.collapse)}"
    alone = {IMAGES_ALONE: f" ({IMAGES_ALONE}, one training)", UNTRAINED: f" ({UNTRAINED})"}
    settle = describe_settling([verdict])
    text = f"{verdict.verdict}: {show_range(verdict)}{alone.get(verdict.rule, '')}"
    return f"{text}; {settle}" if settle else text


def describe_collapse(collapse: Collapse) -> str:
    """In 1 of 3 seeds (seed 2; 95 %: .01 to .91 of trainings)."""
    seeds = "seeds" if len(collapse.seeds) > 1 else "seed"
    named = prose.join([str(seed) for seed in collapse.seeds])
    share = f"{prose.show(collapse.low, 2)} to {prose.show(collapse.high, 2)} of trainings"
    of = prose.count(collapse.of, "seed")
    return f"in {len(collapse.seeds)} of {of} ({seeds} {named}; 95 %: {share})"


def describe_bound(verdicts: Sequence[Verdict]) -> str:
    """The largest difference that any of these leaves open, rounded up; "" without intervals."""
    bounds = [v.bound for v in verdicts if math.isfinite(v.bound)]
    if not bounds:
        return ""
    digits, delta = verdicts[0].decimals, verdicts[0].metric.delta
    text = prose.show_up(max(bounds), digits)
    for more in range(1, 5):  # What is less than matters does not read as δ
        if delta is None or max(bounds) >= delta or float(text) < delta:
            break
        text = prose.show_up(max(bounds), digits + more)
    return text


def describe_settling(verdicts: Sequence[Verdict]) -> str:
    """What would settle all of these that are open; "" where nothing says."""
    ways = [verdict.settle for verdict in verdicts if verdict.settle]
    if not ways:
        return ""
    seeds = _largest([way.seeds for way in ways], MOST_SEEDS)
    prompts = _largest([way.prompts for way in ways], MOST_PROMPTS)
    parts = [prose.count(seeds, "more seed")] if seeds else []
    parts += [prose.count(prompts, "more prompt")] if prompts else []
    what = "it" if len(verdicts) == 1 else "each of them"
    if not parts:
        both = _largest([way.best_seeds for way in ways], MOST_SEEDS)
        more = _largest([way.best_prompts for way in ways], MOST_PROMPTS)
        if not both or not more:
            few = f"{MOST_SEEDS} more seeds nor {MOST_PROMPTS:,} more prompts"
            return f"neither {few} alone would settle {what}"
        together = f"{prose.count(both, 'more seed')} with {prose.count(more, 'more prompt')}"
        return f"about {together} would probably settle {what}"
    return f"about {' or '.join(parts)} would probably settle {what}"


def _largest(counts: Sequence[int | None], most: int) -> int | None:
    """The largest, None where one is unknown or beyond ``most``."""
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or max(known) > most:
        return None
    return max(known)


def count_conclusive(verdicts: Sequence[Verdict]) -> str:
    """2 of 4."""
    return f"{sum(verdict.conclusive for verdict in verdicts)} of {len(verdicts)}"
