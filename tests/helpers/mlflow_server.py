"""A real MLflow server on this machine, for tests that stop it and start it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen


class Server:
    """Keeps everything in `folder`; `url` stays the same over a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return at once; the server answers some seconds later."""
        command = [
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=env, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Return when it answers. Raises RuntimeError where it ended instead."""
        while True:
            try:
                urlopen(f"{self.url}/health", timeout=1).close()
                return
            except OSError:
                if self.process is None or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "server.log").read_text()) from None
                time.sleep(0.1)

    def kill(self) -> None:
        """At once, as a machine that is switched off."""
        if self.process is not None:
            # Its worker, too; both are in a session of their own
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
