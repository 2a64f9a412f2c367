"""Flickr30k Entities (Plummer et al. 2015): sentences whose phrases name chains, and the boxes of
each chain. Boxes only: no masks exist.

    Sentences/<id>.txt     one caption a line: [/EN#6729/people/other A man] in a kayak . (several
                           types; chain 0 is nothing to be seen)
    Annotations/<id>.xml   <object>: the chains it belongs to (<name>, one or several), and a
                           <bndbox>, or <scene> or <nobndbox> for none
    UNRELATED_CAPTIONS     <id> <sentence, from 1>: captions that say nothing of their image
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

PHRASE = re.compile(r"\[/EN#(\d+)/(\S+)\s([^\]]+)\]")


class Span(NamedTuple):
    """The characters of a caption from ``start`` up to ``end`` that mean a chain, and what kinds of
    thing it is."""

    start: int
    end: int
    chain: str
    types: tuple[str, ...]


class Sentence(NamedTuple):
    """A caption and its phrases, from left to right."""

    text: str
    spans: tuple[Span, ...] = ()


class Regions(NamedTuple):
    """The boxes of each chain in pixels of an image of ``size`` (width, height): (x0, y0, x1, y1)
    from 0, x1 and y1 not in them any more.

    ``empty`` are boxes, as the file has them, of which nothing is in the image; ``read`` is whether
    there is a file that says so."""

    size: tuple[int, int]
    boxes: dict[str, list[tuple[int, int, int, int]]]
    empty: list[tuple[int, int, int, int]]
    read: bool = True


# --- sentences --------------------------------------------------------------------------------


def parse_sentence(line: str) -> Sentence:
    """A line of Sentences/<id>.txt. Raises ValueError where its markup cannot be read."""
    text, spans, done = "", [], 0
    for match in PHRASE.finditer(line):
        text += line[done : match.start()]
        start = len(text) + len(match[3]) - len(match[3].lstrip())
        text += match[3]
        if match[3].strip():
            spans.append(Span(start, len(text.rstrip()), match[1], tuple(match[2].split("/"))))
        done = match.end()
    text += line[done:]
    if "/EN#" in text:
        raise ValueError(
            f"markup that cannot be read in {line.strip()!r}: expected [/EN#<chain>/<type> words]"
        )
    return carry(Sentence(text, tuple(spans)), " ".join(text.split()))


def carry(sentence: Sentence, text: str) -> Sentence:
    """The phrases on a ``text`` that differs from the sentence's in blanks alone. Raises ValueError
    on any other text."""
    if text == sentence.text:
        return sentence
    seen = [i for i, character in enumerate(sentence.text) if not character.isspace()]
    there = [i for i, character in enumerate(text) if not character.isspace()]
    if [sentence.text[i] for i in seen] != [text[i] for i in there]:
        raise ValueError(f"{text!r} has other words than {sentence.text!r}")
    return _moved(sentence, text, {i: (j, j + 1) for i, j in zip(seen, there, strict=True)})


def _moved(sentence: Sentence, text: str, places: dict[int, tuple[int, int]]) -> Sentence:
    """``places`` says which characters of ``text`` stand for each of the sentence's, blanks left
    out."""
    spans = []
    for span in sentence.spans:
        inside = [places[i] for i in range(span.start, span.end) if i in places]
        if inside:
            spans.append(span._replace(start=inside[0][0], end=inside[-1][1]))
    return Sentence(text, tuple(spans))


def read_unrelated(path: Path) -> set[tuple[str, int]]:
    """(image, sentence from 1) of the captions to leave out."""
    pairs = (line.split() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return {(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


# --- captions as English is written ---------------------------------------------------------------

SPELLED = {
    "``": '"',
    "''": '"',
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
}
ENDINGS = ("s", "m", "d", "ll", "re", "ve", "t")
TO_THE_LEFT = re.compile(rf"[,.;:!?%)\]}}…]+|'(?:{'|'.join(ENDINGS)})|n't", re.IGNORECASE)
TO_THE_RIGHT = re.compile(r"[(\[{$]+")


def detokenise(sentence: Sentence) -> Sentence:
    """Punctuation, endings, brackets and quotes joined to their words again; the phrases stay on
    theirs.

    What is written so already is left as it is. Quotes open and close in turn; the last of an odd
    number stays alone. So do hyphens and slashes, since " - " may be a dash.
    """
    tokens = list(re.finditer(r"\S+", sentence.text))
    words = [SPELLED.get(token.group(), token.group()) for token in tokens]
    left, right = _joints(words)
    text, places = "", dict[int, tuple[int, int]]()
    for i, (token, word) in enumerate(zip(tokens, words, strict=True)):
        if i and i not in left and i - 1 not in right:
            text += " "
        start, same = len(text), word == token.group()
        text += word
        places |= {
            token.start() + k: (start + k, start + k + 1) if same else (start, len(text))
            for k in range(len(token.group()))
        }
    return _moved(sentence, text, places)


def _joints(words: list[str]) -> tuple[set[int], set[int]]:
    """Which words join the one to their left, which the one to their right."""
    left = {i for i, word in enumerate(words) if TO_THE_LEFT.fullmatch(word)}
    right = {i for i, word in enumerate(words) if TO_THE_RIGHT.fullmatch(word)}
    right |= {i for i, word in enumerate(words[:-1]) if word == "#" and words[i + 1].isdecimal()}
    for quote in "\"'":
        opened = None
        for i, word in enumerate(words):
            before, after = words[i - 1 : i], words[i + 1 : i + 2]
            if word != quote:
                continue
            if quote == "'" and before and after and after[0].lower() in ENDINGS:
                left.add(i)
                right.add(i)
            elif opened is not None:
                right.add(opened)
                left.add(i)
                opened = None
            elif quote == "'" and before and before[0].lower().endswith("s"):
                left.add(i)
            else:
                opened = i
    return left, right


# --- boxes --------------------------------------------------------------------------------


class _NoDoctype(ElementTree.TreeBuilder):
    """A document type can define entities that fill the memory, and no annotation needs one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("declares a document type, as no annotation of Entities does")


