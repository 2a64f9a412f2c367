"""Commands that are printed: found in text, and read as the command would read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from conf import load as conf
from conf.commands import list_commands
from datamodules.inspect import Inspection
from reports import __main__ as reports
from reports.user_study import __main__ as user_study
from sweeps import completion
from sweeps.command import FLAGS
from sweeps.engine import prune
from sweeps.engine.catalogue import discover
from sweeps.engine.errors import Declined
from sweeps.engine.resolve import resolve

ROOT = Path(__file__).parents[2]
PACKAGES = ("conf", "datamodules", "lightning_modules", "sweeps", "reports")
SWEEPS = {sweep.name: sweep for sweep in discover()}
# Words in quotes may hold blanks
COMMAND = re.compile(r"""python -m ([\w.]+)((?: +(?:'[^']*'|"[^"]*"|[^\s#`“”()|;…])+)*)""")
# What goes on behind a command inside of a sentence
STOPS = re.compile(
    r" (?:lists|runs|makes|opens|only|wrote|and|to|it|does|from|in|of|that|or|see|then)\b(?!=).*"
)


@cache
def commands(package: str) -> list[str]:
    return list_commands(ROOT / package)


def check_command(module: str, words: list[str]) -> None:
    """Raises what the command would, as far as its words alone decide."""
    package, _, name = module.partition(".")
    if package not in PACKAGES:  # python -m spacy
        return
    there = (ROOT / package / Path(*name.split(".")) / "__main__.py").is_file()
    assert there or name in commands(package), f"python -m {module}: no such command"
    if "--help" in words or not words:  # Or only spoken of
        return
    words = [word for word in words if word not in FLAGS]
    if package == "sweeps" and name in SWEEPS:
        sweep = SWEEPS[name]
        try:
            resolve(sweep, conf.load(words, sweep.preset, required=False), words)
        except Declined:
            # It says what to add
            assert all(word.startswith("output=") for word in words)
    elif module == "sweeps":
        if words[:1] in (["bundle"], ["verify"]):
            # Names of files and studies
            assert len([word for word in words if "=" not in word]) <= 2
            return
        if words[:1] == ["prune"]:
            if words[1:]:
                prune._read_words(words[1:])
            return
        settings = [word for word in words if "=" in word and not word.startswith("port=")]
        known = {*settings, "all", "sync", "ui", "completion", *completion.SHELLS}
        assert set(words) - known <= {"port=5001"}
        conf.load(settings)
    elif module == "reports":
        names, _ = reports.split_words(words, reports.SETTINGS)
        assert len(names) == 3 if names[:1] == ["compare"] else len(names) < 2
    elif module == "reports.user_study":
        known = user_study.ANALYSIS_SETTINGS if "--analyse" in words else user_study.PAGE_SETTINGS
        user_study._read_words(words, known, "name")
    elif module == "datamodules.inspect":
        conf.load(words, schema=Inspection, required=False)


def find_commands(text: str) -> Iterator[tuple[str, str]]:
    """Module and words of each command in a text."""
    for line in text.replace("python -m\n", "python -m ").splitlines():
        for begin in re.finditer("python -m ", line):
            part = _leave_sentence_out(line[begin.start() :])
            if not (found := COMMAND.match(part)):
                continue
            # What is shortened cannot be pasted, and does not look as if it could
            shortened = part[found.end() :].startswith(" …") or "/my/" in found[2]
            shortened = shortened or "=fruit" in found[2]  # Of the README's example
            yield found[1].rstrip("."), "" if shortened else found[2]


def _leave_sentence_out(text: str) -> str:
    """The text up to where a sentence goes on behind the command; what is quoted is none."""
    stop = STOPS.search(text)
    while stop and any(text[: stop.start()].count(quote) % 2 for quote in "'\""):
        stop = STOPS.search(text, stop.start() + 1)
    return text[: stop.start()] if stop else text


def split_command(words: str) -> list[str]:
    """Words of a command as a shell reads them, without a sentence's punctuation."""
    return [word.rstrip(".:,") for word in shlex.split(words)]


def check_printed(text: str) -> None:
    """Raises where a command in the text cannot be pasted, or where none is in it."""
    found = list(find_commands(text))
    assert found, f"no command in: {text}"
    for module, words in found:
        check_command(module, split_command(words))
