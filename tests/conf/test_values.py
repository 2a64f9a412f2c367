"""A value is read by the type of its setting, everywhere alike, and what is written reads back."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import random
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf import load as conf
from conf.describe import describe
from conf.load import ConfigError
from conf.schema import Run, Sweep
from conf.values import Misread, Written, dump, option, parse, path_option, read

# Words that YAML 1.1, or int() and float() of Python, read as something else than they seem
TRAPS = (
    *("010", "0o10", "0x10", "0b11", "1_000", "2024_06_01", "12e4", "1e-4", "12:30", "0123", "089"),
    *("on", "off", "yes", "no", "y", "N", "True", "FALSE", "inf", ".inf", "nan", ".NaN", "+.5"),
    *("2024-06-01", "=", "<<", "٣", "1e999", "-0", "007.5"),
)
NOTHING = ("null", "Null", "~", "none", "None")
RUN_FILE = "{key}: {text}\n"


def from_words(key: str, text: str) -> Any:
    return conf.lookup(conf.load([f"{key}={text}"]), key)


def from_file(key: str, text: str, folder: Path) -> Any:
    (folder / "run.yaml").write_text(RUN_FILE.format(key=key, text=text))
    return conf.lookup(conf.read_run(folder / "run.yaml"), key)


@pytest.mark.parametrize("text", [word for word in TRAPS if word not in ("=", "<<")])
def test_text_is_the_text_that_was_written(text: str, tmp_path: Path) -> None:
    for key in ("output", "fresh", "backbone.revision", "data.root"):
        assert from_words(key, text) == text
        assert from_file(key, text, tmp_path) == text
        assert conf.lookup(conf.replace(Run(), {key: text}), key) == text
    assert from_words("evaluation.splits", f"[val, {text}]") == ["val", text]
    assert from_file("evaluation.splits", f"[val, {text}]", tmp_path) == ["val", text]
    assert from_words("evaluate_with", f"{{fresh: {text}}}") == {"fresh": text}


@pytest.mark.parametrize(
    ("key", "text", "parts"),
    [
        ("seed", "010", ["seed=010", "10, or 8 in octal"]),
        ("seed", "12:30", ["750 in base 60", "the text 12:30"]),
        ("seed", "1_000", ["1000, or the text"]),
        ("seed", "0x10", ["16 in hexadecimal"]),
        ("seed", "1e3", ["an integer"]),
        ("seed", "٣", ["an integer"]),
        ("trainer.lr", "010", ["10, or 8 in octal"]),
        ("trainer.lr", "1:30", ["90 in base 60"]),
        ("trainer.lr", ".inf", ["no finite number"]),
        ("trainer.lr", "1e999", ["a number above 0"]),
        ("data.flip", "on", ["true or false", "on is true, or the text on"]),
        ("data.flip", "no", ["no is false, or the text no"]),
        ("data.flip", "1", ["true or false"]),
        ("backbone.revision", "none", ["nothing, or the text none", "null"]),
        ("backbone.revision", "~", ["nothing, or the text ~"]),
        ("output", "null", ["nothing, or the text"]),
        ("evaluation.splits", "[val, null]", ["nothing, or the text"]),
        ("evaluate_with", "{method.gate.width: 0128}", ["method.gate.width=0128", "the text 0128"]),
        ("evaluate_with", "{data.flip: on}", ["data.flip=on", "true or false"]),
    ],
)
def test_what_is_ambiguous_is_refused_with_its_readings(
    key: str, text: str, parts: list[str], tmp_path: Path
) -> None:
    for get in (from_words, lambda key, text: from_file(key, text, tmp_path)):
        with pytest.raises(ConfigError) as caught:
            get(key, text)
        message = str(caught.value)
        assert [part for part in parts if part not in message] == [], message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "10", 10),
        (int, "-3", -3),
        (int, "+3", 3),
        (float, "3", 3.0),
        (float, "1e-4", 1e-4),
        (float, ".5", 0.5),
        (float, "5.", 5.0),
        (float, "-1.5E+3", -1500.0),
        (bool, "true", True),
        (bool, "False", False),
        (str | None, "null", None),
        (str | None, "", None),
        (int | None, "null", None),
        (int | float, "3", 3),
        (int | float, "3.0", 3.0),
        (int | str, "3", 3),
        (int | str, "mid", "mid"),
        (Any, "3", 3),
        (Any, "0.5", 0.5),
        (Any, "true", True),
        (Any, "mid", "mid"),
        (Any, "2024-06-01", "2024-06-01"),
    ],
)
def test_words_of_each_type(kind: Any, text: str, value: object) -> None:
    found = read(kind, Written(text))
    assert found == value and type(found) is type(value)


def test_quotes_make_text() -> None:
    content = parse("a: '10'\nb: \"null\"\nc: 10\n")
    assert {key: read(Any, value) for key, value in content.items()} == {
        "a": "10",
        "b": "null",
        "c": 10,
    }
    assert from_words("backbone.revision", '"none"') == "none"
    assert from_words("output", "'null'") == "null"
    assert from_words("evaluation.splits", '["null", "~"]') == ["null", "~"]


@pytest.mark.parametrize(
    ("kind", "value"), [(int, True), (int, 2.0), (float, True), (bool, 1), (str, 12e4), (str, True)]
)
def test_values_of_code_are_not_converted(kind: type, value: object) -> None:
    with pytest.raises(Misread):
        read(kind, value)


def test_yaml_that_says_two_things_is_refused(tmp_path: Path) -> None:
    for text in ("a: 1\na: 2", "a: !!int 010", "? [1]\n: 2"):
        with pytest.raises(yaml.YAMLError):
            parse(text)
    path = tmp_path / "run.yaml"
    for text in ("trainer.steps: 2\ntrainer:\n  steps: 3", "trainer: {steps: 3}\ntrainer.steps: 2"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"run.yaml: trainer.steps is given twice"):
            conf.read_run(path)
    assert parse("a: &x {y: 1}\nb: {<<: *x, z: 2}")["b"] == {"y": "1", "z": "2"}


# --- what is written reads back -----------------------------------------------------------------


def draw_text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(
            (*TRAPS, *NOTHING, "", " a ", "a: b", "#", "- x", "a #b", "???x", "@", "%")
        )
    letters = "aZ09 _-+.:,;#'\"\\/{}[]$&*!|>?%@`~=<\n\t\x7f\x85\u2028éλ🙂"
    return "".join(rng.choice(letters) for _ in range(rng.randrange(12)))


def draw(kind: Any, rng: random.Random) -> Any:
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice((0, -1, 8, 10**20, rng.randrange(-1000, 1000)))
    if kind is float:
        return rng.choice((0.0, 1e-5, 1e22, -2.5e-300, 3.0, rng.uniform(-1, 1)))
    if kind is str:
        return draw_text(rng)
    if kind is list:
        return [draw_text(rng) for _ in range(rng.randrange(3))]
    return {draw_text(rng): draw(rng.choice((bool, int, float, str)), rng) for _ in range(2)}


def test_every_setting_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Whatever the schema can hold, within its choices; limits do not matter here."""
    rng = random.Random(0)
    for _ in range(15):
        config = Sweep()
        for key, setting in describe(Sweep).settings.items():
            value = draw(setting.kind, rng)
            if setting.kind is dict and (inner := typing.get_args(setting.type)[1]) is not Any:
                value = {name: draw(inner, rng) for name in value}
            if setting.kind is list and (inner := typing.get_args(setting.type)[0]) is not Any:
                value = [draw(inner, rng) for _ in value]
            if setting.choices:
                value = rng.choice(setting.choices)
            if setting.optional and rng.random() < 0.3:
                value = None
            owner, _, name = key.rpartition(".")
            # Some sections are frozen
            object.__setattr__(conf.lookup(config, owner) if owner else config, name, value)
        text = dump(conf.to_dict(config))
        again: Any = parse(text)
        for key, setting in describe(Sweep).settings.items():
            found, value = again, conf.lookup(config, key)
            for part in key.split("."):
                found = found[part]
            found = read(setting.type, found)
            assert (found, type(found)) == (value, type(value)), (key, text)


