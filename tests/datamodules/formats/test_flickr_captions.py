"""The rows of Flickr30k's caption files, with the traps of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers import flickr_files as files
from helpers.flickr_files import CAPTIONS, KARPATHY

from datamodules.formats.flickr_captions import read_captions, read_ids, stem
from datamodules.formats.flickr_layouts import recognise
from datamodules.formats.index import DataError, Problems

Writer = Callable[[Path], Path]


def captions(path: Path, layout: str, problems: Problems | None = None) -> dict[str, list[str]]:
    problems = problems or Problems("raise")
    return {image: entry.captions for image, entry in read_captions(path, layout, problems).items()}


@pytest.mark.parametrize(
    ("name", "layout", "write"),
    [
        ("results_20130124.token", "token", files.write_token),
        ("pasted.token", "token", partial(files.write_token, between="  ", end="\r\n")),
        ("captions_token.txt", "token", files.write_token),
        ("results.csv", "bar", files.write_bar),
        ("results.csv", "bar", partial(files.write_bar, end="\r\n", last=False)),
        ("results.csv", "bar", partial(files.write_bar, blank="", broken=False)),
        ("no_header.csv", "bar", partial(files.write_bar, header=False)),
        ("captions.txt", "comma", files.write_comma),
        ("captions.txt", "comma", partial(files.write_comma, quoted=True, end="\r\n")),
        ("results.csv", "comma", partial(files.write_comma, numbered=True)),
        ("results.csv", "comma", partial(files.write_comma, numbered=True, quoted=True)),
    ],
)
def test_rows_of_captions(tmp_path: Path, name: str, layout: str, write: Writer):
    path = write(tmp_path / name)
    assert recognise(path) == layout
    assert captions(path, layout) == CAPTIONS


@pytest.mark.parametrize(
    ("name", "layout", "write"),
    [
        ("dataset_flickr30k.json", "karpathy", files.write_karpathy),
        ("flickr_annotations_30k.csv", "annotations", files.write_annotations),
        ("again.csv", "annotations", partial(files.write_annotations, python=True)),
    ],
)
def test_files_that_name_splits(tmp_path: Path, name: str, layout: str, write: Writer):
    path = write(tmp_path / name)
    assert recognise(path) == layout
    found = read_captions(path, layout, Problems("raise"))
    assert {image: entry.split for image, entry in found.items()} == KARPATHY
    assert {image: entry.captions for image, entry in found.items()} == {
        image: CAPTIONS[image] for image in KARPATHY
    }


def test_the_row_without_its_second_bar_is_mended_and_counted(tmp_path: Path):
    problems = Problems("raise")
    assert captions(files.write_bar(tmp_path / "results.csv"), "bar", problems) == CAPTIONS
    assert problems.notes == {"mended_rows": 1}


def test_rows_that_cannot_be_mended_are_counted_with_their_place(tmp_path: Path):
    lines = [
        "image_name| comment_number| comment",
        "1.jpg| 0| A dog",
        "2.jpg",
        "3.jpg| A dog",
        "| 1| A dog",
        "",
        "1.jpg| 1| A | cat",
    ]
    path, problems = files.write(tmp_path / "results.csv", lines), Problems()
    assert captions(path, "bar", problems) == {"1": ["A dog", "A | cat"]}
    assert problems.counts == {"row that cannot be read": 3}
    assert problems.examples["row that cannot be read"][0] == f"{path}, line 3: '2.jpg'"
    with pytest.raises(DataError, match="results.csv, line 3: row that cannot be read"):
        captions(path, "bar")


def test_captions_stand_in_the_order_of_their_numbers(tmp_path: Path):
    path = files.write(
        tmp_path / "a.token",
        ["1.jpg#2\tc", "1.jpg#0\ta", "2.jpg#0\tb", "1.jpg#10\td", "1.jpg#1\tb"],
    )
    assert captions(path, "token") == {"1": ["a", "b", "c", "d"], "2": ["b"]}


def test_token_rows_with_traps(tmp_path: Path):
    lines = [
        "\ufeff1.jpg#0\tone # two\tthree",
        "odd#2.jpg#0\ttwo",
        "3.jpg#0   a\tb",
        "4.jpg#0\t",
        "5.jpg#0",
        "6.jpg no number",
    ]
    lines.append("7.jpg#0\ta\u2028b")
    problems = Problems()
    found = captions(files.write(tmp_path / "a.token", lines), "token", problems)
    assert found == {
        "1": ["one # two\tthree"],
        "odd#2": ["two"],
        "3": ["a\tb"],
        "4": [""],
        "5": [""],
        "7": ["a\u2028b"],
    }
    assert problems.counts == {"row that cannot be read": 1}


def test_quotes_of_csv_and_quotes_of_captions(tmp_path: Path):
    lines = [
        "image,caption",
        '1.jpg," Two , White males"',
        '2.jpg,"A ""STOP"" sign"',
        '3.jpg,"Wet" and "dry"',
        '"4.jpg","A dog"',
        "5.jpg,",
    ]
    found = captions(files.write(tmp_path / "captions.txt", lines), "comma")
    assert {image: said for image, (said,) in found.items()} == {
        "1": " Two , White males",
        "2": 'A "STOP" sign',
        "3": '"Wet" and "dry"',
        "4": "A dog",
        "5": "",
    }


def test_a_csv_with_the_row_numbers_of_pandas(tmp_path: Path):
    path = files.write(
        tmp_path / "captions.csv", [",image,caption", "0,1.jpg,A dog , a cat", "1,2.jpg,A cat"]
    )
    assert recognise(path) == "comma"
    assert captions(path, "comma") == {"1": ["A dog , a cat"], "2": ["A cat"]}


def test_json_in_csv_that_is_none(tmp_path: Path):
    lines = [
        "raw,sentids,split,filename",
        '"[""A dog""]","[0]",train,1.jpg',
        'A cat,"[0]",train,2.jpg',
        '"[1]","[0]",train,3.jpg',
    ]
    lines.append('"[]",,test,4.jpg')
    problems = Problems()
    assert captions(files.write(tmp_path / "a.csv", lines), "annotations", problems) == {
        "1": ["A dog"],
        "4": [],
    }
    assert problems.counts == {"row that cannot be read": 2}


def test_karpathy_without_raw_and_with_images_that_are_none(tmp_path: Path):
    path, problems = tmp_path / "dataset.json", Problems()
    image = '{"filename": "1.jpg", "sentences": [{"tokens": ["a", "dog"]}], "split": "validation"}'
    path.write_text(f'{{"images": [{image}, {{"split": "val"}}, 3]}}')
    assert recognise(path) == "karpathy"
    found = read_captions(path, "karpathy", problems)
    assert found["1"].captions == ["a dog"] and found["1"].split == "val"
    assert problems.counts == {"row that cannot be read": 2}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"annotations": []}'])
def test_json_that_is_not_karpathys(tmp_path: Path, content: bytes):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match="dataset.json is no Karpathy"):
        read_captions(tmp_path / "dataset.json", "karpathy", Problems())


def test_text_that_is_not_utf8(tmp_path: Path):
    (tmp_path / "a.token").write_bytes("1.jpg#0\tA café".encode("latin-1"))
    with pytest.raises(DataError, match="a.token is not UTF-8"):
        read_captions(tmp_path / "a.token", "token", Problems())


def test_names_of_images():
    assert [
        stem(name)
        for name in ("7.jpg", "flickr30k-images/7.JPEG", "flickr30k-images\\7.jpg", " 7 ")
    ] == ["7"] * 4


def test_lists_of_ids(tmp_path: Path):
    assert read_ids(
        files.write(tmp_path / "val.txt", ["1", "2.jpg", "", " 3 "], "\r\n", last=False)
    ) == ["1", "2", "3"]
