"""The queue on its journal file, and what is said of storages that cannot be used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from sweeps.engine.errors import StorageError
from sweeps.engine.queue import TrialQueue
from sweeps.engine.trials import key_of, list_studies, read_identity, read_trials

ROOT = Path(__file__).parents[3]
KEYS = [("a=1", seed) for seed in range(3)]
LATE = ("a=1", 9)


def opened(folder: Path, direction: Any = "higher", **words: Any) -> TrialQueue:
    return TrialQueue(folder, "queue", direction, {"digest": "one"}, **words)


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


def test_a_claim_ends_once(queue: TrialQueue) -> None:
    trial = claimed(queue, KEYS[1:])
    assert key_of(trial) == KEYS[1] and trial.params == {"a": 1}
    assert queue.complete(trial.number, 0.5, 3.0) is True
    (done,) = queue.trials("COMPLETE")
    assert (done.value, done.user_attrs["seconds"]) == (0.5, 3.0)
    assert queue.complete(trial.number, 0.7) is False and queue.fail(trial.number, "late") is False
    assert queue.complete(trial.number, 0.5, 3.0) is True  # Only the answer to the first was lost
    (done,) = queue.trials("COMPLETE")
    assert done.value == 0.5 and "error" not in done.user_attrs


def test_a_driver_that_was_thought_dead_does_no_harm(queue: TrialQueue, tmp_path: Path) -> None:
    trial, other = claimed(queue), opened(tmp_path)
    assert other.fail(trial.number, "the process ended before the trial did") is True
    assert queue.complete(trial.number, 0.5, 3.0) is False
    assert queue.fail(trial.number, "mine") is False
    (failed,) = other.trials("FAIL")
    assert failed.value is None
    assert failed.user_attrs["error"] == "the process ended before the trial did"


def test_a_trial_that_ends_between_question_and_answer(
    queue: TrialQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, tell = claimed(queue), queue.study.tell

    def late(*words: Any) -> None:
        opened(tmp_path).fail(trial.number, "taken")
        tell(*words)

    monkeypatch.setattr(queue.study, "tell", late)
    assert queue.complete(trial.number, 0.5) is False and len(queue.trials("FAIL")) == 1


def test_what_is_no_number_is_refused(queue: TrialQueue) -> None:
    trial = claimed(queue)
    for value in (float("nan"), [0.1, 0.2]):
        with pytest.raises(ValueError, match="not acceptable|did not match"):
            queue.complete(trial.number, value)
    assert queue.complete(trial.number, 0.5)


def test_several_objectives(tmp_path: Path) -> None:
    queue = opened(tmp_path, ["higher", "lower"])
    assert [direction.name for direction in queue.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    queue.enqueue("a=1", 0, {})
    assert queue.complete(claimed(queue).number, [0.5, 2.0])
    assert queue.trials()[0].values == [0.5, 2.0]


def test_trials_of_others(queue: TrialQueue, tmp_path: Path) -> None:
    other = opened(tmp_path)
    claimed(queue)
    theirs = claimed(other).number

    def elsewhere() -> list[int]:
        return [trial.number for trial in queue.presence.elsewhere(queue.trials("RUNNING"))]

    def orphans(of: TrialQueue) -> list[int]:
        return [trial.number for trial in of.presence.orphans(of.trials("RUNNING"))]

    assert elsewhere() == [theirs] and not orphans(queue)
    other.close()
    assert not elsewhere() and orphans(queue) == orphans(other) == [theirs]


def test_the_light_reader_sees_what_optuna_sees(queue: TrialQueue, tmp_path: Path) -> None:
    first, second = claimed(queue), claimed(queue)
    queue.complete(first.number, 0.5, 3.0)
    opened(tmp_path).fail(second.number, "taken")
    queue.fail(second.number, "late")
    queue.note(second.number, kind="late")
    opened(tmp_path).study.add_trial(
        optuna.trial.create_trial(value=1.0, user_attrs={"cell": "b", "seed": 0})
    )
    names = ("number", "user_attrs", "datetime_start", "datetime_complete")
    expected = as_optuna_reads_it(tmp_path)
    light = read_trials(tmp_path, "queue")
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
    for read in (lambda: opened(tmp_path), lambda: read_identity(tmp_path, "queue")):
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


# Other storages


@pytest.mark.parametrize(
    "look",
    [
        lambda url: TrialQueue(Path("never"), "queue", "higher", {}, url),
        lambda url: read_identity(Path(), "queue", url),
        lambda url: list_studies(Path(), url),
    ],
    ids=["open", "identity", "list"],
)
@pytest.mark.parametrize(
    "url", ["sqlite:///study.db", "mysql://me:secret@host/db", "http://h:5000", "postgres://h/d"]
)
def test_other_storages_are_refused(
    url: str, look: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = r"postgresql://user:password@host/database; SQLite, .* hands one queued trial to two"
    with pytest.raises(ValueError, match=expected) as caught:
        look(url)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(StorageError, match=r"needs psycopg2; .*\[postgres\]"):
        read_identity(Path(), "queue", "postgresql://me:secret@host/db")


@pytest.mark.parametrize(
    "url", ["postgresql://me:se:/cret@host:port/db", "postgresql://me:secret@[::1/db"]
)
def test_an_unreadable_url_keeps_its_password(url: str) -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(StorageError) as caught:
        read_identity(Path(), "queue", url)
    assert "cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "silent"])
def test_a_server_that_does_not_answer(silent: bool, tmp_path: Path) -> None:
    pytest.importorskip("psycopg2")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        port = listener.getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/queue?connect_timeout=2"
        place = rf"^PostgreSQL, storage=postgresql://127\.0\.0\.1:{port}/queue: "
        with pytest.raises(StorageError, match=place) as caught:
            opened(tmp_path, storage=url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