def read_regions(path: Path, *sizes: tuple[int, int]) -> Regions:
    """The boxes of an Annotations/<id>.xml in pixels of its image, whose (width, height) is that of
    ``sizes`` that the file says: the one that is equal, else the first of the same shape.

    The file counts pixels from 1, both ends within the box. Boxes of an image that was resized
    since are resized too. Raises OSError when there is no file, ValueError when it is not such XML
    or belongs to an image of another shape.
    """
    try:
        root = ElementTree.parse(path, ElementTree.XMLParser(target=_NoDoctype())).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"is a file of <{root.tag}>, not of <annotation>")
    made = root.find("size")
    said = sizes[0] if made is None else (_number(made, "width"), _number(made, "height"))
    wide, high = said
    fits = [
        (width, height)
        for width, height in sorted(sizes, key=lambda size: size != said)
        if min(said) >= 1 and 0.99 < width * high / (height * wide) < 1.01
    ]
    if not fits:
        width, height = sizes[-1]
        raise ValueError(
            f"has boxes of an image of {wide}x{high} pixels, but it has {width}x{height}"
        )
    size = width, height = fits[0]
    across, down = width / wide, height / high
    regions = Regions(size, {}, [])
    for thing in root.iter("object"):
        chains = [(name.text or "").strip() for name in thing.findall("name")]
        for box in thing.findall("bndbox"):
            x0, y0, x1, y1 = (_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
            scaled = (
                round((x0 - 1) * across),
                round((y0 - 1) * down),
                round(x1 * across),
                round(y1 * down),
            )
            kept = (
                max(scaled[0], 0),
                max(scaled[1], 0),
                min(scaled[2], width),
                min(scaled[3], height),
            )
            if kept[0] >= kept[2] or kept[1] >= kept[3]:
                regions.empty.append((x0, y0, x1, y1))
                continue
            # A box of no chain is nobody's
            for chain in chains or [""]:
                regions.boxes.setdefault(chain, []).append(kept)
    return regions


def _number(element: ElementTree.Element, name: str) -> int:
    text = (element.findtext(name) or "").strip()
    try:
        value = float(text)
        return int(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"has {text!r} as <{name}> of <{element.tag}>: expected a number of pixels"
        ) from error


def read_sentences(path: Path) -> list[tuple[int, str]]:
    """(number from 1, line) of the captions in a Sentences/<id>.txt, blank lines left out.

    Raises OSError when there is no file, ValueError when it is not UTF-8.
    """
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
