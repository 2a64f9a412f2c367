"""What methods, data sets and metrics declare, found by file name and readable without a heavy
import.

A method is ``conf/method/NAME.py`` with a ``METHOD``, a data set ``conf/data/NAME.py`` with a
``DATA``, a metric ``conf/metric/NAME.py`` with a ``METRIC``.
"""

from __future__ import annotations

import functools
import math
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conf.commands import leave_out
from conf.describe import nearest
from conf.fields import Values

if TYPE_CHECKING:
    from conf.schema import Evaluation, Method, Run

__all__ = [
    "DataSpec",
    "MethodSpec",
    "Metric",
    "MetricSpec",
    "data_kind",
    "data_sets",
    "measured_metrics",
    "methods",
    "metrics",
    "fewest_objects",
    "reads_trainer",
    "sampling_sections",
    "steering",
    "unread_sections",
]

T = TypeVar("T")
DELTA_OF_SHARES = 0.05


@dataclass(frozen=True)
class Metric:
    """One measured value: ``key`` without its prefix (``success`` for ``eval/success``), and which
    direction is better.

    If each image has a value of its own (``per_image``), the column ``key`` of scores.parquet holds
    it, and the metric is the mean over the images that have one: weighted by the column ``weight``
    where that is named, such as the number of objects that the image was asked for.

    ``delta`` is the smallest difference that matters, in the metric's unit: an answer says of a
    smaller one that there is none that matters. Of shares it is .05 unless another is given; None
    fixes none, and the answer says how large a difference may be at most.
    """

    key: str
    label: str
    better: str = "higher"
    unit: str = ""
    per_image: bool = True
    weight: str = ""
    delta: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of scores.parquet from which the metric follows."""
        return (self.key, *filter(None, [self.weight])) if self.per_image else ()

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower", "none"):
            raise ValueError(
                f"metric {self.key}: better={self.better!r}; expected 'higher', 'lower' or 'none'"
            )
        if self.weight and not self.per_image:
            raise ValueError(
                f"metric {self.key}: weight={self.weight!r}, but no image has a value: "
                "leave it out, or set per_image=True"
            )
        if self.delta is None and self.unit == "share":
            object.__setattr__(self, "delta", DELTA_OF_SHARES)
        if self.delta is not None and not 0 < self.delta < math.inf:
            raise ValueError(
                f"metric {self.key}: delta={self.delta!r}; expected a difference above 0 that "
                "matters, or None"
            )


# As many objects as prompts name (MultiGen's name five)
MOST_NAMED = 5
# Metrics that look for objects share these
AT_LEAST = tuple(
    Metric(f"at_least_{n}", f"{n} or more objects found", "higher", "share")
    for n in range(1, MOST_NAMED + 1)
)


def _no_check(config: Run) -> None:
    """Everything is allowed."""


def _no_late_check(config: Run, late: Run) -> None:
    """Evaluation may change everything."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method declares. ``trains`` and ``needs_phrases`` look at the settings
    ``config.method``; both checks raise ValueError, in one line, for settings that cannot run."""

    # Section below ``method.`` -> its dataclass
    settings: Mapping[str, type] = field(default_factory=dict)
    # Sections of other methods that this one reads
    reads: tuple[str, ...] = ()
    # What it does not read in them: settings, by their keys
    unread: tuple[str, ...] = ()
    # Settings, or how their keys begin -> where it reads them, as ``only_if`` of `conf.fields`
    read_if: Mapping[str, Values] = field(default_factory=dict)
    # Settings outside of ``method`` that no other method reads
    reads_alone: tuple[str, ...] = ()
    # Settings of ``trainer`` that it reads where nothing is trained before the evaluation
    learns_with: tuple[str, ...] = ()
    # Of its own sections those by which it acts on what any trained method draws, too: they have no
    # part in training
    at_sampling: tuple[str, ...] = ()
    # Whether it moves latents while images are drawn, and how many objects a prompt must name then
    steers: Callable[[Method], bool] = lambda method: False
    fewest_objects: Callable[[Method], int] = lambda method: 0
    # Kinds of data that it trains on (see ``DataSpec``)
    data_kinds: tuple[str, ...] = ("captions",)
    # Whether anything is trained before the evaluation
    trains: Callable[[Method], bool] = lambda method: True
    # Whether training looks at the words of a caption that name objects, and at their masks
    needs_phrases: Callable[[Method], bool] = lambda method: False
    needs_masks: Callable[[Method], bool] = lambda method: False
    # How many objects a caption must name so that everything that is trained on acts on it
    objects_needed: Callable[[Method], int] = lambda method: 1
    # Whose words these are: those "linked" to objects of the image, or all "nouns"
    naming: Callable[[Method], str] = lambda method: "linked"
    # What to set where the data have none of them
    without_phrases: str = ""
    # Shipped models, by their folders among the package's assets, that its images depend on
    draws_with: Callable[[Method], tuple[str, ...]] = lambda method: ()
    # Whether it trains on images that it draws itself, and of the data set reads captions alone
    draws_data: bool = False
    # What ``data.singular=auto`` is: "all" where only the words count, not whose they are
    singular: Callable[[Method], str] = lambda method: "one"
    # Settings, or how their names begin, that evaluation cannot change
    fixed_after_training: tuple[str, ...] = ()
    # Settings, by their keys, that training does not depend on: they act in sampling alone
    unread_in_training: Callable[[Method], tuple[str, ...]] = lambda method: ()
    # Metrics, by their files, that look at what this method alone has
    diagnoses: tuple[str, ...] = ()
    # Values of these that it does not give with its settings -> why
    undefined: Callable[[Method], Mapping[str, str]] = lambda method: {}
    # Whether some backbone that the project names cannot act with the settings: plans read its
    # configs then
    asks_backbone: Callable[[Method], bool] = lambda method: False
    # Checks the settings before anything is loaded
    check: Callable[[Run], None] = _no_check
    # Checks them beside those of the evaluation, which ``evaluate_with`` changes
    check_evaluation: Callable[[Run, Run], None] = _no_late_check

    @property
    def sections(self) -> tuple[str, ...]:
        """All sections below ``method.`` that the method depends on."""
        return (*self.settings, *self.reads)

    @property
    def learns(self) -> bool:
        """Whether it is one that learns: beforehand, or on each prompt."""
        return any(section not in self.at_sampling for section in self.sections)


@dataclass(frozen=True)
class DataSpec:
    """What a data set declares. ``kind`` is "captions" (images with captions), "scene" or "prompts"
    (no images)."""

    kind: str
    # Whether these settings are the embedded world
    embedded: Callable[[Run], bool] = lambda config: False
    # Setting -> its default where they are not, in place of the schema's (see `conf.defaults`)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # What a person adds so that words of captions have objects with masks, where the reader of the
    # files does not know what is lacking (`Reader.explain_lack`)
    phrases_from: str = "add annotations of the images' objects"
    check: Callable[[Run], None] = _no_check
    # Settings of the section that nothing reads
    unread: Callable[[Run], tuple[str, ...]] = lambda config: ()
    # The evaluation splits of the embedded world; others are known once files are read
    splits: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricSpec:
    """What a metric declares: the values that it gives, and whether an evaluation gives them.

    ``measured`` gets the settings of the evaluation; a metric is measured, too, where
    ``evaluation.metrics`` names it. The values in ``by_split`` are given for each split besides, as
    ``KEY_SPLIT``. Some prompts do not give the values in ``conditional``; which, says the function
    ``undefined`` of its scorer's file. With ``scores_images`` its scorer is
    ``lightning_modules/metrics/NAME.py``; the
    others look at the method, not at images. ``without`` says of values what they lack where they
    are no numbers, and with KEY that of all KEY_….
    """

    outputs: tuple[Metric, ...]
    measured: Callable[[Evaluation], bool] = lambda evaluation: False
    by_split: tuple[str, ...] = ()
    conditional: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict)
    scores_images: bool = True
    # Only methods that name it in ``diagnoses`` give it
    by_methods: bool = False


def methods() -> dict[str, MethodSpec]:
    """Name -> declaration of every method."""
    return _declared("method", "METHOD", MethodSpec)


def data_sets() -> dict[str, DataSpec]:
    """Name -> declaration of every data set."""
    return _declared("data", "DATA", DataSpec)


def data_kind(config: Run) -> str:
    """The kind of the data set that these settings name (see ``DataSpec``)."""
    return data_sets()[config.data.name].kind


def unread_sections(*names: str) -> set[str]:
    """The sections below ``method.`` that none of the methods ``names`` reads."""
    everything = {section for method in methods().values() for section in method.settings}
    if any(methods()[name].learns for name in names):
        everything -= sampling_sections()
    return everything.difference(*(methods()[name].sections for name in names))


def sampling_sections() -> set[str]:
    """The sections below ``method.`` that act where images are drawn alone."""
    return {section for method in methods().values() for section in method.at_sampling}


def steering(method: Method) -> list[str]:
    """The names of the methods that move latents while ``method`` draws, itself included."""
    unread = unread_sections(method.name)
    return [
        name
        for name, spec in methods().items()
        if spec.steers(method) and unread.isdisjoint(spec.at_sampling)
    ]


def fewest_objects(method: Method) -> int:
    """How many objects each prompt must name so that what steers ``method`` acts on it; 0 where
    nothing does."""
    return max((methods()[name].fewest_objects(method) for name in steering(method)), default=0)


def reads_trainer(config: Run, key: str) -> bool:
    """Whether anything reads the setting ``key`` of ``trainer``: sampling asks for its devices, the
    rest is for training."""
    method = methods()[config.method.name]
    if key in ("trainer.devices", "trainer.accelerator") or key in method.learns_with:
        return True
    return bool(method.sections) and method.trains(config.method)


def metrics() -> dict[str, MetricSpec]:
    """Name -> declaration of every metric."""
    return _declared("metric", "METRIC", MetricSpec)


def measured_metrics(evaluation: Evaluation) -> dict[str, MetricSpec]:
    """Name -> declaration of the metrics that this evaluation measures.

    Raises ValueError where ``evaluation.metrics`` names one that does not exist.
    """
    known = metrics()
    if unknown := [name for name in evaluation.metrics if name not in known]:
        raise ValueError(
            f"evaluation.metrics={evaluation.metrics}: there is no metric {unknown[0]!r}; expected "
            f"some of {', '.join(known)}, each a conf/metric/NAME.py{nearest(unknown[0], known)}"
        )
    return {
        name: spec
        for name, spec in known.items()
        if name in evaluation.metrics or spec.measured(evaluation)
    }


@functools.cache
def _declared(group: str, attribute: str, kind: type[T]) -> dict[str, T]:
    """Of a faulty file there is a line on standard error, and the others can be used."""
    folders = import_module(f"conf.{group}").__path__
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(folders)):
        try:
            module = import_module(f"conf.{group}.{name}")
            if not isinstance(declared := getattr(module, attribute, None), kind):
                raise AttributeError(f"declares nothing: expected {attribute} = {kind.__name__}(…)")
        except Exception as error:
            file = next(f for folder in folders if (f := Path(folder) / f"{name}.py").exists())
            leave_out(error, file)
        else:
            found[name] = declared
    return found
