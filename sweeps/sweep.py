"""What a sweep is: a question, factors with levels, the control cell, and what is measured.

Cells are all combinations of the levels except those that a sweep leaves out. The untouched
backbone is added to every sweep as a cell of its own, so that every table says what the method
brings at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

from conf.describe import nearest
from conf.spec import Metric
from conf.values import Misread, Written, read

__all__ = [
    "UNTOUCHED",
    "UNTOUCHED_METHOD",
    "Cell",
    "Factor",
    "Metric",
    "Sweep",
    "level_text",
    "short_names",
    "trial_folder",
]

UNTOUCHED = "untouched backbone"  # Name of the cell
UNTOUCHED_METHOD = "untouched"
UNTOUCHED_SETTINGS = {"method.name": UNTOUCHED_METHOD}
Levels = Mapping[str, Any]  # Factor key -> level


@dataclass(frozen=True)
class Factor:
    """A setting that a sweep varies: ``key`` is its dotted name in the config, ``levels`` its
    values.

    ``when="evaluate"`` changes the setting only after training, so that all levels share one
    trained adapter. With ``settings`` a level is a name for several dotted settings at once (a
    method with its recipe), and ``key`` only names the factor. Raises ValueError.
    """

    key: str
    levels: Sequence[Any]
    when: str = "train"
    label: str | None = None  # For axes and tables; default: the last part of the key
    unit: str = ""
    settings: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.levels, str | Mapping) or not isinstance(self.levels, Iterable):
            raise ValueError(f"factor {self.key}: levels={self.levels!r}; expected a list")
        object.__setattr__(self, "levels", tuple(self.levels))
        for level in self.levels if self.settings else ():
            if level not in self.settings:
                known = ", ".join(map(level_text, self.settings))
                raise ValueError(
                    f"factor {self.key}: no settings for the level {level_text(level)}; "
                    f"there are those of {known}"
                )
        texts = [level_text(level) for level in self.levels]
        if not texts or len(set(texts)) < len(texts):
            listed = ", ".join(texts) or "(none)"
            raise ValueError(f"factor {self.key}: levels {listed}; give one or more, each once")
        if self.when not in ("train", "evaluate"):
            raise ValueError(
                f"factor {self.key}: when={self.when!r}; expected 'train' or 'evaluate'"
            )

    def settings_of(self, level: Any) -> dict[str, Any]:
        """Dotted settings of a level."""
        return dict(self.settings[level]) if self.settings else {self.key: level}

    def read_level(self, text: str) -> Any:
        """The level of that name, or of a numeric factor any number. Raises ValueError."""
        known = {level_text(level): level for level in self.levels}
        if text in known:
            return known[text]
        try:
            if self.numeric:
                return read(int | float, Written(text))
        except Misread:
            pass
        near = nearest(text, known)
        expected = "a number" if self.numeric else f"one of {', '.join(known)}{near}"
        raise ValueError(f"{text}; expected {expected}")

    @property
    def numeric(self) -> bool:
        """True if all levels are numbers."""
        return all(
            isinstance(level, int | float) and not isinstance(level, bool) for level in self.levels
        )

    def describe(self) -> dict[str, Any]:
        """What the report needs to know. A level that is a list is given as in the cells' names."""
        return {
            "key": self.key,
            "label": self.label or self.key.rpartition(".")[2].replace("_", " "),
            "levels": [
                level_text(level) if isinstance(level, list | tuple) else level
                for level in self.levels
            ],
            "unit": self.unit,
            "numeric": self.numeric,
            "when": self.when,
        }


@dataclass(frozen=True)
class Cell:
    """One level of each factor (``values``), or the untouched backbone. ``text`` is its name."""

    text: str
    values: Levels
    control: bool = False  # The others are compared with it
    untouched: bool = False  # The untouched backbone, if that is not the control
    training: Mapping[str, Any] = field(default_factory=dict)  # Settings of training and evaluation
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # Settings changed after training

    def folder(self, seed: int) -> str:
        """Name of a trial's folder."""
        return trial_folder(self.text, seed)


