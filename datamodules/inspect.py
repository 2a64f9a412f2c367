"""What a run would be trained on, for a person to see: counts, sizes, captions, masks, problems,
and a contact sheet of each split.

    python -m datamodules.inspect data=coco data.root=/data/coco                 # and any other setting of a run
    python -m datamodules.inspect data=coco data.root=/data/coco evaluation.splits=[val2017] images=24
    python -m datamodules.inspect --help

Everything lands in <output>/inspect/<data.name>: <split>.png, and inspect.json with all that was
printed and the manifest.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.schema import Run, number
from conf.spec import data_sets

if TYPE_CHECKING:
    from datamodules.contact_sheet import Tile
    from datamodules.loading import PairedDataModule

LOOKED_AT = 200  # images of a split whose masks are decoded, evenly from first to last
SIDES = (64, 32, 16, 8)  # of attention maps, in locations
TEXTS = 10  # prompts that are printed of a split without images
EXAMPLES = 3  # places that are printed of each kind of problem
SAID = ("split", "count", "images")  # of the manifest, and elsewhere
PIXELS = 512  # side of the crop of photographs where no backbone is named
Say = Callable[[str], None]


@dataclass
class Inspection(Run):
    """The settings of a run, and how much of its data is shown."""

    images: int = number(12, minimum=0)  # images of each split on its contact sheet; 0 draws none


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for settings or data that cannot be used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(
            conf.help_text(
                __doc__.partition("\n")[0] if __doc__ else "",
                "python -m datamodules.inspect",
                schema=Inspection,
            )
        )
        return 0
    try:
        config = _adapted(conf.load(argv, schema=Inspection), argv)
        folder = Path(config.output) / "inspect" / config.data.name
        with warnings.catch_warnings():
            # What a DataModule warns of stands in its notes, which are printed
            warnings.simplefilter("ignore", UserWarning)
            report(open_datamodule(config), folder, config.images)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _adapted(config: Inspection, argv: Sequence[str]) -> Inspection:
    """The defaults are those of the embedded world: other data have other splits, and photographs
    are not seen at 64 pixels."""
    changes: dict[str, Any] = {}
    said = {word.partition("=")[0] for word in argv}
    spec = data_sets()[config.data.name]
    embedded = spec.embedded(config)
    if spec.kind == "captions" and not embedded and not {"evaluation", "evaluation.splits"} & said:
        changes["evaluation.prompts"] = 0
        print("evaluation splits: none was named; to see them, too: evaluation.splits=[…]")
    if not embedded and not {"backbone", "backbone.resolution"} & said:
        changes["backbone.resolution"] = PIXELS
    return conf.replace(config, changes)


def open_datamodule(config: Run) -> PairedDataModule:
    """The DataModule of the settings, set up."""
    # An entry point looks both ways: what a run would open is what is inspected. No module of this
    # package imports this one.
    from datamodules.build import build_data

    return build_data(config, _Progress())


def report(
    datamodule: PairedDataModule, folder: Path, images: int = 12, say: Say = print
) -> dict[str, Any]:
    """Says what the datasets hold, draws the first ``images`` of each, and writes both into
    ``folder``. Returns what is in inspect.json."""
    folder.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {"splits": {}}
    for name, dataset in _datasets(datamodule).items():
        facts = _facts(dataset, _Progress())
        said["splits"][name] = facts
        say(f"\n{name}: {len(dataset)} samples")
        for line in _lines(facts):
            say(f"  {line}")
        if not hasattr(dataset, "pixels"):
            for line in _texts(dataset):
                say(f"  {line}")
        elif images:
            path = folder / f"{name}.png"
            facts |= {
                "cannot_be_decoded": _sheet(dataset, images, path),
                "contact_sheet": str(path),
            }
            for problem in facts["cannot_be_decoded"]:
                say(f"  problem: {problem}")
            say(f"  contact sheet: {path}")
    said["manifest"] = manifest = datamodule.manifest()
    for note in manifest.get("notes", []):
        say(f"\nnote: {note}")
    if "problems" in manifest:
        say("")
        for line in _problems(manifest["problems"]):
            say(line)
    (folder / "inspect.json").write_text(json.dumps(said, indent=1, default=str))
    say(f"\nall of it, and the manifest: {folder / 'inspect.json'}")
    return said


def _datasets(datamodule: Any) -> dict[str, Any]:
    """The training set under the name of its split, then the evaluation sets."""
    train = datamodule.train_set
    name = getattr(train, "split", "train")
    return {
        name if name not in datamodule.eval_sets else f"{name}-training": train,
        **datamodule.eval_sets,
    }


# --- numbers --------------------------------------------------------------------------------


def _facts(dataset: Any, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """What a dataset holds, as far as it can be said of its kind. Fits into JSON."""
    facts: dict[str, Any] = {"samples": len(dataset), "kind": type(dataset).__name__}
    records = getattr(dataset, "records", None)
    manifest = getattr(dataset, "manifest", {})
    if hasattr(dataset, "crop"):
        facts |= _of_records(dataset, records, progress)
        facts["source"] = {
            key: value
            for key, value in manifest.items()
            if isinstance(value, str | int) and key not in SAID
        }
        facts["problems"] = manifest["problems"]
    elif hasattr(dataset, "views"):
        facts["sizes"] = _sizes(
            [(view.pixels.shape[2], view.pixels.shape[1]) for view in dataset.views]
        )
        facts["masks_per_image"] = _histogram(len(view.masks) for view in dataset.views)
    rows = _evenly(len(dataset), LOOKED_AT)
    linked = [len(dataset.phrases(row)) for row in rows]
    shares = {
        f"{least}_or_more": sum(count >= least for count in linked) / len(rows) for least in (1, 2)
    }
    facts["phrases"] = {"of": len(rows), "per_caption": _histogram(linked), **shares}
    if records is not None and hasattr(records[0], "wanted"):
        facts["categories"] = dict(Counter(record.category for record in records))
        facts["wanted_known"] = sum(record.wanted is not None for record in records)
    return facts


def _of_records(
    dataset: Any, records: Any, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """Sizes, captions and masks of all images; what becomes of the masks on the maps of attention,
    of some of them."""
    from datamodules.captioned import vanished

    sizes, captions, masks = [], [], []
    for row, record in enumerate(records):
        sizes.append((record.width, record.height))
        captions.append(len(record.captions))
        masks.append(dataset.objects(row))
        progress(f"reading {dataset.split}: {row + 1}/{len(records)}", (row + 1) / len(records))
    facts: dict[str, Any] = {
        "sizes": _sizes(sizes),
        "captions_per_image": _histogram(captions),
        "masks_per_image": _histogram(masks),
    }
    if any(masks):
        rows = _evenly(len(dataset), LOOKED_AT)
        facts["vanished"] = {"of_images": len(rows), "mask_share": dataset.mask_share}
        for place, side in enumerate(SIDES):
            facts["vanished"][str(side)] = vanished(dataset, side, rows)
            progress(f"masks of {dataset.split} on maps of {side}x{side}", (place + 1) / len(SIDES))
    return facts


def _sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Width and height in pixels, and how many different sizes there are."""
    widths, heights = zip(*sizes, strict=True)
    found = {
        name: [min(x), statistics.median(x), max(x)]
        for name, x in (("width", widths), ("height", heights))
    }
    return {**found, "different": len(set(sizes))}


