"""Separate-and-Enhance's released presets against numbers that the authors' training scripts gave
on a small random SD 1.4: losses, gradients and weights of three training steps with the same
prompts, noise and timesteps (`StepDraws` of seed 0), a learning rate of 1e-3 and a clipping at
5e-4."""

from __future__ import annotations

import inspect
import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.architectures import build_pipeline
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from conf import load as conf
from conf.schema import Method, Run, Separate, Trainer, Weights
from datamodules.batch import Phrase, collate
from datamodules.build import concept_dataset
from datamodules.loading import PairedDataModule
from lightning_modules import SeparateEnhance
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.training_step import StepDraws, weighted_sum
from lightning_modules.training.callbacks import MetricLines
from lightning_modules.training.checks import check
from lightning_modules.training.progress import LOSSES
from lightning_modules.training.run import run
from losses.attention import second_half_store

GOLDEN = json.loads(Path(__file__).with_name("released_separate_enhance.json").read_text())
PRESETS = {
    "large": ("separate_enhance_released", "sepen_joint"),
    "individual": ("separate_enhance_released_individual", "sepen_individual"),
}
KEYS = ".transformer_blocks.0.attn2.to_k.weight"
CONCEPTS = ["circle", "square", "cross", "ring", "photo", "red", "blue", "cyan", "left"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SD1 with a level less, eight heads and maps of 32, 16 and 8 pixels."""
    return build_pipeline(
        "sd14",
        tmp_path_factory.mktemp("sd14"),
        scale="tiny",
        sample_size=32,
        block_out_channels=(16, 32, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
    )


def preset(mode: str) -> Run:
    """The published run, with the golden numbers' learning rate (times four, twice as the large one
    is regularised) and clipping."""
    method, trainer = PRESETS[mode]
    words = [f"method={method}", f"trainer={trainer}", f"data={trainer}"]
    concepts = ["circle", "square"] if mode == "individual" else CONCEPTS
    config = conf.load(
        [*words, f"data.concepts=[{','.join(concepts)}]"], schema=Run, required=False
    )
    lr = 1e-3 * 4 * (2 if mode == "large" else 1)
    return conf.replace(config, {"trainer.lr": lr, "trainer.clip": 5e-4, "trainer.steps": 3})


@dataclass
class Prompts(Dataset):
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = self.texts[index]
        words, ends = text.split(), [0]
        for word in words:
            ends.append(ends[-1] + len(word) + 1)
        places = (4, 7) if words[3] == "a" else (3, 5)
        phrases = [
            Phrase(words[i], ends[i], ends[i] + len(words[i]), torch.zeros(0, 0, dtype=torch.bool))
            for i in places
        ]
        return {"id": index, "caption": text, "phrases": phrases}


@dataclass
class Watch(L.Callback):
    """Gradient norms before clipping, and numbers of the weights, of every optimiser step; what was
    logged in every training step."""

    norms: list[float] = field(default_factory=list)
    weights: list[dict[str, list[float]]] = field(default_factory=list)
    logged: list[dict[str, float]] = field(default_factory=list)
    counts: list[list[int]] = field(default_factory=list)

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        grads = [p.grad for p in pl_module.weights.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        self.weights.append(numbers(pl_module))  # After the step before this one

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})
        states = trainer.optimizers[0].state.values()
        self.counts.append(sorted({int(state["step"]) for state in states}))


def numbers(method: Any) -> dict[str, list[float]]:
    """Of each weight a projection and the norm."""
    found = {}
    for name, weight in method.weights.named_parameters():
        flat = weight.detach().double().flatten()
        wave = torch.cos(torch.arange(len(flat), dtype=torch.float64))
        found[name.removesuffix(KEYS)] = [float(flat @ wave), float(flat.norm())]
    return found


def build(pipeline: Any, config: Run) -> SeparateEnhance:
    backbone = Backbone(pipeline, "sd14")
    return SeparateEnhance(backbone, config.method, config.trainer, 256)


def fit(
    pipeline: Any, config: Run, texts: list[str], start: Path | None = None, **settings: Any
) -> tuple[dict[str, Tensor], Watch, L.Trainer, dict[str, list[float]]]:
    """(weights after the training, what was seen, the Trainer, the numbers at the end)."""
    method, watch = build(pipeline, config), Watch()
    settings = {"max_steps": config.trainer.steps, "callbacks": []} | settings
    trainer = L.Trainer(
        gradient_clip_val=config.trainer.clip,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings | {"callbacks": [watch, *settings["callbacks"]]},
    )
    try:
        loader = DataLoader(Prompts(texts), config.trainer.batch, collate_fn=collate)
        trainer.fit(method, loader, ckpt_path=start, weights_only=True)
        return method.weights.tensors(), watch, trainer, numbers(method)
    finally:
        method.remove()


def texts_of(mode: str) -> list[str]:
    return [text for batch in GOLDEN[mode]["prompts"] for text in batch]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def whole(pipeline: Any) -> dict[str, tuple]:
    """The golden numbers' trainings."""
    return {
        mode: fit(pipeline, preset(mode), texts_of(mode), enable_checkpointing=False)
        for mode in PRESETS
    }


