from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reports.results import ReportError
from reports.user_study import page as page_module
from reports.user_study.page import (
    StudyPage,
    Wording,
    build_page,
    embed_image,
    introduce,
    trace_outline,
    write_page,
)
from reports.user_study.pairs import PairFiles, find_cell, list_pairs, read_pixels

COMBINED = "bias=0.0, surrogate=released, protect=none"
UNTOUCHED = "untouched backbone"
ASKS = "|".join(
    [
        r"https?:",
        r"//[a-z]+\.",
        r"@import|url\(|fetch\(|XMLHttp|sendBeacon|WebSocket|userAgent",
        r"<iframe|<link(?! rel=\"icon\")",
    ]
)


def read_data(page: StudyPage) -> dict[str, Any]:
    script = r'<script type="application/json" id="study">(.*?)</script>'
    data = re.search(script, page.html, re.DOTALL)
    assert data is not None
    return json.loads(data[1])


def without_images(page: StudyPage) -> str:
    return re.sub(r"base64,[^\"]*", "", page.html)


def decode(source: str) -> np.ndarray:
    raw = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


@pytest.fixture(scope="module")
def page(results: Any) -> StudyPage:
    return build_page(results("threshold"), "0.4", UNTOUCHED, checks=2)


def test_the_key_leads_every_image_back_to_its_cell(page: StudyPage, results: Any) -> None:
    threshold, data = results("threshold"), read_data(page)
    names = [cell["name"] for cell in page.key["cells"]]
    assert names == ["threshold=0.4", "baseline: untouched backbone"]
    cells = [find_cell(threshold, "left", cell["words"]) for cell in page.key["cells"]]
    assert page.key["study"] == data["study"]
    assert page.key["counts"] == {"pairs": 30, "checks": 2, "common": 36, "identical": 0}
    assert [item["id"] for item in data["items"]] == sorted(page.key["items"])
    samples = [(item["seed"], item["sample"]) for item in page.key["items"].values()]
    assert len(set(samples)) == 32  # Checks show images of their own
    for item in data["items"]:
        secret = page.key["items"][item["id"]]
        assert sorted(secret["images"]) == item["images"] and secret["prompt"] == item["prompt"]
        if secret["kind"] == "check":
            assert len({data["images"][name]["src"] for name in item["images"]}) == 1
            continue
        for cell, name in zip(cells, secret["images"], strict=True):
            trial = cell.trials[secret["seed"]]
            assert trial.samples is not None
            i = trial.samples.ids.index(secret["sample"])
            original = threshold.fetch(trial, str(trial.samples.images[i]))
            assert (decode(data["images"][name]["src"]) == read_pixels(original)).all()


def test_the_page_says_nothing_of_the_cells(page: StudyPage, results: Any) -> None:
    threshold, data = results("threshold"), read_data(page)
    words = {"threshold", "0.4", "backbone", "untouched", "baseline", "samples/", ".png"}
    words |= {".parquet", "sqlite", "mlflow", "heldout", threshold.experiment_id + "/"}
    words |= {trial.run_id for _, trial in threshold.trials()}
    # Lengths of a style look like levels
    before, _, rest = without_images(page).partition("<style>")
    source = (before + rest.partition("</style>")[2]).lower()
    assert [word for word in sorted(words) if word in source] == []
    assert {key for item in data["items"] for key in item} == {"id", "prompt", "images", "masks"}
    keys = {key for image in data["images"].values() for key in image}
    assert keys == {"src", "width", "height", "outline"}
    names = [*data["images"], *(item["id"] for item in data["items"])]
    assert all(re.fullmatch("[0-9a-f]{12}", name) for name in names)
    assert len(set(names)) == len(names) and list(data["images"]) == sorted(data["images"])
    pairs = [item["images"] for item in page.key["items"].values() if item["kind"] == "pair"]
    first = sum(images == sorted(images) for images in pairs)
    assert 7 <= first <= 23  # Which of the two comes first is chance
    chunks = rb"IHDR|PLTE|tEXt|iTXt|zTXt|eXIf|iCCP|pHYs|tIME"
    for image in data["images"].values():  # Nothing but pixels in the files
        raw = base64.b64decode(image["src"].partition(",")[2])
        assert set(re.findall(chunks, raw)) <= {b"IHDR", b"PLTE"}


def test_the_page_asks_the_network_for_nothing(page: StudyPage) -> None:
    source = without_images(page)
    assert not re.search(ASKS, source) and "default-src 'none'" in source


def test_the_same_study_gives_the_same_page_and_another_seed_another(
    results: Any, page: StudyPage
) -> None:
    again, other = (
        build_page(results("threshold"), "0.4", UNTOUCHED, checks=2, seed=seed) for seed in (0, 1)
    )
    assert again == page and other.key["study"] != page.key["study"]
    assert not other.key["items"].keys() & page.key["items"].keys()


def test_masks_bring_their_question_and_their_outlines(results: Any) -> None:
    data = read_data(build_page(results("grid"), COMBINED, UNTOUCHED, items=3, checks=0))
    assert all(item["masks"] for item in data["items"])
    assert data["maskQuestion"] == Wording().mask_question
    for image in data["images"].values():
        assert image["outline"]["width"] == image["outline"]["height"] == 64
        lines = set(re.findall(r"M\d+ \d+[vh]\d+", image["outline"]["path"]))
        assert {"M5 10v20", "M25 10v20", "M5 10h20", "M5 30h20", "M30 30h30"} <= lines
    assert "outlines" in data["intro"][0]
    assert "outlines" not in introduce(Wording(), [False] * 3)[0]


