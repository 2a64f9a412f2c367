"""Ask people which of two cells' images they prefer: a page that needs no server, and what the answers say.

    python -m reports.user_study mask_vs_blank left=target right=blank                 # writes study.html and study.key.json
    python -m reports.user_study threshold left=0.5 right="untouched backbone" items=40 checks=2
    python -m reports.user_study --analyse answers key=study.key.json                  # reads answers/*.json, writes answers/results/

Give study.html to participants, by mail or on any web space: it is one file, works without a network, and sends nothing. Each participant
saves a file of answers and gives it back. Keep study.key.json to yourself: it says which image is whose.

Settings of a page:
    left=… right=…         the cells to compare, each by its level, combination or name as the report shows it
    output=runs            folder with mlflow.db
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db
    items=30               pairs of images, drawn at random from those that both cells kept
    checks=1               attention checks besides: one image shown twice, which "no difference" must be said of; 0 for none
    seed=0                 of the draw
    question="…"           default "Which image matches the text better?"
    rating="…"             default "How well does each image match the text?", answered from 1 (not at all) to 5 (perfectly)
    mask_question="…"      asked besides where the images have target masks; "In which image do the objects fill the outlines better?"
    mask_rating="…"        default "How well do the objects fill the outlines?"
    consent=FILE           a text in place of the page's own on consent, paragraphs parted by empty lines
    largest=768            pixels: larger images are made smaller
    to=study.html          the key goes beside it, as study.key.json

Settings of an analysis:
    key=study.key.json     the key that was written with the page
    unfinished=leave       or count: answers of participants who stopped before the end
    to=FOLDER/results      where user_study.csv, .md, .json and .pdf, items.csv and answers.csv go
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from reports.study import ReportError

MAKING = (
    "left", "right", "output", "tracking_uri", "items", "checks", "seed", "question", "rating", "mask_question", "mask_rating", "consent",
    "largest", "to",
)  # fmt: skip
ANALYSING = ("key", "unfinished", "to")


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    try:
        return _analyse(argv) if "--analyse" in argv else _make(argv)
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _words(argv: list[str], settings: tuple[str, ...], what: str) -> tuple[str, dict[str, str]]:
    """The one name among the words, and the settings."""
    names = [word for word in argv if "=" not in word and word != "--analyse"]
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    if unknown := sorted(given.keys() - set(settings)):
        raise ReportError(f"unknown setting '{unknown[0]}'; there are: {', '.join(f'{name}=' for name in settings)}")
    if len(names) != 1:
        raise ReportError(f"expected one {what}, got {' '.join(names) or 'none'}; see python -m reports.user_study --help")
    return names[0], given


def _whole(given: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = given.get(name, str(default))
    if not text.removeprefix("-").isdecimal() or int(text) < least:
        raise ReportError(f"{name}={text}: expected a whole number from {least} on")
    return int(text)


def _make(argv: list[str]) -> int:
    sweep, given = _words(argv, MAKING, "sweep")
    items, checks = _whole(given, "items", 30, 1), _whole(given, "checks", 1, 0)
    seed, largest = _whole(given, "seed", 0, 0), _whole(given, "largest", 768, 64)
    to = Path(given.get("to", "study.html"))
    if to.suffix != ".html":
        raise ReportError(f"to={to}: expected a name that ends in .html")
    consent = ""
    if "consent" in given:
        try:
            consent = Path(given["consent"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ReportError(f"consent={given['consent']}: expected a text file in UTF-8 ({error})") from error
    output = Path(given.get("output", "runs"))
    uri = given.get("tracking_uri", f"sqlite:///{(output / 'mlflow.db').resolve()}")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # making a study never calls home

    from reports.collect import collect
    from reports.user_study.page import Wording, build, write

    study = collect(uri, sweep)
    wording = Wording(
        consent=consent, **{name: given[name] for name in ("question", "rating", "mask_question", "mask_rating") if name in given}
    )
    with study.folder:
        page = build(study, given.get("left", ""), given.get("right", ""), items, checks, seed, largest, wording)
    key = write(page, to)
    counts = page.key["counts"]
    identical = f"; {counts['identical']} more were equal in every pixel and left out" if counts["identical"] else ""
    print(f"{counts['pairs']} of {counts['common']} pairs and {counts['checks']} attention check{'s' * (counts['checks'] != 1)}{identical}")
    if counts["pairs"] < items:
        print(
            f"{items} pairs were asked for: only images kept as samples can be shown. For more, give the sweep more seeds, or run it "
            "with a larger evaluation.keep_images: that trains and draws nothing again, and makes a sweep of its own"
        )
    print(f"{to} ({to.stat().st_size / 1e6:.1f} MB)\n{key}")
    return 0


def _analyse(argv: list[str]) -> int:
    name, given = _words(argv, ANALYSING, "folder of answers")
    unfinished = given.get("unfinished", "leave")
    if unfinished not in ("leave", "count"):
        raise ReportError(f"unfinished={unfinished}: expected leave or count")

    from reports.user_study.answers import gather, load_key
    from reports.user_study.results import write

    folder = Path(name)
    key = load_key(Path(given.get("key", "study.key.json")))
    gathered = gather(folder, key, count_unfinished=unfinished == "count")
    print(write(gathered, Path(given.get("to", folder / "results"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
