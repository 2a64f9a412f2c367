"""The index of a split of Flickr30k: its images, their captions, and the phrases and boxes of
Entities where these are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conf.describe import nearest, show_count
from datamodules.batch import Caption
from datamodules.formats.entities import (
    Regions,
    Sentence,
    carry,
    detokenise,
    parse_sentence,
    read_regions,
    read_sentences,
    read_unrelated,
)
from datamodules.formats.flickr_captions import CaptionedImage, read_captions, read_ids, stem
from datamodules.formats.flickr_layouts import LAYOUTS, NAMES_SPLITS, find, recognise
from datamodules.formats.images import ImageHeader
from datamodules.formats.index import DataError, Problems, Record
from datamodules.formats.lack import Lack
from datamodules.formats.reader import (
    Reader,
    digest_files,
    digest_listed,
    is_image,
    list_folders,
)

SPLITS_BY = ("karpathy", "entities", "all")


class FlickrReader(Reader):
    """A split in any of the layouts of `flickr_layouts`. ``detokenise`` writes captions as plain
    English.

    Annotations of a record are regions {"chain", "boxes"}, in pixels of the image, and phrases
    {"caption", "start", "end", "chain", "types"} of its captions. Raises DataError when nothing
    says which images the split has; ValueError on an unknown ``layout`` or ``split_by``.
    """

    late_captions = True
    version = 2

    def __init__(
        self,
        root: str | Path,
        split: str,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        split_by: str = "karpathy",
        detokenise: bool = False,
    ) -> None:
        super().__init__(root, split, min_phrases)
        if split_by not in SPLITS_BY:
            raise ValueError(f"data.split_by={split_by!r}: expected {', '.join(SPLITS_BY)}")
        self.split_by, self.detokenise = "all" if split == "all" else split_by, detokenise
        self.place = place = find(self.root, layout)
        # Without boxes the sentences say nothing that the captions do not
        use_entities = place.boxes or place.name == "entities"
        self.sentences = place.sentences if use_entities else None
        self.unrelated = read_unrelated(place.unrelated) if place.unrelated else set()
        self.captioned: dict[str, CaptionedImage] = {}
        self.notes |= {
            "layout": place.name,
            "captions_from": str(place.captions.relative_to(self.root)),
            "images_in": str(place.images.relative_to(self.root)),
            "split_by": self.split_by,
            "entities": self.sentences is not None,
            "regions": 0,
            "unnamed_boxes": 0,
            "unrelated": 0,
            "reworded": 0,
            "too_few_phrases": 0,
        }

    def facts(self) -> dict[str, Any]:
        place = self.place
        files = (place.captions, place.split_file, *place.split_lists.values(), place.unrelated)
        folders = (place.sentences, place.boxes)
        images = str(place.images)
        return {
            "layout": place.name,
            "split_by": self.split_by,
            "states": [digest_files([path]) for path in (*files, *folders) if path],
            # Whether an image was written to in place, only its own state says: who trains asks
            # (`Records.images_changed`)
            "images": digest_listed([(images, list(list_folders(images)))]),
            "detokenise": self.detokenise,
        }

    def list_records(self, problems: Problems) -> list[Record]:
        place = self.place
        if place.name == "entities":
            names = [path.stem for path in place.captions.glob("*.txt")]
            self.captioned = {name: CaptionedImage() for name in names}
        else:
            self.captioned = read_captions(place.captions, place.name, problems)
        files = sorted(path for path in place.images.iterdir() if is_image(path.name))
        on_disk = {stem(path.name): path for path in files if not path.name.startswith(".")}
        known = self.captioned.keys() | on_disk.keys()
        splits = dict.fromkeys(known, self.split)
        if self.split_by != "all":
            splits = self._read_splits(problems)
        self.notes["leaves_out"] = len(known - splits.keys())
        names = sorted((name for name in splits if splits[name] == self.split), key=_numbers_first)
        return [
            Record(
                int(name) if name.isdecimal() else name,
                on_disk.get(name, place.images / f"{name}.jpg"),
            )
            for name in names
        ]

    def complete(self, record: Record, header: ImageHeader, problems: Problems) -> bool:
        """Adds captions and regions, which are read from small files of each image."""
        name = stem(record.path.name)
        sentences = self._read_sentences(name, record.path, problems)
        if not sentences:
            return False
        record.captions = [Caption(sentence.text) for sentence in sentences]
        regions = self._read_regions(name, header, problems)
        record.annotations = list(_regions(regions, sentences))
        named = {region["chain"] for region in record.annotations}
        self.notes["unnamed_boxes"] += len(regions.boxes.keys() - named)
        if regions.read and not record.annotations:
            self.fates["image without a phrase that has a box"] += 1
        self.notes["regions"] += sum("boxes" in region for region in record.annotations)
        self.orient(record, header, regions.size)
        return True

    def explain_lack(self, problems: Problems, limit: int | None) -> Lack:
        place = self.place
        name = f"Flickr30k Entities below {self.root}"
        found = {"Sentences": place.sentences, "Annotations": place.boxes}
        if missing := [folder for folder, path in found.items() if path is None]:
            there = "".join(f", {folder} alone" for folder in found if folder not in missing)
            cure = f"put {' and '.join(missing)} of Flickr30k Entities below data.root"
            return Lack(f"there is no {' and no '.join(missing)} of {name}{there}", cure)
        parts = [
            f"{problems.counts[kind]} × {kind} (first: {problems.examples[kind][0]})"
            for kind in problems.counts
            if "Entities" in kind or "box" in kind or "sentence" in kind
        ]
        parts += [f"{count} × {kind}" for kind, count in (+self.fates).items()]
        fact = f"Sentences and Annotations are there, but: {'; '.join(parts)}"
        return Lack(fact, "put the files of these images there, with boxes of their phrases")

    def _read_splits(self, problems: Problems) -> dict[str, str]:
        """The split of each image. Raises DataError where no file says it, or none is so named."""
        place, path = self.place, self.place.split_file
        splits: dict[str, str] = {}
        sources: list[Path] = []
        if self.split_by == "entities":
            sources = list(place.split_lists.values())
            for split, file in place.split_lists.items():
                splits |= dict.fromkeys(read_ids(file), split)
        elif path is not None:
            sources, captioned = [path], self.captioned
            if path != place.captions:
                captioned = read_captions(path, recognise(path) or NAMES_SPLITS[0], problems)
            splits = {name: image.split for name, image in captioned.items() if image.split}
        if not splits:
            cure = {
                "karpathy": " or ".join(LAYOUTS[name] for name in NAMES_SPLITS),
                "entities": "train.txt, val.txt and test.txt of Entities",
            }[self.split_by]
            raise DataError(
                f"nothing below {self.root} says which images a split by {self.split_by} has "
                f"({place.captions.name} does not): put {cure} there, or take all images with "
                "data.split_by=all"
            )
        source = ", ".join(str(file.relative_to(self.root)) for file in sources)
        counts = Counter(splits.values())
        if self.split not in counts:
            has = ", ".join(
                f"{name} ({show_count(count, 'image')})" for name, count in counts.items()
            )
            raise DataError(
                f"no split {self.split!r} in {source} below {self.root}, which has {has}: set "
                f"data.train_split and evaluation.splits{nearest(self.split, counts)}"
            )
        self.notes |= {"split_from": source, "split_counts": dict(counts)}
        return splits

    def _read_sentences(self, name: str, path: Path, problems: Problems) -> list[Sentence]:
        """The captions that are kept. Where Entities words one in another way than the caption
        file, its wording is taken."""
        captions = self.captioned.get(name, CaptionedImage()).captions
        numbered = {i: Sentence(" ".join(text.split())) for i, text in enumerate(captions, 1)}
        marked = self._read_marked(name, problems)
        if marked:
            known = {_squeeze(sentence.text): sentence.text for sentence in numbered.values()}
            for number, sentence in marked.items():
                text = known.get(_squeeze(sentence.text))
                if text is not None:
                    marked[number] = carry(sentence, text)
                elif known and (name, number) not in self.unrelated:
                    self.notes["reworded"] += 1
        elif not numbered:
            problems.add("image without captions", path)
        kept = []
        for number, sentence in (marked or numbered).items():
            if not sentence.text:
                detail = f"caption {number} in {self.place.captions.name}"
                problems.add("blank caption", path, detail)
            elif (name, number) in self.unrelated:
                self.notes["unrelated"] += 1
            else:
                kept.append(detokenise(sentence) if self.detokenise else sentence)
        rich = {caption.text for caption in self.rich_enough([Caption(s.text) for s in kept])}
        self.notes["too_few_phrases"] = self.poor
        return [sentence for sentence in kept if sentence.text in rich]

    def _read_marked(self, name: str, problems: Problems) -> dict[int, Sentence]:
        """The sentences of Entities by their number from 1; none of those that cannot be read."""
        marked: dict[int, Sentence] = {}
        if self.sentences is None:
            return marked
        path = self.sentences / f"{name}.txt"
        try:
            if not (lines := read_sentences(path)):
                raise ValueError("has no caption")
        except (OSError, ValueError) as error:
            _add_unusable("sentences of Entities", path, error, problems)
            return marked
        for number, line in lines:
            try:
                marked[number] = parse_sentence(line)
            except ValueError as error:
                where = f"{path}, line {number}"
                problems.add("sentence that cannot be read", where, str(error))
        return marked

    def _read_regions(self, name: str, header: ImageHeader, problems: Problems) -> Regions:
        """The boxes of an image; none where there are none that can be read."""
        none = Regions(header.stored, {}, [], read=False)
        if self.place.boxes is None or self.sentences is None:
            return none
        path = self.place.boxes / f"{name}.xml"
        try:
            regions = read_regions(path, header.stored, header.shown)
        except (OSError, ValueError) as error:
            _add_unusable("boxes of Entities", path, error, problems)
            return none
        for box in regions.empty:
            width, height = regions.size
            kind = "outside the image" if box[0] <= box[2] and box[1] <= box[3] else "without area"
            problems.add(f"box {kind}", path, f"{box} in {width}x{height} pixels")
        return regions


def _regions(regions: Regions, sentences: Sequence[Sentence]) -> Iterator[dict[str, Any]]:
    """The chains that captions speak of and that have boxes, and the phrases that mean them."""
    spans = [
        (i, span)
        for i, sentence in enumerate(sentences)
        for span in sentence.spans
        if span.chain in regions.boxes
    ]
    for chain in dict.fromkeys(span.chain for _, span in spans):
        yield {"chain": chain, "boxes": regions.boxes[chain]}
    for i, span in spans:
        yield {"caption": i, **span._asdict()}


def _numbers_first(name: str) -> tuple[bool, int, str]:
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _add_unusable(what: str, path: Path, error: Exception, problems: Problems) -> None:
    if isinstance(error, FileNotFoundError):
        problems.add(f"{what} missing", path)
    else:
        problems.add(f"{what} unusable", path, str(error))
