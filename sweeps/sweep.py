"""What a sweep is: a question, the factors with their levels, the cell that the others are compared with, and what is measured.

Cells are all combinations of the levels but those that a sweep leaves out. The untouched backbone is added to every sweep as the
reference cell, so that every table says what the method brings at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conf.spec import Metric

__all__ = ["REFERENCE", "Cell", "Factor", "Metric", "Sweep", "level_text"]

REFERENCE = "baseline: untouched backbone"
UNTOUCHED = {"method.name": "untouched"}


@dataclass(frozen=True)
class Factor:
    """A setting that a sweep varies: `key` is its dotted name in the config, `levels` its values.

    `when="evaluate"` changes the setting only after training, so that all levels share one trained adapter. With `settings` a level is a
    name for several dotted settings at once (a method with its recipe), and `key` names the factor alone.
    """

    key: str
    levels: Sequence[Any]
    when: str = "train"
    label: str | None = None  # words for axes and tables; the last part of the key where not given
    unit: str = ""
    settings: Mapping[Any, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        if self.settings and (unknown := [level for level in self.levels if level not in self.settings]):
            known = ", ".join(map(level_text, self.settings))
            raise ValueError(f"factor {self.key}: no settings for the level {level_text(unknown[0])}; there are those of {known}")
        texts = [level_text(level) for level in self.levels]
        if not texts or len(set(texts)) < len(texts):
            raise ValueError(f"factor {self.key}: levels {', '.join(texts) or '(none)'}; give one or more, each once")
        if self.when not in ("train", "evaluate"):
            raise ValueError(f"factor {self.key}: when={self.when!r}; expected 'train' or 'evaluate'")

    def chosen(self, level: Any) -> dict[str, Any]:
        """The settings of a level."""
        return dict(self.settings[level]) if self.settings else {self.key: level}

    @property
    def numeric(self) -> bool:
        """True where all levels are numbers."""
        return all(isinstance(level, int | float) and not isinstance(level, bool) for level in self.levels)

    def describe(self) -> dict[str, Any]:
        """What the report needs to know."""
        label = self.label or self.key.rpartition(".")[2].replace("_", " ")
        # Lists by the names that cells have, which a report finds them by.
        levels = [level_text(level) if isinstance(level, list | tuple) else level for level in self.levels]
        return {"key": self.key, "label": label, "levels": levels, "unit": self.unit, "numeric": self.numeric, "when": self.when}


@dataclass(frozen=True)
class Cell:
    """One level of each factor (`values`), or the untouched backbone. `text` names the cell everywhere."""

    text: str
    values: Mapping[str, Any]
    baseline: bool = False   # the cell that the others are compared with
    reference: bool = False  # the untouched backbone, where that is not the baseline itself
    training: Mapping[str, Any] = field(default_factory=dict)    # settings that the trial trains (and evaluates) with
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # settings changed after training

    def folder(self, seed: int) -> str:
        """Name of the trial's folder; levels that no folder can be named after are told apart by a digest."""
        plain = "untouched-backbone" if self.text == REFERENCE else self.text.replace(", ", ",")
        name = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", plain)
        if name != plain:
            name += "-" + hashlib.sha256(plain.encode()).hexdigest()[:6]
        return f"{name}-seed{seed}"


