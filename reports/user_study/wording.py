"""The analysis of a study in words and tables."""

from __future__ import annotations

import math
from typing import Any

from reports.tables import Table, number, signed
from reports.user_study.analysis import ALPHA, Analysis, Of
from reports.user_study.measures import Mean, Share

__all__ = ["conclusion", "facts", "item_table", "preference_table", "rating_table", "rule", "warning"]

FEW = 5  # participants: below, an analysis warns


def percent(share: float) -> str:
    return number(100 * share, 1)


def _span(estimate: Share | Mean, show: Any) -> str:
    return f"[{show(estimate.low)}, {show(estimate.high)}]" if math.isfinite(estimate.low) else "–"


def conclusion(found: Analysis) -> str:
    """One sentence a question: which cell is preferred, if the clustered interval leaves out one half, and how ratings differ."""
    return " ".join(_conclusion(found, of) for of in found.questions)


def _conclusion(found: Analysis, of: Of) -> str:
    key = found.gathered.key
    asked = f"“{key.questions[of.question]}”"
    if of.preference is None:
        return f"{asked} All {of.answers} answers were “no difference”."
    lead = 0 if of.preference.share >= 0.5 else 1
    share = of.preference.share if lead == 0 else 1 - of.preference.share
    bounds = (of.preference.low, of.preference.high) if lead == 0 else (1 - of.preference.high, 1 - of.preference.low)
    between = f" (95 % interval {percent(bounds[0])} to {percent(bounds[1])})" if math.isfinite(bounds[0]) else ""
    counted = f"{percent(share)} % of the {sum(of.chosen)} answers that choose{between}"
    undecided = f"; {of.undecided} of {of.answers} say “no difference”."
    if of.clear:
        return f"{asked} {key.cells[lead]} is preferred to {key.cells[1 - lead]} in {counted}{undecided}"
    holds = of.preference.low <= 0.5 <= of.preference.high
    why = "an interval that holds one half" if holds else "with too few participants or items to tell chance apart"
    return f"{asked} No preference can be claimed: {key.cells[lead]} has {counted}, {why}{undecided}"


def warning(found: Analysis) -> str:
    people = len(found.gathered.participants)
    if people >= FEW:
        return ""
    counted = f"only {people} participants" if people > 1 else "only one participant"
    return f"{counted}: too few to show how people differ, so that every number here is provisional. Ask at least {FEW}, better 20 or more."


def rule(found: Analysis) -> str:
    """Which interval to quote, and why."""
    of = found.questions[0]
    worth = ""
    if of.preference is not None and of.preference.effective < of.preference.n - 0.5:
        worth = f" The {of.preference.n} answers that choose are worth about {number(of.preference.effective, 0)} independent ones."
    return (
        "Quote the clustered interval. Answers of one person resemble each other, and so do answers to one item; it follows from 4,000 "
        "bootstrap samples that draw both anew, and says how far the result would hold for other people and other prompts. Wilson's "
        "interval and the binomial test take all answers as independent: with more than one answer a person they are too sure of "
        f"themselves.{worth} A preference is claimed only where the clustered interval leaves out one half and the sign-flip tests over "
        "the mean answers of people and of items both give p < .05, which takes six or more of each. “No difference” is left out of a "
        "share; in the line below it counts as half an answer for each cell."
    )


