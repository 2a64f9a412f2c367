"""What the data sets of a DataModule hold: facts that fit into JSON, lines for a person, and a
contact sheet of each."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from conf.describe import show_count
from datamodules.batch import Phrase
from datamodules.contact_sheet import Tile, draw
from datamodules.crop import vanished
from datamodules.formats.index import DataError
from datamodules.loading import PairedDataModule
from datamodules.phrases.link import BY_SETTING

# Images of a split whose masks are decoded, evenly from first to last
SAMPLES = 200
# Of attention maps, in pixels
SIDES = (64, 32, 16, 8)
# Prompts that are printed of a split without images
TEXTS = 10
# Places that are printed of each kind of problem
EXAMPLES = 3
# Of the manifest, printed elsewhere
SHOWN = ("split", "count", "images", "records")

Progress = Callable[[str, float], None]


def report(
    datamodule: PairedDataModule,
    folder: Path,
    images: int = 12,
    say: Callable[[str], None] = print,
    progress: Progress = lambda text, share: None,
) -> dict[str, Any]:
    """Says what the data sets hold, draws the first ``images`` of each, and writes both into
    ``folder``. Returns what is in inspect.json."""
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Any] = {}
    for name, dataset in _datasets(datamodule).items():
        shown = images if hasattr(dataset, "pixels") else 0
        facts, tiles, broken = collect_facts(dataset, progress, shown)
        splits[name] = facts
        say(f"\n{name}: {show_count(len(dataset), 'sample')}")
        lines = describe(facts)
        if not hasattr(dataset, "pixels"):
            lines += _describe_prompts(dataset)
        elif images:
            path = folder / f"{name}.png"
            draw(tiles).save(path)
            facts |= {"cannot_be_decoded": broken, "contact_sheet": str(path)}
            lines += [f"problem: {problem}" for problem in broken]
            lines.append(f"contact sheet: {path}")
        for line in lines:
            say(f"  {line}")
    manifest = datamodule.manifest()
    for note in manifest.get("notes", []):
        say(f"\nnote: {note}")
    if "problems" in manifest:
        say("\n" + "\n".join(_describe_problems(manifest["problems"])))
    content = {"splits": splits, "manifest": manifest}
    (folder / "inspect.json").write_text(json.dumps(content, indent=1, default=str))
    say(f"\nall of it, and the manifest: {folder / 'inspect.json'}")
    return content


def _datasets(datamodule: Any) -> dict[str, Any]:
    """The training set under the name of its split, then the evaluation sets."""
    train = datamodule.train_set
    name = getattr(train, "split", "train")
    if name in datamodule.eval_sets:
        name = f"{name}-training"
    return {name: train, **datamodule.eval_sets}


# --- numbers --------------------------------------------------------------------------------------


def collect_facts(
    dataset: Any, progress: Progress, images: int = 0
) -> tuple[dict[str, Any], list[Tile], list[str]]:
    """What a data set holds, as far as its kind tells it, in a form that fits into JSON; tiles of
    the first ``images`` that can be decoded; and which of these cannot."""
    facts: dict[str, Any] = {"samples": len(dataset), "kind": type(dataset).__name__}
    records = getattr(dataset, "records", None)
    if hasattr(dataset, "crop"):
        facts |= _count_records(dataset, progress)
        facts["source"] = {
            key: value
            for key, value in dataset.manifest.items()
            if isinstance(value, str | int) and key not in SHOWN
        }
        facts["problems"] = dataset.manifest["problems"]
        facts |= {key: dataset.manifest[key] for key in ("lack",) if key in dataset.manifest}
    elif hasattr(dataset, "views"):
        sizes = [(view.pixels.shape[2], view.pixels.shape[1]) for view in dataset.views]
        facts["sizes"] = _summarise_sizes(sizes)
        facts["masks_per_image"] = _histogram(len(view.masks) for view in dataset.views)
        kinds = Counter(kind for view in dataset.views for kind in view.kinds.values())
        facts["mask_values"] = dict(kinds)
    tiles, broken = _look_at_samples(dataset, facts, images, progress)
    if records is not None and hasattr(records[0], "wanted"):
        facts["categories"] = dict(Counter(record.category for record in records))
        facts["wanted_known"] = sum(record.wanted is not None for record in records)
    return facts, tiles, broken


def _count_records(dataset: Any, progress: Progress) -> dict[str, Any]:
    """Sizes, captions and masks of all images."""
    sizes, captions, masks = [], [], []
    # Some data sets have boxes in place of masks
    count_marks, marks = dataset.objects, "masks"
    if hasattr(dataset, "boxed"):
        count_marks, marks = dataset.boxed, "boxed things"
    count = len(dataset)
    for row, record in enumerate(dataset.records):
        sizes.append((record.width, record.height))
        captions.append(len(record.captions))
        masks.append(count_marks(row))
        progress(f"reading {dataset.split}: {row + 1}/{count}", (row + 1) / count)
    return {
        "sizes": _summarise_sizes(sizes),
        "captions_per_image": _histogram(captions),
        f"{marks.replace(' ', '_')}_per_image": _histogram(masks),
    }


def _look_at_samples(
    dataset: Any, facts: dict[str, Any], images: int, progress: Progress
) -> tuple[list[Tile], list[str]]:
    """Adds what some samples, evenly from first to last, say of phrases and of masks that vanish on
    attention maps; draws the first ``images``. Each sample is looked at once: a data set keeps the
    decoded masks of its last one."""
    tiles: list[Tile] = []
    broken: list[str] = []
    sampled = _evenly(len(dataset))
    asked, counts = set(sampled), []
    left_out: dict[str, list[str]] = {}  # By reason the words
    lost: dict[int, Counter[str]] = {side: Counter() for side in SIDES}
    masks = hasattr(dataset, "crop") and facts.get("masks_per_image", {}).keys() - {"0"}
    for row in range(len(dataset)):
        if row in asked:
            phrases, reasons = _find_links(dataset, row)
            counts.append(len(phrases))
            for word, reason in reasons:
                left_out.setdefault(reason, []).append(word.lower())
            if masks:
                for side, found in vanished(dataset, SIDES, [row]).items():
                    lost[side].update(found)
            progress(f"samples: {len(counts)}/{len(sampled)}", len(counts) / len(sampled))
        if len(tiles) < images:
            try:
                tiles.append(_make_tile(dataset, row))
            except DataError as error:
                broken.append(str(error))
        elif len(counts) == len(sampled):
            break
    if masks:
        facts["vanished"] = {"of_images": len(sampled), "mask_share": dataset.mask_share}
        facts["vanished"] |= {str(side): dict(found) for side, found in lost.items()}
    shares = {f"{n}_or_more": sum(c >= n for c in counts) / len(counts) for n in (1, 2)}
    facts["phrases"] = {"of": len(counts), "per_caption": _histogram(counts), **shares}
    if hasattr(dataset, "naming"):
        facts["phrases"] |= {"naming": dataset.naming, "singular": dataset.singular}
        facts["phrases"]["left_out"] = {
            reason: {"count": len(words), "examples": list(dict.fromkeys(words))[:EXAMPLES]}
            for reason, words in left_out.items()
        }
    return tiles, broken


def _find_links(dataset: Any, row: int) -> tuple[list[Phrase], list[tuple[str, str]]]:
    return dataset.links(row) if hasattr(dataset, "links") else (dataset.phrases(row), [])


def _summarise_sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """[least, median, most] of width and height in pixels, and how many different sizes there
    are."""
    widths, heights = zip(*sizes, strict=True)
    width, height = ([min(x), statistics.median(x), max(x)] for x in (widths, heights))
    return {"width": width, "height": height, "different": len(set(sizes))}


def _histogram(counts: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(counts).items())}


def _evenly(count: int) -> list[int]:
    """At most `SAMPLES` of ``count`` rows."""
    samples = min(count, SAMPLES)
    return [i * count // samples for i in range(samples)]


# --- lines ----------------------------------------------------------------------------------------


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts of a data set for a person."""
    lines = []
    if source := facts.get("source"):
        parts = [f"{key.replace('_', ' ')} {value}" for key, value in source.items()]
        lines.append(f"source: {', '.join(parts)}")
    if sizes := facts.get("sizes"):
        (w0, w1, w2), (h0, h1, h2) = sizes["width"], sizes["height"]
        different = sizes["different"]
        many = f"{different} different sizes" if different > 1 else "all of one size"
        lines.append(
            f"image sizes: width {w0} / {w1:g} / {w2}, height {h0} / {h1:g} / {h2} pixels "
            f"(least / median / most), {many}"
        )
    for key in ("captions_per_image", "masks_per_image", "boxed_things_per_image"):
        if key in facts:
            lines.append(f"{key.replace('_', ' ')}: {_describe_histogram(facts[key])}")
    if lack := facts.get("lack"):
        lines.append(f"no masks or boxes: {lack['fact']}; {lack['cure']}")
    if kinds := facts.get("mask_values"):
        parts = [f"{kind} ×{count}" for kind, count in kinds.items()]
        lines.append(f"values of the mask files: {', '.join(parts)}")
    phrases = facts["phrases"]
    part = phrases["of"] < facts["samples"]
    seen = f" (of {show_count(phrases['of'], 'caption')}, evenly spread)" if part else ""
    histogram = _describe_histogram(phrases["per_caption"])
    kind = "noun" if phrases.get("naming") == "nouns" else "linked"
    lines.append(f"{kind} phrases per caption: {histogram}{seen}")
    lines.append(
        f"captions with a {kind} phrase: {phrases['1_or_more']:.0%}; with two or more: "
        f"{phrases['2_or_more']:.0%}"
    )
    for reason, words in phrases.get("left_out", {}).items():
        setting = f", data.singular={phrases['singular']}" if reason in BY_SETTING else ""
        lines.append(
            f"words left out: {words['count']} × {reason}{setting} ({', '.join(words['examples'])})"
        )
    if "categories" in facts:
        counts = [f"{name} {count}" for name, count in facts["categories"].items()]
        lines.append(f"categories: {', '.join(counts)}")
        lines.append(f"wanted objects known of {show_count(facts['wanted_known'], 'prompt')}")
    if lost := facts.get("vanished"):
        first = lost[str(SIDES[0])]
        lines.append(
            f"masks of {show_count(lost['of_images'], 'image')}: {first['objects']}, of which "
            f"{first['outside']} lie outside the crop"
            + (f" and {first['empty']} have no pixel" if first["empty"] else "")
        )
        inside = max(first["objects"] - first["outside"] - first["empty"], 1)
        vanishing = [(side, lost[str(side)]["vanished"]) for side in SIDES]
        parts = [f"{side}x{side} {count} ({count / inside:.0%})" for side, count in vanishing]
        share = f"data.mask_share={lost['mask_share']:g}"
        lines.append(f"masks that vanish on a map, with {share}: {', '.join(parts)}")
    return lines + (_describe_problems(facts["problems"]) if "problems" in facts else [])


