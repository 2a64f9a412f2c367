"""One archive that proves a report: ``python -m sweeps bundle`` writes it, ``verify`` checks it.

    python -m sweeps bundle threshold                       # writes runs/threshold.bundle.zip
    python -m sweeps bundle threshold output=/data/runs to=/tmp/threshold.zip
    python -m sweeps verify threshold.bundle.zip            # anywhere: needs no MLflow, no output
    python -m sweeps verify threshold.bundle.zip output=/data/runs    # the images there, too

The archive (zip) has the report, the settings, results and scores of each trial with its sample
images, what MLflow knew, and ``manifest.json``: the SHA-256 of each file, which code made and
measured the numbers, and what lay in the data. ``images.sha256`` lists all images that were drawn
(``sha256sum -c`` reads it below <output>/images). ``verify`` compares every SHA-256, makes the
report again from the trials, and compares every number of it. It returns 0, 1 where something
differs, 2 for a wrong command or a file that is no such archive.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from conf.describe import nearest, show_count
from conf.files import DiskFull, write_atomically
from conf.pipes import ends_with_reader
from conf.places import as_path
from lightning_modules.tracking.mlflow import ARTIFACTS
from reports.evidence import EXPERIMENT, SCHEME, read_experiment
from reports.files import ReportError
from sweeps.engine.events import json_lines, tell
from sweeps.sweep import trial_folder

__all__ = ["EvidenceError", "main_bundle", "main_verify", "verify", "write_bundle"]

MANIFEST, IMAGES = "manifest.json", "images.sha256"
FORMAT = 1  # Of the manifest
LEFT_OUT = ("log.txt",)  # Says whose machine it was
# What is compared byte by byte when the report is made again; of its content all but provenance
CONTENT = "report.json"
NUMBERS = ("answer.json", "report.csv", "report.md", "report.tex")
STAMP = (1980, 1, 1, 0, 0, 0)  # Of each member, so that the same content is the same archive
CHUNK = 1 << 20


class EvidenceError(ValueError):
    """An archive that cannot be written or read; one line."""


@ends_with_reader
def main_bundle(argv: Sequence[str]) -> int:
    """``python -m sweeps bundle NAME``."""
    return _answer(argv, ("output", "tracking_uri", "to"), _bundle)


@ends_with_reader
def main_verify(argv: Sequence[str]) -> int:
    """``python -m sweeps verify FILE``."""
    return _answer(argv, ("output",), _verify)


def _answer(argv: Sequence[str], known: Sequence[str], act: Any) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__.strip() if __doc__ else "")
        return 0
    with json_lines("--json" in argv):
        try:
            names, settings = _split([word for word in argv if word != "--json"], known)
            status = act(names, settings)
        except (ValueError, ReportError, DiskFull) as error:
            print(f"error: {error}", file=sys.stderr)
            tell("error", message=str(error))
            status = 2
        tell("end", status=status)
        return status


def _split(words: Sequence[str], known: Sequence[str]) -> tuple[str, dict[str, str]]:
    names = [word for word in words if "=" not in word]
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    for key in settings.keys() - {*known}:
        there = ", ".join(f"{name}=" for name in known)
        raise EvidenceError(f"{key}={settings[key]}: there are {there}{nearest(key, known)}")
    if len(names) != 1:
        got = " ".join(names) or "nothing"
        raise EvidenceError(f"expected one name, got {got}")
    return names[0], settings


def _bundle(name: str, settings: Mapping[str, str]) -> int:
    output = as_path(settings.get("output", "runs"))
    uri = settings.get("tracking_uri", f"sqlite:///{(output / 'mlflow.db').resolve()}")
    place = as_path(settings.get("to", str(output / f"{name}.bundle.zip")))
    manifest = write_bundle(output, name, uri, place)
    size = place.stat().st_size / 1e6
    files = show_count(len(manifest["files"]), "file")
    images = show_count(manifest["images"], "image")
    print(f"{place}: {files}, {size:.1f} MB, digests of {images} more")
    tell("bundle", path=str(place), files=len(manifest["files"]), images=manifest["images"])
    return 0


def _verify(name: str, settings: Mapping[str, str]) -> int:
    output = as_path(settings["output"]) if "output" in settings else None
    wrong, notes = verify(as_path(name), output)
    for line in notes:
        print(line)
    for line in wrong:
        print(f"differs: {line}")
    print("it holds" if not wrong else f"it does not hold: {show_count(len(wrong), 'difference')}")
    tell("verified", holds=not wrong, differs=wrong, notes=notes)
    return 1 if wrong else 0


# --- writing --------------------------------------------------------------------------------------


def write_bundle(output: Path, name: str, uri: str, place: Path) -> dict[str, Any]:
    """Writes the archive of the study ``name`` to ``place``, whole or not at all, and returns its
    manifest. Raises EvidenceError where there is no report, or where a trial's folder lacks what
    MLflow says of it; ReportError where MLflow does not know the sweep."""
    from reports.collect import connect
    from reports.report import FILES

    folder = output / name
    if lacking := [file for file in FILES if not (folder / file).is_file()]:
        raise EvidenceError(f"{folder} has no {lacking[0]}: run the sweep to its end first")
    experiment = read_experiment(connect(uri), name)
    members: dict[str, str | Path] = {
        f"report/{path}": folder / path for path in _list_files(folder, [*FILES, "figures"])
    }
    results: list[dict[str, Any]] = []
    images: dict[str, str] = {}
    cells = {run["run_id"]: run["tags"].get("cell", run["run_name"]) for run in experiment["runs"]}
    for run in experiment["runs"]:
        if run["tags"].get("role") != "seed" or run["status"] != "FINISHED":
            continue
        cell = cells[run["tags"]["mlflow.parentRunId"]]
        own = trial_folder(cell, int(run["params"]["seed"]))
        place_of_run = folder / "trials" / own
        if not (place_of_run / "result.json").is_file():
            raise EvidenceError(f"{place_of_run} has no result.json, and MLflow says it finished")
        run["files"] = f"trials/{own}"
        names = [file for file in ARTIFACTS if file not in LEFT_OUT]
        for path in _list_files(place_of_run, names):
            members[f"trials/{own}/{path}"] = place_of_run / path
        results.append(json.loads((place_of_run / "result.json").read_text(encoding="utf-8")))
        images |= _hash_images(place_of_run / "scores.parquet", output / "images")
    texts = {
        EXPERIMENT: json.dumps(experiment, indent=1, ensure_ascii=False),
        IMAGES: "".join(f"{digest}  {path}\n" for path, digest in sorted(images.items())),
    }
    manifest = _describe(name, experiment, results, len(images))
    sources: dict[str, str | Path] = dict(sorted((members | texts).items()))
    manifest["files"] = {
        member: {"sha256": _hash(_read(source)), "bytes": _size(source)}
        for member, source in sources.items()
    }

    def write(draft: Path) -> None:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
            for member, source in sources.items():
                _add(archive, member, source)

    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, write)
    return manifest


def _describe(
    name: str, experiment: Mapping[str, Any], results: Sequence[dict[str, Any]], images: int
) -> dict[str, Any]:
    """What the manifest says but of files. Nothing in it tells whose machine it was."""
    try:
        project = version("compositional-ablations")
    except PackageNotFoundError:
        project = "not installed"
    return {
        "format": FORMAT,
        "sweep": name,
        "question": experiment["tags"].get("question", ""),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
        "project": project,
        "report_code": _report_code(),
        "trials": len(results),
        "made_by": _union(r.get("code_parts", {}) for r in results),
        "measured_by": _union(
            {part: one["code"] for part, one in (r.get("measured") or {}).get("parts", {}).items()}
            for r in results
        ),
        "commits": sorted({str(r.get("versions", {}).get("commit", "unknown")) for r in results}),
        "data": _union(r.get("contents", {}) for r in results),
        "images": images,
    }


def _union(parts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Name -> all its values."""
    found: dict[str, set[str]] = {}
    for one in parts:
        for key, value in one.items():
            found.setdefault(key, set()).add(str(value))
    return {key: sorted(values) for key, values in sorted(found.items())}


