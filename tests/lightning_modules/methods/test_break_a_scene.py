"""Break-A-Scene: what its phases train and at which rates, resuming, and what is left in the
backbone, in images and on disk."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import build_pipeline
from helpers.marks import slow
from helpers.scene_files import write_scene
from helpers.unet_inputs import draw
from safetensors.torch import load_file
from torch import Tensor

from conf import load as conf
from conf.schema import Method as MethodConfig
from conf.schema import Run, Subjects, Trainer, Weights
from datamodules.batch import Batch
from datamodules.scene import SceneDataset
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method
from lightning_modules.methods.break_a_scene import BreakAScene
from lightning_modules.methods.mask_targets import stack_masks
from lightning_modules.networks.placeholder_tokens import fix_pooling
from lightning_modules.training import run as train

TOKENS, CLASSES = ["<asset0>", "<asset1>"], ["circle", "square"]
PROMPTS, SEEDS = ["<asset0> left of a white <asset1>", "a red ring"], [1, 2]


def breaker(
    backbone: Backbone,
    recipe: Trainer | None = None,
    weights: Weights | None = None,
    **subjects: Any,
) -> BreakAScene:
    torch.manual_seed(3)
    chosen = Subjects(**{"tokens": TOKENS, "classes": CLASSES} | subjects)
    return BreakAScene(
        backbone,
        MethodConfig("break_a_scene", weights=weights or Weights(), subjects=chosen),
        recipe or Trainer(),
        64,
    )


def scene(base: Run, output: Path, **changes: Any) -> Run:
    """A short training on the embedded world's own scene; dots as double underscores."""
    settings = {
        "method.name": "break_a_scene",
        "data.name": "scene",
        "data.flip": True,
        "evaluation.prompts": 0,
        "method.subjects.prior_weight": 0.0,
        "method.subjects.prior_steps": 2,
        "trainer.steps": 4,
        "trainer.batch": 2,
        "trainer.warmup": 0,
        "trainer.schedule": "constant",
        "output": str(output),
    }
    return conf.replace(
        base, settings | {key.replace("__", "."): value for key, value in changes.items()}
    )


def adapters(output: Path) -> list[Path]:
    return sorted(
        path for path in (output / "adapters").iterdir() if (path / "adapter.json").exists()
    )


# --- phases --------------------------------------------------------------------------------


