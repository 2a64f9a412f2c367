from __future__ import annotations

import base64
import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.study import ReportError, Study
from reports.user_study import page as made
from reports.user_study.page import Page, Wording, build, introduction, outline, write
from reports.user_study.pairs import Pictures, common, find_cell, pixels

COMBINED = "bias=0.0, surrogate=released, protect=none"


def shown(page: Page) -> dict[str, Any]:
    found = re.search(
        r'<script type="application/json" id="study">(.*?)</script>', page.html, re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def bare(page: Page) -> str:
    """The page's source without its images."""
    return re.sub(r"base64,[^\"]*", "", page.html)


def picture(source: str) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
    )


@pytest.fixture(scope="module")
def page(study: Callable[[str], Study]) -> Page:
    return build(
        study("threshold"),
        "0.4",
        "untouched backbone",
        items=30,
        checks=2,
        seed=0,
        largest=768,
        wording=Wording(),
    )


def test_the_key_leads_every_image_back_to_its_cell(
    page: Page, study: Callable[[str], Study]
) -> None:
    found = study("threshold")
    cells = [find_cell(found, "left", cell["words"]) for cell in page.key["cells"]]
    assert [cell["name"] for cell in page.key["cells"]] == [
        "threshold=0.4",
        "baseline: untouched backbone",
    ]
    data = shown(page)
    assert page.key["study"] == data["study"] and page.key["counts"] == {
        "pairs": 30,
        "checks": 2,
        "common": 36,
        "identical": 0,
    }
    assert [item["id"] for item in data["items"]] == sorted(page.key["items"])
    for item in data["items"]:
        told = page.key["items"][item["id"]]
        assert sorted(told["images"]) == item["images"] and told["prompt"] == item["prompt"]
        if told["kind"] == "check":
            assert len({data["images"][name]["src"] for name in item["images"]}) == 1
            continue
        for cell, name in zip(cells, told["images"], strict=True):
            trial = cell.trials[told["seed"]]
            assert trial.samples is not None
            original = found.fetch(
                trial, str(trial.samples.images[trial.samples.ids.index(told["sample"])])
            )
            assert original is not None
            assert (picture(data["images"][name]["src"]) == pixels(original)).all()


def test_the_page_says_nothing_of_the_cells(page: Page, study: Callable[[str], Study]) -> None:
    found, data = study("threshold"), shown(page)
    words = {
        "threshold",
        "0.4",
        "backbone",
        "untouched",
        "baseline",
        "samples/",
        ".png",
        ".parquet",
        "sqlite",
        "mlflow",
        "heldout",
    }
    words |= {trial.run_id for _, trial in found.trials()} | {found.experiment_id + "/"}
    source = (
        bare(page).partition("<style>")[0] + bare(page).partition("</style>")[2]
    )  # lengths of a style look like levels
    assert [word for word in sorted(words) if word in source.lower()] == []
    assert {key for item in data["items"] for key in item} == {"id", "prompt", "images", "masks"}
    assert {key for image in data["images"].values() for key in image} == {
        "src",
        "width",
        "height",
        "outline",
    }
    names = [*data["images"], *(item["id"] for item in data["items"])]
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names) and len(set(names)) == len(
        names
    )
    assert list(data["images"]) == sorted(data["images"])
    first = [
        told["images"] == sorted(told["images"])
        for told in page.key["items"].values()
        if told["kind"] == "pair"
    ]
    assert 7 <= sum(first) <= 23  # which of the two comes first is chance
    for image in data["images"].values():  # nothing but pixels in the files
        raw = base64.b64decode(image["src"].partition(",")[2])
        assert set(re.findall(rb"IHDR|PLTE|tEXt|iTXt|zTXt|eXIf|iCCP|pHYs|tIME", raw)) <= {
            b"IHDR",
            b"PLTE",
        }