@dataclass(frozen=True)
class Sweep:
    """A whole ablation. Raises ValueError where its parts do not fit together."""

    name: str                         # of the module, the MLflow experiment and the folder below the output
    question: str
    origin: str                       # where the question comes from: paper, section or equation, or issue
    factors: Sequence[Factor]
    baseline: Mapping[str, Any]       # factor key -> the level that the others are compared with (of all factors but `within`)
    metrics: Sequence[Metric]         # in the order of the tables
    headline: str                     # key of the metric that the answer is about
    preset: Mapping[str, Any] = field(default_factory=dict)  # dotted settings; the command line goes over them
    published: Sequence[Mapping[str, Any]] = ()              # what the paper reports, with data, backbone and N
    without: Sequence[Mapping[str, Any]] = ()                # combinations left out: no cell has all levels of an entry
    also: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()  # levels, and settings that the cells with all of them have besides
    within: str = ""                                         # key of a factor: cells are compared with the baseline of the same level of it
    brief: str | Sequence[str] = "grid"                      # what `python -m sweeps all` runs: a mode, or the names of cells
    needs: str = ""                                          # what the embedded world has not, in words; it declines there
    instead: str = ""                                        # what the embedded world can show in its place

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "published", tuple(self.published))
        object.__setattr__(self, "without", tuple(self.without))
        object.__setattr__(self, "also", tuple(self.also))
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"sweep {self.name!r}: expected a module name of lower-case letters, digits and _")
        if not self.factors or len(set(self.keys)) < len(self.factors):
            raise ValueError(f"sweep {self.name}: factors {', '.join(self.keys) or '(none)'}; give one or more, each once")
        if self.within and (self.within not in self.keys or len(self.factors) < 2):
            raise ValueError(f"sweep {self.name}: within={self.within!r}; expected one of several factors: {', '.join(self.keys)}")
        compared = [factor for factor in self.factors if factor.key != self.within]
        if set(self.baseline) != {factor.key for factor in compared}:
            expected = ", ".join(factor.key for factor in compared)
            raise ValueError(f"sweep {self.name}: baseline names {', '.join(self.baseline)}; expected exactly {expected}")
        for factor in compared:
            levels = [level_text(level) for level in factor.levels]
            if level_text(self.baseline[factor.key]) not in levels:
                raise ValueError(f"sweep {self.name}: baseline {factor.key}={self.baseline[factor.key]!r} is none of {', '.join(levels)}")
        keys = [metric.key for metric in self.metrics]
        if self.headline not in keys or len(set(keys)) < len(keys):
            raise ValueError(f"sweep {self.name}: headline {self.headline!r} is none of the metrics, each given once: {', '.join(keys)}")
        if self.direction not in ("higher", "lower"):
            raise ValueError(f"sweep {self.name}: headline {self.headline!r} has no better direction; choose a metric that has one")
        for combination in self.without:
            self._check_levels("without", combination)
            if _matches({key: level for key, level in combination.items() if key != self.within}, self.baseline):
                said = f"sweep {self.name}: without {{{_listed(combination)}}}"
                raise ValueError(f"{said}: that is the baseline cell, which all others are compared with")
        for combination, _ in self.also:
            self._check_levels("also", combination)
        for factor in self.factors:
            kept = {level_text(values[factor.key]) for values in self._combinations()}
            if empty := [level_text(level) for level in factor.levels if level_text(level) not in kept]:
                raise ValueError(f"sweep {self.name}: without leaves no cell of {factor.key}={empty[0]}; take that level out")

    def _check_levels(self, field: str, combination: Mapping[str, Any]) -> None:
        said = f"sweep {self.name}: {field} {{{_listed(combination)}}}"
        for key, level in combination.items():
            factor = next((factor for factor in self.factors if factor.key == key), None)
            if factor is None:
                raise ValueError(f"{said}: {key} is none of the factors {', '.join(self.keys)}")
            levels = list(dict.fromkeys(map(level_text, [*factor.levels, *factor.settings])))
            if level_text(level) not in levels:
                raise ValueError(f"{said}: {key}={level_text(level)} is none of {', '.join(levels)}")

    def _combinations(self) -> list[dict[str, Any]]:
        """Factor key -> level of every cell, in the order of the factors."""
        products = itertools.product(*(factor.levels for factor in self.factors))
        every = [dict(zip(self.keys, levels, strict=True)) for levels in products]
        return [values for values in every if not any(_matches(combination, values) for combination in self.without)]

    @property
    def keys(self) -> list[str]:
        """The swept keys."""
        return [factor.key for factor in self.factors]

    @property
    def direction(self) -> str:
        """Whether higher or lower is better in the headline metric."""
        return self.better(self.headline)

    def better(self, metric: str) -> str:
        """Whether "higher" or "lower" is better in a metric, or "none"."""
        return next(known.better for known in self.metrics if known.key == metric)

    def with_levels(self, levels: Sequence[Any]) -> Sweep:
        """The same sweep over other levels of its only factor, or of the one `within` which it compares; the baseline level stays, since
        all are compared with it."""
        if len(self.factors) > 1 and not self.within:
            raise ValueError(f"levels= replaces the levels of a single factor, but {self.name} varies {', '.join(self.keys)}")
        factor = next(factor for factor in self.factors if self.within in ("", factor.key))
        kept = [] if self.within else [self.baseline[factor.key]]
        chosen = [*(level for level in kept if level_text(level) not in map(level_text, levels)), *levels]
        other = dataclasses.replace(factor, levels=chosen)
        if other.numeric:
            other = dataclasses.replace(other, levels=sorted(chosen))
        return dataclasses.replace(self, factors=tuple(other if known is factor else known for known in self.factors))

    def with_named(self, names: Sequence[str]) -> Sweep:
        """The same sweep with the levels that the cells `names` have beside its own: any number for a factor of numbers.

        Raises ValueError for a name that is no cell's.
        """
        factors = {factor.key: factor for factor in self.factors}
        short = {name: key for key, name in _short_names(self.keys).items()}
        for name in names:
            if name in {cell.text for cell in self.cells()}:
                continue
            parts = [part.partition("=") for part in name.split(", ")]
            if [part[0] for part in parts] != list(short):
                raise ValueError(f"cells={name}: expected {', '.join(f'{key}=…' for key in short)}, as --plan writes them")
            for key, _, text in parts:
                factor = factors[short[key]]
                known = [level_text(level) for level in factor.levels]
                if text in known:
                    continue
                try:
                    level = json.loads(text) if factor.numeric else None
                except ValueError:
                    level = None
                if not isinstance(level, int | float):
                    expected = "a number" if factor.numeric else f"one of {', '.join(known)}"
                    raise ValueError(f"cells={name}: {key}={text}; expected {expected}")
                factors[factor.key] = dataclasses.replace(factor, levels=sorted([*factor.levels, level]))
        return dataclasses.replace(self, factors=tuple(factors.values()))

    def cells(self, when: str = "train", mode: str = "grid", names: Sequence[str] = ()) -> list[Cell]:
        """The reference cell, then every combination of levels that is not left out.

        `when="evaluate"` makes all factors act only after training. `mode="one_factor"` keeps the cells that differ from the baseline
        cell (of the same level of `within`) in one factor, `"list"` those that `names` lists, `"search"` none but the baseline cell,
        which always comes along.
        Raises ValueError for a name that no cell has.
        """
        cells = [self.cell(values, when) for values in self._combinations()]
        if not any(_untouched(cell.training) for cell in cells):
            cells = [Cell(text=REFERENCE, values=UNTOUCHED, reference=True, training=UNTOUCHED), *cells]
        if mode == "list" and (unknown := [name for name in names if name not in {cell.text for cell in cells}]):
            there = "; ".join(cell.text for cell in cells)
            raise ValueError(f"cells={unknown[0]}: {self.name} has no cell of that name; it has {there}")
        return [cell for cell in cells if cell.baseline or cell.reference or self._chosen(cell, mode, names)]

    def base_of(self, cell: Cell, baselines: Sequence[Cell]) -> Cell | None:
        """Which of the baseline cells `cell` is compared with; None for one of them, and for what is of no level of `within`."""
        fitting = (base for base in baselines if not self.within or base.values[self.within] == cell.values.get(self.within))
        return None if cell.baseline else next(fitting, None)

    def _chosen(self, cell: Cell, mode: str, names: Sequence[str]) -> bool:
        if mode == "one_factor":
            return sum(level_text(cell.values[key]) != level_text(level) for key, level in self.baseline.items()) == 1
        return mode == "grid" or (mode == "list" and cell.text in names)

    def cell(self, values: Mapping[str, Any], when: str = "train") -> Cell:
        """The cell with these levels, a value for each factor."""
        names = _short_names(self.keys)
        early: dict[str, Any] = {}
        late: dict[str, Any] = {}
        for factor in self.factors:
            (late if "evaluate" in (when, factor.when) else early).update(factor.chosen(values[factor.key]))
        for combination, settings in self.also:
            if _matches(combination, values):
                (late if when == "evaluate" else early).update(settings)
        return Cell(
            text=", ".join(f"{names[key]}={level_text(level)}" for key, level in values.items()),
            values=values,
            baseline=_matches(self.baseline, values),
            reference=_untouched(early) and not _matches(self.baseline, values),
            training=early,
            evaluation=late,
        )


def _listed(combination: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {level_text(level)}" for key, level in combination.items())


def _untouched(settings: Mapping[str, Any]) -> bool:
    """Whether a trial with these settings draws with the backbone as it is."""
    return settings.get("method.name", settings.get("method")) == "untouched"


def level_text(level: Any) -> str:
    """A level as it is written in cell names: 0.5, true, null, mid, one+two for a list, none for an empty one."""
    if isinstance(level, list | tuple):
        return "+".join(map(level_text, level)) or "none"
    return level if isinstance(level, str) else json.dumps(level, separators=(",", ":"))


def _matches(some: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """True where `values` has every level of `some`."""
    return all(level_text(values[key]) == level_text(level) for key, level in some.items())


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each dotted key that no other key shares."""
    names = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[key] = next(e for e in endings if sum(other == e or other.endswith(f".{e}") for other in keys) == 1 or e == key)
    return names
