"""Addresses of MLflow's results: what is wrong with one is said before MLflow is asked, which would
retry for a minute or more, or end in a traceback."""

from __future__ import annotations

import socket
from http.client import HTTPException
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from reports.mistyped import nearest
from reports.results import hide_password

__all__ = ["find_trouble", "sqlite_path"]

PATIENCE = 5.0  # Seconds for a server to say that it is there
SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
HOSTED = ("databricks", "databricks-uc", "uc")  # Asked by MLflow's own means
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
EXPECTED = (
    "expected http://HOST:PORT, https://…, sqlite:///FILE, or a database as "
    "postgresql://USER:PASSWORD@HOST/DATABASE (mysql, mssql)"
)
# Module of a driver -> what pip installs; else they are called the same
PACKAGES = {
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
    "psycopg": '"psycopg[binary]"',
}
# The modules of drivers that take connect_timeout, in seconds
TIMED = ("psycopg2", "psycopg", "pymysql", "MySQLdb")


def find_trouble(uri: str, setting: str = "", patience: float = PATIENCE) -> str:
    """Why MLflow can keep nothing at ``uri``, in one line that begins with ``setting`` and the
    address; "" where nothing is known to be wrong. A server has ``patience`` seconds for each of
    two questions. Creates nothing."""
    shown = f"{setting}{hide_password(uri)}"
    scheme, colon, _ = uri.partition(":")
    kind = scheme.partition("+")[0]
    if scheme in SERVERS and colon:
        reason = _ask_server(uri, patience)
        return f"no MLflow server answers at {shown}: {reason}" if reason else ""
    if kind == "sqlite":
        reason = _look_at_file(uri)
    elif kind in DATABASES and "://" in uri:
        reason = _ask_database(uri, kind, patience)
    elif scheme in HOSTED or entry_points(group="mlflow.tracking_store", name=scheme):
        reason = ""
    else:
        reason = _explain_scheme(uri, scheme if colon else "")
    return f"{shown}: {reason}" if reason else ""


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite database; None for any other address."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def _explain_scheme(uri: str, scheme: str) -> str:
    if not scheme or scheme == "file":
        path = uri.removeprefix("file:").removeprefix("//")
        name = path if path.endswith(".db") else f"{path.rstrip('/')}/mlflow.db"
        near = f"; did you mean {SQLITE}{name}?" if path else ""
        return f"MLflow keeps no results in plain folders; {EXPECTED}{near}"
    known = nearest(scheme, [*SERVERS, "sqlite", *DATABASES])
    return f"MLflow knows no {scheme!r}; {EXPECTED}{known}"


def _look_at_file(uri: str) -> str:
    path = sqlite_path(uri)
    if path is None or str(path) in ("", ".", ":memory:"):
        return f"names no file, which later commands could read; expected {SQLITE}FILE"
    if "?" in str(path):
        return f"what follows a question mark is no part of the file; expected {SQLITE}FILE"
    try:
        if path.is_dir():
            return f"that is a folder; expected a file in it: {SQLITE}{path}/mlflow.db"
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return ""  # MLflow makes it
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    if head and head != b"SQLite format 3\0":
        return "the file is no SQLite database; expected one of MLflow, or a new name"
    return ""


def _ask_server(uri: str, patience: float) -> str:
    """Why an HTTP server does not answer, "" where it does."""
    try:
        urlopen(f"{hide_password(uri).rstrip('/')}/health", timeout=patience).close()
    except HTTPError:
        return ""  # It answers; what it thinks of this page does not matter
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""


def _ask_database(uri: str, kind: str, patience: float) -> str:
    """Why a database server cannot be used, "" where it lets this user in."""
    from sqlalchemy import create_engine, exc, make_url  # Slow, and rarely needed
    from sqlalchemy.pool import NullPool

    try:
        dialect = make_url(uri).get_dialect()
        module = dialect.import_dbapi().__name__
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        package = PACKAGES.get(missing, missing)
        other = "psycopg2" if missing == "psycopg" and find_spec("psycopg2") else ""
        instead = f"; or write {kind}+{other}://…, whose driver is there" if other else ""
        return f"needs the driver {missing}, which is missing: pip install {package}{instead}"
    except (ValueError, exc.SQLAlchemyError) as error:
        return f"{_first_line(error)}; {EXPECTED}"
    try:
        address = urlsplit(uri)
        host, port = address.hostname, address.port or PORTS[kind]
        if host:
            socket.create_connection((host, port), patience).close()
        name = module.partition(".")[0]
        words = {"connect_timeout": max(1, round(patience))} if name in TIMED else {}
        create_engine(uri, poolclass=NullPool, connect_args=words).connect().close()
    except (OSError, ValueError, exc.SQLAlchemyError) as error:
        return f"no database answers there: {_first_line(getattr(error, 'orig', error) or error)}"
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
