"""What a number was made with, so that it can be made again: settings, seeds, code, data, runs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reports import prose, typeset
from reports.results import LEFT_OUT, SweepResults, Trial, place_words, sweep_command
from reports.tables import Table, describe_undefined

__all__ = [
    "code_conflicts",
    "code_versions",
    "describe_conflicts",
    "fact_differences",
    "digest_data",
    "explain_missing",
    "explain_other_code",
    "flatten",
    "gather_facts",
    "list_differences",
    "provenance_blocks",
]

TIME = (
    10**15
)  # An integer from here on is a time in nanoseconds: no data set has as many of anything
LONGEST_REASON = 300  # Characters of an error
NOT_RECORDED = "not recorded"
SEVERAL = " / "  # Between values where trials disagree
WHOLE = "all"  # The only part of the code of trials that recorded no parts
FILES = {
    "run.yaml": "all its settings",
    "environment.txt": "every installed package",
    "changes.diff": "uncommitted changes of the code",
    "data.json": "what the data are",
    "result.json": "its numbers and what they were measured with",
    "scores.parquet": "a row an image: prompt, noise seed, its value of each metric",
}


def explain_missing(results: SweepResults) -> str:
    """Which trials are not there and why, and what the plan no longer holds."""
    parts = [
        f"{cell.name}, seed {seed}: {_shorten(why)}"
        for cell in results.cells
        for seed, why in sorted(cell.unfinished.items())
    ]
    seeds = ", ".join(map(str, results.seeds))
    number = len(results.seeds)
    every = "its seed" if number == 1 else f"all {number} seeds"
    complete = f"Nothing: every cell has {every} ({seeds})."
    text = f"{'; '.join(parts)}." if parts else complete
    if undefined := describe_undefined(results):
        text += f" Without a value: {'; '.join(undefined)}. Their means leave them out."
    if other := explain_other_code(results):
        text += f" {other}."
    if results.damaged:
        text += f" Not shown: {'; '.join(results.damaged.values())}."
    if results.left_out:
        left_out = ", ".join(results.left_out)
        text += f" Left out, since the plan no longer holds them: {left_out}."
    return text


def _shorten(why: str) -> str:
    """A reason, whose beginning is enough but of a file that was cut off: its cure comes last."""
    if len(why) <= LONGEST_REASON or why.startswith(LEFT_OUT):
        return why
    return f"{why[:LONGEST_REASON]} …"


def explain_other_code(results: SweepResults) -> str:
    """Whose values are left out, since other code measured them; "" if there are none."""
    by_trials: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for label, trials in results.other_code.items():
        by_trials.setdefault(tuple(trials), []).append(label)
    if not by_trials:
        return ""
    parts = [f"{', '.join(names)} of {_name_trials(t)}" for t, names in by_trials.items()]
    command = sweep_command(results.sweep, results.tags, results.uri)
    return (
        f"Left out, since other code measured them than measured last: {'; '.join(parts)}. "
        f"“{command} --remeasure” scores their kept images again"
    )


def _name_trials(trials: Sequence[tuple[str, int]]) -> str:
    """Trials, those of one cell together, and cells that have the same seeds."""
    seeds: dict[str, list[str]] = {}
    for cell, seed in trials:
        seeds.setdefault(cell, []).append(str(seed))
    cells: dict[str, list[str]] = {}
    for cell, own in seeds.items():
        noun = "seeds" if len(own) > 1 else "seed"
        cells.setdefault(f"{noun} {', '.join(own)}", []).append(cell)
    return " and ".join(f"{', '.join(names)} ({text})" for text, names in cells.items())


def code_versions(trials: Sequence[Trial]) -> dict[str, str]:
    """Name -> digest of the parts of the code that made the trials, all digests where they
    disagree. Trials that did not record parts have one: its digest, else the commit."""
    return merge([_code_parts(trial) for trial in trials])


def code_conflicts(trials: Sequence[Trial]) -> dict[str, str]:
    """The parts of the code that were not the same for all trials that have them, with their
    digests: then some trials were made by other code than others."""
    parts = code_versions(trials)
    if WHOLE in parts and len(parts) > 1:
        return parts  # Who recorded parts did not record the whole in the same way
    return {name: text for name, text in parts.items() if SEVERAL in text}


def _code_parts(trial: Trial) -> dict[str, str]:
    if trial.code_parts:
        return trial.code_parts
    code = code_version(trial)[:12]
    return {WHOLE: code} if code else {}


def code_version(trial: Trial) -> str:
    return str(trial.versions.get("code") or trial.versions.get("commit") or "")


def describe_conflicts(conflicts: Mapping[str, str]) -> str:
    """Each part of the code with its digests."""
    return "; ".join(f"{name} {text}" for name, text in conflicts.items())


def fact_differences(trials: Sequence[Trial]) -> dict[str, str]:
    """Libraries, threads and devices that were not the same for all trials, with how many trials
    had which; for those that were measured again, what measured them, too."""
    made = [_computing_facts(trial.versions) for trial in trials]
    again = [_computing_facts(trial.measured_with or trial.versions) for trial in trials]
    differences = _count_values(made)
    for name, text in _count_values(again).items():
        if differences.get(name) != text:
            differences[f"measured with {name}"] = text
    return differences


def _computing_facts(versions: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a trial without those of its code."""
    return {k: v for k, v in versions.items() if k not in ("commit", "dirty", "code")}


