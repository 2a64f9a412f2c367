"""The queue between processes, on a real PostgreSQL server (skipped where its programs are missing)
and on the journal alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.postgres_server import Machine

from sweeps.engine.errors import StorageError
from sweeps.engine.postgres import PostgresLocks, Server
from sweeps.engine.queue import TrialQueue
from sweeps.engine.trials import list_studies, read_identity

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
KEYS = [("a=1", seed) for seed in range(16)]
DRIVER = """
import contextlib, os, subprocess, sys, time
from pathlib import Path
import optuna
from sweeps.engine.queue import TrialQueue
if sys.argv[2]:
    # So that all begin at the same moment
    import alembic.migration, optuna.storages._rdb.models, psycopg2
folder, storage, task = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
keys = [("a=1", seed) for seed in range(16)]
print("ready", flush=True)
sys.stdin.readline()
if task == "open":
    TrialQueue._open = TrialQueue._open.__wrapped__  # no second try
study = TrialQueue(folder, "queue", "higher", {"by": os.getpid()}, storage)
if task == "open":
    print(study.facts["identity"]["by"])
elif task == "enqueue":
    for key in keys:
        study.enqueue(*key, {"a": 1})
elif task == "one":
    trial = study.claim(keys, {})
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    child = subprocess.Popen(["sleep", "60"], **quiet, close_fds=True)
    fork = os.fork()
    if not fork:
        time.sleep(60)
        os._exit(0)
    print(trial.number, child.pid, fork, flush=True)
    sys.stdin.readline()
else:
    if task == "unlocked":
        study.presence.locks.exclusive = lambda name: contextlib.nullcontext()
    trial = study.claim(keys, {})
    print(trial.number, flush=True)
    sys.stdin.readline()  # holds its first until the others hold theirs
    while trial:
        assert study.complete(trial.number, 0.5, 1.0)
        if trial := study.claim(keys, {}):
            print(trial.number, flush=True)
