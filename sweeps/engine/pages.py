"""The pages of a sweep in MLflow, and how they look: means of the headline metric first, its columns in the table.

MLflow sorts charts and hides columns by its own taste. A view that is stored with the experiment, as its own button "Share" stores one,
tells it better; a version that does not know the format shows its standard view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

__all__ = ["VIEW_TAG", "pages", "view"]

VIEW = "sweep"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = 4  # metrics besides the headline in the table, which MLflow sorts by name: with more the headline is beyond the window's edge
CHARTS = 9  # metrics with a chart of their own at the top; a tag of an experiment holds 5000 characters
# the address decides whether MLflow shows its pages for training or those for language models
TRAINING = "workflowType=machine_learning"


def pages(server: str, experiment_id: str, runs: Sequence[str], viewed: bool = True) -> list[tuple[str, str]]:
    """Label and address of each page; `runs` are those of the cells, `viewed` says that the experiment has the tag `VIEW_TAG`."""
    start = f"{server.rstrip('/')}/#"
    ids, experiments = (quote(json.dumps(list(names), separators=(",", ":"))) for names in (runs, [experiment_id]))
    chosen = f"&viewStateShareKey={VIEW}" if viewed else ""
    return [
        ("table", f"{start}/experiments/{experiment_id}/runs?{TRAINING}{chosen}"),
        ("charts", f"{start}/experiments/{experiment_id}/runs?{TRAINING}&compareRunsMode=CHART{chosen}"),
        ("compare", f"{start}/compare-runs?runs={ids}&experiments={experiments}&{TRAINING}"),
    ]


def view(tags: Mapping[str, str]) -> str | None:
    """The view of an experiment with the tags that a plan gives it, as the text of a tag; None where they do not say what is measured."""
    if not {"headline", "metrics", "factor_keys"} <= tags.keys():
        return None
    headline = tags["headline"]
    keys = [headline, *(metric["key"] for metric in json.loads(tags["metrics"]) if metric["key"] != headline)][:CHARTS]
    means = [f"agg/{key}_mean" for key in keys]
    columns = [
        *(f"params.`{key}`" for key in json.loads(tags["factor_keys"])),
        f"metrics.`{means[0]}`", f"metrics.`agg/{headline}_ci95`", f"metrics.`agg/{headline}_n`",
        *(f"metrics.`{mean}`" for mean in means[1 : 1 + COLUMNS]),
    ]  # fmt: skip
    return json.dumps({
        "selectedColumns": columns,
        "compareRunCharts": [_bars(mean) for mean in means],
        "compareRunSections": [{"uuid": "means", "name": "Means over seeds", "display": True, "isReordered": True}],
        "isAccordionReordered": True,
    })


def _bars(metric: str) -> dict[str, Any]:
    return {"type": "BAR", "uuid": metric, "metricSectionId": "means", "metricKey": metric, "isGenerated": False, "deleted": False}
