"""Sharded rows: computed once by however many processes, whole after a kill, never stale, and light
to hand to workers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

from datamodules import shards as module
from datamodules.formats.index import DataError
from datamodules.shards import Rows, Shards, fill

ROOT = Path(__file__).resolve().parents[2]
FACTS = {"backbone": "abc", "dtype": "bfloat16", "resolution": 64}
COUNT = 22  # three shards of 8, the last one short

# A process of its own: notes each row that it computes, a line before and a line after each batch,
# and waits in between.
FILLER = """
import sys, time
from pathlib import Path
import torch
from datamodules.shards import fill

folder, notes, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def compute(rows):
    with notes.open("a") as file:
        file.write(f"{' '.join(map(str, rows))}\\n")
    time.sleep(pause if len(rows) > 1 else 0)
    return {"x": torch.tensor(rows, dtype=torch.float32)[:, None] * torch.ones(3)}

filled = fill(folder, {"a": 1}, 64, compute, per_shard=8, batch=4)
assert all(filled["x"][i].tolist() == [i] * 3 for i in range(64))
"""


class Encoder:
    """Gives row i the values i, i + 1, … and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        self.calls.append(rows)
        latents = torch.tensor(rows)[:, None, None] + torch.arange(6.0).view(2, 3)
        return {"latents": latents.bfloat16(), "number": torch.tensor(rows)}

    @property
    def rows(self) -> list[int]:
        """What was computed but for the row that is tried first."""
        return sorted(row for call in self.calls if len(call) > 1 for row in call)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


def filled(folder: Path, compute: Callable, **more: Any) -> Shards:
    return fill(folder, FACTS, COUNT, compute, per_shard=8, batch=4, **more)


def process(folder: Path, notes: Path, pause: float) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", FILLER, str(folder), str(notes), str(pause)], env=environment
    )


def noted(notes: Path) -> Counter[int]:
    """How often each row was computed, the one that is tried first left out."""
    calls = [line.split() for line in notes.read_text().splitlines()]
    return Counter(int(row) for call in calls if len(call) > 1 for row in call)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_in_channels_last_order_are_stored_and_read(tmp_path: Path):
    def encode(rows: list[int]) -> dict[str, torch.Tensor]:
        latents = torch.arange(24.0).view(1, 4, 2, 3) + torch.tensor(rows).view(-1, 1, 1, 1)
        return {"latents": latents.to(memory_format=torch.channels_last)}

    shards = filled(tmp_path, encode)
    assert torch.equal(shards["latents"][5], torch.arange(24.0).view(4, 2, 3) + 5)


def test_rows_are_computed_once_and_read_as_they_were(tmp_path: Path, encoder: Encoder):
    shards = filled(tmp_path, encoder)
    assert encoder.rows == list(range(COUNT)) and encoder.calls[0] == [0]
    assert all(len(call) <= 4 for call in encoder.calls)
    again = filled(tmp_path, pytest.fail)
    wanted = Encoder()(list(range(COUNT)))
    for rows in (shards["latents"], again["latents"]):
        assert rows.shape == (COUNT, 2, 3) and len(rows) == COUNT and rows.dtype == torch.bfloat16
        assert torch.equal(torch.stack([rows[i] for i in range(COUNT)]), wanted["latents"])
        assert torch.equal(rows[-1], wanted["latents"][-1])
        assert torch.equal(rows.gather([21, 0, 8, 8]), wanted["latents"][[21, 0, 8, 8]])
    assert again["number"].gather(range(COUNT)).tolist() == list(range(COUNT))
    assert sorted(again) == ["latents", "number"]
    assert [len(load_file(shards.path(i))["number"]) for i in range(3)] == [8, 8, 6]


def test_a_row_is_a_copy_and_the_ends_are_guarded(tmp_path: Path, encoder: Encoder):
    rows = filled(tmp_path, encoder)["number"]
    rows[3].fill_(99)
    assert rows[3].item() == 3
    for beyond in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError, match=f"row {beyond} of 'number': there are {COUNT}"):
            rows[beyond]
    with pytest.raises(KeyError, match="holds latents, number"):
        filled(tmp_path, encoder)["images"]


