"""The analysis of a study in words and tables."""

from __future__ import annotations

import math

from reports import prose
from reports.statistics import ClusteredMean, ClusteredShare
from reports.tables import Table
from reports.user_study.analysis import ALPHA, Analysis, QuestionResult

__all__ = [
    "conclude_study",
    "item_table",
    "list_facts",
    "preference_table",
    "rating_table",
    "state_rule",
    "warn",
]

FEW = 5  # Participants: below, an analysis warns
NAMES = {"text": "Text", "mask": "Mask"}


def percent(share: float, digits: int = 1) -> str:
    return prose.show(100 * share, digits)


def _interval(estimate: ClusteredShare | ClusteredMean) -> str:
    if isinstance(estimate, ClusteredShare):
        return prose.show_interval(estimate, 1, percent)
    return prose.show_interval(estimate, 2, prose.show)


def conclude_study(analysis: Analysis) -> str:
    """One sentence a question: which cell is preferred, if that can be claimed."""
    return " ".join(_conclude(analysis, result) for result in analysis.questions)


def _conclude(analysis: Analysis, result: QuestionResult) -> str:
    key, share = analysis.responses.key, result.preference
    asked = f"“{key.questions[result.question]}”"
    if share is None:
        n = result.answers
        every = f"All {n} answers were" if n > 1 else "The only answer was"
        return f"{asked} {every} “no difference”."
    is_left = share.share >= 0.5
    cell, other = key.cells if is_left else key.cells[::-1]
    value = share.share if is_left else 1 - share.share
    low, high = (share.low, share.high) if is_left else (1 - share.high, 1 - share.low)
    between = f" (95 % interval {percent(low)} to {percent(high)})" if math.isfinite(low) else ""
    answers = prose.count(sum(result.chosen), "answer")
    count = f"{percent(value)} % of the {answers} with a choice{between}"
    undecided = f"; {result.undecided} of {result.answers} say “no difference”."
    if result.is_clear:
        return f"{asked} {cell} is preferred to {other} in {count}{undecided}"
    why = "with too few participants or items to tell chance apart"
    if share.low <= 0.5 <= share.high:
        why = "an interval that holds one half"
    return f"{asked} No preference can be claimed: {cell} has {count}, {why}{undecided}"


def warn(analysis: Analysis) -> str:
    people = len(analysis.responses.participants)
    if people >= FEW:
        return ""
    count = f"only {people} participants" if people > 1 else "only one participant"
    return (
        f"{count}: too few to show how people differ, so that every number here is provisional. "
        f"Ask at least {FEW}, better 20 or more."
    )


def state_rule(analysis: Analysis) -> str:
    """Which interval to quote, and why."""
    share, worth = analysis.questions[0].preference, ""
    if share is not None and share.effective < share.n - 0.5:
        independent = f"{prose.show(share.effective, 0)} independent ones"
        worth = f" The {share.n} answers that choose are worth about {independent}."
    return (
        "Quote the clustered interval. Answers of one person resemble each other, and so do "
        "answers to one item; it follows from 4,000 bootstrap samples that draw both again, and "
        "says how far the result would hold for other people and other prompts. Wilson's interval "
        "and the binomial test take all answers as independent: with more than one answer a person "
        f"they are too sure of themselves.{worth} A preference is claimed only where the clustered "
        "interval leaves out one half and the sign-flip tests over the mean answers of people and "
        "of items both give p < .05, which takes six or more of each. “No difference” is left out "
        "of a share; in the line below it counts as half an answer for each cell."
    )