def test_an_outline_is_every_edge_between_an_object_and_the_rest() -> None:
    numbered = np.random.default_rng(0).integers(0, 3, (7, 9))
    drawn = set()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([vh])(\d+)", trace_outline(numbered)):
        for i in range(int(length)):
            drawn.add((int(x), int(y) + i, "v") if way == "v" else (int(x) + i, int(y), "h"))
    padded = np.pad(numbered, 1)
    upright = {(int(x), int(y), "v") for y, x in np.argwhere(np.diff(padded[1:-1], axis=1))}
    level = {(int(x), int(y), "h") for y, x in np.argwhere(np.diff(padded[:, 1:-1], axis=0))}
    assert drawn == upright | level and trace_outline(np.zeros((4, 4), int)) == ""


def test_large_images_are_made_smaller_and_masks_with_them(tmp_path: Path, results: Any) -> None:
    cells = [find_cell(results("threshold"), "left", word) for word in ("0.4", "0.5")]
    waves = np.fromfunction(
        lambda y, x, c: 127 + 120 * np.sin(x / 40 + c) * np.cos(y / 60), (600, 1200, 3)
    ).astype(np.uint8)
    mask = np.pad(np.ones((300, 600), np.uint8), ((150,), (300,)))
    image, target = tmp_path / "image.png", tmp_path / "mask.png"
    Image.fromarray(waves).save(image)
    Image.fromarray(mask).save(target)
    files = PairFiles(list_pairs(*cells)[0], (image, image), (target, target))
    embedded = embed_image(files, 0, 400)
    assert (embedded["width"], embedded["height"]) == (400, 200)
    assert embedded["src"].startswith("data:image/webp;base64,")
    small = Image.fromarray(waves).resize((400, 200), Image.Resampling.LANCZOS)
    assert np.abs(decode(embedded["src"]).astype(int) - np.asarray(small)).mean() < 4
    path = "M64 32v64M192 32v64M64 32h128M64 96h128"
    assert embedded["outline"] == {"width": 256, "height": 128, "path": path}


def test_too_few_pairs_are_all_taken_and_checks_repeat(results: Any) -> None:
    page = build_page(results("threshold"), "0.4", "0.5", items=99, checks=3)
    assert page.key["counts"] == {"pairs": 36, "checks": 3, "common": 36, "identical": 0}
    assert len(read_data(page)["items"]) == 39


def test_pairs_of_equal_pixels_are_left_out_and_counted(changeable: Any) -> None:
    results = changeable("threshold")
    one, other = (find_cell(results, "left", name) for name in ("0.5", "0.6"))
    other.trials = {0: other.trials[0], 1: one.trials[1], 2: one.trials[2]}
    page = build_page(results, "0.5", "0.6", checks=0)
    # Two of three seeds are the same
    assert page.key["counts"] == {"pairs": 12, "checks": 0, "common": 36, "identical": 24}
    other.trials = {1: one.trials[1]}
    with pytest.raises(ReportError, match="0.5 and 0.6 of 'threshold' drew the same in 12 pairs"):
        build_page(results, "0.5", "0.6")


def test_cells_without_pairs_are_refused(results: Any) -> None:
    with pytest.raises(ReportError, match="left= and right= both name 0.5"):
        build_page(results("threshold"), "0.5", "threshold=0.5")
    with pytest.raises(ReportError, match="no kept image .*evaluation.keep_images above 0"):
        build_page(results("clear"), "hard", "soft")


def test_a_text_on_consent_replaces_that_of_the_page() -> None:
    consent = "Our board agreed.\nNumber 7.\n\n\nYou must be 18.\n"
    task, *rest = introduce(Wording(consent=consent), [False])
    assert rest == ["Our board agreed.\nNumber 7.", "You must be 18."]
    assert "about 1 minute;" in task and "1 pair of images" in task
    task, *rest = introduce(Wording(), [True] * 30)
    assert len(rest) == 2 and "about 12 minutes" in task


def test_no_text_gets_out_of_its_element(results: Any) -> None:
    attack = "</script><script>alert(1)</script><!-- {{style}} \\u003c "
    page = build_page(results("broken"), "0.5", "0.6", items=9, wording=Wording(question=attack))
    assert read_data(page)["question"] == attack and page.html.count("</script>") == 2


def test_a_key_is_not_lost(page: StudyPage, tmp_path: Path) -> None:
    to = tmp_path / "new" / "study.html"
    key = write_page(page, to)
    assert key == tmp_path / "new" / "study.key.json"
    assert json.loads(key.read_text(encoding="utf-8")) == page.key
    before = to.read_bytes()
    write_page(page, to)  # The same study again
    other = StudyPage("other", page.key | {"study": "feedfeedfeedfeed"})
    with pytest.raises(ReportError, match="is the key of another study .*: move it away"):
        write_page(other, to)
    assert to.read_bytes() == before


def luminance(color: str) -> float:
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(scheme: int) -> None:
    """WCAG 2: 4.5 for text, 3 for the border of a button."""
    css = Path(page_module.__file__).with_name("page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", block))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colors[one]), luminance(colors[other])))
        return (high + 0.05) / (low + 0.05)

    for ink, paper in (("text", "page"), ("text", "card"), ("text", "notice"), ("soft", "page")):
        assert contrast(ink, paper) >= 4.5, (ink, paper)
    assert contrast("on-accent", "accent") >= 4.5
    for edge, paper in (("line", "page"), ("line", "card"), ("accent", "page")):
        assert contrast(edge, paper) >= 3, (edge, paper)