def test_other_facts_are_another_folder(tmp_path: Path, encoder: Encoder):
    facts = [
        FACTS,
        {**FACTS, "dtype": "float16"},
        {**FACTS, "resolution": 32},
        {**FACTS, "crop": "none"},
    ]
    folders = {fill(tmp_path, f, count, encoder).folder for f in facts for count in (3, 4)}
    assert len(folders) == 8
    before = len(encoder.calls)
    assert (
        fill(tmp_path, dict(reversed(FACTS.items())), 4, encoder).folder in folders
        and len(encoder.calls) == before
    )
    meta = json.loads((fill(tmp_path, FACTS, 4, encoder).folder / "meta.json").read_text())
    assert meta["facts"] == FACTS and meta["count"] == 4


def test_an_interrupted_fill_keeps_finished_shards_and_no_half_ones(
    tmp_path: Path, encoder: Encoder
):
    def stops(rows: list[int]) -> dict[str, torch.Tensor]:
        if 13 in rows:
            raise KeyboardInterrupt
        return encoder(rows)

    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, stops)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    encoder.calls.clear()
    filled(tmp_path, encoder)
    assert [0] not in encoder.calls and encoder.rows == list(range(8, COUNT))


def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    def half(tensors: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_file", half)
    with pytest.raises(OSError, match="no space"):
        filled(tmp_path, encoder)
    assert sorted(path.name for path in next(tmp_path.iterdir()).iterdir()) == [
        "locks",
        "meta.json",
    ]


@pytest.mark.slow
def test_a_killed_process_is_taken_up_where_it_was(tmp_path: Path):
    notes = tmp_path / "notes"
    one = process(tmp_path / "cache", notes, 0.2)
    until(lambda: len(list(tmp_path.rglob("shard-*.safetensors"))) >= 3)
    one.send_signal(signal.SIGKILL)
    assert one.wait() == -signal.SIGKILL
    finished = [
        8 * int(path.stem.removeprefix("shard-")) for path in tmp_path.rglob("shard-*.safetensors")
    ]
    assert 3 <= len(finished) < 8
    assert process(tmp_path / "cache", notes, 0).wait() == 0
    times = noted(notes)
    assert all(times[row] == 1 for first in finished for row in range(first, first + 8))
    # What the killed process had begun, at most one shard, is computed a second time, and nothing
    # else.
    assert (
        sorted(times) == list(range(64))
        and sum(times.values()) <= 64 + 8
        and max(times.values()) <= 2
    )
    assert not list((tmp_path / "cache").glob("*/.shard*"))


@pytest.mark.slow
def test_processes_share_the_work_and_go_on_for_one_that_is_killed(tmp_path: Path):
    notes = [tmp_path / f"notes{i}" for i in range(3)]
    for note in notes:
        note.touch()
    victim = process(tmp_path / "cache", notes[0], 60)
    until(lambda: bool(noted(notes[0])))
    others = [process(tmp_path / "cache", note, 0.2) for note in notes[1:]]
    # All but that which the slow one holds
    until(lambda: len(list(tmp_path.rglob("shard-*.safetensors"))) == 7)
    assert all(other.poll() is None for other in others)
    victim.kill()
    assert [other.wait(60) for other in others] == [0, 0]
    total = noted(notes[1]) + noted(notes[2])
    assert sorted(total) == list(range(64)) and set(total.values()) == {1}
    assert noted(notes[1]) and noted(notes[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_stop_with_the_name(
    tmp_path: Path, encoder: Encoder, bad: float
):
    def overflows(rows: list[int]) -> dict[str, torch.Tensor]:
        found = encoder(rows)
        for row in {10, 11} & set(rows):
            found["latents"][rows.index(row), 1, 2] = bad
        return found

    with pytest.raises(
        DataError,
        match=(
            r"^images/10\.jpg \(and 1 more .*: its latents are "
            r"not finite: encode in float32 or bfloat16"
        ),
    ):
        filled(tmp_path, overflows, where=lambda row: Path(f"images/{row}.jpg"))
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["shard-00000.safetensors"]
    assert torch.equal(filled(tmp_path, encoder)["latents"][10], Encoder()([10])["latents"][0])


def test_a_first_row_that_is_not_finite_leaves_no_description(tmp_path: Path):
    with pytest.raises(DataError, match=r"^row 0: its x are not finite"):
        filled(tmp_path, lambda rows: {"x": torch.full((len(rows), 2), float("nan"))})
    assert not list(tmp_path.rglob("meta.json"))


def test_a_disk_that_is_too_small_is_refused_before_the_work(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    needed = COUNT * (2 * 3 * 2 + 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        ValueError,
        match=(
            r"22 of 22 latents to compute, 440 B at " r".*, but 439 B are free there: make room"
        ),
    ):
        filled(tmp_path, encoder, what="latents")
    assert encoder.calls == [[0]]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    filled(tmp_path, encoder)
    # What is there already needs no room.
    next(tmp_path.rglob("shard-00001*")).unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=8 * 20 - 1))
    with pytest.raises(ValueError, match=r"8 of 22 rows to compute, 160 B"):
        filled(tmp_path, encoder)


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "longer", "junk", "other shape", "other dtype", "other name"]
)
def test_a_damaged_shard_is_computed_again(tmp_path: Path, encoder: Encoder, damage: str):
    path = filled(tmp_path, encoder).path(1)
    content, tensors = path.read_bytes(), load_file(path)
    match damage:
        case "other shape":
            save_file({**tensors, "latents": tensors["latents"][:-1]}, path)
        case "other dtype":
            save_file({**tensors, "latents": tensors["latents"].half()}, path)
        case "other name":
            save_file({"latents": tensors["latents"]}, path)
        case _:
            path.write_bytes(
                {"cut": content[:-3], "empty": b"", "longer": content + b"0", "junk": b"\xff" * 99}[
                    damage
                ]
            )
    encoder.calls.clear()
    lines: list[str] = []
    again = filled(tmp_path, encoder, emit=lambda text, share: lines.append(text))
    assert encoder.calls == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert torch.equal(
        again["latents"].gather(range(COUNT)), Encoder()(list(range(COUNT)))["latents"]
    )
    assert any("shard-00001.safetensors is damaged" in line for line in lines)