def facts(found: Analysis) -> list[tuple[str, str]]:
    """What else a reader must know, as name and text."""
    gathered, key = found.gathered, found.gathered.key
    told = [
        ("Study", f"{key.study}, of the sweep {key.sweep}: {key.cells[0]} (left=) against {key.cells[1]} (right=)"),
        ("Participants", f"{len(gathered.participants)} counted; {key.screens} questions each, in {found.minutes:.1f} min (median)"),
        ("Items", _drawn(key.counts)),
    ]
    for of in found.questions:
        name = "Text question" if of.question == "text" else "Mask question"
        people = f"{of.people[0]} participants lean to {key.cells[0]}, {of.people[1]} to {key.cells[1]}, {of.people[2]} to neither"
        told.append((name, f"{people}; median {of.seconds:.1f} s a question"))
        if of.left_side is not None and of.side_p is not None:
            biased = " Sides are drawn anew for each participant: that favours no cell, but hides what differs."
            share = f"{percent(of.left_side.share)} % {_span(of.left_side, percent)} of choices fell on the image that stood left"
            told.append((f"Sides, {of.question}", f"{share} (p = {_p(of.side_p)} as if independent).{biased if of.side_p < ALPHA else ''}"))
    told.append(("Attention", _attention(found)))
    if gathered.left_out:
        told.append(("Left out", "; ".join(f"{name}: {why}" for name, why in gathered.left_out)))
    if gathered.notes:
        told.append(("Counted", "; ".join(f"{name}: {why}" for name, why in gathered.notes)))
    return told


def _drawn(counts: dict[str, int]) -> str:
    text = f"{counts['pairs']} pairs, drawn at random from the {counts['common']} that both cells kept"
    return text + (f"; {counts['identical']} that were equal in every pixel were left out" if counts["identical"] else "")


def _attention(found: Analysis) -> str:
    attention = found.attention
    if not attention.asked:
        return "no checks were asked"
    if not attention.failed:
        return f"all {attention.asked} checks passed"
    who = ", ".join(name[:8] for name in attention.who)
    text = f"{attention.failed} of {attention.asked} checks failed, by {len(attention.who)} of the participants counted ({who})"
    if not found.attentive or found.attentive[0].preference is None:
        return text
    without = found.attentive[0].preference
    return f"{text}; without them {found.gathered.key.cells[0]} has {percent(without.share)} % {_span(without, percent)}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


# ---- tables


def preference_table(found: Analysis) -> Table:
    first, second = found.gathered.key.cells
    rows = []
    for of in found.questions:
        name = "Text" if of.question == "text" else "Mask"
        for label, share in ((name, of.preference), (f"{name}, no difference halved", of.halved)):
            if share is None:
                rows.append([label, *["–"] * 7])
                continue
            counts = f"{of.chosen[0]} / {of.chosen[1]} / {of.undecided}"
            wilson = f"[{percent(share.wilson[0])}, {percent(share.wilson[1])}]"
            tests = ["–"] * 3 if share is of.halved else [_p(of.people_p), _p(of.items_p), _p(of.binomial_p)]
            rows.append([label, counts, percent(share.share), _span(share, percent), wilson, *tests])
    return Table(
        f"Preference: share of answers for {first} against {second}, in per cent. Answers: for {first} / for {second} / no difference.",
        ["Question", "Answers", "Share", "Clustered 95 %", "Wilson 95 %", "p, people", "p, items", "p, binomial"],
        rows,
    )


def rating_table(found: Analysis) -> Table:
    first, second = found.gathered.key.cells

    def shown(mean: Mean, show: Any) -> str:
        return f"{show(mean.mean, 2)} {_span(mean, lambda bound: show(bound, 2))}"

    rows = []
    for of in found.questions:
        means = [shown(of.ratings[0], number), shown(of.ratings[1], number), shown(of.difference, signed)]
        agreement = [number(of.alpha_choice, 2), number(of.alpha_rating, 2)]
        rows.append(["Text" if of.question == "text" else "Mask", *means, *agreement])
    return Table(
        "Ratings from 1 to 5: means and paired difference with clustered 95 % intervals; agreement is Krippendorff's alpha of choices "
        "(nominal) and of ratings (ordinal), 1 full, 0 as by chance.",
        ["Question", first, second, "Difference", "α, choices", "α, ratings"],
        rows,
    )


def item_table(found: Analysis) -> Table:
    first, second = found.gathered.key.cells
    rows = []
    for row in found.rows:
        counts = f"{row.chosen[0]} / {row.chosen[1]} / {row.undecided}"
        rows.append([row.prompt, row.question, counts, *(number(rating, 2) for rating in row.ratings)])
    title = f"Item by item: answers for {first} / for {second} / no difference, and mean ratings."
    return Table(title, ["Prompt", "Question", "Answers", first, second], rows)