@pytest.mark.parametrize("mode", PRESETS)
def test_three_steps_are_those_of_the_released_script(whole: dict[str, tuple], mode: str):
    config, golden = preset(mode), GOLDEN[mode]["steps"]
    _, watch, trainer, last = whole[mode]
    assert trainer.global_step == 3, "two steps of the optimiser are one of the training"
    assert watch.norms == pytest.approx([step["gradient_norm"] for step in golden], rel=2e-4)
    for found, step in zip([*watch.weights[1:], last], golden, strict=True):
        assert found.keys() == step["weights"].keys()
        for name, pair in step["weights"].items():
            assert found[name] == pytest.approx(pair, abs=5e-5), name
    each = 2 if mode == "large" else 1
    settings = config.method.separate
    for logged, parts in zip(
        watch.logged, (golden[i : i + each] for i in range(0, 3 * each, each)), strict=True
    ):
        separate, enhance = mean(parts[0]["separate"]), mean(parts[0]["enhance"])
        drift = parts[1]["drift"] if each == 2 else 0.0
        assert logged["train/separate"] == pytest.approx(separate, abs=1e-6)
        assert logged["train/enhance"] == pytest.approx(enhance, abs=1e-6)
        assert logged.get("train/drift", 0.0) == pytest.approx(drift, rel=1e-4, abs=1e-9)
        total = separate + 0.5 * enhance + settings.distillation_weight * drift
        assert logged["train/loss"] == pytest.approx(total, abs=1e-6)
    # What lies behind the last map has no gradient but in the second step
    assert watch.counts[-1] == ([3, 6] if mode == "large" else [3])


def test_settings_of_the_sound_preset_give_other_losses(pipeline: Any):
    texts = texts_of("large")[:4]
    config = conf.replace(preset("large"), {"trainer.steps": 1})
    golden = GOLDEN["large"]["steps"][0]
    # One step of the optimiser, where nothing has moved away yet, on the heads of all samples
    joint = {"method.separate.distillation_step": "joint", "method.separate.store": "all"}
    joint = conf.replace(config, joint)
    _, watch, *_ = fit(pipeline, joint, texts, enable_checkpointing=False)
    assert len(watch.norms) == 1 and watch.logged[0]["train/drift"] < 1e-12
    assert abs(watch.logged[0]["train/separate"] - mean(golden["separate"])) > 1e-5
    assert abs(watch.logged[0]["train/enhance"] - mean(golden["enhance"])) > 1e-5


