"""Each seed changes what it names and nothing else, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from conf import load as conf
from conf.schema import MAX_SEED, Run
from conf.seeds import SEEDS, TRAINING_SEEDS, Seeds, list_given, resolve_seeds, training_seeds
from datamodules.batch import Batch, Phrase
from datamodules.build import build_data
from lightning_modules.evaluation.images import image_facts
from lightning_modules.evaluation.plan import plan, plan_evaluation
from lightning_modules.methods.maskattn import MaskAttn
from lightning_modules.methods.mcgm import MCGM
from lightning_modules.methods.separate_enhance import SeparateEnhance
from lightning_modules.methods.training_step import StepDraws
from lightning_modules.training import keys
from lightning_modules.training import run as train
from lightning_modules.training.checks import check

BASE = {
    "seed": 5,
    "trainer.steps": 2,
    "method.latents": "sample",
    "data.flip": True,
    "data.drop_captions": 0.3,
    "evaluation.prompts": 2,
    "evaluation.splits": ["val"],
    "evaluation.precision_recall_k": 1,
    "evaluation.steps": 1,
}


def spied_run(base: Run, changes: dict[str, Any], folder: Path) -> dict[str, list[Any]]:
    """What a run was made of: source -> values."""
    config, seen = conf.replace(base, BASE | changes), {key: [] for key in SEEDS}
    step, normal, timesteps = MaskAttn.training_step, StepDraws.normal, MaskAttn.draw_timesteps

    def spied_step(method: MaskAttn, batch: Batch, batch_idx: int) -> Tensor:
        if not seen["init_seed"]:
            seen["init_seed"] = [p.detach().clone() for p in method.adapter.state_dict().values()]
        seen["data_seed"] += [batch.ids, batch.captions, batch.latents]
        return step(method, batch, batch_idx)

    def spied_normal(*args: Any) -> Tensor:
        seen["timestep_seed"].append(normal(*args))
        return seen["timestep_seed"][-1]

    def spied_timesteps(*args: Any) -> Tensor:
        seen["timestep_seed"].append(timesteps(*args))
        return seen["timestep_seed"][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskAttn, "training_step", spied_step)
        patch.setattr(StepDraws, "normal", spied_normal)
        patch.setattr(MaskAttn, "draw_timesteps", spied_timesteps)
        patch.setattr(MaskAttn, "diagnostics", lambda *args: {})  # Takes longer than the rest
        train.run(config, folder)
    table = pd.read_parquet(folder / "scores.parquet")
    seen["prompt_seed"] = table["prompt"].tolist()
    seen["sampling_seed"] = (table["noise"] // 1_000_000).tolist()  # Without the prompt's place
    seen["adapter"] = [keys.training_key(config)]
    key = Path(config.output) / "adapters" / seen["adapter"][0] / "adapter.safetensors"
    seen["weights"] = list(load_file(key).values())
    seen["images"] = [
        (Path(config.output) / "images" / name).read_bytes() for name in table["image"]
    ]
    seen["ran"] = [json.loads((key.parent / "ran.json").read_text())]
    seen["differs"] = [json.loads((folder / "result.json").read_text())["ran"]["differs"]]
    return seen


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def plain(base: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return spied_run(base, {"fresh": "seeds"}, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("key", SEEDS)
def test_a_seed_changes_what_it_names_and_nothing_else(
    base: Run, plain: dict[str, list[Any]], key: str, tmp_path: Path
) -> None:
    trains = key in TRAINING_SEEDS
    changed = spied_run(base, {key: 6, "fresh": "seeds"}, tmp_path)
    compared = SEEDS if trains else SEEDS[-2:]
    assert {name for name in compared if not same(plain[name], changed[name])} == {key}
    for name in ("adapter", "weights"):
        assert same(plain[name], changed[name]) != trains
    if not trains:
        assert changed["init_seed"] == [], "the adapter is there already"
    assert not same(plain["images"], changed["images"])
    wanted = dict.fromkeys(TRAINING_SEEDS, 5) | {key: 6} if trains else {"seed": 5}
    assert wanted.items() <= changed["ran"][0].items() and changed["differs"] == [{}]


def test_the_same_seeds_by_other_names_share_adapter_and_images(
    base: Run, plain: dict[str, list[Any]], tmp_path: Path
) -> None:
    others = {"seed": 9, **dict.fromkeys(SEEDS[:-1], 5), "fresh": "seeds"}
    changed = spied_run(base, others, tmp_path)
    assert changed["init_seed"] == []
    assert all(same(plain[name], changed[name]) for name in ("adapter", "images", "sampling_seed"))


# --- streams that are drawn within a step ------------------------------------------------------


def test_choices_of_a_step_follow_the_data_and_its_noise_does_not() -> None:
    same_seed, apart = StepDraws(3, 7), StepDraws(3, 7, data_seed=4)
    for draws in (same_seed, apart):
        assert torch.equal(
            draws.uniform(8, draws.generator(2)), same_seed.uniform(8, same_seed.generator(2))
        )
    before = same_seed.uniform(8, same_seed.generator(2))
    assert torch.equal(same_seed.uniform(8, same_seed.data_generator(2)), before)
    other = apart.uniform(8, apart.data_generator(2))
    assert torch.equal(other, StepDraws(4, 7).uniform(8, StepDraws(4, 7).generator(2)))
    assert not torch.equal(other, before)


def test_masks_that_are_left_out_and_objects_that_are_named_follow_the_data() -> None:
    masks: Any = SimpleNamespace(config=SimpleNamespace(masks=SimpleNamespace(dropout=0.5)))
    blank = [MCGM._blank_samples(masks, draws, 64) for draws in _draws()]
    assert blank[0] == blank[1] != blank[2]

    named: list[list[str]] = []

    class Read(Exception):
        pass

    def read(texts: list[str]) -> None:
        named.append(texts)
        raise Read

    phrases = [Phrase(word, 0, 1, torch.zeros(0, 0)) for word in ("cat", "dog", "hat")]
    batch = Batch(list(range(32)), [""] * 32, phrases=[phrases] * 32)
    settings = SimpleNamespace(distillation_object="drawn", distillation_article="a")
    method: Any = SimpleNamespace(
        settings=settings,
        backbone=SimpleNamespace(text=SimpleNamespace(encode=read)),
        _objects=lambda batch: batch.phrases,
    )
    for draws in _draws():
        with pytest.raises(Read):
            SeparateEnhance._distillation(method, batch, torch.zeros(1), torch.zeros(1), draws)
    assert named[0] == named[1] != named[2]


def _draws() -> list[StepDraws]:
    """Of one seed, of another timestep seed, of another data seed."""
    return [StepDraws(s, 1, data_seed=d) for s, d in ((0, 0), (1, 0), (0, 1))]


def test_a_scene_is_that_of_the_data_seed(base: Run, tmp_path: Path) -> None:
    changes = {"data.name": "scene", "method.name": "break_a_scene", "output": str(tmp_path)}
    config = conf.replace(base, changes | {"evaluation.splits": ["subjects"]})

    def scene(**seeds: int) -> tuple[str, Tensor, list[str]]:
        module: Any = build_data(conf.replace(config, seeds))
        prompts = [p.text for p in plan_evaluation(module, conf.replace(config, seeds))]
        return str(module.folder.name), module.train_set.views[0].pixels, prompts

    first, other = scene(seed=1), scene(seed=2)
    assert first[0] == "1-2" and other[0] == "2-2" and not torch.equal(first[1], other[1])
    again = scene(seed=2, data_seed=1)
    assert (again[0], again[2]) == (first[0], first[2]) and torch.equal(again[1], first[1])
    unlike = scene(seed=1, init_seed=2, timestep_seed=2, sampling_seed=2)
    assert unlike[0] == first[0] and torch.equal(unlike[1], first[1])


def test_more_drawn_prompts_have_the_same_among_them_and_keep_their_noise(base: Run) -> None:
    datamodule = build_data(base)
    whole, two, three, other = (
        plan(datamodule, conf.replace(base, {"evaluation.prompts": n}).evaluation, 0, seed)
        for n, seed in ((4, None), (2, 7), (3, 7), (3, 8))
    )
    assert all(p in three for p in two) and [p.place < 2 for p in three].count(True) == len(two)
    assert all(p in whole for p in three) and len({p.noise for p in three}) == 6
    assert {p.noise for p in three} != {p.noise for p in other}
    first = plan(datamodule, conf.replace(base, {"evaluation.prompts": 3}).evaluation, 0)
    assert first == [p for p in whole if p.index < 3]


# --- keys and checks ---------------------------------------------------------------------------


def test_seeds_follow_seed_unless_given_and_prompts_are_the_same_for_all() -> None:
    assert resolve_seeds(Run(seed=3)) == Seeds(3, 3, 3, 3, None) == Seeds.same(3)
    config = Run(seed=3, init_seed=0, data_seed=1, timestep_seed=2, sampling_seed=4, prompt_seed=5)
    assert resolve_seeds(config) == Seeds(0, 1, 2, 4, 5)
    assert list_given(config) == dict(zip(SEEDS, (0, 1, 2, 4, 5), strict=True))
    assert list_given(Run(seed=3)) == {} and training_seeds(Run(seed=3)) == 3
    assert training_seeds(config) == {"init_seed": 0, "data_seed": 1, "timestep_seed": 2}


def test_keys_of_runs_that_give_no_seed_have_the_one_alone() -> None:
    facts = keys.training_facts(Run(seed=3))
    assert facts["seed"] == 3 and not facts.keys() & {*SEEDS}


@pytest.mark.parametrize("key", SEEDS)
def test_images_of_what_learns_on_each_prompt_follow_the_seeds_of_training(
    base: Run, key: str
) -> None:
    config = conf.replace(base, {"method.name": "separate_enhance"})
    plain, changed = (
        image_facts(conf.replace(config, changes), None) for changes in ({}, {key: 1})
    )
    assert (plain == changed) == (key not in TRAINING_SEEDS)


@pytest.mark.parametrize("key", [*SEEDS, "seed"])
def test_seeds_are_checked(base: Run, key: str) -> None:
    assert conf.lookup(conf.load([f"{key}={MAX_SEED}"]), key) == MAX_SEED
    for value in (-1, MAX_SEED + 1, 1.5, "x"):
        with pytest.raises(conf.ConfigError, match=rf"{key}={value}.*integer") as error:
            conf.load([f"{key}={value}"])
        assert "\n" not in str(error.value)
    late = conf.replace(base, {"evaluate_with": {key: 1}})
    if key in ("sampling_seed", "prompt_seed"):
        check(late)
        config = conf.with_eval_overrides(late)
        assert conf.lookup(config, key) == 1 and keys.training_key(late) == keys.training_key(base)
    else:
        cure = "sampling_seed" if key == "seed" else "when=train"
        with pytest.raises(ValueError, match=f"{key}.* cannot change after training.*{cure}"):
            check(late)