def list_facts(analysis: Analysis) -> list[tuple[str, str]]:
    """What else a reader must know, as name and text."""
    responses, key = analysis.responses, analysis.responses.key
    first, second = key.cells
    study = f"{key.study}, of the sweep {key.sweep}: {first} (left=) against {second} (right=)"
    time = f"{prose.count(key.screens, 'question')} each, in {analysis.minutes:.1f} min (median)"
    common, identical = key.counts["common"], key.counts["identical"]
    pairs = prose.count(key.counts["pairs"], "pair")
    drawn = f"{pairs}, drawn at random from the {common} that both cells kept"
    if identical:
        drawn += f"; {identical} left out, equal in every pixel"
    facts = [
        ("Study", study),
        ("Participants", f"{len(responses.participants)} counted; {time}"),
        ("Items", drawn),
    ]
    for result in analysis.questions:
        left, right, neither = result.people
        people = prose.count(left, "participant")
        lean = f"{people} leaning to {first}, {right} to {second}, {neither} to neither"
        name = f"{NAMES[result.question]} question"
        facts.append((name, f"{lean}; median {result.seconds:.1f} s a question"))
        side, p = result.left_side, result.side_p
        if side is not None and p is not None:
            share = f"{percent(side.share)} % {_interval(side)} of choices"
            text = f"{share} fell on the image that stood left (p = {_p(p)} as if independent)."
            if p < ALPHA:
                text += " Sides are drawn for each participant: that favours no cell, but hides "
                text += "what differs."
            facts.append((f"Sides, {result.question}", text))
    facts.append(("Attention", _describe_attention(analysis)))
    for name, files in (("Left out", responses.left_out), ("Counted", responses.notes)):
        if files:
            facts.append((name, "; ".join(f"{file}: {why}" for file, why in files)))
    return facts


def _describe_attention(analysis: Analysis) -> str:
    attention = analysis.attention
    if not attention.asked:
        return "no checks were asked"
    if not attention.failed:
        return f"{prose.count(attention.asked, 'check')}, all passed"
    who = ", ".join(name[:8] for name in attention.who)
    text = (
        f"{attention.failed} of {prose.count(attention.asked, 'check')} failed, by "
        f"{len(attention.who)} of the "
        f"participants counted ({who})"
    )
    share = analysis.attentive[0].preference if analysis.attentive else None
    if share is None:
        return text
    cell = analysis.responses.key.cells[0]
    return f"{text}; without them {cell} has {percent(share.share)} % {_interval(share)}"


def _p(value: float | None) -> str:
    return prose.DASH if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


# ---- Tables


def _count_choices(chosen: tuple[int, int], undecided: int) -> str:
    return f"{chosen[0]} / {chosen[1]} / {undecided}"


def preference_table(analysis: Analysis) -> Table:
    first, second = analysis.responses.key.cells
    rows = []
    for result in analysis.questions:
        name, counts = NAMES[result.question], _count_choices(result.chosen, result.undecided)
        tests = [_p(result.people_p), _p(result.items_p), _p(result.binomial_p)]
        for label, share, p_values in (
            (name, result.preference, tests),
            (f"{name}, no difference halved", result.halved, [prose.DASH] * 3),
        ):
            if share is None:
                rows.append([label, *[prose.DASH] * 7])
                continue
            low, high = share.wilson
            wilson = f"[{percent(low)}, {percent(high)}]"
            shown = [percent(share.share), _interval(share), wilson]
            rows.append([label, counts, *shown, *p_values])
    title = (
        f"Preference: share of answers for {first} against {second}, in per cent. Answers: for "
        f"{first} / for {second} / no difference."
    )
    columns = ["Question", "Answers", "Share", "Clustered 95 %", "Wilson 95 %"]
    return Table(title, [*columns, "p, people", "p, items", "p, binomial"], rows)


def rating_table(analysis: Analysis) -> Table:
    rows = []
    for result in analysis.questions:
        means = [f"{prose.show(mean.mean, 2)} {_interval(mean)}" for mean in result.ratings]
        shift = f"{prose.show_signed(result.difference.mean, 2)} "
        shift += prose.show_interval(result.difference, 2)
        alphas = [prose.show(a, 2) for a in (result.alpha_choice, result.alpha_rating)]
        rows.append([NAMES[result.question], *means, shift, *alphas])
    title = (
        "Ratings from 1 to 5: means and paired difference with clustered 95 % intervals; agreement "
        "is Krippendorff's alpha of choices (nominal) and of ratings (ordinal), 1 full, 0 as by "
        "chance."
    )
    cells = analysis.responses.key.cells
    return Table(title, ["Question", *cells, "Difference", "α, choices", "α, ratings"], rows)


def item_table(analysis: Analysis) -> Table:
    cells = first, second = analysis.responses.key.cells
    rows = []
    for item in analysis.items:
        counts = _count_choices(item.chosen, item.undecided)
        ratings = [prose.show(rating, 2) for rating in item.ratings]
        rows.append([item.prompt, item.question, counts, *ratings])
    title = f"Item by item: answers for {first} / for {second} / no difference, and mean ratings."
    return Table(title, ["Prompt", "Question", "Answers", *cells], rows)
