"""How an answer was decided: what intervals speak of, what they suppose, and how often they err."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports import prose
from reports.answer.limits import warn_of_limits
from reports.answer.looks import state_looks
from reports.answer.words import count_conclusive
from reports.results import SweepResults
from reports.statistics import DIFFERS, NO_DIFFERENCE, OPEN
from reports.tables import CellMetric, verdicts_of
from reports.verdicts import IMAGES_ALONE, UNTRAINED, MetricVerdicts

__all__ = ["state_rule"]

CLUSTERS = (
    "the interval is of images: prompts are clusters with their noises, of all seeds, within. It "
    "is the t-interval of the prompts' mean differences and speaks of other prompts drawn like "
    "these and other noise"
)


def state_rule(results: SweepResults, entries: Sequence[CellMetric]) -> tuple[str, ...]:
    """Paragraphs on the headline's answer, and on metrics that are judged otherwise."""
    headline = verdicts_of(entries, results.headline)
    parts = [_state_words(results, headline)]
    if headline.apart and not _is_of_images_alone(headline):
        parts += [_state_apart(results, headline), _state_reach(headline)]
    elif headline.by_images:
        parts += [_state_pooled(results, headline), _state_reach(headline)]
    else:
        parts.append(_state_seeds(results, headline))
    parts += [_state_primary(results), state_looks(results.tags)]
    parts.append(_state_others(results, entries))
    parts += warn_of_limits(results, headline)
    return tuple(part for part in parts if part)


def _state_words(results: SweepResults, verdicts: MetricVerdicts) -> str:
    metric, noun = results.headline, results.noun
    name = prose.lower(metric.label)
    conclusive = ""
    if verdicts.levels:
        count = count_conclusive(verdicts.levels)
        conclusive = f" Conclusive, one of the first two: {count} {noun}s."
    if metric.delta is None:
        what = (
            f"For {name} no difference is fixed as one that matters, so that a {noun} {DIFFERS} "
            f"where its interval excludes 0 and is {OPEN} else; how large a difference may be at "
            "most is said."
        )
    else:
        what = (
            f"A difference in {name} matters from {prose.show_delta(metric.delta)}"
            f"{metric.in_parentheses} on. A {noun} {DIFFERS} from the control where its interval "
            f"excludes 0 (by less than matters where it lies inside of ±{metric.delta:g}); there "
            f"is {NO_DIFFERENCE} where else the interval lies inside of "
            f"±{metric.delta:g}; all else is {OPEN}."
        )
    limits = (
        " Nothing is claimed by an interval without width, nor of a difference below half a "
        "printed digit. What a sentence calls the most that something changes is rounded up."
    )
    return what + limits + conclusive


def _state_primary(results: SweepResults) -> str:
    primary = next((cell for cell in results.cells if cell.name == results.primary), None)
    if primary is None:
        return ""
    return (
        f"The comparison at {prose.name_cell(results, primary)} was fixed as the primary one "
        "before any trial had finished: its interval is that of a single comparison. All others "
        "are secondary; theirs hold for all at once."
    )


def _state_pooled(results: SweepResults, verdicts: MetricVerdicts) -> str:
    """The rule by images, with the numbers of this sweep."""
    rules = _list_rules(verdicts)
    if rules == {UNTRAINED}:
        return _state_untrained(results, verdicts) + _describe_settling(verdicts)
    mixed = f" {_state_some_untrained(results, verdicts)}" if UNTRAINED in rules else ""
    if _is_of_images_alone(verdicts):
        return _state_images_alone(results, verdicts) + mixed
    pooled, table, noun = verdicts.pooled, verdicts.table, results.noun
    assert pooled is not None and table is not None
    family = _describe_family(results, verdicts)
    text = (
        f"Every {noun} is compared with the control {noun} ({prose.name_control(results)}) image "
        "by image, the same prompt of the same seed on both sides, over "
        f"{prose.count(len(table.prompts), 'prompt')} a seed (a prompt's noises averaged). How far "
        "trainings scatter beyond what their images alone would give is "
        f"one factor that all {noun}s tell together, the pooled design effect F"
    )
    f = pooled.design_effect
    if math.isfinite(f):
        text += f" = {prose.show(f, 2)} here"
        if pooled.df[0]:
            text += (
                f" (from {len(pooled.pool)} cells and {len(pooled.seeds)} seeds, the larger of two "
                "estimates: of all cells, and of their differences from the control)"
            )
    text += (
        f"; a {noun} that scatters more counts more, none less. The variance of a comparison is "
        "its image noise times this factor, plus how differently prompts respond; the interval has "
        "Dunnett's quantile and is never narrower than prompts and images alone make it: "
        f"{family}.{_describe_values(verdicts)}"
    )
    return f"{text}{mixed}{_describe_settling(verdicts)}"


