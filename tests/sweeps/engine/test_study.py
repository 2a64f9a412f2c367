"""The queue on its journal file, and what is said of storages that cannot be used."""

from __future__ import annotations

import os
import resource
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

from sweeps.engine.study import StorageError, Study, identity_of, key_of, studies

ROOT = Path(__file__).parents[3]
KEYS = [("a=1", seed) for seed in range(3)]


def opened(folder: Path, **words: Any) -> Study:
    return Study(folder, "queue", words.pop("direction", "higher"), {"digest": "one"}, **words)


def as_optuna_reads_it(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="queue", storage=storage).trials


def python(
    code: str, *words: object, before: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [*(before or []), sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = opened(tmp_path)
    for cell, seed in KEYS:
        study.enqueue(cell, seed, {"a": 1, "word": "x"})
    return study


def test_a_claim_is_told_once(study: Study) -> None:
    trial = study.claim(KEYS[1:], {"a": [1, 3]})
    assert trial is not None and key_of(trial) == KEYS[1] and trial.params == {"a": 1}
    assert study.complete(trial.number, 0.5, 3.0) is True
    (told,) = study.trials("COMPLETE")
    assert (told.value, told.user_attrs["seconds"]) == (0.5, 3.0)
    assert study.complete(trial.number, 0.7) is False and study.fail(trial.number, "late") is False
    assert study.complete(trial.number, 0.5, 3.0) is True  # only the answer to the first was lost
    assert (
        study.trials("COMPLETE")[0].value == 0.5
        and "error" not in study.trials("COMPLETE")[0].user_attrs
    )


def test_a_driver_that_was_thought_dead_does_no_harm(study: Study, tmp_path: Path) -> None:
    trial = study.claim(KEYS, {})
    other = opened(tmp_path)
    assert (
        trial is not None
        and other.fail(trial.number, "the process ended before the trial did") is True
    )
    assert (
        study.complete(trial.number, 0.5, 3.0) is False
        and study.fail(trial.number, "mine") is False
    )
    (failed,) = other.trials("FAIL")
    assert (
        failed.user_attrs["error"] == "the process ended before the trial did"
        and failed.value is None
    )


def test_a_trial_that_ends_between_question_and_answer(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.claim(KEYS, {})
    assert trial is not None
    tell = study.study.tell

    def late(*words: Any) -> None:
        opened(tmp_path).fail(trial.number, "taken")
        tell(*words)

    monkeypatch.setattr(study.study, "tell", late)
    assert study.complete(trial.number, 0.5) is False and len(study.trials("FAIL")) == 1


def test_what_is_no_number_is_refused(study: Study) -> None:
    trial = study.claim(KEYS, {})
    assert trial is not None
    for value in (float("nan"), [0.1, 0.2]):
        with pytest.raises(ValueError, match="not acceptable|did not match"):
            study.complete(trial.number, value)
    assert study.complete(trial.number, 0.5)


def test_several_objectives(tmp_path: Path) -> None:
    study = opened(tmp_path, direction=["higher", "lower"])
    assert [direction.name for direction in study.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    study.enqueue("a=1", 0, {})
    trial = study.claim([("a=1", 0)], {})
    assert trial is not None and study.complete(trial.number, [0.5, 2.0])
    assert study.trials()[0].values == [0.5, 2.0]


def test_trials_of_others(study: Study, tmp_path: Path) -> None:
    other = opened(tmp_path)
    mine, theirs = study.claim(KEYS, {}), other.claim(KEYS, {})
    assert mine is not None and theirs is not None
    assert (
        [trial.number for trial in study.elsewhere()] == [theirs.number]
        and study.alive_owner(mine)
        and not study.orphans()
    )
    assert study.refresh()
    other.close()
    assert not study.elsewhere() and [trial.number for trial in study.orphans()] == [theirs.number]
    assert [trial.number for trial in other.orphans()] == [theirs.number]


@pytest.mark.parametrize("left", [1, 20, -1])
def test_an_unfinished_line_is_cut_off_when_opened(study: Study, tmp_path: Path, left: int) -> None:
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[:last] + whole[last:][:left])
    again = opened(tmp_path)
    assert len(again.trials()) == 2
    again.enqueue("a=1", 9, {})
    assert [key_of(trial) for trial in as_optuna_reads_it(tmp_path)] == [*KEYS[:2], ("a=1", 9)]


@pytest.mark.parametrize("text", [b'{"op_code":4,"wor', b"\0" * 10_000], ids=["half", "holes"])
def test_an_unfinished_line_is_cut_off_while_open(
    study: Study, tmp_path: Path, text: bytes
) -> None:
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(text)
    assert len(study.trials()) == 3
    study.enqueue("a=1", 9, {})
    assert (
        len(study.trials())
        == len(opened(tmp_path).trials())
        == len(as_optuna_reads_it(tmp_path))
        == 4
    )


def test_a_file_that_only_holds_an_unfinished_line(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_bytes(b'{"op_code":0,"study_na')
    assert identity_of(tmp_path, "queue") is None
    opened(tmp_path).enqueue("a=1", 0, {})
    assert len(as_optuna_reads_it(tmp_path)) == 1


def test_killed_in_the_middle_of_a_line(study: Study, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from sweeps.engine import journal
from sweeps.engine.study import Study
study = Study(Path(sys.argv[1]), "queue", "higher", {})
real = journal._opened
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
journal._opened = half
study.enqueue("a=1", 7, {})
"""
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    assert not (tmp_path / "study.journal").read_bytes().endswith(b"\n")
    study.enqueue("a=1", 9, {})
    assert [trial.user_attrs["seed"] for trial in as_optuna_reads_it(tmp_path)] == [0, 1, 2, 9]


def test_a_line_that_cannot_be_written_is_taken_back(study: Study, tmp_path: Path) -> None:
    code = """
import os, resource, sys
from pathlib import Path
from sweeps.engine.study import StorageError, Study
folder = Path(sys.argv[1])
study, path = Study(folder, "queue", "higher", {}), folder / "study.journal"
before, (_, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, hard))
try:
    study.enqueue("a=1", 7, {})
except StorageError as error:
    print(error)
assert path.read_bytes() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
study.enqueue("a=1", 8, {})
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'study.journal'} cannot be used: File too large\n"
    assert [trial.user_attrs["seed"] for trial in as_optuna_reads_it(tmp_path)] == [0, 1, 2, 8]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_full_disk(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from sweeps.engine.study import StorageError, Study
folder = Path(sys.argv[1])
(folder / "ballast").write_bytes(bytes(32_768))
study = Study(folder, "queue", "higher", {})
for seed in range(10_000):
    try:
        study.enqueue("a=1", seed, {})
    except StorageError as error:
        print(error)
        break
assert (folder / "study.journal").read_bytes().endswith(b"\\n")
(folder / "ballast").unlink()
study.enqueue("a=1", seed, {})
assert [trial.user_attrs["seed"] for trial in Study(folder, "queue", "higher", {}).trials()] == list(range(seed + 1)), seed
print(seed)
"""
    inside = [
        "unshare",
        *([] if os.getuid() == 0 else ["--user", "--map-root-user"]),
        "--mount",
        "sh",
        "-c",
    ]
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}"
    try:
        subprocess.run([*inside, mount], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small file system in a namespace of its own")
    done = python(code, tmp_path, before=[*inside, f'{mount} && exec "$@"', "sh"])
    assert done.returncode == 0, done.stderr
    said, seed = done.stdout.splitlines()
    assert (
        said == f"{tmp_path / 'study.journal'} cannot be used: No space left on device"
        and int(seed) > 50
    )


def test_a_signal_in_the_middle_of_a_line_takes_it_back(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            study.enqueue("a=1", 7, {})
    study.enqueue("a=1", 8, {})
    assert [trial.user_attrs["seed"] for trial in as_optuna_reads_it(tmp_path)] == [0, 1, 2, 8]


def test_a_damaged_line_is_named(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"op_code":2,"st' + lines[2], *lines[3:]]))
    for read in (lambda: opened(tmp_path), lambda: identity_of(tmp_path, "queue")):
        with pytest.raises(StorageError, match=r"study\.journal is damaged in line 3 "):
            read()


def test_a_journal_that_was_taken_away_is_not_begun_anew(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.journal").unlink()
    with pytest.raises(StorageError, match="study.journal cannot be used: No such file"):
        study.enqueue("a=1", 7, {})
    assert not (tmp_path / "study.journal").exists()


def test_looking_creates_nothing(study: Study, tmp_path: Path) -> None:
    text = (tmp_path / "study.journal").read_bytes() + b'{"op_c'
    folder = tmp_path / "output" / "queue"
    folder.mkdir(parents=True)
    (folder / "study.journal").write_bytes(text)
    assert (
        identity_of(folder, "queue") == {"digest": "one"} and identity_of(folder, "other") is None
    )
    assert identity_of(folder / "missing", "queue") is None
    assert (
        studies(folder.parent) == ["queue"] and studies(folder) == studies(folder / "missing") == []
    )
    assert [path.name for path in folder.iterdir()] == ["study.journal"] and (
        folder / "study.journal"
    ).read_bytes() == text


@pytest.mark.parametrize(
    "look",
    [
        lambda url: Study(Path("never"), "queue", "higher", {}, url),
        lambda url: identity_of(Path(), "q", url),
        lambda url: studies(Path(), url),
    ],
    ids=["open", "identity", "list"],
)
@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///study.db",
        "mysql://me:secret@host/db",
        "http://host:5000",
        "runs/study.db",
        "postgres://h/d",
    ],
)
def test_other_storages_are_refused(
    url: str, look: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"postgresql://user:password@host/database; SQLite, .* hands one queued trial to two",
    ) as caught:
        look(url)
    assert (
        "\n" not in str(caught.value)
        and "secret" not in str(caught.value)
        and not list(tmp_path.iterdir())
    )


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(
        StorageError, match=r'needs psycopg2; to install it: pip install -e "\.\[postgres\]"$'
    ):
        identity_of(Path(), "queue", "postgresql://me:secret@host/db")


@pytest.mark.parametrize(
    "url", ["postgresql://me:se:/cret@host:port/db", "postgresql://me:secret@[::1/db"]
)
def test_an_unreadable_url_keeps_its_password(url: str) -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(StorageError) as caught:
        identity_of(Path(), "queue", url)
    assert "cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "silent"])
def test_a_server_that_does_not_answer(silent: bool, tmp_path: Path) -> None:
    pytest.importorskip("psycopg2")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        port = listener.getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/queue?connect_timeout=2"
        with pytest.raises(
            StorageError, match=rf"^PostgreSQL, storage=postgresql://127\.0\.0\.1:{port}/queue: "
        ) as caught:
            Study(tmp_path, "queue", "higher", {}, url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
