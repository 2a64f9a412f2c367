"""Open everything below one output folder in MLflow.

    python -m sweeps ui                                    # runs/mlflow.db
    python -m sweeps ui output=/data/runs port=5001        # runs kept elsewhere
    python -m sweeps ui tracking_uri=http://server:5000    # a server that runs already: only prints the links

Settings:
    output=runs            folder with mlflow.db
    port=5000              where the pages are opened on this machine; where 5000 is taken, the next free one
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db

Stop it with Ctrl-C. Sweeps may go on meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["main"]

SETTINGS = ("output", "port", "tracking_uri")
PORT, PORTS = 5000, 50  # the first that is tried, and how many
STOP = 10.0  # seconds for a server to end


class UiError(Exception):
    """One line that says why nothing can be opened and what to do."""


def main(argv: list[str]) -> int:
    """Serve until Ctrl-C. Returns 0, or 2 where there is nothing to serve."""
    if {"-h", "--help"} & set(argv):
        print((__doc__ or "").strip())
        return 0
    try:
        with _signals():
            return _open(argv)
    except UiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _open(argv: list[str]) -> int:
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    unknown = [word for word in argv if "=" not in word] + sorted(given.keys() - set(SETTINGS))
    if unknown:
        raise UiError(f"unknown setting {unknown[0]!r}; there are: {', '.join(f'{name}=' for name in SETTINGS)}")
    output = Path(given.get("output", "runs"))
    uri = given.get("tracking_uri", f"sqlite:///{(output / 'mlflow.db').resolve()}")
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UiError(f"no MLflow database at {uri.removeprefix('sqlite:///')}: run a sweep first, or say where it is with output=FOLDER")
    from lightning_modules.tracking.store import is_server, public, trouble

    if is_server(uri):
        if reason := trouble(uri):
            raise UiError(f"no MLflow server answers at tracking_uri={public(uri)}: {reason}")
        print(_links(uri, public(uri)))
        return 0
    port = _port(given.get("port"))
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as said, _server(uri, port, output, said) as server:
        links = _links(uri, url)  # the server takes its seconds meanwhile
        while trouble(url):
            if server.poll() is not None:
                raise UiError(f"the MLflow server ended with status {server.returncode}: {_last_line(said)}")
            time.sleep(0.2)
        print(f"MLflow is open at {url} (stop it with Ctrl-C)\n{links}", flush=True)
        return server.wait()


def _port(asked: str | None) -> int:
    """A free port of this machine: the one asked for, or the first from 5000 on. Raises UiError."""
    if asked is not None and not (asked.isdecimal() and 0 < int(asked) < 65536):
        raise UiError(f"port={asked}: expected a number from 1 to 65535")
    first = int(asked) if asked is not None else PORT
    free = next((port for port in range(first, min(first + PORTS, 65536)) if _is_free(port)), None)
    if free is None:
        raise UiError(f"the ports {first} to {min(first + PORTS, 65536) - 1} are all taken; choose another with port=N")
    if asked is not None and free != first:
        raise UiError(f"port {first} is taken; port={free} is free")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port that was just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _server(uri: str, port: int, output: Path, said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """An MLflow server for the body's time, what it says in `said`; it and its worker have ended afterwards."""
    from lightning_modules.tracking.store import SETTINGS as QUIET

    command = [
        "-m", "mlflow", "server", "--backend-store-uri", uri, "--artifacts-destination", str((output / "artifacts").resolve()),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning",
    ]  # fmt: skip
    # one process and a gigabyte less than with its runner of jobs, which are for language models
    env = {**QUIET, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # in a session of its own: Ctrl-C comes here alone, and the whole group can be ended
    server = subprocess.Popen([sys.executable, *command], env=env, stdout=said, stderr=said, start_new_session=True)
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(STOP)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _links(uri: str, url: str) -> str:
    """Every sweep with its question and its pages, the newest last. Raises UiError."""
    from lightning_modules.tracking.mlflow import describe_error
    from lightning_modules.tracking.store import StoreUnavailable, client, public
    from sweeps.engine.pages import VIEW_TAG, pages

    lines = []
    try:
        store = client(uri)
        found = [experiment for experiment in _all(store.search_experiments) if "sweep" in experiment.tags]
        for experiment in sorted(found, key=lambda experiment: experiment.creation_time):
            runs = _all(store.search_runs, [experiment.experiment_id], "tags.role = 'cell'", order_by=["attributes.start_time ASC"])
            lines.append(f"\n{experiment.name}: {experiment.tags.get('question', '')}")
            links = pages(url, experiment.experiment_id, [run.info.run_id for run in runs], VIEW_TAG in experiment.tags)
            lines += [f"  {label + ':':<9}{page}" for label, page in links]
    except StoreUnavailable as error:
        raise UiError(str(error)) from None
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow", "sqlalchemy")):
            raise
        raise UiError(f"MLflow cannot use {public(uri)}: {describe_error(error)}") from error
    return "\n".join(lines) or "\nno sweep yet: python -m sweeps lists those that can be run"


def _all(search: Any, *words: Any, **named: Any) -> list[Any]:
    """What a search of MlflowClient finds, over all its pages."""
    found, token = [], None
    while True:
        page = search(*words, **named, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


@contextmanager
def _signals() -> Iterator[None]:
    """However this process is asked to end, it leaves as after Ctrl-C."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.signal(kind, stop) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
