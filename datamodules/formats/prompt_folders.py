"""Which files of a folder hold prompts, and which of them are one set together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.formats.index import DataError
from datamodules.formats.prompt_lines import T2I_NAME
from datamodules.formats.prompt_rows import ROWS

__all__ = ["Source", "prompt_files"]

# Texts of no prompts beside the benchmarks' own
OTHER = ("readme", "license", "licence", "object_names", "new_objects", "requirements")
# What the hub's library writes beside its tables
FACTS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
SHORT = 20_000  # Bytes of a file of one prompt at most


@dataclass(frozen=True)
class Source:
    """The files of one set of prompts, by its name: one, shards of a table, or (``each``) a folder
    of texts of one prompt each."""

    name: str
    paths: tuple[Path, ...]
    each: bool = False

    @property
    def path(self) -> Path:
        """What stands for it: the folder, where it has a file for each prompt."""
        return self.paths[0].parent if self.each else self.paths[0]


def prompt_files(folder: Path) -> tuple[list[Source], list[Path]]:
    """(the sets of prompts of a folder, its files of texts and rows that are not read), by name.

    Those are all files of rows and, of each T2I-CompBench category, the validation prompts that
    its score is of (others only where there are none); a folder that has neither is read as texts,
    which are one set where each holds one prompt. Where there is nothing, the folder ``data`` in it
    is looked at, or those of a saved DatasetDict. Raises DataError where there is nothing to read.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    if (folder / "dataset_dict.json").is_file():
        inner = [prompt_files(path) for path in sorted(folder.iterdir()) if path.is_dir()]
        sources = [
            Source(source.paths[0].parent.name, source.paths) for of, _ in inner for source in of
        ]
        return sources, [path for _, left in inner for path in left]
    texts = [path for path in paths if path.suffix.lower() == ".txt"]
    rows = [path for path in paths if path.suffix.lower() in ROWS and path.name not in FACTS]
    readable = sorted([*texts, *rows])
    benchmark: dict[str, dict[tuple[int, bool], list[Path]]] = {}
    for path in texts:
        if match := T2I_NAME.fullmatch(path.stem.lower()):
            rank = ({"val": 0, None: 1, "train": 2}[match[2]], match[3] is not None)
            benchmark.setdefault(match[1], {}).setdefault(rank, []).append(path)
    selected = rows + [path for ranked in benchmark.values() for path in ranked[min(ranked)]]
    selected = sorted(selected)
    if not selected:
        selected = [path for path in texts if path.stem.lower() not in OTHER]
        if len(selected) > 1 and _hold_one_each(selected):
            return [Source(folder.name, tuple(selected), each=True)], [
                path for path in readable if path not in selected
            ]
    if not selected and (folder / "data").is_dir():
        return prompt_files(folder / "data")
    if not selected:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{folder}: no prompt files: looked for *.jsonl, *.json, *.csv, *.tsv, *.parquet and "
            f"*.txt, found {names}"
        )
    return _join_shards(selected), [path for path in readable if path not in selected]


def _join_shards(paths: Sequence[Path]) -> list[Source]:
    joined: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        match = SHARD.fullmatch(path.stem)
        joined.setdefault((match[1] if match else path.stem, path.suffix), []).append(path)
    return [Source(name, tuple(files)) for (name, _), files in joined.items()]


def _hold_one_each(paths: Sequence[Path]) -> bool:
    """Whether each text has one line, the last end of a line aside."""
    for path in paths:
        raw = path.read_bytes() if path.stat().st_size <= SHORT else b"\n\n"
        if b"\n" in raw.strip() or b"\r" in raw.strip() or not raw.strip():
            return False
    return True
