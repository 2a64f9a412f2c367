"""Ask people which of two cells' images they prefer: a page that needs no server, and its analysis.

    python -m reports.user_study mask_vs_blank left=target right=blank
                                                # writes study.html and study.key.json
    python -m reports.user_study threshold left=0.5 right="untouched backbone" items=40 checks=2
    python -m reports.user_study --analyse answers key=study.key.json
                                                # reads answers/*.json, writes answers/results/

Give study.html to participants, by mail or on any web space: it is one file, works without a
network, and sends nothing. Each participant saves a file of answers and gives it back. Keep
study.key.json to yourself: it says which image is whose.

Settings of a page:
    left=… right=…         the cells to compare, each by its level, combination or name as the
                           report shows it
    output=runs            folder with mlflow.db
    tracking_uri=…         MLflow server or database; default sqlite:///<output>/mlflow.db
    items=30               pairs of images, drawn at random from those that both cells kept
    checks=1               attention checks besides: one image shown twice, of which "no difference"
                           is the right answer; 0 for none
    seed=0                 of the draw
    question="…"           default "Which image matches the text better?"
    rating="…"             default "How well does each image match the text?", answered from 1 (not
                           at all) to 5 (perfectly)
    mask_question="…"      asked besides where the images have target masks; "In which image do the
                           objects fill the outlines better?"
    mask_rating="…"        default "How well do the objects fill the outlines?"
    consent=FILE           a text instead of the page's own on consent, with empty lines between
                           paragraphs
    largest=768            pixels: larger images are made smaller
    to=study.html          the key goes beside it, as study.key.json

Settings of an analysis:
    key=study.key.json     the key that was written with the page
    unfinished=leave       or count: answers of participants who stopped before the end
    to=FOLDER/results      where user_study.csv, .md, .json and .pdf, items.csv and answers.csv go
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from reports.__main__ import read_place, read_uri, split_words
from reports.pipes import ends_with_reader
from reports.results import ReportError

TEXTS = ("question", "rating", "mask_question", "mask_rating")
NUMBERS = {
    "items": (30, 1),
    "checks": (1, 0),
    "seed": (0, 0),
    "largest": (768, 64),
}  # Default, least
PAGE_SETTINGS = ("left", "right", "output", "tracking_uri", *NUMBERS, *TEXTS, "consent", "to")
ANALYSIS_SETTINGS = ("key", "unfinished", "to")


@ends_with_reader
def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(__doc__.strip())
        return 0
    try:
        print(_analyse(argv) if "--analyse" in argv else _make_page(argv))
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _read_words(
    argv: list[str], settings: tuple[str, ...], what: str
) -> tuple[str, dict[str, str]]:
    """The one name among the words, and the settings."""
    words = [word for word in argv if word != "--analyse"]
    names, values = split_words(words, settings)
    if len(names) != 1:
        got = f"expected one {what}, got {' '.join(names) or 'none'}"
        raise ReportError(f"{got}; see python -m reports.user_study --help")
    return names[0], values


def _read_number(values: Mapping[str, str], name: str) -> int:
    default, least = NUMBERS[name]
    text = values.get(name, str(default))
    if not re.fullmatch("0|[1-9][0-9]*", text) or int(text) < least:
        raise ReportError(
            f"{name}={text}: expected a whole number from {least} on, without leading zeros"
        )
    return int(text)


def _make_page(argv: list[str]) -> str:
    """Write page and key; return what a terminal shows. Slow imports wait for correct settings."""
    sweep, values = _read_words(argv, PAGE_SETTINGS, "sweep")
    numbers = {name: _read_number(values, name) for name in NUMBERS}
    texts = {name: values[name] for name in TEXTS if name in values}
    to = read_place(values, "to", "study.html")
    if to.suffix != ".html":
        raise ReportError(f"to={to}: expected a name that ends in .html")
    if "consent" in values:
        try:
            texts["consent"] = read_place(values, "consent").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            expected = f"consent={values['consent']}: expected a text file in UTF-8"
            raise ReportError(f"{expected} ({error})") from error
    uri = read_uri(values, read_place(values, "output", "runs"))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # Making a study never calls home

    from reports import prose
    from reports.collect import collect
    from reports.user_study.page import Wording, build_page, write_page

    results = collect(uri, sweep)
    left, right = values.get("left", ""), values.get("right", "")
    with results.folder:
        page = build_page(results, left, right, wording=Wording(**texts), **numbers)
    key = write_page(page, to)
    counts = page.key["counts"]
    checks = prose.count(counts["checks"], "attention check")
    line = f"{counts['pairs']} of {prose.count(counts['common'], 'pair')} and {checks}"
    if counts["identical"]:
        line += f"; {counts['identical']} more left out, equal in every pixel"
    lines = [line]
    if counts["pairs"] < numbers["items"]:
        lines.append(
            f"items={numbers['items']} asks for more pairs than there are: only images kept as "
            "samples can be shown. For more, give the sweep more seeds, or run it with a larger "
            "evaluation.keep_images: that trains and draws nothing again, and makes a sweep of its "
            "own"
        )
    return "\n".join([*lines, f"{to} ({to.stat().st_size / 1e6:.1f} MB)", str(key)])


def _analyse(argv: list[str]) -> str:
    """Write the analysis of a folder of answers; return what a terminal shows."""
    name, values = _read_words(argv, ANALYSIS_SETTINGS, "folder of answers")
    unfinished = values.get("unfinished", "leave")
    if unfinished not in ("leave", "count"):
        raise ReportError(f"unfinished={unfinished}: expected leave or count")

    from reports.user_study.answers import load_key, read_responses
    from reports.user_study.report import write_analysis

    folder = read_place({"folder of answers": name}, "folder of answers")
    key = load_key(read_place(values, "key", "study.key.json"))
    responses = read_responses(folder, key, count_unfinished=unfinished == "count")
    return write_analysis(responses, read_place(values, "to", folder / "results"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