def _report_code() -> str:
    """Digest of what makes numbers of results."""
    import reports

    folder = Path(reports.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".typ"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _list_files(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Those files of ``folder`` that are named, or are in a folder that is."""
    for name in names:
        path = folder / name
        if path.is_file():
            yield name
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file())
            yield from (file.relative_to(folder).as_posix() for file in sorted(files))


def _hash_images(table: Path, images: Path) -> dict[str, str]:
    """Image below ``images`` -> its SHA-256, of those that a table of scores names and that are
    still there."""
    import pandas as pd

    if not table.is_file():
        return {}
    named = pd.read_parquet(table).get("image")
    there = [] if named is None else [str(name) for name in named.dropna().unique()]
    return {name: _hash(_read(images / name)) for name in there if (images / name).is_file()}


def _add(archive: zipfile.ZipFile, member: str, source: str | Path) -> None:
    info = zipfile.ZipInfo(member, STAMP)
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w") as file:
        for part in _read(source):
            file.write(part)


def _read(source: str | Path) -> Iterator[bytes]:
    if isinstance(source, str):
        yield source.encode()
        return
    with source.open("rb") as file:
        while part := file.read(CHUNK):
            yield part


def _size(source: str | Path) -> int:
    return len(source.encode()) if isinstance(source, str) else source.stat().st_size


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# --- checking -------------------------------------------------------------------------------------


def verify(place: Path, output: Path | None = None) -> tuple[list[str], list[str]]:
    """What does not hold of an archive, and what was looked at; with ``output`` its images there,
    too. Raises EvidenceError for a file that is none."""
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        folder = Path(scratch) / "bundle"
        manifest, wrong = _unpack(place, folder)
        notes = [f"{place}: {manifest['sweep']}, {show_count(len(manifest['files']), 'file')}"]
        if not wrong:
            notes.append("each file has the SHA-256 of the manifest")
            different, looked = _rebuild(manifest, folder, Path(scratch) / "again")
            wrong += different
            notes += looked
        if output is not None:
            different, looked = _check_images(folder / IMAGES, output / "images")
            wrong += different
            notes += looked
        elif manifest["images"]:
            count = show_count(manifest["images"], "image")
            notes.append(f"{count} not looked at: output=FOLDER says where they are")
        return wrong, notes


def _unpack(place: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest, and which files are not what it says; all of them now lie in ``folder``."""
    try:
        with zipfile.ZipFile(place) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                was = manifest["format"]
                raise EvidenceError(f"{place}: manifest of format {was}, expected {FORMAT}")
            files: dict[str, dict[str, Any]] = manifest["files"]
            manifest["sweep"], manifest["images"], manifest["report_code"]
            there = {info.filename for info in archive.infolist() if not info.is_dir()}
            wrong = [
                f"{name} is not in the manifest" for name in sorted(there - {*files, MANIFEST})
            ]
            for name, facts in sorted(files.items()):
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts:
                    raise EvidenceError(f"{place}: {name!r} is no name of a file inside")
                if name not in there:
                    wrong.append(f"{name} is missing")
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = hashlib.sha256()
                with archive.open(name) as source, target.open("wb") as file:
                    while part := source.read(CHUNK):
                        digest.update(part)
                        file.write(part)
                if digest.hexdigest() != facts["sha256"]:
                    wrong.append(f"{name} has SHA-256 {digest.hexdigest()[:12]}…")
    except FileNotFoundError:
        raise EvidenceError(f"{place}: there is no such file") from None
    except EvidenceError:
        raise
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise EvidenceError(f"{place}: no archive of python -m sweeps bundle ({reason})") from None
    return manifest, wrong


def _rebuild(manifest: Mapping[str, Any], folder: Path, again: Path) -> tuple[list[str], list[str]]:
    """Makes the report from the trials in ``folder``; which of its numbers differ."""
    from reports.report import write_report

    try:
        write_report(f"{SCHEME}{folder}", manifest["sweep"], again)
    except ReportError as error:
        return [f"the report cannot be made again: {error}"], []
    wrong = _compare_results(folder)
    for name in NUMBERS:
        if (again / name).read_bytes() != (folder / "report" / name).read_bytes():
            lines = _first_difference(folder / "report" / name, again / name)
            wrong.append(f"{name}, made again: {lines}")
    before, now = (_read_content(place / CONTENT) for place in (folder / "report", again))
    if before != now:
        wrong.append(f"{CONTENT}, made again, shows other numbers or sentences")
    code = "the same code" if manifest["report_code"] == _report_code() else "other code"
    names = ", ".join([*NUMBERS, CONTENT])
    trials = show_count(manifest["trials"], "trial")
    return wrong, [f"the report made again by {code} from {trials}: {names}"]


def _read_content(path: Path) -> dict[str, Any]:
    """What a report shows, without the pairs of its provenance, some of which name places."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for block in content["blocks"]:
        block.pop("pairs", None)
    return content


def _compare_results(folder: Path) -> list[str]:
    """Trials of which MLflow had another number than their result."""
    wrong = []
    for run in json.loads((folder / EXPERIMENT).read_text(encoding="utf-8"))["runs"]:
        if "files" not in run:
            continue
        path = folder / run["files"] / "result.json"
        for key, value in json.loads(path.read_text(encoding="utf-8"))["metrics"].items():
            if key in run["metrics"] and run["metrics"][key] != value:
                wrong.append(
                    f"{run['files']}: {key} is {value}, the report's {run['metrics'][key]}"
                )
    return wrong


def _first_difference(one: Path, other: Path) -> str:
    before, now = (path.read_text(encoding="utf-8").splitlines() for path in (one, other))
    for number, (line, other_line) in enumerate(zip(before, now, strict=False), start=1):
        if line != other_line:
            return f"line {number} was {line.strip()[:80]!r} and is {other_line.strip()[:80]!r}"
    return f"{show_count(len(before), 'line')}, now {len(now)}"


def _check_images(listed: Path, images: Path) -> tuple[list[str], list[str]]:
    entries = [line.split("  ", 1) for line in listed.read_text(encoding="utf-8").splitlines()]
    wrong, gone = [], 0
    for digest, name in entries:
        path = images / name
        if not path.is_file():
            gone += 1
        elif _hash(_read(path)) != digest:
            wrong.append(f"{path} is another image")
    seen = show_count(len(entries) - gone, "image")
    return wrong, [f"{seen} in {images} looked at, {gone} not there"]