class Steps:
    """What each optimiser step saw: which parts, and how many tensors, have gradients; rates; how
    many have optimiser state; values."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graded: list[set[str]] = []
        self.rates: list[list[float]] = []
        self.counts: list[int] = []
        self.stateful: list[int] = []
        self.values: list[dict[str, Tensor]] = []
        self.logged: dict[str, list[float]] = {}
        log = BreakAScene.log

        def before(method: BreakAScene, optimizer: Any) -> None:
            graded = [name for name, p in method.adapter.named_parameters() if p.grad is not None]
            self.graded.append({name.split(".")[0] for name in graded})
            self.counts.append(len(graded))
            self.rates.append([group["lr"] for group in optimizer.param_groups])
            self.stateful.append(sum(bool(state) for state in optimizer.state.values()))
            self.values.append(deepcopy(method.adapter.state_dict()))
            self.optimizer = optimizer

        def spied(method: BreakAScene, name: str, value: Any, **options: Any) -> None:
            self.logged.setdefault(name, []).append(float(value.detach()))
            log(method, name, value, **options)

        monkeypatch.setattr(BreakAScene, "on_before_optimizer_step", before)
        monkeypatch.setattr(BreakAScene, "log", spied)

    def moved(self, part: str) -> list[bool]:
        """Whether any value of a part moved in each step but the last, which nobody looked at."""
        chosen = [
            [value for name, value in values.items() if name.split(".")[0] == part]
            for values in self.values
        ]
        return [
            any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))
            for one, two in zip(chosen, chosen[1:], strict=False)
        ]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


WEIGHTS, ALL = (
    {"unet", "text_encoder", "text_encoder_2"},
    {"subjects", "unet", "text_encoder", "text_encoder_2"},
)


@pytest.mark.parametrize(
    ("schedule", "graded", "rates"),
    [
        ("two_phase", [{"subjects"}] * 2 + [ALL] * 3, [[0, 0.01]] * 2 + [[0.001, 0.001]] * 3),
        ("tokens_only", [{"subjects"}] * 5, [[0.01]] * 5),
        *slow(
            ("joint", [ALL] * 5, [[0.001, 0.01]] * 5),
            ("unet_only", [WEIGHTS] * 5, [[0.001]] * 5),
        ),
    ],
)
def test_what_each_phase_trains(
    base: Run, tmp_path: Path, steps: Steps, schedule: str, graded: list, rates: list
):
    subjects = {
        "method__subjects__schedule": schedule,
        "method__subjects__first_phase": 0.4,
        "method__subjects__token_lr": 0.01,
    }
    config = scene(
        base,
        tmp_path,
        trainer__steps=5,
        trainer__lr=0.001,
        method__weights__text_encoder=True,
        **subjects,
    )
    train.run(config, tmp_path / "run")
    assert steps.graded == graded and steps.rates == [pytest.approx(step) for step in rates]
    assert steps.moved("subjects") == ["subjects" in parts for parts in graded[:-1]]
    assert steps.moved("unet") == ["unet" in parts for parts in graded[:-1]]
    # A weight's moments begin with the steps that train it.
    assert {int(state["step"]) for state in steps.optimizer.state.values()} == {
        sum(part in g for g in graded) for part in graded[-1]
    }
    if schedule == "two_phase":
        assert (
            steps.stateful == [0, *steps.counts[:-1]]
            and steps.counts[:2] == [2, 2]
            and steps.counts[2] > 100
        )


def rates(
    backbone: Backbone, recipe: Trainer, weights: Weights | None = None, **subjects: Any
) -> list[list[float]]:
    method = breaker(backbone, recipe, weights, **subjects)
    found = [
        [group.learning_rate(step) for step in range(recipe.steps)]
        for group in method.parameter_groups()
        if group.parameters
    ]
    method.remove()
    return found


def test_learning_rates_by_step_and_group(embedded: Backbone):
    recipe = Trainer(steps=8, lr=0.1, warmup=1, schedule="cosine")
    # Each phase warms up in one step and falls along a cosine to its end.
    fall = [1, 1, 0.75, 0.25]
    weights, tokens = rates(embedded, recipe, token_lr=2.0)
    assert weights == pytest.approx([0] * 4 + [0.1 * f for f in fall]) and tokens == pytest.approx(
        [2.0 * f for f in fall] + weights[4:]
    )
    weights, tokens = rates(embedded, recipe, token_lr=2.0, schedule="joint")
    assert (
        tokens == pytest.approx([20 * rate for rate in weights])
        and tokens[:2] == [2.0, 2.0]
        and tokens[7] < 0.2
    )
    # Without weights to train there is one phase, in which the tokens are alone.
    assert rates(embedded, recipe, Weights("none"), token_lr=2.0) == [pytest.approx(tokens)]
    decays = [group.decays for group in breaker(embedded).parameter_groups()]
    assert decays == [True, False], "decay would move placeholders that a step does not show"


def test_something_must_be_trained(embedded: Backbone):
    for weights, subjects in (
        (Weights("none"), {"tokens": []}),
        (Weights("none"), {"schedule": "unet_only"}),
    ):
        with pytest.raises(
            ValueError,
            match=(
                r"^break_a_scene: nothing to train with weights.trainable=none, . subjects and "
                r".*; set another"
            ),
        ):
            breaker(embedded, None, weights, **subjects)
    assert not embedded.unet.__dict__.get("_trained_weights")


# --- resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [((5, 4),), *slow((((3, 2), (5, 4)),))])
def test_resumed_in_either_phase_it_ends_as_if_nothing_had_happened(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple
):
    seen: list[tuple] = []
    stop_after: dict[int, BaseException] = {}
    drawn: list[tuple[Tensor, Tensor]] = []
    draws, step = BreakAScene.draw, BreakAScene.training_step

    def spied_draw(method: BreakAScene, *given: Any) -> tuple[Tensor, Tensor]:
        drawn.append(draws(method, *given))
        return drawn[-1]

    def spied_step(method: BreakAScene, batch: Batch, batch_idx: int) -> Tensor:
        if len(seen) in stop_after:
            raise stop_after.pop(len(seen))
        drawn.clear()
        loss = step(method, batch, batch_idx)
        masks = torch.stack([phrase.mask.sum() for phrases in batch.phrases for phrase in phrases])
        assert len(drawn) == 2 and len(batch.prior) == 2
        tensors = [batch.latents, batch.prior.latents, masks, *drawn[0], *drawn[1]]
        seen.append((batch.captions, batch.prior.ids, tensors))
        return loss

    monkeypatch.setattr(BreakAScene, "draw", spied_draw)
    monkeypatch.setattr(BreakAScene, "training_step", spied_step)
    # Three batches an epoch: it stops within the first two
    monkeypatch.setattr(SceneDataset, "__len__", lambda dataset: 6)
    more = {
        "method__subjects__prior_weight": 1.0,
        "method__subjects__prior_images": 3,
        "method__subjects__attention_weight": 0.5,
    }
    whole, torn = (
        scene(
            base,
            tmp_path / name,
            trainer__steps=6,
            trainer__checkpoint_every=2,
            method__weights__trainable="kv",
            **more,
        )
        for name in ("whole", "torn")
    )
    train.run(whole, tmp_path / "a")
    expected = seen[:]
    seen.clear()
    for stop, done in stops:
        stop_after[stop] = RuntimeError("power cut")
        with pytest.raises(RuntimeError, match="power cut"):
            train.run(torn, tmp_path / "b")
        [checkpoint] = (tmp_path / "torn" / "adapters").glob("*.checkpoints/last.ckpt")
        state = torch.load(checkpoint, weights_only=True)
        assert state["global_step"] == done and {
            name.split(".")[1] for name in state["state_dict"]
        } == {"subjects", "unet"}
        stateful = len(state["optimizer_states"][0]["state"])
        assert stateful == (2 if done == 2 else len(state["state_dict"])), (
            "the first stop is in phase one, the second in phase two"
        )
        del seen[done:]  # what came after the checkpoint is lost
    train.run(torn, tmp_path / "b")

    assert [step[:2] for step in seen] == [step[:2] for step in expected] and len(seen) == 6
    assert all(
        torch.equal(a, b)
        for one, two in zip(seen, expected, strict=True)
        for a, b in zip(one[2], two[2], strict=True)
    )
    assert len({str(step[0]) for step in seen}) > 1 and not torch.equal(
        seen[0][2][3], seen[3][2][3]
    )
    [one], [other] = adapters(tmp_path / "whole"), adapters(tmp_path / "torn")
    first, second = (load_file(folder / "adapter.safetensors") for folder in (one, other))
    assert one.name == other.name and all(
        torch.allclose(first[k], second[k], rtol=1e-5, atol=1e-7) for k in first
    )


# --- the backbone, images and files ---------------------------------------------------------------


def changed(method: BreakAScene) -> BreakAScene:
    """The method after a training that led anywhere."""
    with torch.no_grad():
        for seed, parameter in enumerate(method.adapter.parameters()):
            parameter += 0.1 * parameter.std().clamp_min(0.1) * draw(seed, *parameter.shape)
    return method.eval()


def objects(backbone: Backbone) -> dict[str, int]:
    """The identities of all that a stock backbone is made of."""
    models = {
        "unet": backbone.unet,
        "vae": backbone.vae,
        **{f"text{i}": m for i, m in enumerate(backbone.text.encoders)},
    }
    found = {
        f"{name}.{key}": id(value)
        for name, model in models.items()
        for key, value in model.named_parameters()
    }
    found |= {
        f"{name}.{key}": id(value)
        for name, model in models.items()
        for key, value in model.named_modules()
    }
    tokenizers = [
        *backbone.text.tokenizers,
        backbone.pipeline.tokenizer,
        getattr(backbone.pipeline, "tokenizer_2", None),
    ]
    return found | {f"tokenizer {i}": id(value) for i, value in enumerate(tokenizers)}


def images(pipeline: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    options: dict[str, Any] = {
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "height": 64,
        "width": 64,
        "output_type": "pt",
    }
    return (pipeline(PROMPTS, generator=generators, **options).images * 255).round().int()


@pytest.mark.parametrize(
    ("wiring", "rank", "words"),
    [
        ("embedded", 0, True),
        *slow(("sd1", 4, False), ("embedded", 0, False), ("embedded", 4, False)),
    ],
)
def test_images_files_and_the_backbone(
    request: pytest.FixtureRequest, tmp_path: Path, wiring: str, rank: int, words: bool
):
    backbone = request.getfixturevalue(wiring)
    source = request.getfixturevalue({"embedded": "tiny_pipeline", "sd1": "sd1_pipeline"}[wiring])
    before, plain = objects(backbone), sample(backbone, PROMPTS, SEEDS, 2, 3.0, 64)
    values = {name: value.clone() for name, value in backbone.unet.state_dict().items()}
    weights = Weights("attn2", rank, text_encoder=True)
    method = changed(breaker(backbone, None, weights, stock_words=words))
    mine = method.generate(PROMPTS, SEEDS, None, 2, 3.0)
    assert not torch.equal(mine, plain)
    standing = method.to_pipeline()
    assert int((images(standing) - mine.int()).abs().max()) <= 1

    method.save_adapter(tmp_path)
    held = load_file(tmp_path / "adapter.safetensors")
    encoders = [f"text_encoder{'_2' * i}" for i in range(len(backbone.text.encoders))]
    assert {name.split(".")[0] for name in held} == {"subjects", "unet", *encoders}
    assert sum(value.numel() for value in held.values()) == sum(
        p.numel() for p in method.parameters()
    )
    assert all(".attn2." in name for name in held if name.startswith("unet."))
    tables = sum("token_embedding" in name for name in held)
    assert tables == (len(encoders) if words else 0)
    assert all(
        (".lora_" in name) == bool(rank) for name in held if not name.startswith("subjects.")
    )

    # Another backbone, from the adapter.
    fresh = Backbone(deepcopy(source), wiring)
    loaded = Method.load_adapter(tmp_path, fresh)
    assert isinstance(loaded, BreakAScene) and torch.equal(
        loaded.generate(PROMPTS, SEEDS, None, 2, 3.0), mine
    )
    # A stock pipeline, from the files for it.
    pipeline = deepcopy(source)
    if rank:
        pipeline.load_lora_weights(tmp_path / "stock")
    else:
        for name in ("unet", *encoders):
            found = getattr(pipeline, name).load_state_dict(
                load_file(tmp_path / "stock" / f"{name}.safetensors"), strict=False
            )
            assert not found.unexpected_keys
    for i, encoder in enumerate(encoders):
        places = {
            "text_encoder": getattr(pipeline, encoder),
            "tokenizer": (pipeline.tokenizer if i == 0 else pipeline.tokenizer_2),
        }
        for number in range(2):
            pipeline.load_textual_inversion(
                str(tmp_path / "subjects" / f"asset{number}{'_2' * i}.safetensors"), **places
            )
    fix_pooling(pipeline)
    assert int((images(pipeline) - mine.int()).abs().max()) <= 1

    method.remove()
    assert (
        "<asset0>" in standing.tokenizer.get_vocab()
        and "<asset0>" not in backbone.pipeline.tokenizer.get_vocab()
    )
    assert objects(backbone) == before and torch.equal(
        sample(backbone, PROMPTS, SEEDS, 2, 3.0, 64), plain
    )
    assert all(
        torch.equal(value, values[name]) for name, value in backbone.unet.state_dict().items()
    )
    method.install()
    assert torch.equal(method.generate(PROMPTS, SEEDS, None, 2, 3.0), mine)


# --- large models --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), [("sd21", 0), ("sdxl", 2)])
def test_both_phases_on_a_folder_as_the_papers_examples(
    name: str, rank: int, base: Run, tmp_path: Path, steps: Steps
):
    pipeline = build_pipeline(name, tmp_path / "tokenizer", scale="tiny")
    pipeline.save_pretrained(tmp_path / name)
    large = {
        "backbone.path": str(tmp_path / name),
        "backbone.resolution": 128,
        "data.root": str(write_scene(tmp_path / "scene")),
    }
    weights = {
        "method.weights.trainable": "model",
        "method.weights.rank": rank,
        "method.weights.text_encoder": True,
        "trainer.lr": 1e-3,
    }
    prior = {"method.subjects.prior_weight": 1.0, "method.subjects.prior_images": 1}
    result = train.run(
        conf.replace(scene(base, tmp_path), large | weights | prior), tmp_path / "run"
    )
    assert {key: len(values) for key, values in steps.logged.items()} == dict.fromkeys(
        ("train/denoising", "train/attention", "train/prior", "train/loss"), 4
    )
    assert torch.tensor(list(steps.logged.values())).isfinite().all()
    parts = {"subjects", "unet", "text_encoder"} | ({"text_encoder_2"} if name == "sdxl" else set())
    assert steps.graded == [{"subjects"}] * 2 + [parts] * 2
    assert (
        steps.moved("unet") == steps.moved("text_encoder") == [False, False, True]
        and steps.moved("subjects") == [True] * 3
    )
    [folder] = adapters(tmp_path)
    held = load_file(folder / "adapter.safetensors")
    assert all(value.isfinite().all() for value in held.values())
    assert result["counts"]["trained_parameters"] == sum(value.numel() for value in held.values())
    assert result["counts"]["backbone_parameters"] == pipeline.unet.num_parameters()
    assert {path.name for path in (folder / "subjects").iterdir()} >= {
        "asset0.safetensors",
        "asset1.safetensors",
    }


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_masks_reach_the_device_from_wherever_the_batch_is(where: str):
    """The meta device stands for a GPU: what two devices cannot do together it refuses as well."""
    masks, present = stack_masks(
        [[torch.ones(8, 8, device=where), torch.ones(4, 4, device=where)], []],
        8,
        torch.device("meta"),
    )
    assert (
        masks.device == present.device == torch.device("meta")
        and masks.shape == (2, 2, 8, 8)
        and present.shape == (2, 2)
    )


def test_ragged_masks_are_brought_to_one_side_and_blank_where_there_are_none():
    given = [[torch.ones(8, 8), torch.full((16, 16), 0.5)], [], [torch.eye(4, dtype=torch.bool)]]
    masks, present = stack_masks(given, 8, torch.device("cpu"))
    assert (
        present.tolist() == [[True, True], [False, False], [True, False]]
        and masks.dtype == torch.float32
    )
    assert masks.sum((2, 3)).tolist() == [[64, 32], [0, 0], [16, 0]]
    assert stack_masks([[], []], 8, torch.device("cpu"))[0].shape == (2, 0, 8, 8)