@pytest.mark.parametrize("text", [*TRAPS, *NOTHING, "${seed}", r"a\${seed}", "\\", "a b", "${"])
def test_texts_survive_the_file_of_a_run(text: str, tmp_path: Path) -> None:
    place = f"./{text}" if text.startswith("~") else text  # Else it would be a home
    run = dataclasses.replace(Run(), output=place, fresh=text)
    run.backbone.revision = text
    run.evaluation.splits = ["val", text]
    run.evaluate_with = {"data.root": place}
    conf.write(run, tmp_path / "run.yaml")
    assert conf.read_run(tmp_path / "run.yaml") == run
    # Other readers, of YAML 1.1 too, take the same texts
    other = yaml.safe_load((tmp_path / "run.yaml").read_text())
    assert "${" in text or (other["output"], other["evaluation"]["splits"][1]) == (place, text)


def test_references_are_read_by_the_type_of_their_setting() -> None:
    config = conf.load(["trainer.warmup=${seeds}", "fresh=seed-${seed}", "seed=7", "output=$x"])
    assert (config.trainer.warmup, config.fresh, config.output) == (3, "seed-7", "$x")
    assert conf.load(["seed=1", "trainer.steps=${seed}0"]).trainer.steps == 10
    with pytest.raises(ConfigError, match="octal"):
        conf.load(["seed=1", "trainer.steps=0${seed}0"])


def test_options_of_other_commands_read_numbers_alike(capsys: Any) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=option(int))
    parser.add_argument("--lr", type=option(float))
    assert vars(parser.parse_args(["--steps", "10", "--lr", "1e-4"])) == {"steps": 10, "lr": 1e-4}
    for words in (["--steps", "010"], ["--lr", "1_0"], ["--steps", "2.5"]):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert f"{words[1]}: expected a" in capsys.readouterr().err


def test_paths_of_other_commands_know_a_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=path_option)
    assert parser.parse_args(["--output", "~/runs"]).output == Path("/home/ada/runs")
    with pytest.raises(SystemExit):
        parser.parse_args(["--output", "~nobody-of-that-name/runs"])
    assert "there is no user nobody-of-that-name" in capsys.readouterr().err
    # A bare Path would make a folder named ~
    tree = Path(__file__).parents[2]
    for folder in ("lightning_modules", "datamodules", "sweeps", "reports"):
        for path in (tree / folder).rglob("*.py"):
            assert "type=Path" not in path.read_text(encoding="utf-8"), path


def test_numbers_of_other_commands_have_limits_and_say_them(capsys: Any) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=option(int, 1, 65_536))
    for word in ("0", "-3", "65537"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--batch", word])
        told = capsys.readouterr().err
        assert f"{word}: expected an integer of at least 1 and of at most 65,536" in told
    calls = [
        (path.name, ast.unparse(node))
        for folder in ("lightning_modules", "datamodules", "sweeps", "reports")
        for path in (Path(__file__).parents[2] / folder).rglob("*.py")
        if "option(" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "option"
    ]
    assert len(calls) > 10
    assert not [call for call in calls if call[1] in ("option(int)", "option(float)")]