def _describe_settling(verdicts: MetricVerdicts) -> str:
    if not any(v.settle for v in (*verdicts.levels, *verdicts.untouched)):
        return ""
    return (
        " What would settle an open comparison is reckoned from the mean and variances seen, "
        "for a chance of 80 %; in simulated sweeps of 3 seeds and 60 prompts that much settled "
        "54 to 81 %."
    )


def _state_apart(results: SweepResults, verdicts: MetricVerdicts) -> str:
    """The rule by images, where each control's cells have prompts of their own."""
    noun = results.noun
    factor = next(f for f in results.factors if f.key == results.within)
    counts = sorted({len(part.table.prompts) for part in verdicts.apart if part.table})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return (
        f"Every {noun} is compared with the control {noun} of the same {prose.lower(factor.label)} "
        "image by image, the same prompt of the same seed on both sides, over "
        f"{many} prompts a seed (a prompt's noises averaged). Levels of "
        f"{prose.lower(factor.label)} have prompts of their own, and may share trainings, so that "
        "each is judged by itself: the variance of a comparison is its image noise times the "
        "factor by which trainings of that level scatter beyond their images, with the degrees of "
        "freedom of that level's seeds, plus how differently prompts respond. The interval is "
        "never narrower than prompts and images alone make it: "
        f"{_describe_family(results, verdicts)}.{_describe_values(verdicts)}"
        f"{_describe_settling(verdicts)}"
    )


def _describe_values(verdicts: MetricVerdicts) -> str:
    """What an image's value is, where that is not plain."""
    table, text = verdicts.parts[0].table, ""
    assert table is not None
    if table.metric.weight:
        text += (
            f" {table.metric.label} is a mean weighted by {table.metric.weight}, a ratio of sums: "
            "an image's share in it is linearised, which is right to first order."
        )
    if table.binary:
        text += (
            " To the noise of images that are right or wrong two imaginary ones are added, one of "
            "which flips: that no image differs is no certainty."
        )
    return text


def _list_rules(verdicts: MetricVerdicts) -> set[str]:
    return {verdict.rule for verdict in (*verdicts.levels, *verdicts.untouched)}


def _is_of_images_alone(verdicts: MetricVerdicts) -> bool:
    """Whether nothing tells how trainings scatter, where any are compared."""
    return _list_rules(verdicts) in ({IMAGES_ALONE}, {IMAGES_ALONE, UNTRAINED})


def _state_untrained(results: SweepResults, verdicts: MetricVerdicts) -> str:
    table, noun = verdicts.parts[0].table, results.noun
    assert table is not None
    return (
        f"Nothing is trained for any {noun}, so that there are no trainings that could scatter: "
        f"every {noun} is compared with the control {noun} ({prose.name_control(results)}) image "
        f"by image, over {prose.count(len(table.prompts), 'prompt')}, and {CLUSTERS}, with "
        f"Dunnett's quantile: {_describe_family(results, verdicts)}."
        f"{_describe_values(verdicts)}"
    )


def _state_some_untrained(results: SweepResults, verdicts: MetricVerdicts) -> str:
    """Of comparisons without a training beside others."""
    own = {v.cell for v in (*verdicts.levels, *verdicts.untouched) if v.rule == UNTRAINED}
    names = [prose.name_cell(results, cell) for cell in results.cells if cell.name in own]
    return (
        f"At {prose.join_some(names, 6)} neither side trains anything: these stand outside of "
        f"what is said of trainings, and {CLUSTERS}, in the same family."
    )


def _state_images_alone(results: SweepResults, verdicts: MetricVerdicts) -> str:
    table, noun = verdicts.parts[0].table, results.noun
    assert table is not None
    return (
        f"Every {noun} is compared with the control {noun} ({prose.name_control(results)}) image "
        f"by image, over {prose.count(len(table.prompts), 'prompt')} of the one seed that both "
        "have (a prompt's noises averaged). One training cannot tell how far trainings "
        "scatter: the interval is of image noise alone, with Dunnett's quantile for all at once, "
        "speaks of other prompts drawn like these for these very trainings, and decides nothing. "
        f"Two seeds are the fewest that can.{_describe_values(verdicts)}"
    )


