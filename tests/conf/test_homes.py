"""``~`` in every setting that names a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import load as conf
from conf.describe import describe
from conf.places import as_path
from conf.schema import Run, Sweep

PLACES = [key for key, setting in describe(Sweep).settings.items() if setting.expands]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")


def test_all_settings_that_name_places_are_known() -> None:
    assert {"output", "data.root", "backbone.path", "method.init", "tracking_uri"} <= {*PLACES}
    assert {"evaluation.detector", "evaluation.extractor_weights", "evaluation.aligners"} <= {
        *PLACES
    }


@pytest.mark.parametrize("key", PLACES)
def test_both_ways_of_writing_a_place_are_the_same(key: str, tmp_path: Path) -> None:
    many = describe(Sweep).settings[key].kind is list
    given, full = ("[~/a]", "[/home/ann/a]") if many else ("~/a", "/home/ann/a")
    one, other = (conf.load([f"{key}={text}"], required=False) for text in (given, full))
    assert one == other and "~" not in str(conf.lookup(one, key))
    # In a sweep, in what changes after training, in a file and in code, too
    preset = {key: ["~/a"] if many else "~/a"}
    assert conf.lookup(conf.load([], preset, required=False), key) == conf.lookup(one, key)
    assert conf.lookup(conf.replace(Sweep(), preset), key) == conf.lookup(one, key)
    if key not in describe(Run).settings or key == "backbone.path":  # Whose defaults are others
        return
    late = conf.replace(Run(), {"evaluate_with": preset})
    assert late.evaluate_with == {key: conf.lookup(one, key)}
    path = tmp_path / "run.yaml"
    head, _, last = key.partition(".")
    line = f"{head}:\n  {last}: {given}\n" if last else f"{head}: {given}\n"
    path.write_text(line)
    assert "~" not in str(conf.lookup(conf.read_run(path), key))


def test_a_group_a_uri_and_a_run_made_in_code(tmp_path: Path) -> None:
    assert conf.load(["tracking_uri=sqlite:///~/a.db"]).tracking_uri == "sqlite:////home/ann/a.db"
    for part, text in {"unet": '{"sample_size": 8}', "vae": '{"block_out_channels": [1]}'}.items():
        (tmp_path / "m" / part).mkdir(parents=True)
        (tmp_path / "m" / part / "config.json").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        own = conf.load(["backbone=~/m"], required=False).backbone
    assert (own.path, own.name, own.resolution) == (str(tmp_path / "m"), "m", 8)
    assert conf.with_homes(Run(output="~/rt")).output == "/home/ann/rt"
    # Only at the beginning, and only in places
    assert conf.load(["output=a~b", "fresh=~/x"]).output == "a~b"
    assert conf.load(["fresh=~/x"]).fresh == "~/x"


def test_a_user_that_is_not_there_is_no_folder() -> None:
    with pytest.raises(conf.ConfigError, match="there is no user nobody-here"):
        conf.load(["output=~nobody-here/runs"])


@pytest.mark.parametrize("key", ["output", "data.root", "backbone.path", "tracking_uri"])
def test_blanks_name_no_place(key: str) -> None:
    with pytest.raises(conf.ConfigError, match="nothing but blanks"):
        conf.load([f"{key}=  "], required=False)
    if key != "tracking_uri":  # Which has no place by default
        with pytest.raises(conf.ConfigError, match="empty, which names no place"):
            conf.load([f"{key}=''"], required=False)


def test_a_path_of_code() -> None:
    assert as_path("~/ad") == Path("/home/ann/ad") and as_path(Path("~/ad")) == as_path("~/ad")
    assert as_path("a/~") == Path("a/~")
    for text, reason in (("~nobody-here/x", "no user nobody-here"), (" ", "blanks")):
        with pytest.raises(ValueError, match=reason):
            as_path(text)
    with pytest.raises(conf.ConfigError, match="blanks"):
        conf.with_homes(Run(output=" "))
