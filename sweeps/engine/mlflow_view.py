"""The pages of a sweep in MLflow, and how they look: means of the headline metric first, its
columns in the table.

MLflow sorts charts and hides columns by rules of its own. A view that is stored with the
experiment, as its button "Share" stores one, overrules them; a version that does not know the
format shows its standard view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

__all__ = ["VIEW_TAG", "page_links", "view_tag"]

VIEW = "sweep"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# Metrics besides the headline in the table, which MLflow sorts by name: with more of them the
# headline is beyond the window's edge
COLUMNS = 4
CHARTS = 9  # Metrics with a chart of their own at the top; a tag holds 5000 characters
# Decides whether MLflow shows its pages for training or those for language models
TRAINING = "workflowType=machine_learning"


def page_links(
    server: str, experiment_id: str, runs: Sequence[str], viewed: bool = True
) -> list[tuple[str, str]]:
    """Label and address of each page; ``runs`` are those of the cells, ``viewed`` says that the
    experiment has the tag ``VIEW_TAG``."""
    start = f"{server.rstrip('/')}/#"
    experiment = f"{start}/experiments/{experiment_id}/runs?{TRAINING}"
    view = f"&viewStateShareKey={VIEW}" if viewed else ""
    ids, experiments = (
        quote(json.dumps(list(names), separators=(",", ":"))) for names in (runs, [experiment_id])
    )
    compare = f"{start}/compare-runs?runs={ids}&experiments={experiments}&{TRAINING}"
    return [
        ("table", f"{experiment}{view}"),
        ("charts", f"{experiment}&compareRunsMode=CHART{view}"),
        ("compare", compare),
    ]


def view_tag(tags: Mapping[str, str]) -> str | None:
    """The view of an experiment with the tags that a plan gives it, as the text of ``VIEW_TAG``;
    None if they do not say what is measured."""
    if not {"headline", "metrics", "factor_keys"} <= tags.keys():
        return None
    headline = tags["headline"]
    others = [m["key"] for m in json.loads(tags["metrics"]) if m["key"] != headline]
    means = [f"agg/{key}_mean" for key in [headline, *others][:CHARTS]]
    columns = [
        *(f"params.`{key}`" for key in json.loads(tags["factor_keys"])),
        f"metrics.`{means[0]}`",
        f"metrics.`agg/{headline}_ci95`",
        f"metrics.`agg/{headline}_n`",
        "tags.`verdict`",
        *(f"metrics.`{mean}`" for mean in means[1 : 1 + COLUMNS]),
    ]
    section = {"uuid": "means", "name": "Means over seeds", "display": True, "isReordered": True}
    charts = [
        {
            "type": "BAR",
            "uuid": mean,
            "metricSectionId": "means",
            "metricKey": mean,
            "isGenerated": False,
            "deleted": False,
        }
        for mean in means
    ]
    view = {
        "selectedColumns": columns,
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "isAccordionReordered": True,
    }
    return json.dumps(view)
