"""What the looks at a sweep do to its intervals, in words."""

from __future__ import annotations

from collections.abc import Mapping

from reports import prose
from reports.looks import LEVEL, SETTLED, read_looks, read_seed_counts

__all__ = ["state_looks", "warn_of_looks"]


def warn_of_looks(tags: Mapping[str, str]) -> str:
    """What looking again has cost; "" where there was one look."""
    looks = read_looks(tags)
    if looks["looks"] < 2 or looks["error"] < 1.1 * (1 - LEVEL):  # Hardly any more data
        return ""
    return (
        f"Looked at {looks['looks']} times, each time with more of the same trials: at 95 % each, "
        f"one of these looks claims a difference that is not there in {looks['error']:.0%} of "
        "sweeps (of one comparison), not in 5 %."
    )


def state_looks(tags: Mapping[str, str]) -> str:
    """By what rule the sweep ended, and how its looks were planned; "" without a rule.
    Sweeps of earlier versions recorded no looks."""
    looks = read_looks(tags)
    last = looks["rounds"][-1] if looks["rounds"] else None
    if "looks" not in tags:
        return (
            "How often this sweep was looked at is not recorded: its intervals are those of a "
            "first look."
        )
    if last is None or not last["until"]:
        return ""
    sizes = [
        f"{prose.count(t['seeds'], 'seed')} of {prose.count(t['prompts'], 'prompt')} a split"
        for t in last["taken"]
    ]
    taken = f"{prose.count(len(sizes), 'look')} taken ({', '.join(sizes)})" if sizes else "none yet"
    planned = prose.join([str(seeds) for seeds in last["planned"]])
    ended = f"; it ended since {last['stopped']}" if last["stopped"] else "; it goes on"
    text = f"Looks planned at {planned} seeds at most, {taken}{ended}."
    if last["until"] == SETTLED:
        share = prose.show_level(1 - last["level"])
        settled = read_seed_counts(tags)
        text += (
            f" It stops by what is claimed, so that the 5 % are spent on all planned looks: each "
            f"interval that the answer goes by is one of {prose.show_level(last['level'])} % "
            f"({share} % a look)."
        )
        if settled:
            count, be = prose.count(len(settled), "cell"), "was" if len(settled) == 1 else "were"
            text += (
                f" {count} that {be} settled at an earlier look got no more seeds, and {be} "
                "compared on those of that look."
            )
        return text
    if last.get("alone"):
        text += (
            f" There is one comparison; its interval is one of {prose.show_level(last['level'])} "
            "%, since one that is narrow by luck ends the sweep."
        )
    return (
        f"{text} It stops by width, ±{float(last['until']):g}, not by what is claimed; in "
        "simulated sweeps at least one interval then missed its true value in 0 to 6 %."
    )