def _histogram(counts: Any) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(counts).items())}


def _evenly(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


# --- words --------------------------------------------------------------------------------


def _lines(facts: dict[str, Any]) -> list[str]:
    """The facts of a dataset for a person."""
    lines = []
    if source := facts.get("source"):
        lines.append(
            "source: "
            + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in source.items())
        )
    if sizes := facts.get("sizes"):
        (w0, w1, w2), (h0, h1, h2) = sizes["width"], sizes["height"]
        many = (
            f"{sizes['different']} different sizes" if sizes["different"] > 1 else "all of one size"
        )
        lines.append(
            f"image sizes: width {w0} / {w1:g} / {w2}, height {h0} / {h1:g} / {h2} pixels "
            f"(least / median / most), {many}"
        )
    for key, title in (
        ("captions_per_image", "captions per image"),
        ("masks_per_image", "masks per image"),
    ):
        if key in facts:
            lines.append(f"{title}: {_counted(facts[key])}")
    phrases = facts["phrases"]
    seen = (
        (f" (of {phrases['of']} captions, evenly chosen)")
        if phrases["of"] < facts["samples"]
        else ""
    )
    lines.append(f"linked phrases per caption: {_counted(phrases['per_caption'])}{seen}")
    lines.append(
        f"captions with a linked phrase: {phrases['1_or_more']:.0%}; with two or more: "
        f"{phrases['2_or_more']:.0%}"
    )
    if "categories" in facts:
        lines.append(
            "categories: "
            + ", ".join(f"{name} {count}" for name, count in facts["categories"].items())
        )
        lines.append(f"wanted objects known of {facts['wanted_known']} prompts")
    if lost := facts.get("vanished"):
        first = lost[str(SIDES[0])]
        lines.append(
            f"masks of {lost['of_images']} images: {first['objects']}, of which "
            f"{first['outside']} lie outside the crop"
        )
        inside = max(first["objects"] - first["outside"], 1)
        parts = [
            (
                f"{side}x{side} {lost[str(side)]['vanished']} "
                f"({lost[str(side)]['vanished'] / inside:.0%})"
            )
            for side in SIDES
        ]
        lines.append(
            f"masks that vanish on a map, with data.mask_share={lost['mask_share']:g}: "
            f"{', '.join(parts)}"
        )
    return lines + (_problems(facts["problems"]) if "problems" in facts else [])


