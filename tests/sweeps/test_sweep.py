"""What a sweep may be, its cells, and the list of all sweeps."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf import load as conf
from sweeps.backbones import SWEEP as BACKBONES
from sweeps.engine.catalogue import brief_words, discover
from sweeps.engine.place import LATER, kept_apart
from sweeps.engine.resolve import Declined, PlanError, resolve, seeds_of, trial_config
from sweeps.maskattn_shared import DETAILS, HEADLINES, PAPER
from sweeps.methods import SWEEP as METHODS
from sweeps.objects import SWEEP as OBJECTS
from sweeps.released import SWEEP as RELEASED
from sweeps.sweep import REFERENCE, Factor, Metric, Sweep
from sweeps.threshold import SWEEP

ROOT = Path(__file__).parents[2]


def grid() -> Sweep:
    factors = [
        Factor("method.gate.stage", ["mid", "all"]),
        Factor("method.gate.bias", [0.0, 2.0], when="evaluate"),
    ]
    return replace(
        SWEEP, factors=factors, baseline={"method.gate.stage": "all", "method.gate.bias": 2.0}
    )


def test_cells_are_the_product_with_the_untouched_backbone_first() -> None:
    cells = grid().cells()
    assert [cell.text for cell in cells] == [
        REFERENCE,
        "stage=mid, bias=0.0",
        "stage=mid, bias=2.0",
        "stage=all, bias=0.0",
        "stage=all, bias=2.0",
    ]
    assert [cell.baseline for cell in cells] == [False, False, False, False, True]
    assert [cell.reference for cell in cells] == [True, False, False, False, False]
    assert cells[1].training == {"method.gate.stage": "mid"} and cells[1].evaluation == {
        "method.gate.bias": 0.0
    }
    assert (
        cells[1].folder(2) == "stage=mid,bias=0.0-seed2"
        and cells[0].folder(0) == "untouched-backbone-seed0"
    )


def test_combinations_that_are_left_out_have_no_cell() -> None:
    without = [{"method.gate.stage": "mid", "method.gate.bias": 0.0}]
    cells = replace(grid(), without=without).cells()
    assert [cell.text for cell in cells] == [
        REFERENCE,
        "stage=mid, bias=2.0",
        "stage=all, bias=0.0",
        "stage=all, bias=2.0",
    ]
    assert [cell.baseline for cell in cells] == [False, False, False, True]
    assert cells[1].training == {"method.gate.stage": "mid"} and cells[1].evaluation == {
        "method.gate.bias": 2.0
    }


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (
            {"method.gate.stag": "mid"},
            "method.gate.stag is none of the factors method.gate.stage, method.gate.bias",
        ),
        ({"method.gate.stage": "high"}, "method.gate.stage=high is none of mid, all"),
        (
            {"method.gate.stage": "all", "method.gate.bias": 2.0},
            "{method.gate.stage: all, method.gate.bias: 2.0}: that is the baseline cell",
        ),
        ({"method.gate.bias": 2.0}, "that is the baseline cell"),
        ({}, "that is the baseline cell"),
        (
            {"method.gate.stage": "mid"},
            "without leaves no cell of method.gate.stage=mid; take that level out",
        ),
    ],
)
def test_what_is_left_out_must_be_there_and_leave_the_rest(without: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(grid(), without=[without])


def test_factors_with_one_ending_get_longer_names() -> None:
    factors = [Factor("data.name", ["shapes"]), Factor("backbone.name", ["embedded"])]
    sweep = replace(
        SWEEP, factors=factors, baseline={"data.name": "shapes", "backbone.name": "embedded"}
    )
    assert sweep.cells()[1].text == "data.name=shapes, backbone.name=embedded"


def test_folders_of_levels_that_differ_only_in_odd_characters_differ() -> None:
    cells = replace(SWEEP, factors=[Factor("k", ["a/b", "a b"])], baseline={"k": "a b"}).cells()
    assert len({cell.folder(0) for cell in cells}) == 3


def test_a_method_sweep_uses_its_own_untouched_backbone() -> None:
    cells = replace(
        SWEEP,
        factors=[Factor("method.name", ["baseline", "maskattn"])],
        baseline={"method.name": "maskattn"},
    ).cells()
    assert [(cell.text, cell.reference) for cell in cells] == [
        ("name=baseline", True),
        ("name=maskattn", False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Threshold/v2"}, "module name"),
        ({"factors": []}, "factors"),
        ({"baseline": {}}, "expected exactly method.gate.threshold"),
        ({"baseline": {"method.gate.threshold": 0.55}}, "0.55 is none of 0.3, 0.4"),
        ({"headline": "beauty"}, "'beauty' is none of the metrics"),
        ({"headline": "gate_closed"}, "no better direction"),
        ({"metrics": [Metric("success", "Success")] * 2}, "each given once"),
    ],
)
def test_a_sweep_whose_parts_do_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SWEEP, **change)


def test_levels_twice_and_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        Factor("a", [0.5, 0.5])
    with pytest.raises(ValueError, match="'evaluate'"):
        Factor("a", [1], when="later")
    with pytest.raises(ValueError, match="'lower'"):
        Metric("a", "A", better="up")


def test_other_levels_keep_the_baseline_and_are_sorted() -> None:
    assert SWEEP.with_levels([0.9, 0.2]).factors[0].levels == (0.2, 0.5, 0.9)
    with pytest.raises(ValueError, match="single factor"):
        grid().with_levels([1])


def test_levels_that_are_lists_read_as_words_and_are_found_by_them() -> None:
    factor = Factor("data.concepts", [[], ["yellow square", "cyan ring"]])
    words = ["none", "yellow square+cyan ring"]
    assert factor.describe()["levels"] == words
    cells = replace(SWEEP, factors=[factor], baseline={"data.concepts": []}).cells()
    assert [cell.text for cell in cells[1:]] == [f"concepts={word}" for word in words]
    assert Factor("k", [0.5, True, None]).describe()["levels"] == [0.5, True, None]


def test_every_sweep_resolves_and_is_named_after_its_module() -> None:
    sweeps = discover()
    assert "threshold" in [sweep.name for sweep in sweeps]
    for sweep in sweeps:
        assert (ROOT / "sweeps" / f"{sweep.name}.py").is_file()
        if sweep.needs:
            continue
        _, cells = resolve(sweep, conf.load([], sweep.preset))
        untouched = [
            cell
            for cell in cells
            if trial_config(conf.load([], sweep.preset), cell, 0).method.name == "untouched"
        ]
        blocks = next(
            (len(factor.levels) for factor in sweep.factors if factor.key == sweep.within), 1
        )
        assert sum(cell.baseline for cell in cells) == blocks and untouched
        expected = {"reference"} if untouched[0].reference else {"baseline"}
        kinds = {
            "reference" if cell.reference else "baseline" if cell.baseline else "other"
            for cell in untouched
        }
        assert kinds == expected, (
            "the untouched backbone is the reference, or what others are compared with"
        )
        assert len(untouched) == (blocks if expected == {"baseline"} else 1)


def test_a_sweep_that_needs_real_weights_declines_in_the_embedded_world() -> None:
    declining = {sweep.name: sweep for sweep in discover() if sweep.needs}
    assert list(declining) == ["backbones", "polysemy"]
    for sweep in declining.values():
        instead = r"python -m sweeps\.(methods|generalisation)"
        with pytest.raises(
            Declined,
            match=f"needs real weights.*, which the embedded world has not: choose a backbone.*{instead}$",
        ):
            resolve(sweep, conf.load([], sweep.preset))
    found, cells = resolve(
        declining["polysemy"], conf.load(["backbone=sdxl"], declining["polysemy"].preset)
    )
    assert sum(cell.baseline for cell in cells) == 2 and {"success", "clip_score"} <= {
        metric.key for metric in found.metrics
    }


def test_every_backbone_is_compared_with_itself_untouched(tmp_path: Path) -> None:
    words = [
        "data=coco",
        f"data.root={tmp_path}",
        "trainer=paper512",
        "evaluation=paper",
        "headline=fid",
    ]
    found, cells = resolve(BACKBONES, conf.load(words, BACKBONES.preset), words)
    runs = {cell.text: trial_config(conf.load(words, BACKBONES.preset), cell, 1) for cell in cells}
    assert {run.backbone.name for run in runs.values()} == {
        "sd15",
        "sd21",
        "sdxl",
        "pixart",
    } and len(cells) == 12
    assert all(
        cell.baseline == (runs[cell.text].method.name == "untouched") and not cell.reference
        for cell in cells
    )
    assert {run.trainer.steps for run in runs.values()} == {conf.load(words).trainer.steps}
    compared = {
        cell.text: base.text
        for cell in cells
        if (base := found.base_of(cell, [c for c in cells if c.baseline]))
    }
    assert (
        compared["backbone=sdxl, method=maskattn"] == "backbone=sdxl, method=untouched"
        and len(compared) == 8
    )
    # in the embedded world with what fits it, a folder among them
    words = [f"levels=[embedded,{ROOT / 'lightning_modules' / 'assets' / 'backbone'}]"]
    config = conf.load(words, BACKBONES.preset)
    _, cells = resolve(BACKBONES, config, words)
    own = trial_config(config, cells[-1], 0).backbone
    assert (own.name, own.resolution, own.dtype) == ("backbone", 64, "float16") and len(
        cells
    ) == 6  # as its weights are stored
    with pytest.raises(
        PlanError, match="backbone.dtype=float16: backbone is what this sweep varies"
    ):
        resolve(BACKBONES, config, [*words, "backbone.dtype=float16"])


def within() -> Sweep:
    factors = [
        Factor(
            "recipe",
            ["a", "b"],
            settings={
                "a": {"trainer.steps": 7},
                "b": {"trainer.steps": 9, "method": "mcgm"},
                "c": {},
            },
        ),
        Factor("method.gate.bias", [0.0, 2.0, 4.0]),
    ]
    also = [
        ({"recipe": "b", "method.gate.bias": 4.0}, {"trainer.lr": 0.5, "method": "mcgm_released"})
    ]
    return replace(
        SWEEP, factors=factors, baseline={"method.gate.bias": 2.0}, within="recipe", also=also
    )


def test_each_level_of_within_has_a_baseline_cell_of_its_own() -> None:
    sweep = within()
    cells = sweep.cells()
    assert [cell.text for cell in cells if cell.baseline] == [
        "recipe=a, bias=2.0",
        "recipe=b, bias=2.0",
    ]
    assert [cell.training for cell in cells if "trainer.lr" in cell.training] == [
        {"trainer.steps": 9, "method": "mcgm_released", "method.gate.bias": 4.0, "trainer.lr": 0.5}
    ]
    bases = [cell for cell in cells if cell.baseline]
    found = {cell.text: getattr(sweep.base_of(cell, bases), "text", None) for cell in cells}
    assert (
        found["recipe=b, bias=0.0"] == "recipe=b, bias=2.0"
        and found["recipe=a, bias=4.0"] == "recipe=a, bias=2.0"
    )
    assert found[REFERENCE] is None and found["recipe=a, bias=2.0"] is None
    assert (
        sweep.cells(mode="one_factor") == cells
    )  # one of the two factors is what parts the blocks
    others = sweep.with_levels(["c"]).cells()[1:]
    assert [cell.text for cell in others] == [
        "recipe=c, bias=0.0",
        "recipe=c, bias=2.0",
        "recipe=c, bias=4.0",
    ]
    with pytest.raises(ValueError, match="no settings for the level d"):
        sweep.with_levels(["d"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"within": "preset"},
            "within='preset'; expected one of several factors: recipe, method.gate.bias",
        ),
        (
            {"baseline": {"recipe": "a", "method.gate.bias": 2.0}},
            "expected exactly method.gate.bias",
        ),
        ({"without": [{"recipe": "a", "method.gate.bias": 2.0}]}, "that is the baseline cell"),
        ({"also": [({"recipe": "z"}, {})]}, "also {recipe: z}: recipe=z is none of a, b, c"),
    ],
)
def test_what_is_compared_within_must_fit(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(within(), **change)


def test_a_search_has_one_baseline() -> None:
    words = ["mode=search"]
    with pytest.raises(PlanError, match="released has one for each recipe; use mode=grid"):
        resolve(RELEASED, conf.load(words, RELEASED.preset), words)


def test_released_presets_differ_from_sound_ones_in_nothing_that_trains() -> None:
    config = conf.load([], RELEASED.preset)
    _, cells = resolve(RELEASED, config)
    runs = {
        tuple(cell.values.values()): trial_config(config, cell, 0)
        for cell in cells
        if not cell.reference
    }
    for name in ("maskattn", "mcgm", "separate_enhance"):
        sound, released = runs[name, "sound"], runs[name, "released"]
        assert sound.method.name == released.method.name == name and sound.method != released.method
        assert sound.trainer == released.trainer and sound.method.weights == released.method.weights
    assert (
        runs["mcgm", "released"].method.masks.mask_scope == "everywhere"
        and runs["maskattn", "released"].method.gate.bias == 0
    )


def test_the_command_line_goes_over_what_levels_stand_for() -> None:
    def runs(*words: str) -> dict[str, Any]:
        config = conf.load(words, METHODS.preset)
        _, cells = resolve(METHODS, config, words)
        return {str(cell.values["recipe"]): trial_config(config, cell, 0) for cell in cells}

    assert runs()["mcgm"].trainer.steps == 100 and runs()["mcgm"].trainer.lr == 2e-3
    one = runs("trainer.steps=7", "method.gate.threshold=0.4")
    assert {run.trainer.steps for name, run in one.items() if name != "untouched backbone"} == {
        7
    } and one["mcgm"].trainer.lr == 2e-3
    assert (
        one["maskattn"].method.gate.threshold == 0.4
        and one["maskattn"].method.gate.supervision == "masks"
    )
    named = runs("trainer=paper512")
    assert {run.trainer.lr for run in named.values()} == {
        conf.load(["trainer=paper512"]).trainer.lr
    }
    with pytest.raises(PlanError, match="method=mcgm: each level of recipe is a method of its own"):
        runs("method=mcgm")
    with pytest.raises(
        PlanError, match="these settings make mcgm and mcgm without masks of recipe the same"
    ):
        runs("evaluation.masks=target")
    # where one level alone names a method, the others have the one that was asked for
    words = ["method=separate_enhance_released"]
    config = conf.load(words, OBJECTS.preset)
    _, cells = resolve(OBJECTS, config, words)
    found = {str(cell.values["change"]): trial_config(config, cell, 0).method for cell in cells}
    assert found["trained"].separate.tokens == "released" and found["none"].name == "baseline"


@pytest.mark.parametrize("name", ["released", "backbones", "phases", "generalisation"])
def test_what_acts_in_training_alone_is_not_varied_after_it(name: str) -> None:
    words = ["when=evaluate", *(["levels=[embedded]"] if name == "backbones" else [])]
    sweep = importlib.import_module(f"sweeps.{name}").SWEEP
    with pytest.raises(
        PlanError, match="acts in training, so that .* cannot vary it afterwards: use when=train"
    ):
        resolve(sweep, conf.load(words, sweep.preset), words)


def test_a_backbone_without_a_file_is_read_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own(name: str) -> Any:
        return conf.load([f"backbone={name}"]).backbone

    folder = tmp_path / "mine"
    for part, content in {
        "unet": {"sample_size": 64},
        "vae": {"block_out_channels": [1, 2, 3, 4]},
    }.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(content))
    assert (own(str(folder)).name, own(str(folder)).resolution, own(str(folder)).dtype) == (
        "mine",
        512,
        "float32",
    )
    head = json.dumps(
        {"w": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}, "__metadata__": {}}
    ).encode()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        len(head).to_bytes(8, "little") + head + b"\0\0"
    )
    assert own(str(folder)).dtype == "float16"
    assert conf.load([f"backbone={folder}", "backbone.dtype=bfloat16"]).backbone.dtype == "bfloat16"
    with pytest.raises(
        conf.ConfigError, match="is no diffusers model with a unet or transformer and a vae"
    ):
        own(str(tmp_path))
    (folder / "vae" / "config.json").write_text("{}")
    with pytest.raises(conf.ConfigError, match="vae/config.json has no block_out_channels"):
        own(str(folder))
    # a folder that happens to be called as a file of conf/backbone hides nothing
    (tmp_path / "sd15").mkdir()
    monkeypatch.chdir(tmp_path)
    assert own("sd15").resolution == 512
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        conf.ConfigError, match="org/model was not downloaded yet.*hf download org/model"
    ):
        own("org/model")
    # the revision that is loaded where none is named
    cached = tmp_path / "cache" / "models--org--model"
    for revision, side in (("1" * 40, 96), ("2" * 40, 128)):
        for part, content in {
            "unet": {"sample_size": side},
            "vae": {"block_out_channels": [1, 2, 3, 4]},
        }.items():
            (cached / "snapshots" / revision / part).mkdir(parents=True)
            (cached / "snapshots" / revision / part / "config.json").write_text(json.dumps(content))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1" * 40)
    assert (own("org/model").resolution, own("org/model").name) == (768, "model")


def test_the_short_form_of_every_sweep_is_part_of_it() -> None:
    for sweep in discover():
        if sweep.needs:
            continue
        words = brief_words(sweep)
        _, cells = resolve(sweep, conf.load(words, sweep.preset), words)
        assert {cell.text for cell in cells} <= {cell.text for cell in sweep.cells()} and len(
            cells
        ) > 2
        assert brief_words(sweep, ["mode=grid"]) == []


CELLS = {
    "gate_head": 15, "gate_signal": 6, "gate_start": 27, "gating_mode": 4, "injection_layer": 10, "injection_point": 3,
    "self_attention": 3, "threshold": 5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "count"), CELLS.items())
def test_the_sweeps_of_maskattn(name: str, count: int) -> None:
    sweep = importlib.import_module(f"sweeps.{name}").SWEEP
    config = conf.load([], sweep.preset)
    assert (
        config.method.name == "maskattn"
        and sweep.headline == "success"
        and sweep.direction == "higher"
    )
    for factor in sweep.factors:
        for level in factor.levels:
            assert conf.lookup(conf.replace(config, {factor.key: level}), factor.key) == level
    resolved, cells = resolve(sweep, config)
    assert [cell.text for cell in cells] == [
        cell.text for cell in sweep.cells()
    ]  # levels are written as the schema reads them
    assert len(cells) == len({cell.text for cell in cells}) == count + 1 and cells[0].reference
    text = (ROOT / "sweeps" / f"{name}.py").read_text(encoding="utf-8")
    assert (
        f"\n    python -m sweeps.{name} " in text
        and f"\n    python -m sweeps.{name} trainer.accelerator=gpu output=" in text
    )
    assert "2509.15357" in sweep.origin and f"| `{name}` | {sweep.question} |" in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")


def test_the_sweeps_of_maskattn_start_alike_and_measure_alike() -> None:
    sweeps = [sweep for sweep in discover() if sweep.name in CELLS]
    assert len(sweeps) == len(CELLS) and all(
        sweep.preset.items() >= PAPER.items() for sweep in sweeps
    )
    for sweep in sweeps:
        assert (
            sweep.metrics[: len(HEADLINES)] == HEADLINES
            and sweep.metrics[-len(DETAILS) :] == DETAILS
        )
    added = {
        sweep.name: [metric.key for metric in sweep.metrics[len(HEADLINES) : -len(DETAILS)]]
        for sweep in sweeps
    }
    assert added["gate_head"] == ["parameters", "overhead"] and added["gate_start"] == [
        "gates_reopened",
        "gates_shut",
    ]
    assert (
        added["gate_signal"] == ["gate_mask_iou"]
        and "overhead" in added["injection_layer"]
        and not added["threshold"]
    )


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["sweeps"], 0, "Is 0.5 the best gate threshold"),
        (
            ["sweeps.injection_layer", "levels=[mid]"],
            2,
            "levels= replaces the levels of a single factor",
        ),
        (["sweeps.gate_start", "--help"], 0, "method.gate.protect="),
        (["sweeps", "threshold"], 2, "python -m sweeps.<name>"),
        (["sweeps.threshold", "--help"], 0, "method.gate.threshold=0.5"),
        (["sweeps.threshold", "trainer.step=3"], 2, "did you mean trainer.steps"),
        (["sweeps.threshold", "levels=[0.2,1.5]"], 2, "method.gate.threshold=1.5"),
        (["sweeps.threshold", "method.gate.threshold=0.4"], 2, "levels=["),
        (["sweeps.threshold", "method=untouched"], 2, "choose another method"),
        (["sweeps.threshold", "candidates=4"], 2, "candidates is for mode=search"),
        (
            ["sweeps.threshold", "storage=sqlite:///x.db"],
            2,
            "SQLite, for one, hands one queued trial to two workers",
        ),
        (["sweeps.threshold", "tracking_uri=http://127.0.0.1:9"], 2, "no MLflow server answers"),
    ],
)
def test_commands_answer_and_load_nothing_heavy(
    words: list[str], status: int, expected: str, tmp_path: Path
) -> None:
    heavy = (
        "torch",
        "lightning",
        "diffusers",
        "transformers",
        "mlflow",
        "optuna",
        "pandas",
        "matplotlib",
        "scipy",
    )
    code = (
        f"import runpy, sys; sys.argv = {words!r}\n"
        f"try: runpy.run_module({words[0]!r}, run_name='__main__', alter_sys=True)\n"
        f"finally: loaded = sorted(set({heavy!r}) & set(sys.modules)); assert not loaded, loaded"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert expected in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    assert not list(tmp_path.iterdir())


# --- modes ------------------------------------------------------------------------------------------------------------------------


def texts(mode: str, names: list[str] | None = None) -> list[str]:
    return [cell.text for cell in grid().cells("train", mode, names or [])]


def test_one_factor_at_a_time_leaves_the_others_at_the_baseline() -> None:
    assert texts("one_factor") == [
        REFERENCE,
        "stage=mid, bias=2.0",
        "stage=all, bias=0.0",
        "stage=all, bias=2.0",
    ]


def test_a_list_names_its_cells_and_the_baseline_comes_along() -> None:
    assert texts("list", ["stage=mid, bias=0.0"]) == [
        REFERENCE,
        "stage=mid, bias=0.0",
        "stage=all, bias=2.0",
    ]
    assert texts("search") == [REFERENCE, "stage=all, bias=2.0"]


def test_a_list_may_name_numbers_between_the_levels() -> None:
    config = conf.load(["mode=list", "cells=[threshold=0.45, threshold=0.5]"], SWEEP.preset)
    sweep, cells = resolve(SWEEP, config)
    assert [cell.text for cell in cells] == [REFERENCE, "threshold=0.45", "threshold=0.5"]
    assert sweep.factors[0].levels == (0.3, 0.4, 0.45, 0.5, 0.6, 0.7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mode=list"], "mode=list runs the cells that cells=[…] names, and it names none"),
        (["cells=[threshold=0.5]"], "is for mode=list, but mode=grid"),
        (
            ["mode=list", "cells=[threshold=high]"],
            "cells=threshold=high: threshold=high; expected a number",
        ),
        (["mode=list", "cells=[treshold=0.5]"], "cells=treshold=0.5: expected threshold=…"),
        (["mode=list", "cells=[threshold=1.5]"], "method.gate.threshold=1.5"),
        (["candidates=3"], "candidates is for mode=search, but mode=grid"),
        (["mode=search", "objectives=[beauty]"], "objectives=beauty: not a metric of threshold"),
        (
            ["mode=search", "objectives=[gate_closed]"],
            "objectives=gate_closed: not a metric of threshold that has a better direction",
        ),
        (
            ["mode=search", "objectives=[success,fid]", "prune=seeds"],
            "only one metric can tell what is hopeless",
        ),
        (
            ["mode=search", "prune=seeds", "seeds=1"],
            "prune=seeds with seeds=1: there is no later seed to leave out",
        ),
    ],
)
def test_what_a_mode_does_not_know_is_refused(words: list[str], message: str) -> None:
    with pytest.raises((PlanError, conf.ConfigError), match=re.escape(message)):
        resolve(SWEEP, conf.load(words, SWEEP.preset), words)


def test_seeds_may_begin_elsewhere() -> None:
    assert seeds_of(conf.load(["seed=3", "seeds=2"], SWEEP.preset)) == [3, 4]


def test_the_readme_shows_a_sweep_that_works(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = next(
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        if "SWEEP = Sweep(" in block
    )
    scope: dict = {"__name__": "sweeps.warmup"}
    exec(compile(source, "warmup.py", "exec"), scope)
    sweep, cells = resolve(scope["SWEEP"], conf.load([], scope["SWEEP"].preset))
    assert len(cells) == 4 and len([line for line in source.splitlines() if line]) <= 20


def test_settings_that_came_later_part_no_study_that_was_there_before() -> None:
    before = kept_apart(SWEEP, conf.load([], SWEEP.preset))
    assert not LATER.keys() & before.keys() and all(
        conf.lookup(conf.load([]), key) == value for key, value in LATER.items()
    )
    assert kept_apart(SWEEP, conf.load(["trainer.gradient_checkpointing=true"], SWEEP.preset)) == {
        **before,
        "trainer.gradient_checkpointing": True,
    }
