from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from conf import load as conf
from conf.describe import describe
from conf.help_page import help_text
from conf.load import ConfigError
from conf.schema import Run, Sweep
from conf.sources import FOLDER

PRESET = {"method": "maskattn", "method.gate.threshold": 0.6, "trainer.steps": 40}


def error(*argv: str, preset: dict | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        conf.load(list(argv), preset)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_files_repeat_the_defaults_of_the_schema() -> None:
    assert conf.load([]) == Sweep()
    assert conf.load([], schema=Run) == Run()


def test_later_layers_win() -> None:
    assert conf.load([]).trainer.steps == Sweep().trainer.steps
    assert conf.load(["trainer=paper512"]).trainer.steps == 100_000
    assert conf.load([], PRESET).trainer.steps == 40
    assert conf.load(["trainer=paper512"], PRESET).trainer.steps == 100_000, (
        "a recipe that is named goes over the sweep's own"
    )
    assert (
        conf.load(
            ["method=maskattn_released"], {"method.gate.threshold": 0.3}
        ).method.gate.threshold
        == 0.3
    ), "not so a method"
    assert conf.load(["trainer=paper512", "trainer.steps=7"], PRESET).trainer.steps == 7
    assert conf.load(["trainer.steps=7", "trainer=paper512"], PRESET).trainer.steps == 7


def test_a_group_is_chosen_by_the_last_layer_that_names_it() -> None:
    preset = {"backbone": "sd15", "backbone.dtype": "bfloat16"}
    assert conf.load([]).backbone.name == "embedded"
    assert conf.load([], preset, required=False).backbone.name == "sd15"
    words = ["backbone=sdxl", "trainer.accelerator=gpu"]
    chosen = conf.load(words, preset, required=False).backbone
    assert (chosen.name, chosen.resolution, chosen.dtype) == ("sdxl", 1024, "float16")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("trainer.lr=1e-4", 1e-4),
        ("trainer.lr=1", 1.0),
        ("backbone.revision=12e4", "12e4"),
        ("backbone.revision=null", None),
        ("data.root=/data/coco=2014", "/data/coco=2014"),
        ("levels=[1e-4, 010, on]", ["1e-4", "010", "on"]),  # Their factor knows what they are
        ("evaluation.splits=[val2014]", ["val2014"]),
        ("evaluate_with={method.gate.threshold: 0.7}", {"method.gate.threshold": 0.7}),
        ("trainer.warmup=${seeds}", 3),
    ],
)
def test_words_become_what_their_key_takes(word: str, value: object) -> None:
    found = conf.lookup(conf.load([word]), word.partition("=")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        (
            "method.gate.treshold=0.4",
            ["method.gate.treshold=0.4", "stage, placement", "did you mean method.gate.threshold?"],
        ),
        ("treshold=0.4", ["did you mean method.gate.threshold?"]),
        ("backbon=sdxl", ["backbone, method, data", "did you mean backbone?"]),
        (
            "backbone=sdlx",
            [
                "backbone=sdlx",
                (
                    "embedded, embedded_strong, flux, flux_schnell, pixart, pixart_sigma, sd14, "
                    "sd15, sd21, sd3, sd35_large, sd35_medium, sdxl"
                ),
                "did you mean sdxl?",
            ],
        ),
        ("backbone=../no/such/model", ["no such folder", "org/model"]),
        ("method.gate=0.4", ["method.gate holds threshold"]),
        (
            "method.gate.stage=hihg",
            [
                "method.gate.stage=hihg (command line)",
                "one of mid, all, high, low",
                "did you mean high?",
            ],
        ),
        ("trainer.steps=ten", ["trainer.steps=ten", "an integer of at least 1"]),
        ("trainer.steps=2.5", ["trainer.steps=2.5", "an integer of at least 1"]),
        ("trainer.steps=true", ["trainer.steps=true", "an integer of at least 1"]),
        ("trainer.steps=0", ["trainer.steps=0", "an integer of at least 1"]),
        ("trainer.steps=null", ["trainer.steps=null", "an integer of at least 1"]),
        ("trainer.steps=${sed}", ["trainer.steps", "'sed' not found"]),
        ("trainer.lr=0", ["trainer.lr=0.0", "a number above 0"]),
        ("trainer.lr=nan", ["trainer.lr=nan", "a number above 0"]),
        ("method.gate.threshold=1", ["method.gate.threshold=1.0", "above 0 and below 1"]),
        ("output=null", ["output=null", "expected text"]),
        ("evaluation.splits=val", ["evaluation.splits=val", "expected a list"]),
        ("levels=[0.3,", ["levels=[0.3,", "expected a list", "quote it"]),
        (
            "evaluate_with={method.gate.threshold: 7}",
            ["method.gate.threshold=7.0 (evaluate_with)", "above 0 and below 1"],
        ),
        (
            "evaluate_with={gate.threshold: 0.7}",
            ["(evaluate_with)", "did you mean method.gate.threshold?"],
        ),
        ("data=coco", ["data.root", "is missing", "Folder of the data set"]),
        ("--seeds=4", ["--seeds=4", "key=value", "write seeds=4"]),
        ("--tracking-uri=x", ["key=value", "write tracking_uri=x"]),
        ("seeds:4", ["seeds:4: expected key=value", "write seeds=4"]),
        ("--foo", ["--foo", "key=value", "--help"]),
        ("seeds", ["expected key=value"]),
        ("seeds=", ["seeds= has no value: expected key=value"]),
        ("=3", ["expected key=value"]),
    ],
)
def test_errors_are_one_line_that_helps(word: str, parts: list[str]) -> None:
    text = error(word)
    assert [part for part in parts if part not in text] == [], text


