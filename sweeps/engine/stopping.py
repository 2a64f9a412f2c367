"""The words until=, budget= and primary= of a command: what they mean, and what is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from conf.describe import nearest
from sweeps.engine.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from conf import schema
    from sweeps.sweep import Cell, Sweep

__all__ = [
    "OTHER_MODES",
    "SETTLED",
    "check_primary",
    "check_stopping",
    "fixed_primary",
    "read_budget",
    "read_until",
]

SETTLED = "settled"
OTHER_MODES = ("search", "path", "screen")  # Their answers are not comparisons with a control
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def read_until(config: schema.Sweep) -> str:
    """SETTLED, a half-width as text, or empty where there is no rule."""
    return f"{config.until:g}" if isinstance(config.until, float | int) else config.until or ""


def read_budget(config: schema.Sweep) -> float | None:
    """Seconds. Raises PlanError."""
    if config.budget is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?([a-z]+)", config.budget.strip())
    if found is None or found[2] not in UNITS or not float(found[1]) > 0:
        raise PlanError(
            f"budget={config.budget}: expected a time with its unit, such as 90s, 30min, 2h, 1.5d"
        )
    return float(found[1]) * UNITS[found[2]]


def check_stopping(sweep: Sweep, config: schema.Sweep, cells: Sequence[Cell]) -> None:
    """Raises PlanError for words that make no sense, or not with these others."""
    other = config.mode in OTHER_MODES
    if config.primary is not None:
        known = [cell.text for cell in cells if not cell.untouched]
        if other or config.primary not in known:
            where = f"mode={config.mode} fixes no comparison" if other else "no cell to compare"
            near = nearest(config.primary, known)
            expected = "leave it out" if other else f"expected one of {'; '.join(known)}{near}"
            raise PlanError(f"primary={config.primary}: {where}; {expected}")
    if config.until is None:
        if config.budget is not None:
            raise PlanError(f"budget={config.budget} limits what until= adds; give until=, too")
        return
    word = f"until={read_until(config)}"
    if config.until != SETTLED and not (isinstance(config.until, float | int) and config.until > 0):
        raise PlanError(
            f"{word}: expected half the width of an interval, above 0, such as until=.05, or "
            f"{SETTLED}{nearest(word.partition('=')[2], [SETTLED])}"
        )
    if config.mode in OTHER_MODES:
        raise PlanError(
            f"{word} is for comparisons of cells with a control, but mode={config.mode}; use "
            "mode=grid"
        )
    if config.seeds < 2:
        raise PlanError(
            f"{word} with seeds={config.seeds}, those of the first look: one seed says nothing of "
            "other trainings; give two or more"
        )
    if "evaluation.prompts" in sweep.keys:
        raise PlanError(f"{word} adds prompts, but {sweep.name} varies evaluation.prompts")
    headline = next(metric for metric in sweep.metrics if metric.key == sweep.headline)
    if headline.unit == "share" and config.until != SETTLED and float(config.until) > 1:
        raise PlanError(
            f"{word} is half the width of an interval of {headline.key}, a share: expected at "
            f"most 1, such as until=.05, or {SETTLED}"
        )
    if not headline.per_image:
        others = [m.key for m in sweep.metrics if m.per_image and m.better != "none"]
        raise PlanError(
            f"{word} reads images, and {headline.key} has no value of each; choose another "
            f"headline: {', '.join(others) or 'this evaluation has none'}"
        )
    read_budget(config)


def check_primary(config: schema.Sweep, fixed: str, finished: int) -> str:
    """The primary contrast of a study in which ``fixed`` was and so many trials have finished.
    Raises PlanError for one that comes too late."""
    if config.primary is None or config.primary == fixed:
        return fixed
    if finished:
        before = f"it is {fixed} since then" if fixed else "none was"
        raise PlanError(
            f"primary={config.primary}: a primary contrast is fixed before trials finish, and "
            f"{before}; leave it out, or begin in an output of its own"
        )
    return config.primary


def fixed_primary(facts: Mapping[str, Any]) -> str:
    """What was stored with a study."""
    return facts.get("primary", "")
