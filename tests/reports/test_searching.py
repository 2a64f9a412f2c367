"""What a report says of a search: how important factors are, and what pruning would have done."""

from __future__ import annotations

import json
from typing import Any

from reports.importance import importance_blocks
from reports.pruning import pruning_blocks

OUTCOME = {"dropped": 0, "trials": 0, "seconds": 0.0, "best": "a", "loss": 0.0, "orders_lost": 0}
REPLAYED = {
    "metric": "success",
    "winner": "threshold=0.6",
    "control": "threshold=0.5",
    "candidates": 4,
    "left_out": 1,
    "trials": 12,
    "seconds": 600.0,
    "with_losses": 3,
    "fewest_seeds": 5,
    "orders": 20,
    "outcomes": [
        OUTCOME | {"prune": "none"},
        OUTCOME | {"prune": "seeds"},
        OUTCOME
        | {"prune": "training", "dropped": 2, "trials": 5, "seconds": 90.0, "loss": 0.02}
        | {"orders_lost": 7},
    ],
}


def test_a_sweep_without_a_search_says_nothing_of_one(changeable: Any) -> None:
    results = changeable("threshold")
    assert importance_blocks(results) == [] == pruning_blocks(results)


def test_importance_stands_with_its_limits(changeable: Any) -> None:
    results = changeable("threshold")
    key = results.factors[0].key
    factor = {"key": key, "share": 0.9, "p": 0.02, "candidates": 12}
    part = {"metric": "success", "best": 5, "why": "", "factors": [factor]}
    results.tags["importance"] = json.dumps({"candidates": 20, "objectives": [part]})
    heading, table, limits = importance_blocks(results)
    assert table["rows"] == [["Gate threshold", "0.90", "0.02", "12 of 20"]]
    assert "best 5 of 20 measured candidates" in table["title"]
    assert "does not say" in limits["text"] and heading["text"]
    part |= {"why": "6 of 10 are the best alike", "factors": []}
    results.tags["importance"] = json.dumps({"candidates": 10, "objectives": [part]})
    assert "6 of 10 are the best alike" in importance_blocks(results)[1]["text"]


def test_a_replay_names_what_it_would_have_lost(changeable: Any) -> None:
    results = changeable("threshold")
    results.tags["pruning"] = json.dumps(REPLAYED)
    _, table, limits = pruning_blocks(results)
    none, seeds, training = table["rows"]
    assert none[1:] == ["0", "0 of 12", "0.0 of 10.0", "kept", "–"]
    assert seeds[-1] == "0 of 20" and training[1:4] == ["2", "5 of 12", "1.5 of 10.0"]
    assert training[4:] == ["dropped; a is left, worse by 0.02", "7 of 20"]
    for part in ("Success is threshold=0.6", "1 cell without all seeds", "fewer than 5 seeds"):
        assert part in table["note"]
    assert "1 cell without enough logged losses" in table["note"] and limits["text"]