def _describe_family(results: SweepResults, verdicts: MetricVerdicts) -> str:
    count, noun = len(verdicts.levels), results.noun
    hold = f"to hold in {prose.show_level(results.level)} % of sweeps"
    of_levels = f"all {count} {noun}s at once are {hold}"
    if count == 1:
        of_levels = f"it is {hold}"
    if len(results.controls) > 1:
        of_levels += " (one family over all controls, taken as independent)"
    if verdicts.untouched:
        many = len(verdicts.untouched)
        of_levels += "; the untouched backbone, which no training scatters, stands outside and is "
        of_levels += "compared with the control in a family of its own"
        of_levels += f", of {many}" if many > 1 else ""
    return of_levels


def _state_reach(verdicts: MetricVerdicts) -> str:
    if _is_of_images_alone(verdicts) or _list_rules(verdicts) == {UNTRAINED}:
        return ""
    table = verdicts.parts[0].table
    assert table is not None
    prompts = "other prompts drawn like these and other seeds"
    own = "Each seed has prompts of its own." if table.own_prompts else "Seeds share their prompts."
    supposed = (
        "a cell's trainings scatter, relative to its images, as the pool's do or more, and that"
    )
    if verdicts.apart:
        supposed = "differences of trainings and"
    text = (
        f"Intervals by images speak of {prompts}, of the same data, backbone and settings, and not "
        f"of others. {own} It is supposed that {supposed} means over images are near normal. "
    )
    if not verdicts.apart:  # Simulated of pooled scatter alone
        text += (
            "In simulated sweeps (500 to 4,000 a scenario, 5 % aimed at) at least one interval "
            "missed its true value in 5 % or fewer; in 8 to 11 % where one cell alone was wild, "
            "and in 11 to 39 % where trainings collapsed in 15 % of seeds (t-intervals over seeds: "
            "7 to 30 % there). "
        )
    return text + (
        "What a collapse of some seeds looks like is an outcome of its own: a seed worse than the "
        "control by five standard errors of its images, in a cell whose seeds scatter more than "
        "their images explain."
    )


def _state_seeds(results: SweepResults, verdicts: MetricVerdicts) -> str:
    noun, widened = results.noun, ""
    count = len(verdicts.levels)
    if count > 1:
        each = prose.show(100 * (1 - (1 - results.level) / count), 2).rstrip("0").rstrip(".")
        bonferroni = f"(Bonferroni: {each} % each)"
        widened = f", widened to hold for all {count} comparisons at once {bonferroni}"
    text = (
        f"Every {noun} is compared with the control {noun} ({prose.name_control(results)}) on "
        f"{prose.lower(results.headline.label)} by its differences seed by seed: the t-interval of "
        f"that difference{widened}. Images could not be used: {verdicts.why}. So the intervals "
        "speak of these prompts only, suppose that seeds' differences are near normal, and "
        "have one degree of freedom less than there are seeds."
    )
    if verdicts.untouched:
        many = len(verdicts.untouched)
        how = f"by one {prose.show_level(results.level)} % interval"
        if many > 1:
            how = f"by {many} intervals that are widened to hold at once"
        text += f" The control {noun} is compared with the untouched backbone {how}."
    return text


def _state_others(results: SweepResults, entries: Sequence[CellMetric]) -> str:
    """Which metrics are judged otherwise than the headline."""
    reasons: dict[str, list[str]] = {}
    for metric in results.metrics:
        verdicts = verdicts_of(entries, metric)
        if metric.key != results.headline.key and verdicts.why and verdicts.levels:
            reasons.setdefault(verdicts.why, []).append(prose.lower(metric.label))
    each = "Each metric is a family of its own; metrics are not adjusted for each other."
    if len(results.metrics) == 1:
        return ""
    if not reasons:
        return each
    listed = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    text = (
        f"{each} By t-intervals over seeds (Bonferroni) instead of images go: {listed}. They "
        "suppose that seeds' differences are near normal and, where seeds share their prompts, "
        "speak of these prompts only."
    )
    if any(e.verdict and e.verdict.alike for e in entries):
        text += (
            " Beside these stands, where all cells share seeds, an interval with pooled error that "
            "supposes that cells scatter alike, which these values cannot show; it claims nothing."
        )
    return text
