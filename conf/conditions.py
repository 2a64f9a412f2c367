"""Settings that are read only where others have some values: as their fields declare it with
``only_if`` and ``unless`` (``conf.fields``), and as methods and data sets do (``conf.spec``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from conf.describe import describe, show
from conf.load import lookup, with_eval_overrides
from conf.schema import Run
from conf.spec import data_kind, data_sets, methods, reads_trainer, unread_sections

if TYPE_CHECKING:
    from conf.describe import Setting
    from conf.fields import Values

__all__ = [
    "Unread",
    "check_read",
    "deciding_keys",
    "find_undrawn",
    "find_unread",
    "list_read",
    "list_changed_data",
    "why_unread",
]

METHOD, DATA, KIND = "method.name", "data.name", "data.kind"
EVALUATION = "evaluation."  # Nothing of it is read in training
# Read by an evaluation that measures nothing, too
ALWAYS = ("evaluation.prompts", "evaluation.splits")
# Seeds of what only training draws
LEARNING = ("init_seed", "timestep_seed")


class Unread(NamedTuple):
    """Why nothing reads a setting: ``by`` is the setting that decides, as KEY=VALUE; ``cure`` says
    where it is read."""

    by: str
    cure: str


class _Condition(NamedTuple):
    key: str
    values: Sequence[Any]
    wanted: bool  # Whether the setting must or must not have one of the values


def deciding_keys(key: str) -> list[str]:
    """The dotted keys of the settings that decide whether ``key`` is read; empty for one that
    always is, and for what is no setting."""
    setting = describe(Run).settings.get(key)
    if setting is None:
        return []
    first = [METHOD] if _of_a_method(key) else []
    own = [condition for name in methods() for condition in _own_conditions(name, key)]
    conditions = [*_conditions(key, setting), *own]
    keys = [DATA if one.key == KIND else one.key for one in conditions]
    return [*first, *dict.fromkeys(name for name in keys if name not in first)]


def why_unread(config: Run, key: str) -> str:
    """The setting of ``config`` by which ``key`` is read neither in training nor afterwards, as
    KEY=VALUE; empty where it is read."""
    found = find_unread(config, [key])
    return found[key].by if found else ""


def find_unread(
    config: Run, keys: Collection[str], late: Collection[str] | None = None
) -> dict[str, Unread]:
    """Those of ``keys`` that are read neither in training nor afterwards, and why. Of the keys
    ``late``, by default those of ``evaluate_with``, the values after training are meant."""
    late = config.evaluate_with if late is None else late
    early = {
        key: _find(config, key)
        for key in keys
        if key not in late and not key.startswith(EVALUATION)
    }
    if not (unsure := [key for key in keys if early.get(key, True)]):
        return {}
    after = with_eval_overrides(config)
    return {key: early.get(key) or why for key in unsure if (why := _find(after, key))}


def list_read(config: Run, keys: Collection[str]) -> dict[str, list[list[Any]]]:
    """Of each key the value in training, and the one after it, each in a list that is empty where
    nothing reads it then."""
    late = with_eval_overrides(config)

    def read(key: str, run: Run) -> list[Any]:
        return [] if _find(run, key) else [lookup(run, key)]

    return {
        key: [[] if key.startswith(EVALUATION) else read(key, config), read(key, late)]
        for key in keys
    }


def find_undrawn(config: Run, keys: Collection[str]) -> dict[str, Unread]:
    """Those of ``keys`` that no image depends on, only what it is measured against, and why: where
    they are not as their fields declare with ``draws_if``."""
    late, found = with_eval_overrides(config), {}
    for key in keys:
        setting = describe(Run).settings.get(key)
        for condition in _list_conditions(key, setting.draws_if, True) if setting else ():
            if why := _find(late, condition.key):
                found[key] = why
            elif not _fits(late, condition):
                found[key] = Unread(_state(late, condition.key), _say_where(condition))
    return found


def check_read(runs: Sequence[Run], keys: Collection[str]) -> None:
    """Raises ValueError for the first of the given ``keys`` that none of ``runs`` reads."""
    unread = [find_unread(run, keys) for run in runs]
    for key in keys if runs else ():
        if all(key in found for found in unread):
            value, why = runs[0].evaluate_with.get(key, lookup(runs[0], key)), unread[-1][key]
            raise ValueError(
                f"{key}={show(value)} with {why.by}: nothing reads it; {why.cure}; leave it out, "
                "or change that"
            )


def list_changed_data(config: Run) -> list[str]:
    """The keys of ``data`` with another value than their default, whoever set it."""
    return [
        key
        for key, setting in describe(Run).settings.items()
        if key.startswith("data.")
        and not setting.embedded
        and lookup(config, key) != lookup(Run(), key)
    ]


def _find(config: Run, key: str) -> Unread | None:
    setting, name = describe(Run).settings.get(key), config.method.name
    if setting is None:
        return None
    if _is_foreign(name, key):
        reading = [one for one in methods() if not _is_foreign(one, key)]
        return Unread(f"{METHOD}={name}", f"it is read with method={' or '.join(reading)}")
    own = [*_own_conditions(name, key)]
    for condition in (*own, *_conditions(key, setting)):
        if _is_foreign(name, condition.key):  # It decides nothing here
            continue
        if _fits(config, condition) is not condition.wanted:
            return Unread(_state(config, condition.key), _say_where(condition))
        # What decides is itself read nowhere
        if condition not in own and (why := _find(config, condition.key)):
            return why
    return _find_unread_part(config, key)


def _find_unread_part(config: Run, key: str) -> Unread | None:
    """Of data, training or evaluation, where the settings have none that reads it."""
    group, name = key.split(".")[:2] if "." in key else (key, "")
    if group == "data" and name in data_sets()[config.data.name].unread(config):
        reading = [one for one, data in data_sets().items() if name not in data.unread(config)]
        where = (
            f"it is read with data={' or '.join(reading)}" if reading else "it is for other data"
        )
        return Unread(f"data={config.data.name}", where)
    learns = methods()[config.method.name].learns
    if group == "trainer" and not reads_trainer(config, key) or group in LEARNING and not learns:
        by = _untrained(config) if learns else f"{METHOD}={config.method.name}"
        return Unread(by, "nothing is trained before the evaluation")
    if group == "evaluation" and not config.evaluation.measures and key not in ALWAYS:
        return Unread("evaluation.prompts=0", "nothing is drawn or measured")
    return None


def _untrained(config: Run) -> str:
    """The settings of a method that trains nothing with them."""
    changed = [
        f"{key}={show(lookup(config, key))}"
        for key in describe(Run).settings
        if key.startswith(tuple(f"method.{s}." for s in methods()[config.method.name].settings))
        and lookup(config, key) != lookup(Run(), key)
    ]
    return ", ".join([f"{METHOD}={config.method.name}", *changed])


def _conditions(key: str, setting: Setting) -> Iterator[_Condition]:
    yield from _list_conditions(key, setting.only_if, True)
    yield from _list_conditions(key, setting.unless, False)


def _list_conditions(key: str, declared: Values, wanted: bool) -> Iterator[_Condition]:
    """Those of a field, which names settings of its own section without it."""
    section = key.rpartition(".")[0]
    for name, values in declared.items():
        yield _Condition(name if "." in name else f"{section}.{name}", values, wanted)


def _own_conditions(method: str, key: str) -> Iterator[_Condition]:
    """Those of a method."""
    for start, conditions in methods()[method].read_if.items():
        if key.startswith(start):
            for name, values in conditions.items():
                yield _Condition(name, values, True)


def _fits(config: Run, condition: _Condition) -> bool:
    value = data_kind(config) if condition.key == KIND else lookup(config, condition.key)
    return any(
        fnmatchcase(value, one)
        if isinstance(one, str) and "*" in one and isinstance(value, str)
        else value == one
        for one in condition.values
    )


def _state(config: Run, key: str) -> str:
    if key == KIND:
        return f"data={config.data.name}"
    return f"{key}={show(lookup(config, key))}"


def _say_where(condition: _Condition) -> str:
    key, values = condition.key, condition.values
    if key == KIND:
        fits = [n for n, data in data_sets().items() if (data.kind in values) is condition.wanted]
        return f"it is read with data={' or '.join(fits)}"
    choices = describe(Run).settings[key].choices
    if not condition.wanted and choices:
        values = [choice for choice in choices if choice not in values]
    elif not condition.wanted:
        return f"it is read where {key} is not {' or '.join(map(show, values))}"
    return f"it is read with {key}={' or '.join(map(show, values))}"


def _of_a_method(key: str) -> bool:
    return any(_is_foreign(name, key) for name in methods())


def _is_foreign(method: str, key: str) -> bool:
    """Whether only other methods read ``key``."""
    sections = tuple(f"method.{section}." for section in unread_sections(method))
    alone = {one for name, spec in methods().items() if name != method for one in spec.reads_alone}
    own = methods()[method]
    return key.startswith(sections) or key in own.unread or key in alone - {*own.reads_alone}
