"""What a number of a report was made with, so that it can be made again: command, settings, seeds, code, packages, machine, data, runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reports.blocks import heading_block, mono_block, pairs_block, table_block
from reports.study import Study, Trial
from reports.tables import Table

__all__ = ["codes", "data_digest", "facts_of", "flat", "merged", "missing", "provenance"]

TIME = 10**15  # an integer from here on is a time in nanoseconds: no data set has as many of anything
FILES = {
    "run.yaml": "all its settings",
    "environment.txt": "every installed package",
    "changes.diff": "uncommitted changes of the code",
    "data.json": "what the data are",
    "result.json": "its numbers and what they were measured with",
    "scores.parquet": "a row an image: prompt, noise seed, score",
}


def missing(study: Study) -> str:
    """Which trials are not there and why, and what the plan no longer holds."""
    parts = [f"{cell.name}, seed {seed}: {_short(why)}" for cell in study.cells for seed, why in sorted(cell.unfinished.items())]
    text = (
        f"{'; '.join(parts)}." if parts else f"Nothing: every cell has all {len(study.seeds)} seeds ({', '.join(map(str, study.seeds))})."
    )
    if study.left_out:
        text += f" Left out, since the plan no longer holds them: {', '.join(study.left_out)}."
    return text


def _short(why: str, most: int = 300) -> str:
    return why if len(why) <= most else f"{why[:most]} …"


def codes(study: Study) -> list[str]:
    """The versions of the code that made the trials: its digest where one was recorded, else the commit."""
    return list(dict.fromkeys(_code(trial) for _, trial in study.trials() if _code(trial)))


def _code(trial: Trial) -> str:
    return str(trial.versions.get("code") or trial.versions.get("commit") or "")


def facts_of(study: Study) -> dict[str, str]:
    """What all trials were made with, in words: command, seeds, code, packages, hardware, data. People and `reports.comparison` read it."""
    trials = [trial for _, trial in study.trials()]
    facts = merged([trial.versions for trial in trials])
    commit, code = facts.pop("commit", "not recorded"), facts.pop("code", "not recorded")
    dirty = facts.pop("dirty", "")
    hardware = facts.pop("hardware", "not recorded")
    return {
        "Command": study.tags.get("command", "not recorded"),
        "Evaluation": study.tags.get("evaluation", "not recorded"),
        "Seeds": ", ".join(map(str, study.seeds)),
        "Commit": f"{commit}, {_changed(study, trials, dirty)}",
        "Code": f"{code} (digest of the source that trials depend on)" if code != "not recorded" else code,
        "Versions": ", ".join(f"{name} {value}" for name, value in facts.items()) or "not recorded",
        "Packages": _digests(study, trials, "environment.txt", "all of them in environment.txt of each run"),
        "Hardware": hardware,
        "Data": _data(study, trials),
    }


def _changed(study: Study, trials: Sequence[Trial], dirty: str) -> str:
    if dirty == "False":
        return "without uncommitted changes"
    if "True" not in dirty:
        return "uncommitted changes not recorded"
    kept = _digests(study, trials, "changes.diff", "changes.diff of each run has them")
    return "with uncommitted changes" + ("" if kept == "not recorded" else f" ({kept})")


def _digests(study: Study, trials: Sequence[Trial], name: str, where: str) -> str:
    found = [path.read_bytes() for trial in trials if (path := study.fetch(trial, name))]
    if not found:
        return "not recorded"
    told = list(dict.fromkeys(_digest(content) for content in found))
    counted = "" if len(found) == len(trials) else f", kept by {len(found)} of {len(trials)} runs"
    return f"{where}{counted}; SHA-256 {' / '.join(told)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def provenance(study: Study) -> list[dict[str, Any]]:
    """The sections Provenance and Configuration."""
    trials = [trial for _, trial in study.trials()]
    facts = facts_of(study)
    counts = merged([trial.counts for cell, trial in study.trials() if not cell.reference])
    plan = {
        "Factors": "; ".join(f"{f.key}: {', '.join(map(str, f.levels))}" for f in study.factors) + _without(study),
        "Counts": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items()) or "not recorded",
    }
    after = {
        "Time": _time(trials),
        "MLflow": f"experiment “{study.sweep}”, id {study.experiment_id}; python -m reports {study.sweep} makes this report again",
    }
    told = list(facts.items())
    split = list(facts).index("Commit")
    pairs = [*told[:split], *plan.items(), *told[split:], *after.items()]
    if kept := [f"{name} ({what})" for name, what in FILES.items() if any(study.fetch(trial, name) for trial in trials)]:
        pairs.append(("Files of a run", "; ".join(kept)))
    several = len(codes(study)) > 1
    rows = [
        [cell.label, str(trial.seed), *([_code(trial)[:12]] if several else []), trial.run_id, f"{trial.minutes:.2f}"]
        for cell, trial in study.trials()
    ]
    head = ["Cell", "Seed", *(["Code"] if several else []), "Run id", "Minutes"]
    runs = Table("The MLflow runs behind every number.", head, rows)
    left = (0, 2, 3) if several else (0, 2)
    return [
        heading_block("Provenance"),
        pairs_block(pairs),
        table_block(runs, widths=["auto"] * len(head), size=8.2, left=left),
        heading_block("Configuration"),
        mono_block([f"{key} = {value}" for key, value in flat(study.config)]),
    ]


def _time(trials: Sequence[Trial]) -> str:
    phases = sorted({phase for trial in trials for phase in trial.seconds})
    spent = ", ".join(f"{phase} {sum(t.seconds.get(phase, 0.0) for t in trials) / 60:.1f} min" for phase in phases)
    text = f"{sum(t.minutes for t in trials):.1f} min over {len(trials)} finished trials" + (f": {spent}" if spent else "")
    first = min(t.started for t in trials)
    last = max(t.started + round(60_000 * t.minutes) for t in trials)
    return f"{text}; from {_moment(first)} to {_moment(last)} UTC"


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _without(study: Study) -> str:
    """The combinations that the plan leaves out."""
    texts = [" with ".join(f"{key.rpartition('.')[2]}={level}" for key, level in entry.items()) for entry in study.without]
    return f"; not combined: {', '.join(texts)}" if texts else ""


# ---- data


def _manifests(study: Study, trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Digest -> what data.json says, of each kind that the trials have."""
    found: dict[str, dict[str, Any]] = {}
    for trial in trials:
        if path := study.fetch(trial, "data.json"):
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(data_digest(manifest), manifest)
    return found


