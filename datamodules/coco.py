"""COCO-format datasets: images, captions and instance masks, in any of the layouts of
`coco_layouts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from conf.schema import Run
from datamodules.batch import Instance, Phrase
from datamodules.captioned import CaptionedDataModule, CaptionedDataset
from datamodules.formats.coco_annotations import Listed, box_of, decode, read, usable
from datamodules.formats.coco_layouts import OFFICIAL, Images, Place, find
from datamodules.formats.index import (
    DataError,
    Problems,
    Record,
    Records,
    build_index,
    check_images,
    orientation,
)
from datamodules.phrases.link import link
from datamodules.phrases.nouns import noun_phrases

if TYPE_CHECKING:
    from datamodules.build import Emit

VERSION = 1  # of how annotations are read: an index that another one made is made anew


def build(config: Run, emit: Emit) -> CocoDataModule:
    """The DataModule of a run's settings."""
    return CocoDataModule.from_settings(config, emit, layout=config.data.layout)


def open_split(
    folder: Path | None,
    place: Place,
    limit: int | None = None,
    min_phrases: int = 0,
    verify: str = "header",
    on_error: str = "skip",
    emit: Callable[[str], None] | None = None,
) -> Records:
    """The first ``limit`` images of a split, by ascending id, that have a caption and can be used;
    the index is kept in ``folder`` (see `build`).

    Captions of fewer than ``min_phrases`` noun phrases are left out. Raises DataError when no image
    remains.
    """
    images = Images(place.folders)
    files = [
        (kind, str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for kind, path in place.files
    ]
    facts = {
        "reader": VERSION,
        "root": str(place.root.absolute()),
        "layout": place.layout,
        "split": place.split,
        "files": files,
        "images": images.digest,
        "limit": limit,
        "min_phrases": min_phrases,
        "verify": verify,
    }

    def make(problems: Problems) -> Iterator[Record]:
        content = read(place, problems)
        notes: dict[str, Any] = {
            "layout": place.layout,
            "split": place.split,
            "listed": len(content.images),
            "crowds": content.crowds,
            "categories": content.categories,
            "captions": 0,
            "objects": 0,
            "notes": content.notes,
        }
        listed = []
        for key in sorted(content.images, key=lambda key: (isinstance(key, str), key)):
            image = content.images.pop(key)
            image.captions = [
                c
                for c in image.captions
                if not min_phrases or len(noun_phrases(c.text)) >= min_phrases
            ]
            if image.captions:
                listed.append(image)
        notes["without_caption"] = notes["listed"] - len(listed)
        count = 0
        for record in islice(_checked(listed, images, place, verify, problems, emit), limit):
            count += 1
            notes["captions"] += len(record.captions)
            notes["objects"] += len(record.annotations)
            yield record
        if images.ambiguous:
            content.notes.append(
                f"{images.ambiguous} file names are in several folders: the first in the "
                "order of the paths was read"
            )
        for name, value in notes.items():
            problems.note(name, value)
        if not count:
            raise DataError(_nothing(place, notes, min_phrases, problems))

    return build_index(folder, facts, make, on_error)


def _checked(
    listed: Sequence[Listed],
    images: Images,
    place: Place,
    verify: str,
    problems: Problems,
    emit: Callable[[str], None] | None,
) -> Iterator[Record]:
    """The images that can be used, in order."""
    paths = [images.find(image.name) for image in listed]
    sizes = check_images(paths, verify, emit, f"images of {place.split}")
    for image, path, size in zip(listed, paths, sizes, strict=True):
        if path is None or isinstance(size, str):
            kind, _, detail = str(size).partition(" (")
            problems.add(kind, path or place.folders[0] / image.name, detail.removesuffix(")"))
        else:
            yield Record(
                image.id, path, *size, image.captions, list(_placed(image, path, size, problems))
            )


def _placed(
    image: Listed, path: Path, size: tuple[int, int], problems: Problems
) -> Iterator[dict[str, Any]]:
    """The annotations of an image whose masks can be placed on it."""
    (width, height), turn = image.size or size, None
    if image.annotations and (width, height) != size:
        with Image.open(path) as file:
            turn = orientation(file)
        # Some tools annotate the pixels as they are stored, and do not look at the orientation that
        # viewers apply.
        if (height, width) != size or turn < 5:
            problems.add(
                "size differs",
                path,
                (f"{size[0]}x{size[1]}, its annotations are for {width}x{height}"),
            )
            return
    for annotation in image.annotations:
        segmentation, wrong = usable(annotation["segmentation"], width, height)
        if wrong:
            problems.add(wrong, path, f"annotation {annotation['id']}")
        else:
            yield annotation | {"segmentation": segmentation} | ({"turn": turn} if turn else {})


def _nothing(place: Place, notes: dict[str, Any], min_phrases: int, problems: Problems) -> str:
    of = f" of {min_phrases} noun phrases or more" if min_phrases else ""
    said = [f"{notes['listed']} listed, {notes['without_caption']} of them without"]
    said += [
        (f"{kind} {count} (first: {problems.examples[kind][0]})")
        for kind, count in problems.counts.items()
    ]
    where = ", ".join(map(str, place.folders[:3]))
    return (
        f"split {place.split!r} below {place.root} has no image with a caption{of}: "
        f"{'; '.join(said)}; images were looked for in {where}"
    )


class CocoDataset(CaptionedDataset):
    """Samples of one split below ``root`` (see `CaptionedDataset`), in the ``layout`` that is found
    there or forced.

    Only the first ``limit`` images are used. Captions of fewer than ``min_phrases`` noun phrases
    are left out, and images without any other. ``index_root`` keeps the index; without, it goes
    with the records. Raises DataError where nothing can be read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        resolution: int,
        limit: int | None = None,
        train: bool = False,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        index_root: str | Path | None = None,
        verify: str = "header",
        on_error: str = "skip",
        flip: bool = False,
        mask_share: float = 0.5,
        emit: Callable[[str], None] | None = None,
    ) -> None:
        place = find(Path(root), split, layout)
        folder = None if index_root is None else Path(index_root)
        records = open_split(folder, place, limit, min_phrases, verify, on_error, emit)
        super().__init__(
            records,
            split,
            resolution,
            train,
            seed,
            flip=flip,
            mask_share=mask_share,
            on_error=on_error,
        )

    @property
    def categories(self) -> list[str]:
        """Names by ascending category id: ids have gaps, positions in this list have none."""
        return self.records.manifest["categories"]

    def phrases(self, index: int, flipped: bool = False) -> list[Phrase]:
        return link(self.caption(index).text, self.instances(index, flipped))

    def instances(
        self, index: int, flipped: bool = False, share: float | None = None
    ) -> list[Instance]:
        record, crop = self.records[index], self.crop(index, flipped)
        share = self.mask_share if share is None else share
        instances = []
        for annotation in record.annotations:
            whole = decode(annotation, record.width, record.height)
            mask = crop.mask(whole, share)
            if mask is not None and mask.any():
                box = crop.box(*box_of(annotation, whole)) or crop.box(*box_of({}, whole))
                assert box is not None  # something of the mask is in the crop
                instances.append(Instance(annotation["label"], mask, box, annotation["color"]))
        return instances

    def objects(self, index: int) -> int:
        return len(self.records[index].annotations)


class CocoDataModule(CaptionedDataModule):
    """Training batches of ``train_split`` and whole evaluation datasets by name. ``layout`` and the
    rest: `CocoDataset`."""

    kind = CocoDataset

    def __init__(
        self,
        root: str | Path,
        resolution: int,
        train_split: str = "train2017",
        eval_splits: Sequence[str] = ("val2017",),
        train_images: int | None = None,
        eval_images: int | None = None,
        batch: int = 16,
        workers: int = 0,
        seed: int = 0,
        min_phrases: int = 0,
        *,
        layout: str = "auto",
        **common: Any,
    ) -> None:
        super().__init__(
            root,
            resolution,
            train_split,
            eval_splits,
            train_images,
            eval_images,
            batch,
            workers,
            seed,
            min_phrases,
            **common,
        )
        self.own = {"layout": layout}

    def identities(self, dataset: CaptionedDataset) -> set[int | str]:
        """Ids of images of COCO itself, the same in all its splits (2014, 2017 and Karpathy
        overlap); others mean nothing elsewhere."""
        if dataset.manifest["layout"] == "karpathy" or OFFICIAL.fullmatch(dataset.split):
            return super().identities(dataset)
        return set()