study.close()
"""


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("url") if request.param == "postgresql" else None


Drive = Callable[..., list["subprocess.Popen[str]"]]


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[Drive]:
    """Starts processes that all begin their task at the same moment."""
    started: list[subprocess.Popen[str]] = []

    def start(storage: str | None, *tasks: str) -> list[subprocess.Popen[str]]:
        new = []
        for task in tasks:
            command = [sys.executable, "-c", DRIVER, str(tmp_path), storage or "", task]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            new.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        started.extend(new)
        for driver in new:
            assert driver.stdout is not None and driver.stdout.readline() == "ready\n", (
                driver.stderr.read()
            )  # type: ignore[union-attr]
        let_go(new)
        return new

    yield start
    for driver in started:
        driver.kill()
        driver.communicate()


def let_go(drivers: list[subprocess.Popen[str]]) -> None:
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()


def claimed_by(drivers: list[subprocess.Popen[str]]) -> list[list[int]]:
    """The trials of each. The first of each are claimed at once and held together, so none can have
    run through the queue alone."""
    held = [driver.stdout.readline() for driver in drivers]  # type: ignore[union-attr]
    assert all(held), "".join(
        driver.communicate()[1] for driver, number in zip(drivers, held, strict=True) if not number
    )
    let_go(drivers)
    return [[int(first), *map(int, rest)] for first, rest in zip(held, said(drivers), strict=True)]


def said(drivers: list[subprocess.Popen[str]]) -> list[list[str]]:
    """What each wrote until its end."""
    words = []
    for driver in drivers:
        out, problems = driver.communicate()
        assert driver.returncode == 0, problems
        words.append(out.split())
    return words


def opened(folder: Path, storage: str | None, name: str = "queue") -> TrialQueue:
    return TrialQueue(folder, name, "higher", {"digest": "one"}, storage)


def test_a_new_study_opened_by_several_at_once(
    tmp_path: Path, storage: str | None, drivers: Drive
) -> None:
    assert read_identity(tmp_path, "queue", storage) is None
    answers = said(drivers(storage, *["open"] * 4))
    assert len({by for (by,) in answers}) == 1
    assert read_identity(tmp_path, "queue", storage) == {"by": int(answers[0][0])}


def test_every_trial_is_claimed_once(tmp_path: Path, storage: str | None, drivers: Drive) -> None:
    study = opened(tmp_path, storage)
    for key in KEYS:
        study.enqueue(*key, {"a": 1})
    claimed = claimed_by(drivers(storage, *["all"] * 3))
    assert Counter(number for numbers in claimed for number in numbers) == Counter(range(16))
    assert len(study.trials("COMPLETE")) == 16 and not study.presence.orphans(
        study.trials("RUNNING")
    )
    owners = {trial.number: trial.user_attrs["owner"] for trial in study.trials()}
    assert [len({owners[number] for number in numbers}) for numbers in claimed] == [
        1,
        1,
        1,
    ] and len(set(owners.values())) == 3
    study.close()


def test_a_claim_on_a_server_needs_no_lock(tmp_path: Path, url: str, drivers: Drive) -> None:
    study = opened(tmp_path, url)
    for key in KEYS:
        study.enqueue(*key, {"a": 1})
    claimed = claimed_by(drivers(url, *["unlocked"] * 3))
    assert Counter(number for numbers in claimed for number in numbers) == Counter(range(16))
    study.close()


def test_several_append_at_once_and_one_is_killed(
    tmp_path: Path, storage: str | None, drivers: Drive
) -> None:
    study = opened(tmp_path, storage)
    *others, last = drivers(storage, *["enqueue"] * 3)
    while not study.trials():
        assert last.poll() in (None, 0)  # it may have ended since the study was looked at
    last.kill()
    said(others)
    last.wait()
    numbers = [trial.number for trial in study.trials()]
    assert numbers == list(range(len(numbers))) and 32 <= len(numbers) <= 48
    assert len(opened(tmp_path, storage).trials()) == len(numbers)


def test_a_killed_driver_is_known_at_once(
    tmp_path: Path, storage: str | None, drivers: Drive
) -> None:
    study = opened(tmp_path, storage)
    for key in KEYS[:2]:
        study.enqueue(*key, {"a": 1})
    killed, living = drivers(storage, "one", "one")
    numbers, children = [], []
    for driver in (killed, living):
        number, *pids = driver.stdout.readline().split()  # type: ignore[union-attr]
        numbers.append(int(number))
        children += [int(pid) for pid in pids]
    try:
        assert (
            not study.presence.orphans(study.trials("RUNNING"))
            and len(study.presence.elsewhere(study.trials("RUNNING"))) == 2
        )
        killed.kill()
        killed.wait()
        # the server hears of it from the kernel, in its own time
        for _ in range(100):
            if study.presence.orphans(study.trials("RUNNING")):
                break
            time.sleep(0.05)
        assert [
            trial.number for trial in study.presence.orphans(study.trials("RUNNING"))
        ] == numbers[:1]
        assert [
            trial.number for trial in study.presence.elsewhere(study.trials("RUNNING"))
        ] == numbers[1:]
        for child in children:
            os.kill(child, 0)
        assert study.fail(numbers[0], "gone") and not study.presence.orphans(
            study.trials("RUNNING")
        )
        assert living.poll() is None
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    study.close()


def test_looking_creates_no_table(
    tmp_path: Path, machine: Machine, database: str, url: str
) -> None:
    assert read_identity(tmp_path, "queue", url) is None and list_studies(tmp_path, url) == []
    assert machine.run("select count(*) from pg_tables where schemaname = 'public'", database) == [
        (0,)
    ]
    for name in ("queue", "another"):
        opened(tmp_path, url, name).close()
    assert (
        read_identity(tmp_path, "queue", url) == {"digest": "one"}
        and read_identity(tmp_path, "third", url) is None
    )
    assert list_studies(tmp_path, url.replace("://", "+psycopg2://")) == ["another", "queue"]


def test_the_first_identity_stays(tmp_path: Path, url: str) -> None:
    first = opened(tmp_path, url)
    second = TrialQueue(tmp_path, "queue", "higher", {"digest": "two"}, url)
    assert first.facts["identity"] == second.facts["identity"] == {"digest": "one"}
    first.remember("report", "x" * 5000)
    assert second.facts["report"] == "x" * 5000


def test_locks_of_studies_are_apart_and_threads_take_turns(url: str) -> None:
    locks, others, inside, most = (
        PostgresLocks(Server(url), "a"),
        PostgresLocks(Server(url), "b"),
        0,
        [],
    )

    def work() -> None:
        nonlocal inside
        for _ in range(5):
            with locks.exclusive("queue"), locks.exclusive("queue"):
                inside += 1
                most.append(inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    with others.exclusive("queue"), others.exclusive("plan"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 15
    locks.hold("t")
    assert locks.alive("t") and PostgresLocks(Server(url), "a").alive("t") and not others.alive("t")
    locks.release("t")
    assert not locks.alive("t") and not PostgresLocks(Server(url), "a").alive("t")


def test_a_lost_connection(tmp_path: Path, machine: Machine, database: str, url: str) -> None:
    driver, other = opened(tmp_path, url), opened(tmp_path, url)
    for key in KEYS[:3]:
        driver.enqueue(*key, {"a": 1})
    first = driver.claim(KEYS, {})
    assert first is not None and not other.presence.orphans(other.trials("RUNNING"))
    assert machine.disconnect(database) >= 4
    assert [trial.number for trial in other.presence.orphans(other.trials("RUNNING"))] == [
        first.number
    ]
    assert (
        driver.presence.locks.refresh()
        and not other.presence.orphans(other.trials("RUNNING"))
        and [trial.number for trial in other.presence.elsewhere(other.trials("RUNNING"))]
        == [first.number]
    )

    machine.disconnect(database)
    assert other.fail(first.number, "gone")  # before the driver was back
    second = driver.claim(KEYS, {})
    assert second is not None and second.user_attrs["owner"] == first.user_attrs["owner"]
    assert (
        driver.complete(first.number, 0.5) is False and driver.complete(second.number, 0.5) is True
    )
    with driver.lock:
        machine.disconnect(database)
        assert [key for trial in driver.trials("WAITING") if (key := trial.user_attrs["seed"])] == [
            2
        ]
    with other.lock:
        pass
    driver.close()
    other.close()


def test_a_claim_that_is_cut_short_is_taken_up_again(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg2

    def broken(*_: Any) -> None:
        raise psycopg2.OperationalError("server closed the connection unexpectedly\nmore")

    study = opened(tmp_path, url)
    for key in KEYS[:2]:
        study.enqueue(*key, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.engine.queue._record_parameter", broken)
        with pytest.raises(StorageError, match="server closed the connection unexpectedly$"):
            study.claim(KEYS, {})
    trial = study.claim(KEYS, {})
    assert trial is not None and (trial.number, trial.params) == (0, {"a": 1})
    assert (
        len(study.trials("RUNNING")) == 1
        and (second := study.claim(KEYS, {})) is not None
        and second.number == 1
    )
    study.close()


def test_a_server_that_is_started_again_is_waited_for(
    tmp_path: Path, machine: Machine, url: str
) -> None:
    study = opened(tmp_path, url)
    study.enqueue(*KEYS[0], {"a": 1})
    trial = study.claim(KEYS, {})
    assert trial is not None
    machine.stop()
    assert study.presence.locks.refresh() is False
    again = threading.Timer(0.7, machine.start)
    again.start()
    try:
        assert study.complete(trial.number, 0.5, 1.0) is True
    finally:
        again.join()
    assert study.presence.locks.refresh() is True and study.trials()[0].value == 0.5
    study.close()


def test_what_the_server_refuses_is_one_line_without_password(
    tmp_path: Path, machine: Machine, database: str
) -> None:
    place = rf"storage=postgresql://127\.0\.0\.1:{machine.port}/"
    with pytest.raises(
        StorageError,
        match=rf'^PostgreSQL, {place}{database}: .*password authentication failed for user "me"$',
    ) as caught:
        opened(tmp_path / "new", machine.url(database, "wr0ng"))
    assert "wr0ng" not in str(caught.value) and not (tmp_path / "new").exists()
    with pytest.raises(
        StorageError, match=rf'^PostgreSQL, {place}nowhere: .*database "nowhere" does not exist$'
    ):
        read_identity(tmp_path, "queue", machine.url("nowhere"))
    machine.run("create role guest login password 'guest'")
    with pytest.raises(
        StorageError, match=rf"^PostgreSQL, {place}{database}: permission denied for schema public$"
    ):
        machine.run("revoke create on schema public from public", database)
        opened(tmp_path / "new", f"postgresql://guest:guest@127.0.0.1:{machine.port}/{database}")
