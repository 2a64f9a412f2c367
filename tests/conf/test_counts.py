"""Counted nouns in messages, and a look through the tree for those that say "1 trials"."""

import re
from pathlib import Path

import pytest

from conf.describe import show_count

ROOT = Path(__file__).parents[2]
# A count and a noun that is always a plural, in an f-string of what commands print
PRINTED = ("sweeps/engine/*.py", "sweeps/__main__.py", "reports/content.py", "reports/compare/*.py")
ALWAYS_PLURAL = re.compile(
    r"\{(?:len\([^}]*\)|[a-z_.]*count|planned|left)\} (?:cell|seed|trial)s\b"
)


@pytest.mark.parametrize(("n", "text"), [(0, "0 trials"), (1, "1 trial"), (1350, "1,350 trials")])
def test_one_is_singular(n, text):
    assert show_count(n, "trial") == text


def test_commands_print_no_fixed_plurals():
    files = [path for pattern in PRINTED for path in ROOT.glob(pattern)]
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert not [line for line in lines if ALWAYS_PLURAL.search(line)]
