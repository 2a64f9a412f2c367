"""Open everything below one output folder in MLflow.

    python -m sweeps ui                                    # runs/mlflow.db
    python -m sweeps ui output=/data/runs port=5001        # runs kept elsewhere
    python -m sweeps ui tracking_uri=http://server:5000    # a server: only prints the links

Settings:
    output=runs            folder with mlflow.db
    port=5000              a port of this machine; if 5000 is taken, the next free one
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db

Stop it with Ctrl-C. Sweeps may go on meanwhile.
"""

from __future__ import annotations

import os
import re
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

from conf.describe import nearest
from conf.pipes import ends_with_reader
from lightning_modules.tracking import store
from lightning_modules.tracking.mlflow import describe_error
from lightning_modules.tracking.store import StoreUnavailable, client, is_server, public, trouble
from reports.stores import find_trouble
from sweeps.engine.mlflow_view import VIEW_TAG, page_links

__all__ = ["main"]

SETTINGS = ("output", "port", "tracking_uri")
PORT, PORTS = 5000, 50  # The first that is tried, and how many
STOP = 10.0  # Seconds for a server to end
SQLITE = "sqlite:///"


class UiError(Exception):
    """One line that says why nothing can be opened and what to do."""


@ends_with_reader
def main(argv: list[str]) -> int:
    """Serve until Ctrl-C. Returns 0, or 2 if there is nothing to serve."""
    if {"-h", "--help"} & set(argv):
        print((__doc__ or "").strip())
        return 0
    try:
        with _stop_on_signals():
            return _serve(argv)
    except UiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _serve(argv: list[str]) -> int:
    settings = dict(word.split("=", 1) for word in argv if "=" in word)
    unknown = [word for word in argv if "=" not in word]
    unknown += sorted(settings.keys() - set(SETTINGS))
    if unknown:
        known = ", ".join(f"{name}=" for name in SETTINGS)
        near = nearest(unknown[0], SETTINGS)
        raise UiError(f"unknown setting {unknown[0]!r}; there are: {known}{near}")
    output = Path(settings.get("output", "runs")).expanduser()
    uri = settings.get("tracking_uri", f"{SQLITE}{(output / 'mlflow.db').resolve()}")
    database = uri.removeprefix(SQLITE)
    if uri.startswith(SQLITE) and not Path(database).is_file():
        raise UiError(
            f"no MLflow database at {database}: run a sweep first, "
            "or say where it is with output=FOLDER"
        )
    if problem := find_trouble(uri, "tracking_uri="):
        raise UiError(problem)
    if is_server(uri):
        print(_describe_sweeps(uri, public(uri)))
        return 0
    port = _choose_port(settings.get("port"))
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryFile() as log,
        _run_server(uri, port, output, log) as server,
    ):
        sweeps = _describe_sweeps(uri, url)  # The server takes its seconds meanwhile
        while trouble(url):
            if server.poll() is not None:
                status, reason = server.returncode, _last_line(log)
                raise UiError(f"the MLflow server ended with status {status}: {reason}")
            time.sleep(0.2)
        print(f"MLflow is open at {url} (stop it with Ctrl-C)\n{sweeps}", flush=True)
        return server.wait()


def _choose_port(asked: str | None) -> int:
    """A free port of this machine: the one asked for, or the first from 5000 on. Raises UiError."""
    if asked is not None and not (re.fullmatch("[1-9][0-9]*", asked) and int(asked) < 65536):
        raise UiError(f"port={asked}: expected a number from 1 to 65535")
    first = int(asked) if asked is not None else PORT
    last = min(first + PORTS, 65536) - 1
    free = next((port for port in range(first, last + 1) if _is_free(port)), None)
    if free is None:
        raise UiError(f"the ports {first} to {last} are all taken; choose another with port=N")
    if asked is not None and free != first:
        raise UiError(f"port {first} is taken; port={free} is free")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: a port that was just left is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _run_server(
    uri: str, port: int, output: Path, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """An MLflow server for the body's time; it and its worker have ended afterwards."""
    artifacts = str((output / "artifacts").resolve())
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", artifacts, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    # One process and a gigabyte less than with its runner of jobs, which are for language models
    environment = {**store.SETTINGS, **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # In a session of its own: Ctrl-C comes here alone, and the whole group can be ended
    server = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
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


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _describe_sweeps(uri: str, url: str) -> str:
    """Every sweep with its question and its pages, the newest last. Raises UiError."""
    lines = []
    try:
        mlflow = client(uri)
        experiments = _all_pages(mlflow.search_experiments)
        for experiment in sorted(experiments, key=lambda known: known.creation_time):
            if "sweep" not in experiment.tags:
                continue
            cells = _all_pages(
                mlflow.search_runs,
                [experiment.experiment_id],
                "tags.role = 'cell'",
                order_by=["attributes.start_time ASC"],
            )
            runs = [run.info.run_id for run in cells]
            viewed = VIEW_TAG in experiment.tags
            lines.append(f"\n{experiment.name}: {experiment.tags.get('question', '')}")
            for label, page in page_links(url, experiment.experiment_id, runs, viewed):
                lines.append(f"  {label + ':':<9}{page}")
    except StoreUnavailable as error:
        raise UiError(str(error)) from None
    except Exception as error:  # Of MLflow, or of whatever keeps its data
        raise UiError(f"MLflow cannot use {public(uri)}: {describe_error(error)}") from error
    return "\n".join(lines) or "\nno sweep yet: python -m sweeps lists those that can be run"


def _all_pages(search: Any, *words: Any, **named: Any) -> list[Any]:
    """What a search of MlflowClient finds, over all its pages."""
    results, token = [], None
    while True:
        page = search(*words, **named, page_token=token)
        results += page
        token = page.token
        if not token:
            return results


@contextmanager
def _stop_on_signals() -> Iterator[None]:
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
