"""A real PostgreSQL server on this machine, for tests; skipped where its programs are missing."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sweeps.engine.errors import StorageError
from sweeps.engine.postgres import Server

PASSWORD = "s3cret@w{o}rd/:%"


class Machine:
    """A PostgreSQL server of this test run, on a free port of this machine."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        self.who: dict[str, Any] = {}
        if os.getuid() == 0:  # which the server refuses
            found = {entry.pw_name: entry for entry in pwd.getpwall()}
            entry = found.get("postgres") or found["nobody"]
            self.who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        words = [
            "--pgdata",
            "data",
            "--username",
            "me",
            "--pwfile",
            "password",
            "--auth",
            "scram-sha-256",
            "--no-sync",
        ]
        subprocess.run(
            [programs / "initdb", *words],
            cwd=self.folder,
            capture_output=True,
            check=True,
            **self.who,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        words = [
            "-D",
            "data",
            "-F",
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", *words], cwd=self.folder, stderr=log, **self.who
            )
        for _ in range(300):
            with contextlib.suppress(StorageError):
                self.run("select 1")
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # ends sessions, then itself
        self.process.wait()

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://me:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def run(self, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        connection = Server(self.url(database)).connect()
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []

    def disconnect(self, database: str) -> int:
        """End all sessions of a database; returns how many there were."""
        return self.run(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where "
            f"datname = '{database}'"
        )[0][0]


@contextmanager
def running() -> Iterator[Machine]:
    """A server for the body's time; it and its data are gone afterwards."""
    pytest.importorskip("psycopg2")
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = next(
        (
            place
            for place in places
            if (place / "initdb").is_file() and (place / "postgres").is_file()
        ),
        None,
    )
    if programs is None:
        pytest.skip(
            "needs PostgreSQL's programs initdb and postgres, on the PATH or in "
            "/usr/lib/postgresql/*/bin"
        )
    machine = Machine(programs)
    try:
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(machine.folder)
