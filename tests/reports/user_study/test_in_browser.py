"""The page in a real browser: headless Chromium with real key events, skipped without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from helpers import browser

from reports.user_study.__main__ import main
from reports.user_study.page import Wording, build_page, write_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.executable() is None,
        reason=f"needs Chromium: one of {', '.join(browser.NAMES)} on the PATH",
    ),
]
ATTACK = "Which one? </script><img src=x onerror=\"document.title='broken'\">"
ITEMS, SCREENS = 4, 8  # three pairs and a check, each with a text and a mask question


@pytest.fixture(scope="module")
def page(results: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wording = Wording(question=ATTACK)
    cells = "bias=0.0, surrogate=released, protect=none", "untouched backbone"
    made = build_page(results("grid"), *cells, items=ITEMS - 1, wording=wording)
    path = tmp_path_factory.mktemp("page") / "study.html"
    write_page(made, path)
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def fresh(tab: browser.Page, page: Path, tmp_path: Path) -> Iterator[browser.Page]:
    """The page as a new participant sees it; the browser complains of nothing and asks nobody."""
    tab.resize(1280, 800)
    tab.downloads(tmp_path)
    tab.open(page.as_uri())
    tab.eval("localStorage.clear()")
    since = len(tab.events)
    tab.reload()
    yield tab
    tab.eval("1")  # so that all events have arrived
    seen = tab.events[since:]
    assert [
        e["params"] for e in seen if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
    ] == []
    asked = {
        e["params"]["request"]["url"] for e in seen if e["method"] == "Network.requestWillBeSent"
    }
    others = {url for url in asked if urlparse(url).scheme not in ("data", "blob")}
    assert {unquote(urlparse(url).path) for url in others} <= {str(page)} and {
        urlparse(url).scheme for url in others
    } == {"file"}
    assert tab.eval("document.title") == "Image study"


def text(tab: browser.Page, selector: str) -> str:
    return tab.eval(f"document.querySelector({json.dumps(selector)}).innerText")


def visible(tab: browser.Page) -> str:
    return tab.eval(
        "[...document.querySelectorAll('main')].filter(m => !m.hidden).map(m => m.id).join()"
    )


def shown(tab: browser.Page) -> dict[str, Any]:
    """What stands on an item's screen; images are named by their data."""
    return tab.eval("""(() => {
        const study = JSON.parse(document.getElementById("study").textContent);
        const sources = [...document.querySelectorAll(".picture img")].map(i => i.src);
        const names = Object.keys(study.images);
        const named = sources.map(src => names.filter(name => study.images[name].src === src));
        const all = (selector) => [...document.querySelectorAll(selector)];
        return {
            prompt: document.getElementById("prompt").textContent,
            question: document.getElementById("question").textContent, named,
            outlined: all(".picture svg").every(s => getComputedStyle(s).display !== "none"),
            choices: all(".choices [aria-pressed=true]").map(b => b.dataset.choice),
            ratings: all(".rating [aria-pressed=true]").map(b => Number(b.textContent)),
            loaded: all(".picture img").every(i => i.complete && i.naturalWidth > 0),
        };
    })()""")


def stored(tab: browser.Page) -> dict[str, Any]:
    return json.loads(tab.eval("localStorage.getItem(Object.keys(localStorage)[0])"))


def saved_file(tab: browser.Page, folder: Path) -> Path:
    tab.wait_until(lambda: any(folder.glob("answers-*.json")))
    [path] = folder.glob("answers-*.json")
    return path


def answer_all(tab: browser.Page) -> list[tuple[dict[str, Any], str, tuple[int, int]]]:
    """Answers every question by keys alone; returns what stood there, and what was given."""
    given = []
    for number in range(SCREENS):
        key, choice = (("ArrowLeft", "left"), ("ArrowRight", "right"), (" ", "none"))[number % 3]
        ratings = 1 + number % 5, 5 - number % 4
        seen = shown(tab)
        tab.press(key, str(ratings[0]), str(ratings[1]), "Enter")
        given.append((seen, choice, ratings))
    return given


