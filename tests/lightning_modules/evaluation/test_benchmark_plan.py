"""Which prompts are drawn: benchmarks whole, fewer of them evenly, and a word on what is not as
published."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.benchmark_files import GENEVAL_TASKS, write_color_val, write_geneval

from conf.schema import Evaluation
from datamodules import PromptDataModule
from lightning_modules.evaluation.plan import plan, shown_prompts
from lightning_modules.metrics.benchmarks import describe_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_geneval(folder / "evaluation_metadata.jsonl")
    write_color_val(folder / "color_val.txt")
    (folder / "mine.jsonl").write_text('{"prompt": "a lake"}\n{"prompt": "a hill"}\n')
    return folder


def open_prompts(folder: Path, name: str, **more: Any) -> PromptDataModule:
    module = PromptDataModule(folder / name, **more)
    module.setup()
    return module


# What data=prompts has in place of the embedded world's defaults
WHOLE = Evaluation(splits=[], prompts=None, noise_seeds=None, detector="none", extractor="none")


def test_a_benchmark_is_measured_whole_with_the_images_published(folder: Path):
    prompts = plan(open_prompts(folder, "evaluation_metadata.jsonl"), WHOLE, seed=0)
    assert len(prompts) == 553 * 4 and len({prompt.noise for prompt in prompts}) == 553 * 4
    assert Counter(p.stratum[-1] for p in prompts) == {k: 4 * n for k, n in GENEVAL_TASKS.items()}
    (said,) = describe_plan(prompts)
    assert said.startswith("evaluation_metadata: GenEval, all 553 prompts (single_object 80, ")
    assert said.endswith("4 images each")
    prompts = plan(open_prompts(folder, "color_val.txt"), WHOLE, seed=0)
    assert len(prompts) == 300 * 10
    assert describe_plan(prompts) == [
        "color_val: T2I-CompBench, all 300 prompts (color 300), 10 images each"
    ]


def test_fewer_are_drawn_evenly_and_said(folder: Path):
    fewer = dataclasses.replace(WHOLE, prompts=56, noise_seeds=1)
    module = open_prompts(folder, "evaluation_metadata.jsonl")
    prompts = plan(module, fewer, seed=0)
    counts = Counter(prompt.stratum[-1] for prompt in prompts)
    assert sum(counts.values()) == 56 and counts.keys() == GENEVAL_TASKS.keys()
    assert set(counts.values()) <= {8, 9, 10, 11}
    (said,) = describe_plan(prompts)
    assert "56 of 553 prompts" in said and "1 image each (published: 4)" in said
    # The same for every seed: they are compared prompt by prompt
    assert [p.index for p in prompts] == [p.index for p in plan(module, fewer, seed=3)]
    prompts = plan(open_prompts(folder, "color_val.txt"), fewer, seed=0)
    unseen = sum("unseen" in prompt.text for prompt in prompts)
    assert unseen in (18, 19), "a third, as in the file"


@pytest.mark.parametrize("seeds", [{}, {"prompt_seed": 5}])
def test_fewer_prompts_are_the_first_of_more(folder: Path, seeds: dict[str, int]):
    for name in ("evaluation_metadata.jsonl", "color_val.txt", "mine.jsonl"):
        module = open_prompts(folder, name)
        whole = plan(module, WHOLE, seed=1, **seeds)
        have = len(module.eval_sets[whole[0].split])
        for count in {min(count, have) for count in (1, 28, 56, 112, have - 1, have)}:
            few = plan(module, dataclasses.replace(WHOLE, prompts=count), seed=1, **seeds)
            assert few == [prompt for prompt in whole if prompt.place < count], "noises too"
            assert [p.place for p in few] == [p.place for p in whole if p.place < count]


def test_data_that_hold_fewer_are_drawn_evenly_too(folder: Path):
    module = open_prompts(folder, "evaluation_metadata.jsonl", eval_prompts=60)
    prompts = plan(module, WHOLE, seed=0)
    assert {p.stratum[-1] for p in prompts} == GENEVAL_TASKS.keys() and len(prompts) == 240
    assert "60 of 553 prompts" in describe_plan(prompts)[0]


def test_a_file_of_one_task_is_not_called_by_the_name(tmp_path: Path):
    write_geneval(tmp_path / "metadata.jsonl", {"single_object": 56})
    (said,) = describe_plan(plan(open_prompts(tmp_path, "metadata.jsonl"), WHOLE, seed=0))
    assert "no score is called GenEval's: no prompts of two_object, counting" in said


def test_other_prompts_have_one_image_and_no_word(folder: Path):
    prompts = plan(open_prompts(folder, "mine.jsonl"), WHOLE, seed=0)
    assert len(prompts) == 2 and describe_plan(prompts) == []


@pytest.mark.parametrize(
    ("limit", "asked", "message"),
    [
        (None, 600, "evaluation.prompts to at most 553, or null"),
        (512, 553, "data.eval_images=512 limits it: set data.eval_images to 553 or higher"),
        (900, 600, "evaluation.prompts to at most 553, or null"),
    ],
)
def test_the_cure_of_too_many_prompts_is_one(
    folder: Path, limit: int | None, asked: int, message: str
):
    module = open_prompts(folder, "evaluation_metadata.jsonl", eval_prompts=limit)
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(module, dataclasses.replace(WHOLE, prompts=asked), seed=0)


def test_a_report_shows_images_of_all_tasks(folder: Path):
    prompts = plan(open_prompts(folder, "evaluation_metadata.jsonl"), WHOLE, seed=0)
    shown = shown_prompts(prompts, 8)
    tasks = {p.stratum[-1] for p in prompts if (p.split, p.index) in shown}
    assert len(shown) == 8 and tasks == GENEVAL_TASKS.keys()
    assert shown_prompts(plan(open_prompts(folder, "mine.jsonl"), WHOLE, 0), 8) == {
        ("mine", 0),
        ("mine", 1),
    }