def trial_folder(cell: str, seed: int) -> str:
    """Name of a trial's folder; a digest tells apart levels that differ in odd characters."""
    plain = cell.replace(", ", ",")
    name = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", plain)
    if name != plain and cell != UNTOUCHED:
        name += "-" + hashlib.sha256(plain.encode()).hexdigest()[:6]
    return f"{name}-seed{seed}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole ablation. Raises ValueError if its parts do not fit together."""

    name: str  # Of the module, the MLflow experiment and the folder below the output
    question: str
    origin: str  # Of the question: paper, section or equation, or issue
    factors: Sequence[Factor]
    control: Levels = field(default_factory=dict)  # A level of each factor except ``within``
    metrics: Sequence[Metric]  # In the order of the tables
    headline: str  # Key of the metric that the answer is about
    preset: Mapping[str, Any] = field(default_factory=dict)  # Dotted settings, or groups
    published: Sequence[Mapping[str, Any]] = ()  # Numbers of the paper, with data, backbone and N
    without: Sequence[Levels] = ()  # No cell has all levels of one of these combinations
    also: Sequence[tuple[Levels, Mapping[str, Any]]] = ()  # Levels, and more settings of such cells
    within: str = ""  # Key of a factor: each level of it has its own control
    brief: str | Sequence[str] = "grid"  # What ``python -m sweeps all`` runs: a mode, or cells
    needs: str = ""  # What the embedded world does not have, in words; the sweep declines there
    instead: str = ""  # What the embedded world can show instead
    baseline: InitVar[Any] = None  # Former name of ``control``, refused

    def __post_init__(self, baseline: Any) -> None:
        if baseline is not None:
            raise ValueError(f"sweep {self.name}: baseline={baseline!r}: it is called control= now")
        try:
            _check_types(self)
            for name in ("factors", "metrics", "published", "without", "also"):
                object.__setattr__(self, name, tuple(getattr(self, name)))
            _check(self)
        except ValueError as error:
            raise ValueError(f"sweep {self.name}: {error}") from None

    @property
    def keys(self) -> list[str]:
        """The swept keys."""
        return [factor.key for factor in self.factors]

    @property
    def direction(self) -> str:
        """Whether "higher" or "lower" is better in the headline metric."""
        return self.better(self.headline)

    def better(self, metric: str) -> str:
        """Whether "higher" or "lower" is better in a metric, or "none"."""
        return next(known.better for known in self.metrics if known.key == metric)

    def combinations(self) -> list[dict[str, Any]]:
        """Factor key -> level of every cell that is not left out, in the order of the factors."""
        products = itertools.product(*(factor.levels for factor in self.factors))
        every = [dict(zip(self.keys, levels, strict=True)) for levels in products]
        return [values for values in every if not self.leaves_out(values)]

    def leaves_out(self, values: Levels) -> bool:
        """Whether there is no cell of these levels."""
        return any(_matches(combination, values) for combination in self.without)

    def cells(
        self, when: str = "train", mode: str = "grid", names: Sequence[str] = ()
    ) -> list[Cell]:
        """The untouched backbone, then every combination of levels that is not left out.

        ``when="evaluate"`` makes all factors act only after training. ``mode="one_factor"`` keeps
        the cells that differ from the control (of the same level of ``within``) in one factor,
        ``"list"`` those that ``names`` lists (so do a screen and a path), ``"search"`` only the
        control, which is always kept. Raises ValueError for a name that no cell has.
        """
        cells = [self.cell(values, when) for values in self.combinations()]
        if not any(_is_untouched(cell.training) for cell in cells):
            untouched = Cell(
                UNTOUCHED, UNTOUCHED_SETTINGS, untouched=True, training=UNTOUCHED_SETTINGS
            )
            cells = [untouched, *cells]
        known = [cell.text for cell in cells]
        named = mode in ("list", "screen", "path")
        if named and (unknown := [name for name in names if name not in known]):
            raise ValueError(
                f"cells={unknown[0]}: {self.name} has no cell of that name; "
                f"it has {'; '.join(known)}"
            )

        def selected(cell: Cell) -> bool:
            if mode == "one_factor":
                differing = (
                    level_text(cell.values[key]) != level_text(level)
                    for key, level in self.control.items()
                )
                return sum(differing) == 1
            return mode == "grid" or (named and cell.text in names)

        return [cell for cell in cells if cell.control or cell.untouched or selected(cell)]

    def cell(self, values: Levels, when: str = "train") -> Cell:
        """The cell with these levels, one for each factor."""
        names = short_names(self.keys)
        training: dict[str, Any] = {}
        evaluation: dict[str, Any] = {}
        for factor in self.factors:
            target = evaluation if "evaluate" in (when, factor.when) else training
            target.update(factor.settings_of(values[factor.key]))
        for combination, settings in self.also:
            if _matches(combination, values):
                (evaluation if when == "evaluate" else training).update(settings)
        is_control = _matches(self.control, values)
        return Cell(
            text=", ".join(f"{names[key]}={level_text(level)}" for key, level in values.items()),
            values=values,
            control=is_control,
            untouched=_is_untouched(training) and not is_control and not _draws_otherwise(training),
            training=training,
            evaluation=evaluation,
        )

    def control_of(self, cell: Cell, controls: Sequence[Cell]) -> Cell | None:
        """The one of ``controls`` that ``cell`` is compared with; None for a control itself, and
        for a cell of no level of ``within``."""
        if cell.control:
            return None
        within = self.within
        fitting = (c for c in controls if not within or c.values[within] == cell.values.get(within))
        return next(fitting, None)

    @property
    def main_factor(self) -> Factor:
        """The only factor, or the one ``within`` which the sweep compares. Raises ValueError."""
        if len(self.factors) > 1 and not self.within:
            raise ValueError(
                f"levels= replaces the levels of a single factor, "
                f"but {self.name} varies {', '.join(self.keys)}"
            )
        return next(factor for factor in self.factors if self.within in ("", factor.key))

    def with_levels(self, levels: Sequence[Any]) -> Sweep:
        """The same sweep over other levels of its ``main_factor``. The control's level is kept.
        Raises ValueError."""
        factor = self.main_factor
        levels = list(levels)
        if not self.within:
            control = self.control[factor.key]
            if level_text(control) not in map(level_text, levels):
                levels.insert(0, control)
        other = dataclasses.replace(factor, levels=levels)
        if other.numeric:
            other = dataclasses.replace(other, levels=sorted(levels))
        return dataclasses.replace(
            self, factors=[other if known is factor else known for known in self.factors]
        )

    def with_named(self, names: Sequence[str], word: str = "cells") -> Sweep:
        """The same sweep with the levels that the cells ``names`` have in addition: any number
        for a numeric factor. Raises ValueError, naming the ``word`` that asked, for a name that no
        cell can have."""
        factors = {factor.key: factor for factor in self.factors}
        keys = {name: key for key, name in short_names(self.keys).items()}
        existing = {cell.text for cell in self.cells()}
        for name in names:
            if name in existing:
                continue
            parts = [part.partition("=") for part in name.split(", ")]
            if [part[0] for part in parts] != list(keys):
                expected = ", ".join(f"{key}=…" for key in keys)
                raise ValueError(f"{word}={name}: expected {expected}, as --plan writes them")
            for short, _, text in parts:
                factor = factors[keys[short]]
                if text in map(level_text, factor.levels):
                    continue
                try:
                    level = factor.read_level(text)
                except ValueError as error:
                    raise ValueError(f"{word}={name}: {short}={error}") from None
                levels = sorted([*factor.levels, level])
                factors[factor.key] = dataclasses.replace(factor, levels=levels)
        return dataclasses.replace(self, factors=list(factors.values()))