def _counted(histogram: dict[str, int]) -> str:
    """Value × times; long histograms are cut to ten values, the last for all from there on."""
    items = list(histogram.items())
    shown = [f"{value} ×{count}" for value, count in items[:9]]
    if rest := items[9:]:
        shown.append(f"{rest[0][0]} to {rest[-1][0]} ×{sum(count for _, count in rest)}")
    return ", ".join(shown)


def _problems(problems: dict[str, dict[str, Any]]) -> list[str]:
    if not problems:
        return ["problems: none"]
    lines = []
    for kind, found in problems.items():
        lines.append(f"problem: {kind}, {found['count']} times")
        lines += [f"    {place}" for place in found["examples"][:EXAMPLES]]
    return lines


def _texts(dataset: Any) -> list[str]:
    """The first prompts of a dataset without images, their phrases, and what is wanted of them."""
    lines = []
    for row in range(min(TEXTS, len(dataset))):
        record = dataset.records[row] if hasattr(dataset, "records") else None
        lines.append(f"{row}: {dataset.caption(row).text}")
        lines.append(
            "     phrases: "
            + (" | ".join(phrase.text for phrase in dataset.phrases(row)) or "none")
        )
        if wanted := getattr(record, "wanted", None):
            lines.append(f"     wanted: {json.dumps(wanted)}")
    return lines


class _Progress:
    """Says on one line of a terminal, and a few times elsewhere, how a long reading goes on."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, text: str, share: float = 0.0) -> None:
        terminal = sys.stderr.isatty()
        if time.monotonic() - self.last > (0.5 if terminal else 10):
            self.last = time.monotonic()
            print(
                f"\r\x1b[2K{text}" if terminal else text,
                end="" if terminal else "\n",
                file=sys.stderr,
                flush=True,
            )
            if terminal and share >= 1:
                print(file=sys.stderr)


# --- pictures --------------------------------------------------------------------------------


def _sheet(dataset: Any, images: int, path: Path) -> list[str]:
    """Draws the first images that can be decoded; says which cannot."""
    from datamodules.contact_sheet import draw
    from datamodules.formats.index import DataError

    tiles: list[Tile] = []
    problems: list[str] = []
    for row in range(len(dataset)):
        if len(tiles) == images:
            break
        try:
            tiles.append(_tile(dataset, row))
        except DataError as error:
            problems.append(str(error))
    draw(tiles).save(path)
    return problems


def _tile(dataset: Any, row: int) -> Tile:
    """The sample as it is trained on in the first epoch."""
    from datamodules.contact_sheet import Tile

    text, flipped = dataset.caption(row).text, hasattr(dataset, "flipped") and dataset.flipped(row)
    if hasattr(dataset, "variant"):  # a scene: its images have numbers of their own
        number = dataset.variant(row)
        return Tile(
            f"sample {row}, image {number}", dataset.pixels(number), text, dataset.phrases(row)
        )
    if not hasattr(dataset, "crop"):
        return Tile(f"prompt {row}", dataset.pixels(row), text, dataset.phrases(row))
    phrases = dataset.phrases(row, flipped)
    things = [thing.mask for thing in dataset.instances(row, flipped)]
    unnamed = [
        mask for mask in things if not any(bool((mask <= phrase.mask).all()) for phrase in phrases)
    ]
    return Tile(
        dataset.records[row].path.name, dataset.pixels(row, flipped), text, phrases, unnamed
    )


if __name__ == "__main__":
    sys.exit(main())
