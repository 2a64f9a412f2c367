"""Images with captions, and with regions that words of them name, as rows of files list them.

A row has an image (`IMAGES`) and a caption (`CAPTIONS`, a text or a list of texts), and may have

* ``phrases``: [{"words": "a red cat" or [start, end], "mask": "masks/1.png", run lengths or
  polygons in COCO's form, "box": [x, y, width, height]}], words as they stand in the caption;
* ``attn_list``: [[words, mask.png or null], …] (TokenCompose);
* ``split``, ``id``.

A mask file is as large as its image, white on black.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datamodules.batch import Caption
from datamodules.formats.bad_lines import BadLine, expect, keep_on_one_line
from datamodules.formats.prompt_forms import find_words

__all__ = [
    "CAPTIONS",
    "IMAGES",
    "SPLITS",
    "Listed",
    "Region",
    "find_key",
    "list_row",
    "make_caption",
]

IMAGES = ("file_name", "image", "image_path", "image_file", "filename", "path", "img", "img_path")
CAPTIONS = ("text", "caption", "captions", "prompt", "sentence", "sentences", "raw")
# What files call splits -> their usual name
SPLITS = {"validation": "val", "valid": "val", "dev": "val", "testing": "test", "training": "train"}


class Region(NamedTuple):
    """What words name: ``mask`` is the name of a file, or a segmentation in COCO's form; ``box``
    [x, y, width, height] in pixels."""

    label: str
    mask: Any = None
    box: list[float] | None = None


@dataclass
class Listed:
    """An image by the ``name`` that its file gives it, with what is said of it; ``place`` is
    file:line. Phrases of captions name regions by their positions. ``split`` is "" where the file
    says none."""

    name: str
    captions: list[Caption]
    place: str
    regions: list[Region] = field(default_factory=list)
    key: int | str = ""
    split: str = ""


def find_key(keys: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of ``names`` that is among ``keys``, in any case."""
    lower = {key.strip().lower(): key for key in reversed(keys)}
    return next((lower[name] for name in names if name in lower), None)


def list_row(content: Mapping[str, Any], place: str) -> Listed:
    """A row of any of the forms above. Raises BadLine."""
    keys = [*content]
    image, said = find_key(keys, IMAGES), find_key(keys, CAPTIONS)
    name = content.get(image) if image else None
    good = isinstance(name, str) and name.strip() and "\0" not in name
    expect(good, f"expected one of {', '.join(IMAGES)}, not {name!r}", "image missing")
    texts = content.get(said) if said else None
    texts = [texts] if isinstance(texts, str) else texts
    good = isinstance(texts, list) and all(isinstance(one, str) for one in texts)
    expect(good, f"expected a text or a list of texts, not {str(texts)[:40]!r}", "caption missing")
    assert isinstance(texts, list)
    captions = [Caption(keep_on_one_line(text).strip()) for text in texts if text.strip()]
    split = content.get("split")
    listed = Listed(str(name).strip(), captions, place)
    listed.split = SPLITS.get(split.lower(), split) if isinstance(split, str) else ""
    key = content.get("id")
    listed.key = key if isinstance(key, int | str) and not isinstance(key, bool) else ""
    if content.get("phrases") is not None:
        _add_phrases(listed, content["phrases"])
    elif content.get("attn_list") is not None:
        _add_words(listed, content["attn_list"])
    return listed


def make_caption(text: str, phrases: Sequence[tuple[int, int, tuple[int, ...]]]) -> Caption:
    """With its phrases from left to right."""
    return Caption(text, None, tuple(sorted(phrases)))


def _add_phrases(listed: Listed, content: Any) -> None:
    """Own phrases, of the only caption. Raises BadLine."""
    good = isinstance(content, list) and all(isinstance(one, dict) for one in content)
    expect(good, f"phrases {str(content)[:60]!r}: expected a list of objects", "wrong phrases")
    one = len(listed.captions) == 1
    expect(one, "phrases with several captions, or none: expected one", "wrong phrases")
    text = listed.captions[0].text
    given = [one.get("words") for one in content]
    spans = iter(find_words(text, [[w] for w in given if isinstance(w, str)]))
    phrases = []
    for number, (words, phrase) in enumerate(zip(given, content, strict=True)):
        what = f"phrase {number}"
        if isinstance(words, list):
            good = len(words) == 2 and all(type(at) is int for at in words)
            good = good and 0 <= words[0] < words[1] <= len(text)
            detail = f"{words} of {what}: expected [start, end] within 0 to {len(text)}"
            expect(good, detail, "phrase not in the caption")
            span = (words[0], words[1])
        else:
            found = next(spans) if isinstance(words, str) else None
            detail = f"{words!r} of {what} is not in {text!r}: write it as it stands there"
            expect(found is not None, detail, "phrase not in the caption")
            assert found is not None
            span = found
        unknown = phrase.keys() - {"words", "mask", "masks", "box", "label"}
        expect(
            not unknown, f"{sorted(unknown)} in {what}: expected words, mask, box", "unknown key"
        )
        masks = phrase["masks"] if isinstance(phrase.get("masks"), list) else [phrase.get("mask")]
        box = phrase.get("box")
        good = box is None or (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(n, int | float) and not isinstance(n, bool) for n in box)
        )
        expect(good, f"box {box!r} of {what}: expected [x, y, width, height]", "wrong phrases")
        there = [mask for mask in masks if mask is not None]
        detail = f"{what} ({text[slice(*span)]!r}): expected a mask or a box"
        expect(there or box is not None, detail, "phrase without a place")
        label = str(phrase.get("label") or text[slice(*span)])
        first = len(listed.regions)
        listed.regions += [Region(label, mask, box) for mask in there or [None]]
        phrases.append((*span, tuple(range(first, len(listed.regions)))))
    listed.captions = [make_caption(text, phrases)]


def _add_words(listed: Listed, content: Any) -> None:
    """TokenCompose's words with their masks; those without a mask are left out. Raises BadLine."""
    good = isinstance(content, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in content
    )
    detail = f"attn_list {str(content)[:60]!r}: expected [[words, mask.png], …]"
    expect(good and len(listed.captions) == 1, detail, "wrong phrases")
    text = listed.captions[0].text
    masked = [(words, mask) for words, mask in content if mask is not None]
    spans = find_words(text, [[words] for words, _ in masked])
    phrases = []
    for (words, mask), span in zip(masked, spans, strict=True):
        if not isinstance(mask, str):
            raise BadLine("wrong phrases", f"mask {mask!r} of {words!r}: expected a file")
        if span is not None:
            phrases.append((*span, (len(listed.regions),)))
            listed.regions.append(Region(words, mask))
    listed.captions = [make_caption(text, phrases)]


def list_sentences(
    rows: Iterator[tuple[str, Mapping[str, Any]]],
) -> Iterator[Listed | tuple[str, BadLine]]:
    """BLIP's files of Karpathy's splits: a row a caption, or a row an image with its captions;
    images of several rows are one."""
    images: dict[str, Listed] = {}
    for place, content in rows:
        try:
            listed = list_row(content, place)
        except BadLine as error:
            yield place, error
            continue
        if listed.name in images:
            images[listed.name].captions += listed.captions
        else:
            images[listed.name] = listed
    yield from images.values()