def level_text(level: Any) -> str:
    """A level as in cell names: 0.5, true, null, mid, one+two for a list, none for an empty one."""
    if isinstance(level, list | tuple):
        return "+".join(map(level_text, level)) or "none"
    return level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))


# Field of a sweep -> what its parts are
PARTS = {"factors": Factor, "metrics": Metric, "published": Mapping, "without": Mapping}


def _check_types(sweep: Sweep) -> None:
    """Raises ValueError for a field of another type than it is declared with."""
    expected: list[tuple[str, type, str]] = [
        *((name, str, "text") for name in ("name", "question", "origin", "headline", "within")),
        *((name, str, "text") for name in ("needs", "instead")),
        *((name, Mapping, "a mapping {key: value}") for name in ("control", "preset")),
    ]
    for name, kind, words in expected:
        if not isinstance(value := getattr(sweep, name), kind):
            raise ValueError(f"{name}={value!r}; expected {words}")
    for name in (*PARTS, "also"):
        value = getattr(sweep, name)
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise ValueError(f"{name}={value!r}; expected a list")
        kind = PARTS.get(name, tuple)
        if wrong := [part for part in value if not isinstance(part, kind)]:
            what = "a pair (levels, settings)" if name == "also" else f"a {kind.__name__}"
            raise ValueError(f"{name} holds {wrong[0]!r}; expected {what} each")
    if wrong_keys := [key for key in [*sweep.control, *sweep.preset] if not isinstance(key, str)]:
        raise ValueError(f"{wrong_keys[0]!r} in control or preset; expected the name of a setting")


