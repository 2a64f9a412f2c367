"""The queue on its journal file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from sweeps.engine.errors import StorageError
from sweeps.engine.queue import TrialQueue
from sweeps.engine.trials import (
    key_of,
    list_studies,
    read_identity,
    read_journal,
    read_trials,
)

ROOT = Path(__file__).parents[3]
KEYS = [("a=1", seed) for seed in range(3)]
LATE = ("a=1", 9)


def opened(folder: Path, direction: Any = "higher") -> TrialQueue:
    return TrialQueue(folder, "queue", direction, {"digest": "one"})


def as_optuna_reads_it(folder: Path) -> list[optuna.trial.FrozenTrial]:
    backend = JournalFileBackend(str(folder / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="queue", storage=storage).trials


def seeds(folder: Path) -> list[int]:
    return [trial.user_attrs["seed"] for trial in as_optuna_reads_it(folder)]


def python(code: str, *words: object, before: tuple[str, ...] = ()) -> Any:
    command = [*before, sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def queue(tmp_path: Path) -> TrialQueue:
    queue = opened(tmp_path)
    for cell, seed in KEYS:
        queue.enqueue(cell, seed, {"a": 1, "word": "x"})
    return queue


def claimed(queue: TrialQueue, keys: Any = KEYS) -> Any:
    trial = queue.claim(keys, {"a": [1, 3]})
    assert trial is not None
    return trial


def test_a_claim_is_of_the_first_that_waits(queue: TrialQueue) -> None:
    trial = claimed(queue, KEYS[1:])
    assert key_of(trial) == KEYS[1] and trial.params == {"a": 1}
    queue.complete(trial.number, 0.5, 3.0)
    (done,) = queue.trials("COMPLETE")
    assert (done.value, done.user_attrs["seconds"]) == (0.5, 3.0)
    assert claimed(queue).user_attrs["seed"] == 0 and claimed(queue).user_attrs["seed"] == 2
    assert queue.claim(KEYS, {}) is None


def test_what_has_finished_elsewhere_is_added_with_its_parameters(queue: TrialQueue) -> None:
    queue.add_finished(LATE, {"a": 1, "word": "x"}, {"a": [1, 3]}, 0.5, seconds=3.0, code=None)
    done = as_optuna_reads_it(queue.folder)[-1]
    assert (done.state.name, done.params, done.value) == ("COMPLETE", {"a": 1}, 0.5)
    assert done.user_attrs == {"cell": LATE[0], "seed": LATE[1], "seconds": 3.0}


def test_facts_outlive_the_journal(queue: TrialQueue, tmp_path: Path) -> None:
    queue.remember("primary", "a=1")
    (tmp_path / "study.journal").unlink()
    again = TrialQueue(tmp_path, "queue", "higher", {"digest": "two"})
    assert again.facts == {"identity": {"digest": "one"}, "primary": "a=1"}
    assert again.study.user_attrs == again.facts and not again.trials()
    other = TrialQueue(tmp_path, "queue.candidates", "lower", {"digest": "two"})
    assert other.facts["identity"] == {"digest": "two"}
    assert read_identity(tmp_path, "queue") == {"digest": "one"}


def test_facts_of_an_older_study_are_in_its_journal_alone(
    queue: TrialQueue, tmp_path: Path
) -> None:
    queue.remember("primary", "a=1")
    (tmp_path / "study.json").unlink()
    assert opened(tmp_path).facts["primary"] == "a=1" and (tmp_path / "study.json").is_file()


def test_what_is_no_number_is_refused(queue: TrialQueue) -> None:
    trial = claimed(queue)
    for value in (float("nan"), [0.1, 0.2]):
        with pytest.raises(ValueError, match="not acceptable|did not match"):
            queue.complete(trial.number, value)
    queue.complete(trial.number, 0.5)
    assert len(queue.trials("COMPLETE")) == 1


def test_several_objectives(tmp_path: Path) -> None:
    queue = opened(tmp_path, ["higher", "lower"])
    assert [direction.name for direction in queue.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    queue.enqueue("a=1", 0, {})
    queue.complete(claimed(queue).number, [0.5, 2.0])
    assert queue.trials()[0].values == [0.5, 2.0]


def test_the_light_reader_sees_what_optuna_sees(queue: TrialQueue, tmp_path: Path) -> None:
    first, second = claimed(queue), claimed(queue)
    queue.complete(first.number, 0.5, 3.0)
    queue.note(second.number, kind="late")
    queue.fail(second.number, "late")
    queue.study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"cell": "b", "seed": 0}))
    names = ("number", "user_attrs", "datetime_start", "datetime_complete")
    expected = as_optuna_reads_it(tmp_path)
    light = read_journal(tmp_path)["queue"].trials
    assert [trial.state.name for trial in light] == ["COMPLETE", "FAIL", "WAITING", "COMPLETE"]
    for one, other in zip(light, expected, strict=True):
        assert one.state.name == other.state.name
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
    assert read_trials(tmp_path, "other") == []


# A journal that was cut


@pytest.mark.parametrize("left", [1, 20, -1])
def test_an_unfinished_line_is_cut_off_when_opened(
    queue: TrialQueue, tmp_path: Path, left: int
) -> None:
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[:last] + whole[last:][:left])
    assert len(read_trials(tmp_path, "queue")) == 2
    again = opened(tmp_path)
    assert len(again.trials()) == 2
    again.enqueue(*LATE, {})
    assert seeds(tmp_path) == [0, 1, 9]


@pytest.mark.parametrize("text", [b'{"op_code":4,"wor', b"\0" * 10_000], ids=["half", "holes"])
def test_an_unfinished_line_is_cut_off_while_open(
    queue: TrialQueue, tmp_path: Path, text: bytes
) -> None:
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(text)
    assert len(queue.trials()) == 3
    queue.enqueue(*LATE, {})
    assert len(queue.trials()) == len(opened(tmp_path).trials()) == len(seeds(tmp_path)) == 4


def test_a_file_that_only_holds_an_unfinished_line(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_bytes(b'{"op_code":0,"study_na')
    assert read_identity(tmp_path, "queue") is None
    opened(tmp_path).enqueue("a=1", 0, {})
    assert seeds(tmp_path) == [0]


def test_a_signal_in_the_middle_of_a_line_takes_it_back(
    queue: TrialQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            queue.enqueue("a=1", 7, {})
    queue.enqueue(*LATE, {})
    assert seeds(tmp_path) == [0, 1, 2, 9]


def test_a_damaged_line_is_named(queue: TrialQueue, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"op_code":2,"st' + lines[2], *lines[3:]]))
    for read in (lambda: opened(tmp_path), lambda: read_trials(tmp_path, "queue")):
        with pytest.raises(StorageError, match=r"study\.journal is damaged in line 3 "):
            read()


def test_a_journal_that_was_taken_away_is_not_begun_a_second_time(
    queue: TrialQueue, tmp_path: Path
) -> None:
    (tmp_path / "study.journal").unlink()
    with pytest.raises(StorageError, match="study.journal cannot be used: No such file"):
        queue.enqueue("a=1", 7, {})
    assert not (tmp_path / "study.journal").exists()


def test_looking_creates_nothing(queue: TrialQueue, tmp_path: Path) -> None:
    text = (tmp_path / "study.journal").read_bytes() + b'{"op_c'
    folder = tmp_path / "output" / "queue"
    folder.mkdir(parents=True)
    (folder / "study.journal").write_bytes(text)
    assert read_identity(folder, "queue") == {"digest": "one"}
    assert read_identity(folder, "other") is read_identity(folder / "missing", "queue") is None
    assert list_studies(folder.parent) == ["queue"]
    assert list_studies(folder) == list_studies(folder / "missing") == []
    assert [path.name for path in folder.iterdir()] == ["study.journal"]
    assert (folder / "study.journal").read_bytes() == text


KILLED = """
import os, signal, sys
from pathlib import Path
from sweeps.engine import journal
from sweeps.engine.queue import TrialQueue
queue = TrialQueue(Path(sys.argv[1]), "queue", "higher", {})
real = journal._open_to_append
def half(path):
    file = real(path)
    class Half:
        def __getattr__(self, name): return getattr(file, name)
        def __enter__(self): return self
        def __exit__(self, *words): file.close()
        def write(self, text):
            file.write(text[:len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    return Half()
journal._open_to_append = half
queue.enqueue("a=1", 7, {})
"""
TOO_LARGE = """
import os, resource, sys
from pathlib import Path
from sweeps.engine.errors import StorageError
from sweeps.engine.queue import TrialQueue
folder = Path(sys.argv[1])
queue, path = TrialQueue(folder, "queue", "higher", {}), folder / "study.journal"
before, (_, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
try:
    queue.enqueue("a=1", 7, {})
except StorageError as error:
    print(error)
assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
queue.enqueue("a=1", 9, {})
"""
FULL_DISK = """
import sys
from pathlib import Path
from sweeps.engine.errors import StorageError
from sweeps.engine.queue import TrialQueue
folder = Path(sys.argv[1])
(folder / "ballast").write_bytes(bytes(32_768))
queue = TrialQueue(folder, "queue", "higher", {})
for seed in range(10_000):
    try:
        queue.enqueue("a=1", seed, {})
    except StorageError as error:
        print(error)
        break
assert (folder / "study.journal").read_bytes().endswith(b"\\n")
(folder / "ballast").unlink()
queue.enqueue("a=1", seed, {})
again = TrialQueue(folder, "queue", "higher", {})
assert [trial.user_attrs["seed"] for trial in again.trials()] == list(range(seed + 1)), seed
print(seed)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_a_line(queue: TrialQueue, tmp_path: Path) -> None:
    assert python(KILLED, tmp_path).returncode == -signal.SIGKILL
    assert not (tmp_path / "study.journal").read_bytes().endswith(b"\n")
    queue.enqueue(*LATE, {})
    assert seeds(tmp_path) == [0, 1, 2, 9]


@pytest.mark.slow
def test_a_line_that_cannot_be_written_is_taken_back(queue: TrialQueue, tmp_path: Path) -> None:
    done = python(TOO_LARGE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'study.journal'} cannot be used: File too large\n"
    assert seeds(tmp_path) == [0, 1, 2, 9]


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    inside = ("unshare", *user, "--mount", "sh", "-c")
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    try:
        subprocess.run([*inside, mount], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small file system in a namespace of its own")
    done = python(FULL_DISK, tmp_path, before=(*inside, f'{mount} && exec "$@"', "sh"))
    assert done.returncode == 0, done.stderr
    error, seed = done.stdout.splitlines()
    assert error == f"{tmp_path / 'study.journal'} cannot be used: No space left on device"
    assert int(seed) > 50
