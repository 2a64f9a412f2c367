"""Where a sweep keeps its results: refused, before anything runs, where they cannot be kept."""

from __future__ import annotations

import os
from pathlib import Path

from conf.places import check_folder, find_obstacle
from conf.schema import Sweep
from reports.stores import find_trouble, sqlite_path
from sweeps.engine.errors import PlanError

__all__ = ["check_places", "tracking_uri"]


def check_places(config: Sweep) -> None:
    """Raises PlanError where the output folder cannot be made, or where nothing can keep the
    results at ``tracking_uri``. Makes and writes nothing."""
    try:
        check_folder("output", config.output)
    except ValueError as error:
        raise PlanError(str(error)) from None
    tracking_uri(config)


def tracking_uri(config: Sweep) -> str:
    """Where MLflow keeps the results. Raises PlanError where it cannot: MLflow itself would go on
    asking for a minute or more."""
    if (uri := config.tracking_uri) is None:
        own = (Path(config.output) / "mlflow.db").resolve()
        if "?" in str(own):
            raise PlanError(
                f"output={config.output}: MLflow takes no question mark in the name of a folder"
            )
        return f"sqlite:///{own}"
    if trouble := find_trouble(uri, "tracking_uri="):
        raise PlanError(trouble)
    if (path := sqlite_path(uri)) is not None:
        reason = find_obstacle(path.parent)
        if not reason and path.exists() and not os.access(path, os.W_OK):
            reason = f"no permission to change {path}"
        if reason:
            raise PlanError(f"tracking_uri={uri} cannot be written to: {reason}")
    return uri