def _check(sweep: Sweep) -> None:
    """Raises ValueError if the parts of a sweep do not fit together."""
    keys = ", ".join(sweep.keys)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", sweep.name):
        raise ValueError("expected a module name of lower-case letters, digits and _")
    if not sweep.factors or len(set(sweep.keys)) < len(sweep.factors):
        raise ValueError(f"factors {keys or '(none)'}; give one or more, each once")
    if sweep.within and (sweep.within not in sweep.keys or len(sweep.factors) < 2):
        raise ValueError(f"within={sweep.within!r}; expected one of several factors: {keys}")
    compared = {factor.key: factor for factor in sweep.factors if factor.key != sweep.within}
    if sweep.control.keys() != compared.keys():
        named = ", ".join(sweep.control) or "(nothing)"
        raise ValueError(f"control names {named}; expected exactly {', '.join(compared)}")
    for key, factor in compared.items():
        levels = [level_text(level) for level in factor.levels]
        if level_text(sweep.control[key]) not in levels:
            level = sweep.control[key]
            raise ValueError(f"control {key}={level!r} is none of {', '.join(levels)}")
    metrics = [metric.key for metric in sweep.metrics]
    if sweep.headline not in metrics or len(set(metrics)) < len(metrics):
        raise ValueError(
            f"headline {sweep.headline!r} is none of the metrics, each given once: "
            f"{', '.join(metrics)}{nearest(sweep.headline, metrics)}"
        )
    if sweep.direction == "none":
        raise ValueError(
            f"headline {sweep.headline!r} has no better direction; choose a metric that has one"
        )
    for combination in sweep.without:
        _check_levels(sweep, "without", combination)
        outside = {key: level for key, level in combination.items() if key != sweep.within}
        if _matches(outside, sweep.control):
            raise ValueError(
                f"without {{{_listed(combination)}}}: that is the control, "
                "which all others are compared with"
            )
    for combination, _ in sweep.also:
        _check_levels(sweep, "also", combination)
    combinations = sweep.combinations()
    for factor in sweep.factors:
        kept = {level_text(values[factor.key]) for values in combinations}
        for level in map(level_text, factor.levels):
            if level not in kept:
                raise ValueError(
                    f"without leaves no cell of {factor.key}={level}; take that level out"
                )


def _check_levels(sweep: Sweep, field_name: str, combination: Levels) -> None:
    where = f"{field_name} {{{_listed(combination)}}}"
    factors = {factor.key: factor for factor in sweep.factors}
    for key, level in combination.items():
        if key not in factors:
            raise ValueError(f"{where}: {key} is none of the factors {', '.join(factors)}")
        # A level may be added later by levels=, if there are settings for it
        levels = dict.fromkeys(map(level_text, [*factors[key].levels, *factors[key].settings]))
        if level_text(level) not in levels:
            raise ValueError(f"{where}: {key}={level_text(level)} is none of {', '.join(levels)}")


def _listed(combination: Levels) -> str:
    return ", ".join(f"{key}: {level_text(level)}" for key, level in combination.items())


def _is_untouched(settings: Mapping[str, Any]) -> bool:
    """Whether a trial with these settings samples from the backbone as it is."""
    return settings.get("method.name", settings.get("method")) == UNTOUCHED_METHOD


def _draws_otherwise(settings: Mapping[str, Any]) -> bool:
    """Whether it samples in a way of its own, as with another guider: a level like others."""
    return any(key.startswith("evaluation.") for key in settings)


def _matches(some: Levels, values: Levels) -> bool:
    """True if ``values`` has every level of ``some``."""
    return all(level_text(values[key]) == level_text(level) for key, level in some.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each dotted key that no other key shares."""
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[key] = next(
            ending
            for ending in endings
            if sum(other == ending or other.endswith(f".{ending}") for other in keys) == 1
            or ending == key
        )
    return names