def test_errors_say_where_the_value_stands() -> None:
    assert "(sweep)" in error(preset={"method.gate.stag": "all"})
    assert "(sweep)" in error(preset={"trainer.steps": -1})


def test_published_settings() -> None:
    config = conf.load(
        ["backbone=sdxl", "trainer=paper512", "evaluation=paper", "data=coco", "data.root=/coco"]
    )
    trainer = config.trainer
    assert (trainer.steps, trainer.batch * trainer.accumulate, trainer.lr, trainer.warmup) == (
        100_000,
        16,
        1e-4,
        1000,
    )
    assert (trainer.weight_decay, trainer.clip, trainer.precision) == (0.01, 1.0, "16-mixed")
    assert (config.evaluation.steps, config.evaluation.guidance) == (30, 7.5)
    assert config.backbone.path == "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize(
    "file", sorted(FOLDER.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}"
)
def test_every_group_file_loads_and_says_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")
    words = [f"{file.parent.name}={file.stem}", "data.root=/data", "data.concepts=[a,b]"]
    conf.load(words, required=False)


def test_replace_returns_a_checked_copy() -> None:
    config = conf.load(["backbone=sdxl", "seeds=5", "method.gate.width=32"], required=False)
    other = conf.replace(
        config, {"method.gate.threshold": "0.7", "seed": 4, "evaluate_with": {"seed": 1}}
    )
    assert type(other) is Sweep and other.backbone == config.backbone
    assert (
        other.method.gate.threshold,
        other.method.gate.width,
        other.seed,
        other.evaluate_with,
    ) == (0.7, 32, 4, {"seed": 1})
    assert (config.method.gate.threshold, config.seed, config.evaluate_with) == (0.5, 0, {})
    with pytest.raises(ConfigError, match=r"seed=-1 \(override\)"):
        conf.replace(config, {"seed": -1})


def test_replace_of_a_group_starts_from_its_file() -> None:
    config = conf.load(["method.gate.width=32"])
    other = conf.replace(config, {"method.gate.bias": 1.0, "method": "untouched"})
    assert (other.method.name, other.method.gate.width, other.method.gate.bias) == (
        "untouched",
        128,
        1.0,
    )