def test_everything_by_keyboard_then_analysed(
    fresh: browser.Page, page: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert (
        visible(fresh) == "intro"
        and "6 minutes" not in text(fresh, "#consent")
        and "Taking part is voluntary" in text(fresh, "#consent")
    )
    fresh.press("Enter")
    assert (
        visible(fresh) == "item"
        and text(fresh, "#count") == f"1 of {ITEMS}"
        and text(fresh, "#question") == ATTACK
    )
    given = answer_all(fresh)
    assert visible(fresh) == "end" and text(fresh, "#end h1") == "Thank you"
    assert (
        all(seen["loaded"] for seen, _, _ in given)
        and [seen["outlined"] for seen, _, _ in given] == [False, True] * ITEMS
    )
    assert len({seen["prompt"] for seen, _, _ in given}) == ITEMS
    fresh.press("Enter")  # saves
    path = saved_file(fresh, tmp_path)
    file = json.loads(path.read_text(encoding="utf-8"))
    assert (
        file["finished"]
        and path.name == f"answers-{file['participant'][:8]}.json"
        and text(fresh, "#saved").startswith("Saved as answers-")
    )
    assert fresh.eval("document.getElementById('answers').value") == path.read_text(
        encoding="utf-8"
    )
    assert set(file) == {"format", "study", "participant", "seed", "finished", "answers"}
    for (seen, choice, ratings), one in zip(given, file["answers"], strict=True):
        assert one["left"] in seen["named"][0] and one["right"] in seen["named"][1]
        assert (one["choice"], one["rating_left"], one["rating_right"]) == (
            choice,
            *ratings,
        ) and one["ms"] > 0
        assert one["question"] == ("mask" if seen["outlined"] else "text")
    key = json.loads(page.with_suffix(".key.json").read_text(encoding="utf-8"))
    assert main(["--analyse", str(tmp_path), f"key={page.with_suffix('.key.json')}"]) == 0
    assert "warning: only one participant" in capsys.readouterr().out
    rows = (tmp_path / "results" / "answers.csv").read_text(encoding="utf-8").splitlines()[1:]
    expected = []  # the choices by cell, worked out from the key alone
    for one in file["answers"]:
        item = key["items"][one["item"]]
        if item["kind"] == "pair":
            chosen = {"left": one["left"], "right": one["right"], "none": None}[one["choice"]]
            expected.append(
                "no difference"
                if chosen is None
                else key["cells"][item["images"].index(chosen)]["words"]
            )
    assert len(rows) == 2 * (ITEMS - 1)
    assert all(word in row for word, row in zip(expected, rows, strict=True))


def test_back_and_second_thoughts(fresh: browser.Page) -> None:
    fresh.press("Enter", "Backspace")  # nowhere to go back to
    assert text(fresh, "#count") == f"1 of {ITEMS}"
    fresh.press("ArrowLeft", "4", "2")
    before = shown(fresh)
    assert before["choices"] == ["left"] and before["ratings"] == [4, 2]
    fresh.press("Enter", "o")
    assert not shown(fresh)["outlined"]  # hidden, to look at the image
    fresh.press("o")
    assert shown(fresh)["outlined"]
    fresh.press("Backspace")
    assert shown(fresh) == before
    fresh.press(" ", "ArrowDown", "5", "3")
    assert shown(fresh)["choices"] == ["none"] and shown(fresh)["ratings"] == [3, 5]


def test_what_is_missing_is_said_and_waited_for(fresh: browser.Page) -> None:
    fresh.press("Enter", "Enter")
    assert text(fresh, "#status") == "Still missing: your choice, left rating, right rating."
    fresh.press("3", "ArrowRight", "Enter")
    assert text(fresh, "#status") == "Still missing: right rating."
    fresh.press("6", "0", "x", "Enter")  # mean nothing
    assert not shown(fresh)["outlined"] and shown(fresh)["ratings"] == [3]
    fresh.press("1", "Enter")
    assert shown(fresh)["outlined"] and text(fresh, "#status") == ""


def test_a_reload_goes_on_where_it_stopped(fresh: browser.Page) -> None:
    fresh.press(
        "Enter", "ArrowLeft", "4", "2", "Enter", "ArrowRight", "1", "5", "Enter", "ArrowLeft", "3"
    )
    before, seen = stored(fresh), shown(fresh)
    fresh.reload()
    assert (
        visible(fresh) == "intro"
        and text(fresh, "#half") == f"You were here before: 2 of {SCREENS} questions are answered."
    )
    assert text(fresh, "#start") == "Go on where I stopped"
    fresh.press("Enter")
    after = stored(fresh)
    assert shown(fresh) == seen and text(fresh, "#count") == f"2 of {ITEMS}"
    assert all(after[name] == before[name] for name in ("participant", "seed", "order", "at"))
    assert [slot["choice"] for slot in after["answers"].values()] == ["left", "right", "left"]


def test_a_finished_study_stays_finished_until_someone_else_starts(fresh: browser.Page) -> None:
    fresh.press("Enter")
    answer_all(fresh)
    before = stored(fresh)
    fresh.reload()
    assert visible(fresh) == "end" and text(fresh, "#end h1") == "Thank you"
    fresh.click("#another")
    assert (
        text(fresh, "#another") == "Delete these answers and start again?"
        and stored(fresh) == before
    )
    fresh.click("#another")
    after = stored(fresh)
    assert (
        visible(fresh) == "item"
        and after["participant"] != before["participant"]
        and after["seed"] != before["seed"]
    )


def test_order_and_sides_are_drawn_anew_for_each_participant(fresh: browser.Page) -> None:
    drawn = []
    for _ in range(24):
        fresh.reload()  # to the introduction, which keeps nothing when it is left
        fresh.eval("localStorage.clear()")
        fresh.reload()
        fresh.press("Enter")
        drawn.append(stored(fresh)["order"])
    assert len({json.dumps(order) for order in drawn}) > 6  # 24 orders, 6 ways of sides
    for order in drawn:
        assert (
            len(order) == ITEMS
            and sum(entry["left"] < entry["right"] for entry in order) == ITEMS // 2
        )
    assert (
        len({order[0]["item"] for order in drawn}) > 1
        and len({order[0]["left"] < order[0]["right"] for order in drawn}) == 2
    )


def test_a_pause_saves_what_there_is(
    fresh: browser.Page, page: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fresh.press("Enter", "ArrowLeft", "4", "2", "Enter")
    fresh.click("#pause")
    assert text(fresh, "#end h1") == "Paused"
    fresh.click("#save")
    file = json.loads(saved_file(fresh, tmp_path).read_text(encoding="utf-8"))
    assert not file["finished"] and len(file["answers"]) == 1
    fresh.press("Backspace")
    assert visible(fresh) == "item" and shown(fresh)["outlined"]
    assert main(["--analyse", str(tmp_path), f"key={page.with_suffix('.key.json')}"]) == 2
    assert f"unfinished: 1 of {SCREENS} questions answered" in capsys.readouterr().err


def test_answers_can_be_copied_or_handed_on(fresh: browser.Page) -> None:
    fresh.press("Enter", "ArrowLeft", "4", "2", "Enter")
    fresh.click("#pause")
    assert fresh.eval(
        "document.getElementById('share').hidden"
    )  # no such thing in a headless browser
    fresh.click("#copy")
    fresh.wait_until(lambda: text(fresh, "#saved") == "Copied: paste it into a message.")
    fresh.eval(
        """navigator.clipboard.writeText = () => Promise.reject(new Error("denied"));
        document.execCommand = () => false; 1"""
    )
    fresh.click("#copy")
    fresh.wait_until(lambda: "select the text below" in text(fresh, "#saved"))
    answers = fresh.eval("document.getElementById('answers').value")
    assert (
        fresh.eval("document.getElementById('shown').open && getSelection().toString()") == answers
    )
    fresh.eval("""navigator.canShare = () => true;
        navigator.share = async ({ files }) => {
            window.given = [files[0].name, await files[0].text()];
        }; 1""")
    fresh.click("#return")
    fresh.click("#pause")
    fresh.click("#share")
    fresh.wait_until(lambda: text(fresh, "#saved") == "Handed over.")
    name, content = fresh.eval("window.given")
    assert (
        name.endswith(".txt") and json.loads(content)["answers"] == json.loads(answers)["answers"]
    )


def test_space_and_enter_are_a_buttons_own_only_where_the_keyboard_led_there(
    fresh: browser.Page,
) -> None:
    fresh.press("Enter")
    fresh.click(".choices [data-choice=left]")
    fresh.press(" ")
    assert shown(fresh)["choices"] == ["none"]
    fresh.eval("document.querySelector('.choices [data-choice=right]').focus()")
    fresh.press(" ")
    assert shown(fresh)["choices"] == ["right"]
    fresh.click(".picture[data-choice=left]")
    assert shown(fresh)["choices"] == ["left"]


def test_names_for_those_who_do_not_see(fresh: browser.Page) -> None:
    fresh.press("Enter", "ArrowLeft", "4", "2", "Enter")
    assert fresh.eval("document.activeElement.id") == "question"  # read out first on every screen
    assert fresh.eval("document.documentElement.lang") == "en"
    named = fresh.call("Accessibility.getFullAXTree")["nodes"]
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in named
        if not node["ignored"]
    ]
    buttons = [name for role, name in roles if role in ("button", "ToggleButton", "toggleButton")]
    assert all(buttons) and {
        "1, not at all",
        "5, perfectly",
        "The left image",
        "No difference",
        "Next",
        "Back",
        "Pause",
    } <= set(buttons)
    assert {("group", "Rating of the left image"), ("group", "Rating of the right image")} <= set(
        roles
    )
    assert any(
        role in ("progressIndicator", "progressbar", "ProgressIndicator") and name == "Progress"
        for role, name in roles
    )


@pytest.mark.parametrize(
    "size", [(360, 640), (320, 568), (1280, 800)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_it_fits(size: tuple[int, int], fresh: browser.Page) -> None:
    """No scrolling sideways, large buttons, and on a usual phone a whole item at once."""
    fresh.resize(*size, phone=size[0] < 500)
    fresh.reload()
    for keys in (["Enter"], ["ArrowLeft", "4", "2", "Enter"], [], None):
        if keys:
            fresh.press(*keys)
        elif keys is None:
            fresh.click("#pause")
        wide = "document.documentElement.scrollWidth"
        assert fresh.eval(wide) <= size[0]
        sizes = fresh.eval("""[...document.querySelectorAll("main:not([hidden]) button")]
            .filter(b => b.offsetParent)
            .map(b => [b.id || b.textContent, b.offsetWidth, b.offsetHeight])""")
        assert sizes and all(width >= 40 and height >= 44 for _, width, height in sizes), sizes
        if visible(fresh) == "item":
            bottom = fresh.eval("document.getElementById('next').getBoundingClientRect().bottom")
            assert bottom <= size[1]
            if size != (320, 568):
                assert (
                    fresh.eval("document.querySelector('.ratings').getBoundingClientRect().bottom")
                    <= bottom
                )


def test_without_storage_it_says_so_and_works(fresh: browser.Page) -> None:
    deny = "() => { throw new Error('denied'); }"
    spoil = f"for (const name of ['getItem', 'setItem']) Storage.prototype[name] = {deny};"
    added = fresh.call("Page.addScriptToEvaluateOnNewDocument", source=spoil)["identifier"]
    try:
        fresh.reload()
        assert "please finish in one go" in text(fresh, "#forgetful")
        fresh.press("Enter")
        answer_all(fresh)
        assert text(fresh, "#end h1") == "Thank you"
        assert json.loads(fresh.eval("document.getElementById('answers').value"))["finished"]
    finally:
        fresh.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