def test_the_page_asks_the_network_for_nothing(page: Page) -> None:
    asking = r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp|sendBeacon|WebSocket|userAgent|<iframe|<link(?! rel=\"icon\")"
    assert not re.search(asking, bare(page)) and "default-src 'none'" in bare(page)


def test_the_same_study_gives_the_same_page_and_another_seed_another(
    study: Callable[[str], Study], page: Page
) -> None:
    def again(seed: int) -> Page:
        return build(
            study("threshold"),
            "0.4",
            "untouched backbone",
            items=30,
            checks=2,
            seed=seed,
            largest=768,
            wording=Wording(),
        )

    assert again(0) == page
    other = again(1)
    assert (
        other.key["study"] != page.key["study"]
        and not other.key["items"].keys() & page.key["items"].keys()
    )


def test_masks_bring_their_question_and_their_outlines(study: Callable[[str], Study]) -> None:
    page = build(
        study("grid"),
        COMBINED,
        "untouched backbone",
        items=3,
        checks=0,
        seed=0,
        largest=768,
        wording=Wording(),
    )
    data = shown(page)
    assert (
        all(item["masks"] for item in data["items"])
        and data["maskQuestion"] == Wording().mask_question
    )
    for image in data["images"].values():
        assert image["outline"]["width"] == image["outline"]["height"] == 64
        lines = re.findall(r"M\d+ \d+[vh]\d+", image["outline"]["path"])
        assert {"M5 10v20", "M25 10v20", "M5 10h20", "M5 30h20", "M30 30h30"} <= set(lines)
    assert (
        "outlines" in data["intro"][0] and "outlines" not in introduction(Wording(), [False] * 3)[0]
    )


def test_an_outline_is_every_edge_between_an_object_and_the_rest() -> None:
    rng = np.random.default_rng(0)
    numbered = rng.integers(0, 3, (7, 9))
    drawn = set()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([vh])(\d+)", outline(numbered)):
        for i in range(int(length)):
            drawn.add((int(x), int(y) + i, "v") if way == "v" else (int(x) + i, int(y), "h"))
    padded = np.pad(numbered, 1)
    expected = {
        (x, y, "v") for y in range(7) for x in range(10) if padded[y + 1, x] != padded[y + 1, x + 1]
    }
    expected |= {
        (x, y, "h") for y in range(8) for x in range(9) if padded[y, x + 1] != padded[y + 1, x + 1]
    }
    assert drawn == expected
    assert outline(np.zeros((4, 4), int)) == ""


def test_large_images_are_made_smaller_and_masks_with_them(
    tmp_path: Path, study: Callable[[str], Study]
) -> None:
    found = study("threshold")
    pair = common(found, *(find_cell(found, "left", word) for word in ("0.4", "0.5")))[0]
    waves = np.fromfunction(
        lambda y, x, c: 127 + 120 * np.sin(x / 40 + c) * np.cos(y / 60), (600, 1200, 3)
    ).astype(np.uint8)
    Image.fromarray(waves).save(tmp_path / "image.png")
    Image.fromarray(np.pad(np.ones((300, 600), np.uint8), ((150,), (300,)))).save(
        tmp_path / "mask.png"
    )
    pictures = Pictures(pair, (tmp_path / "image.png",) * 2, (tmp_path / "mask.png",) * 2)
    image = made._image(pictures, 0, 400)
    assert (image["width"], image["height"]) == (400, 200) and image["src"].startswith(
        "data:image/webp;base64,"
    )
    expected = np.asarray(
        Image.fromarray(waves).resize((400, 200), Image.Resampling.LANCZOS)
    ).astype(int)
    assert np.abs(picture(image["src"]) - expected).mean() < 4
    assert image["outline"] == {
        "width": 256,
        "height": 128,
        "path": "M64 32v64M192 32v64M64 32h128M64 96h128",
    }


def test_too_few_pairs_are_all_taken_and_checks_repeat(study: Callable[[str], Study]) -> None:
    page = build(
        study("threshold"), "0.4", "0.5", items=99, checks=3, seed=0, largest=768, wording=Wording()
    )
    assert (
        page.key["counts"]["pairs"] == 36
        and page.key["counts"]["checks"] == 3
        and len(shown(page)["items"]) == 39
    )


def test_pairs_of_equal_pixels_are_left_out_and_counted(study: Callable[[str], Study]) -> None:
    found = copy.copy(study("threshold"))
    twin = copy.copy(find_cell(found, "left", "0.5"))
    twin.name, twin.label, twin.trials = (
        "twin",
        "twin",
        {**twin.trials, 0: find_cell(found, "left", "0.6").trials[0]},
    )
    found.cells = [*found.cells, twin]
    page = build(found, "0.5", "twin", items=30, checks=0, seed=0, largest=768, wording=Wording())
    assert page.key["counts"] == {
        "pairs": 12,
        "checks": 0,
        "common": 36,
        "identical": 24,
    }  # two of three seeds are the same
    twin.trials = {1: twin.trials[1]}
    with pytest.raises(
        ReportError, match="0.5 and twin of 'threshold' drew the same 12 images, pixel by pixel"
    ):
        build(found, "0.5", "twin", items=30, checks=0, seed=0, largest=768, wording=Wording())


def test_cells_without_pairs_are_refused(study: Callable[[str], Study]) -> None:
    with pytest.raises(ReportError, match="left= and right= both name 0.5"):
        build(
            study("threshold"),
            "0.5",
            "threshold=0.5",
            items=3,
            checks=0,
            seed=0,
            largest=768,
            wording=Wording(),
        )
    with pytest.raises(
        ReportError,
        match="no kept image of the same prompt and noise: .*evaluation.keep_images above 0",
    ):
        build(
            study("clear"),
            "hard",
            "soft",
            items=3,
            checks=0,
            seed=0,
            largest=768,
            wording=Wording(),
        )


def test_a_consent_of_ones_own_takes_the_place_of_the_pages() -> None:
    own = introduction(
        Wording(consent="Our board agreed.\nNumber 7.\n\n\nYou must be 18.\n"), [False]
    )
    assert own[1:] == ["Our board agreed.\nNumber 7.", "You must be 18."]
    assert "about 1 minute;" in own[0] and "1 pair of images" in own[0]
    assert (
        len(introduction(Wording(), [True] * 30)) == 3
        and "about 12 minutes" in introduction(Wording(), [True] * 30)[0]
    )


def test_no_text_gets_out_of_its_element(study: Callable[[str], Study]) -> None:
    attack = "</script><script>alert(1)</script><!-- {{style}} \\u003c "
    page = build(
        study("broken"),
        "0.5",
        "0.6",
        items=9,
        checks=0,
        seed=0,
        largest=768,
        wording=Wording(question=attack),
    )
    assert shown(page)["question"] == attack and page.html.count("</script>") == 2


def test_a_key_is_not_lost(page: Page, tmp_path: Path) -> None:
    key = write(page, tmp_path / "new" / "study.html")
    assert (
        key == tmp_path / "new" / "study.key.json"
        and json.loads(key.read_text(encoding="utf-8")) == page.key
    )
    before = (tmp_path / "new" / "study.html").read_bytes()
    write(page, tmp_path / "new" / "study.html")  # the same study again
    other = Page("other", page.key | {"study": "feedfeedfeedfeed"})
    with pytest.raises(
        ReportError, match="is the key of another study .*, whose answers need it: move it away"
    ):
        write(other, tmp_path / "new" / "study.html")
    assert (tmp_path / "new" / "study.html").read_bytes() == before


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(dark: bool) -> None:
    """WCAG 2: 4.5 for text, 3 for what bounds a control."""
    light, night = re.findall(
        r":root \{(.*?)\}",
        Path(made.__file__).with_name("page.css").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", night if dark else light))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colors[one]), luminance(colors[other])))
        return (high + 0.05) / (low + 0.05)

    for ink, paper in (
        ("text", "page"),
        ("text", "card"),
        ("text", "notice"),
        ("soft", "page"),
        ("on-accent", "accent"),
    ):
        assert contrast(ink, paper) >= 4.5, (ink, paper)
    assert (
        contrast("line", "page") >= 3
        and contrast("line", "card") >= 3
        and contrast("accent", "page") >= 3
    )
