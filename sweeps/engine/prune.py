"""Makes room below an output: images, adapters and caches that nothing has written to for a while.

    python -m sweeps prune --older 30d --keep-cited             # shows sizes, then asks
    python -m sweeps prune --older 2w output=/data/runs --yes   # does not ask

Ages are 12h, 30d, 2w. With --keep-cited what the trials of a sweep with a report were drawn and
trained with stays. Trials, their results, reports and MLflow are never touched; what is gone is
made again where a sweep needs it, but images that are gone cannot be measured again. Returns 0, 2
for a wrong command or where a sweep runs.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.describe import nearest, show_count
from conf.files import read_json
from conf.pipes import ends_with_reader
from conf.places import as_path
from sweeps.engine.events import json_lines, tell
from sweeps.engine.locks import find_owner
from sweeps.engine.trials import RESULT

__all__ = ["Entry", "find_cited", "list_old", "main", "read_age", "remove"]

SECONDS = {"h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
AGE = re.compile(r"(\d+(?:\.\d+)?)([hdw])")
FLAGS = ("--older", "--keep-cited", "--yes", "--json", "--help")
# Below the cache: what is kept in folders by a digest. Locks and the digests of files stay.
CACHES = (
    "latents",
    "texts",
    "real_stats",
    "features",
    "prior",
    "rewarded",
    "scenes",
    "index",
    "unpacked",
)
GOING = ".pruned-"  # Being removed: no name that anything looks for


@dataclass(frozen=True)
class Entry:
    """A folder that may go, with its ``size`` in bytes and when it was ``written`` to last (s since
    1970)."""

    kind: str
    path: Path
    size: int
    written: float


@ends_with_reader
def main(argv: Sequence[str]) -> int:
    """``python -m sweeps prune``."""
    if {"-h", "--help"} & {*argv}:
        print(__doc__.strip() if __doc__ else "")
        return 0
    with json_lines("--json" in argv):
        try:
            status = _prune(argv)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            tell("error", message=str(error))
            status = 2
        tell("end", status=status)
        return status


def _prune(argv: Sequence[str]) -> int:
    age, output = _read_words(argv)
    if not output.is_dir():
        raise ValueError(f"output={output}: there is no such folder")
    for folder in output.iterdir():
        if folder.is_dir() and (owner := find_owner(folder)):
            raise ValueError(f"{folder} is run by {owner.describe()}: wait until it has ended")
    old = list_old(output, time.time() - age)
    kept: list[Entry] = []
    if "--keep-cited" in argv:
        cited, why = find_cited(output)
        kept = [entry for entry in old if entry.path in cited or (why and entry.kind == "adapters")]
        old = [entry for entry in old if entry not in kept]
        if why:
            print(f"all adapters stay: {why}")
    for kind in dict.fromkeys(entry.kind for entry in old):
        some = [entry for entry in old if entry.kind == kind]
        print(f"{kind}: {show_count(len(some), 'folder')}, {_show_size(some)}")
        tell("kind", kind=kind, folders=len(some), bytes=sum(entry.size for entry in some))
    if kept:
        print(f"cited by a report, kept: {show_count(len(kept), 'folder')}, {_show_size(kept)}")
    if not old:
        print(f"nothing in {output} is that old")
        return 0
    print(f"in all {_show_size(old)} in {output}")
    if not _agrees("--yes" in argv):
        print("nothing was removed")
        return 0
    remove(old)
    print(f"{_show_size(old)} removed")
    tell("pruned", folders=len(old), bytes=sum(entry.size for entry in old))
    return 0


def _read_words(argv: Sequence[str]) -> tuple[float, Path]:
    """The age in seconds, and the output."""
    words, age, output = [*argv], None, "runs"
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if flag == "--older":
            age = read_age(value if equals else words.pop(0) if words else "")
        elif flag == "output" and value:
            output = value
        elif word not in FLAGS:
            near = nearest(word, [*FLAGS, "output="])
            raise ValueError(
                f"{word}: prune takes --older AGE, {', '.join(FLAGS[1:4])}, output={near}"
            )
    if age is None:
        raise ValueError("how old? say for example --older 30d")
    return age, as_path(output)


def read_age(text: str) -> float:
    """Seconds of 12h, 30d or 2w. Raises ValueError."""
    match = AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"--older {text}: expected a number and h, d or w, such as 30d")
    return float(match[1]) * SECONDS[match[2]]


def list_old(output: Path, before: float) -> list[Entry]:
    """The folders of images, adapters and caches that nothing was written to since ``before``, the
    largest of each kind first. Links are left alone."""
    places = [("images", output / "images"), ("adapters", output / "adapters")]
    places += [(f"cache of {name}", output / "cache" / name) for name in CACHES]
    found = []
    for kind, place in places:
        folders = sorted(place.iterdir()) if place.is_dir() else []
        entries = [_measure(kind, path) for path in folders if _is_own(path)]
        entries = [entry for entry in entries if entry.written < before]
        found += sorted(entries, key=lambda entry: -entry.size)
    return found


def _is_own(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.name != "locks"


def _measure(kind: str, path: Path) -> Entry:
    facts = [file.lstat() for file in (path, *path.rglob("*"))]
    return Entry(kind, path, sum(one.st_size for one in facts), max(one.st_mtime for one in facts))


def find_cited(output: Path) -> tuple[set[Path], str]:
    """The folders of images and adapters that reports below ``output`` rest on; and why more may
    be, which no file says, else empty."""
    cited: set[Path] = set()
    why = ""
    for report in output.glob("*/report.json"):
        for path in report.parent.glob(f"trials/*/{RESULT}"):
            images = _images_of(path.parent)
            if not images:
                why = f"{path.parent} names no images that would say with which it was drawn"
            for name in images:
                folder = output / "images" / name
                cited.add(folder)
                facts = read_json(folder / "facts.json") if folder.is_dir() else None
                if facts is None:
                    continue
                # Of what learns on each prompt, or nothing, it is no name
                if isinstance(adapter := facts.get("training"), str):
                    cited.add(output / "adapters" / adapter)
    return cited, why


def _images_of(trial: Path) -> set[str]:
    """The folders of a trial's images, by the table of its scores."""
    import pyarrow.parquet as parquet

    table = trial / "scores.parquet"
    if not table.is_file() or "image" not in parquet.read_schema(table).names:
        return set()
    names = parquet.read_table(table, columns=["image"]).column("image").to_pylist()
    return {str(name).partition("/")[0] for name in names if name}


def remove(entries: Iterable[Entry]) -> None:
    """Removes folders, each as a whole for whoever looks: it has another name first. What an
    earlier removal had not come to goes, too."""
    places = set()
    for entry in entries:
        going = entry.path.with_name(GOING + entry.path.name)
        entry.path.rename(going)
        shutil.rmtree(going)
        entry.path.with_name(f"{entry.path.name}.jsonl").unlink(missing_ok=True)
        places.add(entry.path.parent)
    for place in places:
        for left in place.glob(f"{GOING}*"):
            shutil.rmtree(left)


def _show_size(entries: Iterable[Entry]) -> str:
    size = float(sum(entry.size for entry in entries))
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _agrees(yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        print("to remove that, add --yes")
        return False
    return input("remove that? [y/N] ").strip().lower() in ("y", "yes")