def test_it_resumes_between_two_training_steps(
    pipeline: Any, whole: dict[str, tuple], tmp_path: Path
):
    config, texts = preset("large"), texts_of("large")
    ended, expected, *_ = whole["large"]
    keep = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=2)
    lines: list[int] = []
    said = MetricLines(1, lambda metrics, step: lines.append(step))
    fit(pipeline, config, texts, max_steps=2, callbacks=[keep, said])
    assert lines == [1, 2]
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    counts = {int(entry["step"]) for entry in state["optimizer_states"][0]["state"].values()}
    assert counts == {2, 4}
    torn, watch, trainer, _ = fit(
        pipeline, config, texts[8:] * 3, tmp_path / "last.ckpt", enable_checkpointing=False
    )
    assert trainer.global_step == 3 and watch.norms == expected.norms[4:]
    assert all(torch.equal(torn[name], weight) for name, weight in ended.items())


def test_the_second_step_takes_all_accumulated_batches(pipeline: Any):
    texts, found = texts_of("large")[:8], []

    class BeforeSteps(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, _: Any) -> None:
            weights = list(pl_module.weights.parameters())
            found.append((pl_module.weights.tensors(), [weight.grad for weight in weights]))
            found[-1] = deepcopy(found[-1])

    config = conf.replace(preset("large"), {"trainer.clip": 1e9, "trainer.steps": 1})
    more = {"accumulate_grad_batches": 2, "callbacks": [BeforeSteps()]}
    _, watch, trainer, _ = fit(pipeline, config, texts, enable_checkpointing=False, **more)
    assert trainer.global_step == 1 and len(watch.norms) == 4 and len(found) == 2
    first, last = watch.logged
    assert "train/loss" in first and last["train/loss"] == pytest.approx(
        last["train/separate"] + 0.5 * last["train/enhance"] + 0.5 * last["train/drift"]
    )
    method, (weights, gradients) = build(pipeline, config), found[1]
    method.weights.load_state_dict(weights)
    rows = [Prompts(texts)[i] for i in range(8)]
    losses = [
        weighted_sum(method.second_terms(collate(rows[4 * i :][:4]), StepDraws(0, i)))
        for i in range(2)
    ]
    expected = torch.autograd.grad(sum(losses) / 2, list(method.weights.parameters()))
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-9)
    method.remove()


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_the_store_keeps_the_second_half_of_all_heads(batch: int):
    heads, objects = 6, 2
    maps = torch.rand(batch, objects, heads, 3, 5)
    present = torch.ones(batch, objects, dtype=torch.bool)
    rows = maps.transpose(1, 2).flatten(0, 1)  # (sample, head)
    wanted = rows[len(rows) // 2 :].view(batch, -1, objects, 3, 5).transpose(1, 2)
    kept, there = second_half_store(maps, present)
    assert torch.equal(kept, wanted) and there.shape == (batch, objects)
    # Two processes with a half each
    if batch % 2 == 0:
        parts = [
            second_half_store(maps[i : i + batch // 2], present[i : i + batch // 2], i, batch)[0]
            for i in (0, batch // 2)
        ]
        assert not len(parts[0]) and torch.equal(parts[1], wanted)
    with pytest.raises(ValueError, match="3 heads, an odd number"):
        second_half_store(maps[:, :, :3], present)


def test_two_processes_have_the_losses_of_one(pipeline: Any):
    method = build(pipeline, preset("large"))
    maps, present = torch.rand(4, 2, 8, 16, 16), torch.ones(4, 2, dtype=torch.bool)
    one = method._map_terms(maps, present, StepDraws(0, 0))
    for world in (2, 4):
        size = 4 // world
        parts = [
            method._map_terms(
                maps[rank * size :][:size], present[:size], StepDraws(0, 0, (rank, world))
            )
            for rank in range(world)
        ]
        for name, term in one.items():
            assert mean([float(part[name].value) for part in parts]) == pytest.approx(
                float(term.value)
            )
    method.remove()


@pytest.mark.parametrize("mode", PRESETS)
def test_published_settings(mode: str):
    method, trainer = PRESETS[mode]
    words = [f"method={method}", f"trainer={trainer}", f"data={trainer}", "evaluation=sepen"]
    given = [] if mode == "individual" else ["data.concepts=[a,b]"]
    config = conf.load([*words, *given, "backbone=sd14"], schema=Run)
    recipe, separate = config.trainer, config.method.separate
    # The scripts' effective rates: theirs times the batch, twice with the regulariser
    rate = 5e-7 * 4 * 2 if mode == "large" else 2e-6 * 4
    assert recipe.lr == pytest.approx(rate) and recipe.steps == {"large": 10000}.get(mode, 200)
    assert (recipe.batch, recipe.accumulate, recipe.weight_decay, recipe.clip) == (4, 1, 0.01, 1.0)
    assert (recipe.schedule, recipe.warmup, recipe.precision) == ("constant", 0, "32-true")
    assert config.method.weights.trainable == "k" and separate.store == "second_half"
    assert (separate.separate_weight, separate.enhance_weight) == (1.0, 0.5)
    assert separate.distillation_weight == {"large": 0.5}.get(mode, 0.0)
    assert (separate.kernel, separate.sigma, separate.heads) == (3, 0.5, "each")
    assert (separate.inputs, recipe.timesteps) == ("noise", "uniform")
    evaluation = config.evaluation
    assert (evaluation.steps, evaluation.guidance, evaluation.noise_seeds) == (50, 6.0, 64)


def test_eta_has_no_effect_with_the_scheduler_of_sd14(pipeline: Any):
    assert "eta" not in inspect.signature(pipeline.scheduler.step).parameters


@pytest.mark.parametrize("mode", PRESETS)
def test_prompts_are_those_of_the_released_scripts(mode: str):
    dataset = concept_dataset(PairedDataModule(), preset(mode))
    texts = [dataset.caption(i).text for i in range(8)]
    if mode == "individual":
        assert set(texts) == {"a photo of circle and square"}
        return
    for start in (0, 4):
        block = [dataset.phrases(i) for i in range(start, start + 4)]
        names = [phrase.text for phrases in block for phrase in phrases]
        assert len(set(names)) == 8, "no concept twice in a batch"
        join = "and" if " and " in texts[start] else "with"
        assert texts[start : start + 4] == [
            f"a photo of a {one.text} {join} a {other.text}" for one, other in block
        ]
    assert texts[:4] != texts[4:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.separate.heads": "mean"}, "store=second_half with heads=mean"),
        ({"data.concepts": CONCEPTS[:7]}, "a batch of 4 prompts of 2 objects takes 8"),
        (
            {"data.concept_draw": "in_order"},
            "in_order with 9 data.concepts: expected as many as data.objects=2",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str):
    config = conf.replace(preset("large"), {"data.root": "attend_and_excite"})
    config = replace(config, evaluation=replace(config.evaluation, prompts=0))
    check(config)
    with pytest.raises(ValueError, match=message):
        check(conf.replace(config, changes))


def test_a_run_of_the_released_preset_records_training_steps(base: Run, tmp_path: Path):
    late = {"evaluation.prompts": 0, "evaluation.extractor": "none"}
    config = conf.replace(base, {"method": "separate_enhance_released"} | late)
    assert run(config, tmp_path)["counts"]["trained_parameters"] > 0
    lines = [line.split() for line in (tmp_path / LOSSES).read_text().splitlines()]
    assert [int(step) for step, _ in lines] == [1, 2, 3]


def test_adaptation_to_a_prompt_takes_both_steps(embedded: Backbone):
    settings = {"test_time": 1, "store": "second_half", "distillation_step": "own"}
    prompt, changes = "a red circle and a blue square", []
    for weight in (0.0, 5.0):
        separate = Separate(distillation_weight=weight, **settings)
        config = Method("separate_enhance", weights=Weights("k"), separate=separate)
        method = SeparateEnhance(embedded, config, Trainer(steps=1, batch=2, warmup=0), 64)
        start = method.weights.tensors()
        with method.adapted(prompt):
            adapted = method.weights.tensors()
        changes.append(torch.cat([(adapted[k] - start[k]).flatten() for k in start]))
        method.remove()
    assert changes[0].any() and not torch.equal(*changes)
