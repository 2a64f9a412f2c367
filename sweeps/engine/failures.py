"""What the reason of a failure says of another try. A trial repeats itself number by number, so
that most errors of Python would come again; those of machines and networks pass."""

from __future__ import annotations

import re

__all__ = ["MOST_LOSSES", "comes_again", "passes", "pause_after"]

# Errors that a second try meets, too: of settings, files, code, and numbers that are none
FINAL = frozenset(
    {
        *("ConfigError", "DetectionsMissing", "Misread", "ResultError"),
        *("FileNotFoundError", "IsADirectoryError", "NotADirectoryError", "PermissionError"),
        *("ArithmeticError", "AssertionError", "AttributeError", "FloatingPointError"),
        *("ImportError", "IndexError", "KeyError", "ModuleNotFoundError", "NameError"),
        *("NotImplementedError", "OverflowError", "TypeError", "UnicodeDecodeError", "ValueError"),
        *("ZeroDivisionError",),
    }
)
# A device's, as torch says it; a process that the system killed for want of memory may fit later
MEMORY = re.compile(r"\w*Error: .*out of memory", re.IGNORECASE)
PASSING = re.compile(
    r"NCCL|Gloo|rendezvous|Dist(Backend|Network|Store)Error|^StoreUnavailable|^Connection\w*Error"
    r"|^TimeoutError|[Tt]imed out|Connection (reset|refused|closed)",
)
PAUSES = (10.0, 60.0, 300.0, 900.0, 1800.0)  # Seconds before what passes is tried again
MOST_LOSSES = 20  # So often a trial is given out again after a preemption or a lost node


def comes_again(reason: str) -> bool:
    """Whether the same trial would fail in the same way."""
    return reason.partition(":")[0] in FINAL or bool(MEMORY.match(reason))


def passes(reason: str) -> bool:
    """Whether it is trouble of a network or a server, which is waited for."""
    return not comes_again(reason) and bool(PASSING.search(reason))


def pause_after(count: int) -> float | None:
    """Seconds to wait after so many failures of this kind; None where it is waited no longer."""
    return PAUSES[count - 1] if count <= len(PAUSES) else None