def _describe_histogram(histogram: dict[str, int]) -> str:
    """Value × times; long histograms are cut to ten values, the last for all from there on."""
    items = list(histogram.items())
    parts = [f"{value} ×{count}" for value, count in items[:9]]
    if rest := items[9:]:
        parts.append(f"{rest[0][0]} to {rest[-1][0]} ×{sum(count for _, count in rest)}")
    return ", ".join(parts)


def _describe_problems(problems: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for kind, problem in problems.items():
        lines.append(f"problem: {kind}, {show_count(problem['count'], 'time')}")
        lines += [f"    {place}" for place in problem["examples"][:EXAMPLES]]
    return lines or ["problems: none"]


def _describe_prompts(dataset: Any) -> list[str]:
    """The first prompts of a data set without images, their phrases, and what is wanted of them."""
    lines = []
    for row in range(min(TEXTS, len(dataset))):
        phrases = " | ".join(phrase.text for phrase in dataset.phrases(row)) or "none"
        lines += [f"{row}: {dataset.caption(row).text}", f"     phrases: {phrases}"]
        wanted = dataset.records[row].wanted if hasattr(dataset, "records") else None
        lines += [f"     wanted: {json.dumps(wanted)}"] if wanted else []
    return lines


# --- pictures -------------------------------------------------------------------------------------


def _make_tile(dataset: Any, row: int) -> Tile:
    """The sample as it is trained on in the first epoch."""
    text = dataset.caption(row).text
    if hasattr(dataset, "variant"):
        # The images of a scene have numbers of their own
        number = dataset.variant(row)
        name = f"sample {row}, image {number}"
        return Tile(name, dataset.pixels(number), text, dataset.phrases(row))
    if not hasattr(dataset, "crop"):
        return Tile(f"prompt {row}", dataset.pixels(row), text, dataset.phrases(row))
    flipped = dataset.flipped(row)
    phrases = dataset.phrases(row, flipped)
    unnamed = [
        instance.mask
        for instance in dataset.instances(row, flipped)
        if not any(bool((instance.mask <= phrase.mask).all()) for phrase in phrases)
    ]
    name = dataset.records[row].path.name
    return Tile(name, dataset.pixels(row, flipped), text, phrases, unnamed)