def data_digest(manifest: Any) -> str:
    """The same for the same data in another folder or unpacked at another time: 16 hex digits of SHA-256."""
    return _digest(json.dumps(_portable(manifest), sort_keys=True).encode())


def _portable(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        # a file list's own digest, `facts.images`, depends on the times of the files
        skipped = ("root", "images") if name == "facts" else ("root",)
        return {key: _portable(entry, key) for key, entry in value.items() if key not in skipped}
    if isinstance(value, list):
        return [_portable(entry) for entry in value]
    if isinstance(value, str):
        return value.replace("\\", "/").rpartition("/")[2]
    return None if isinstance(value, int) and value >= TIME else value


def _data(study: Study, trials: Sequence[Trial]) -> str:
    found = _manifests(study, trials)
    if not found:
        return "not recorded"
    texts = []
    for digest, manifest in found.items():
        sets = {"train": manifest.get("train"), **manifest.get("evaluation", {})}
        lines = [f"{name}: {_set(told)}" for name, told in sets.items() if told is not None]
        texts.append("\n".join([*lines, f"digest {digest} of data.json without folders and file times"]))
    return "\nof other trials:\n".join(texts)


def _set(told: Any) -> str:
    """What is said of one set of samples: its counts, words such as the layout, and what was left out."""
    if not isinstance(told, dict):
        return f"{told} samples"
    words = [f"{key} {value}" for key, value in told.items() if isinstance(value, str)]
    counts = [f"{value} {key.replace('_', ' ')}" for key, value in told.items() if type(value) is int and value and key != "count"]
    problems = [f"left out: {json.dumps(told['problems'], ensure_ascii=False)}"] if told.get("problems") else []
    return ", ".join([*words, *counts, *problems])


# ---- facts as text


def merged(facts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> value; where trials disagree, all their values."""
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    return {name: " / ".join(dict.fromkeys(str(fact[name]) for fact in facts if name in fact)) for name in names}


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted key, value as JSON."""
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False)))
    return found