def test_a_description_that_cannot_be_read_is_made_again(tmp_path: Path, encoder: Encoder):
    folder = filled(tmp_path, encoder).folder
    (folder / "meta.json").write_text('{"count": 22}')
    with pytest.raises(ValueError, match=r"meta\.json describes no shards"):
        Shards(folder)
    encoder.calls.clear()
    assert filled(tmp_path, encoder)["number"][21].item() == 21
    assert encoder.calls == [[0]]


def test_a_shard_that_is_damaged_after_it_was_opened_says_so(tmp_path: Path, encoder: Encoder):
    shards = filled(tmp_path, encoder)
    shards.path(2).unlink()
    assert shards["number"][15].item() == 15
    with pytest.raises(ValueError, match=r"shard-00002\.safetensors cannot be read"):
        shards["number"][16]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda rows: {"x": torch.zeros(len(rows) + (len(rows) > 1), 2)},
            ("5 rows of 'x' for 4 rows of latents: expected one for each"),
        ),
        (
            lambda rows: {"x": torch.zeros(len(rows), 2 + (20 in rows))},
            (r"row 20 and .* gave x \[3\] " r"float32 a row: expected x \[2\] float"),
        ),
        (
            lambda rows: {"x" if 0 in rows else "y": torch.zeros(len(rows))},
            (r"row 4 and .* gave y " r"\[\] float32 a row: expected x"),
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, wrong: Callable, message: str):
    with pytest.raises(ValueError, match=message):
        filled(tmp_path, wrong, what="latents")


def test_no_rows_are_refused(tmp_path: Path, encoder: Encoder):
    with pytest.raises(ValueError, match="latents: 0 rows to compute"):
        fill(tmp_path, FACTS, 0, encoder, what="latents")


def test_progress_tells_size_first_and_ends_at_one(tmp_path: Path, encoder: Encoder):
    lines: list[tuple[str, float]] = []
    filled(tmp_path, encoder, what="latents", emit=lambda text, share: lines.append((text, share)))
    assert lines[0][0].startswith("22 of 22 latents to compute, 440 B at ") and lines[0][1] == 0
    assert lines[-1] == ("latents: 22/22", 1.0)


class Reader(Dataset):
    """As the datasets use latents."""

    def __init__(self, latents: Rows) -> None:
        self.latents = latents

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.latents[index]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_rows_are_light_and_work_in_worker_processes(tmp_path: Path, encoder: Encoder, start: str):
    rows = filled(tmp_path, encoder)["latents"]
    rows.gather(range(COUNT))
    assert len(pickle.dumps(rows)) < 2000
    workers = 2 if start == "fork" else 1
    loader = DataLoader(
        Reader(rows), batch_size=4, num_workers=workers, multiprocessing_context=start
    )
    assert torch.equal(torch.cat(list(loader)), Encoder()(list(range(COUNT)))["latents"])