def test_a_run_survives_the_file(tmp_path: Path) -> None:
    sweep = conf.load(
        [
            "backbone.revision=12e4",
            "trainer.lr=1e-5",
            ("evaluate_with={method.gate.threshold: 0.7}"),
            "output=a b",
        ],
        PRESET,
    )
    run = conf.as_run(sweep)
    assert type(run) is Run
    conf.write(run, tmp_path / "trial" / "run.yaml")
    assert conf.read_run(tmp_path / "trial" / "run.yaml") == run
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("seeds: 3", "seeds=3"),
        ("trainer: {stepz: 3}", "did you mean trainer.steps?"),
        ("seed: [", "cannot be read as YAML"),
        ("- 1", "key: value"),
        (None, "no such file"),
    ],
)
def test_a_bad_run_file_is_one_line(tmp_path: Path, content: str | None, part: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        conf.read_run(path)
    assert (
        part in str(caught.value)
        and str(path) in str(caught.value)
        and "\n" not in str(caught.value)
    )


def test_digest_depends_on_content_only() -> None:
    assert (
        conf.digest({"a": 1, "b": [0.5, None]})
        == conf.digest({"b": [0.5, None], "a": 1})
        == "f1a92042e7c3"
    )
    assert conf.digest({"a": 1}) != conf.digest({"a": 2})
    assert conf.digest(conf.to_dict(Run())) == conf.digest(conf.to_dict(conf.load([], schema=Run)))
    with pytest.raises(ValueError, match="JSON"):
        conf.digest({"a": float("nan")})


def test_help_names_every_key_group_and_choice() -> None:
    page = help_text(
        "What does it do?",
        "python -m sweeps.threshold",
        {**PRESET, "backbone": "sdxl", "data": "coco"},
    )
    lines = [line.strip() for line in page.splitlines()]
    assert lines[0] == "What does it do?" and lines[2].startswith(
        "usage: python -m sweeps.threshold "
    )
    for key in [*describe(Sweep).groups, *describe(Sweep).settings]:
        assert any(line.removeprefix("* ").startswith(f"{key}=") for line in lines), key
    assert any(
        line.startswith("* backbone=sdxl") and "Stable Diffusion XL" in line for line in lines
    )
    assert any(line.startswith("backbone=embedded") for line in lines)
    assert any(line.startswith("data.root=???") for line in lines)
    assert any(
        line.startswith("method.gate.threshold=0.6")
        and "ate is open where" in line
        and "below 1" in line
        for line in lines
    )
    assert any(
        line.startswith("method.gate.stage=mid") and "one of mid, all, high, low" in line
        for line in lines
    )


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from conf.help_page import help_text; help_text('t', 'c');"
        "heavy = 'torch lightning diffusers transformers mlflow optuna pandas numpy'.split();"
        "print(sorted({*heavy} & set(sys.modules)))"
    )

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.strip() == "[]"
    # Processor time: the wall clock would count other programs, too.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_the_help_has_whole_comments_of_files() -> None:
    text = help_text("title", "command")
    for path in FOLDER.glob("*/*.yaml"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert lines[-1].lstrip("# ") in text, path


def test_every_number_has_a_limit_at_both_ends_and_says_it() -> None:
    for key, setting in describe(Sweep).settings.items():
        if setting.kind in (int, float) and key != "until":
            assert {*setting.limits} & {"minimum", "above"}, key
            assert {*setting.limits} & {"maximum", "below"}, key
    text = error("trainer.steps=1000000000000")
    assert "trainer.steps=1000000000000" in text and "at most 100,000,000" in text
    assert "at most 1,000" in error("trainer.lr=1e300")
    # "Never", and as good as without a limit
    for word in ("trainer.checkpoint_every=1000000000", "trainer.clip=1e9", "retries=100"):
        conf.load([word])


def test_a_setting_and_its_value_in_two_words() -> None:
    with pytest.raises(conf.ConfigError, match="seeds: expected key=value.*write seeds=1$"):
        conf.load(["seeds", "1"])
    with pytest.raises(conf.ConfigError, match="write backbone=sdxl$"):
        conf.load(["--backbone", "sdxl", "seeds=2"])