def _count_values(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> its values with how many have each, where they differ."""
    differences = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        counts = Counter(str(fact.get(name, NOT_RECORDED)) for fact in facts)
        if len(counts) > 1:
            differences[name] = SEVERAL.join(
                f"{v} ({prose.count(n, 'trial')})" for v, n in counts.items()
            )
    return differences


def _describe_measuring(trials: Sequence[Trial]) -> str:
    """The code that measured, by its parts."""
    parts = merge([{n: code for n, (code, _) in trial.measuring.parts.items()} for trial in trials])
    unknown = sum(not trial.measuring.known for trial in trials)
    texts = [f"{name} {text}" for name, text in parts.items()]
    if unknown:
        of = "" if unknown == len(trials) else f" by {unknown} of {len(trials)} trials"
        texts.append(f"{NOT_RECORDED}{of}")
    return ", ".join(texts)


def gather_facts(results: SweepResults) -> dict[str, str]:
    """What all trials were made with, in words; comparisons read it, too."""
    trials = [trial for _, trial in results.trials()]
    facts = merge([trial.versions for trial in trials])
    commit, hardware = (facts.pop(name, NOT_RECORDED) for name in ("commit", "hardware"))
    computing = [facts.pop(name, NOT_RECORDED) for name in ("threads", "arithmetic")]
    code = facts.pop("code", NOT_RECORDED)
    if parts := merge([trial.code_parts for trial in trials]):
        code += f": {describe_conflicts(parts)}"
    dirty = facts.pop("dirty", "")
    changes = "uncommitted changes not recorded"
    if dirty == "False":
        changes = "without uncommitted changes"
    elif "True" in dirty:
        kept = _digest_files(results, trials, "changes.diff", "changes.diff of each run has them")
        changes = "with uncommitted changes" + ("" if kept == NOT_RECORDED else f" ({kept})")
    if code != NOT_RECORDED:
        code += " (digest of the source that trials depend on)"
    packages = "all of them in environment.txt of each run"
    return {
        "Command": results.tags.get("command", NOT_RECORDED),
        "Evaluation": results.tags.get("evaluation", NOT_RECORDED),
        "Seeds": ", ".join(map(str, results.seeds)),
        "Commit": f"{commit}, {changes}",
        "Code": code,
        "Measured by": _describe_measuring(trials),
        "Versions": _join_pairs(facts),
        "Packages": _digest_files(results, trials, "environment.txt", packages),
        "Hardware": hardware,
        "Threads": computing[0],
        "Arithmetic": computing[1],
        **_describe_ran(trials),
        "Files": _join_pairs(merge([trial.contents for trial in trials])),
        "Data": _describe_data(results, trials),
    }


def _describe_ran(trials: Sequence[Trial]) -> dict[str, str]:
    """How the trials trained and drew, by what ran, and what was not as the settings ask for."""
    texts = {}
    for name, part in (("Training", "training"), ("Sampling", "sampling")):
        facts = merge(
            [{key: _show(v) for key, v in trial.ran.get(part, {}).items()} for trial in trials]
        )
        texts[name] = "; ".join(f"{key.replace('_', ' ')} {v}" for key, v in facts.items())
    recorded = "nothing" if any(texts.values()) else NOT_RECORDED
    texts = {name: text or NOT_RECORDED for name, text in texts.items()}
    return texts | {"Not as asked": "; ".join(list_differences(trials)) or recorded}


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_show(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_show, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def list_differences(trials: Sequence[Trial]) -> list[str]:
    """Each setting that what ran does not bear out, and in how many of the trials."""
    counts = Counter(
        f"{key} {text}" for trial in trials for key, text in trial.ran.get("differs", {}).items()
    )
    return [
        f"{text} ({count} of {prose.count(len(trials), 'trial')})" for text, count in counts.items()
    ]


def _digest_files(results: SweepResults, trials: Sequence[Trial], name: str, where: str) -> str:
    """Where a file of each run is, and the digests of its contents."""
    paths = [path for trial in trials if (path := results.fetch(trial, name))]
    if not paths:
        return NOT_RECORDED
    digests = " / ".join(dict.fromkeys(_digest(path.read_bytes()) for path in paths))
    some = "" if len(paths) == len(trials) else f", kept by {len(paths)} of {len(trials)} runs"
    return f"{where}{some}; SHA-256 {digests}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def provenance_blocks(results: SweepResults) -> list[typeset.Block]:
    """The sections Provenance and Configuration, as asked for."""
    trials = [trial for _, trial in results.trials()]
    counts = merge([trial.counts for cell, trial in results.trials() if not cell.untouched])
    factors = [f"{f.key}: {', '.join(map(str, f.levels))}" for f in results.factors]
    not_combined = [
        " with ".join(f"{key.rpartition('.')[2]}={level}" for key, level in combination.items())
        for combination in results.without
    ]
    if not_combined:
        factors.append(f"not combined: {', '.join(not_combined)}")
    pairs = []
    for name, text in gather_facts(results).items():
        if name == "Commit":
            pairs.append(("Factors", "; ".join(factors)))
            pairs.append(
                ("Counts", _join_pairs({k.replace("_", " "): v for k, v in counts.items()}))
            )
        pairs.append((name, text))
    differences = describe_conflicts(fact_differences(trials))
    pairs.append(("Differences", differences or "none between trials"))
    again = f"python -m reports {results.sweep}{place_words(results.uri)} makes this report again"
    experiment = f"experiment “{results.sweep}”, id {results.experiment_id}"
    pairs += [("Time", _describe_time(trials)), ("MLflow", f"{experiment}; {again}")]
    kept = [
        f"{name} ({what})"
        for name, what in FILES.items()
        if any(results.fetch(trial, name) for trial in trials)
    ]
    if kept:
        pairs.append(("Files of a run", "; ".join(kept)))
    several = bool(code_conflicts(trials))
    rows = []
    for cell, trial in results.trials():
        code = [code_version(trial)[:12]] if several else []
        rows.append([cell.label, str(trial.seed), *code, trial.run_id, f"{trial.minutes:.2f}"])
    columns = ["Cell", "Seed", *(["Code"] if several else []), "Run id", "Minutes"]
    runs = Table("The MLflow runs behind every number.", columns, rows)
    return [
        typeset.heading("Provenance"),
        typeset.pairs(pairs),
        typeset.table(runs, ["auto"], 8.2, left=(0, 2, 3) if several else (0, 2)),
        typeset.heading("Configuration, as asked for"),
        typeset.monospace([f"{key} = {value}" for key, value in flatten(results.config)]),
    ]


def _describe_time(trials: Sequence[Trial]) -> str:
    phases = sorted({phase for trial in trials for phase in trial.seconds})
    spent = [
        f"{phase} {sum(t.seconds.get(phase, 0.0) for t in trials) / 60:.1f} min" for phase in phases
    ]
    finished = prose.count(len(trials), "finished trial")
    total = f"{sum(t.minutes for t in trials):.1f} min over {finished}"
    ends = (
        min(t.started for t in trials),
        max(t.started + round(60_000 * t.minutes) for t in trials),
    )
    first, last = (f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}" for ms in ends)
    return f"{total}{': ' if spent else ''}{', '.join(spent)}; from {first} to {last} UTC"


# ---- Data


def digest_data(manifest: Any) -> str:
    """16 hex digits of SHA-256, the same for the same data in another folder or at another time."""
    return _digest(json.dumps(_drop_places(manifest), sort_keys=True).encode())


def _drop_places(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        # States of files have their times; `images` is what older versions called those of images
        skipped = ("root", "images", "states") if name == "facts" else ("root",)
        return {key: _drop_places(entry, key) for key, entry in value.items() if key not in skipped}
    if isinstance(value, list):
        return [_drop_places(entry) for entry in value]
    if isinstance(value, str):
        return value.replace("\\", "/").rpartition("/")[2]
    return None if isinstance(value, int) and value >= TIME else value


def _describe_data(results: SweepResults, trials: Sequence[Trial]) -> str:
    """What data.json says, of each kind of data that the trials had."""
    manifests: dict[str, dict[str, Any]] = {}
    for trial in trials:
        if manifest := results.read(trial, "data.json", _read_manifest):
            manifests.setdefault(digest_data(manifest), manifest)
    texts = []
    for digest, manifest in manifests.items():
        sets = {"train": manifest.get("train"), **manifest.get("evaluation", {})}
        lines = [f"{name}: {_describe_set(s)}" for name, s in sets.items() if s is not None]
        lines += [f"note: {note}" for note in manifest.get("notes", [])]
        lines.append(f"digest {digest} of data.json without folders and file times")
        texts.append("\n".join(lines))
    return "\nof other trials:\n".join(texts) or NOT_RECORDED


def _read_manifest(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no names and values")
    return content


def _describe_set(samples: Any) -> str:
    """One set of samples: its counts, words such as the layout, and what was left out."""
    if not isinstance(samples, dict):
        return f"{samples} samples"
    parts = [f"{key} {value}" for key, value in samples.items() if isinstance(value, str)]
    for key, value in samples.items():
        if type(value) is int and value and key != "count":
            parts.append(f"{value} {key.replace('_', ' ')}")
    if samples.get("problems"):
        parts.append(f"left out: {json.dumps(samples['problems'], ensure_ascii=False)}")
    return ", ".join(parts)


# ---- Facts as text


def merge(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> value; where trials disagree, all their values."""
    values: dict[str, dict[str, None]] = {}
    for fact in facts:
        for name, value in fact.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: SEVERAL.join(texts) for name, texts in values.items()}


def _join_pairs(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or NOT_RECORDED


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key, value as JSON."""
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False)))
    return pairs
