"""The released presets of Break-A-Scene and MCGM on a scene by formula, against what the authors'
training code gave: losses, gradients and weights of two steps of each phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers import released_scene as scene
from torch import Tensor

from conf.load import load
from conf.schema import Run
from datamodules.batch import Batch, Phrase
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import StepDraws
from lightning_modules.methods.break_a_scene import BreakAScene
from lightning_modules.methods.registry import build_method

GOLDEN = json.loads((Path(__file__).parent / "released_scene.json").read_text())
# Which weights the golden numbers are of: module of the adapter, parameter
WATCHED = {
    "rows": ("subjects", "rows.text_encoder"),
    "words": ("text_encoder", "embeddings.token_embedding.weight"),
    "text_key": ("text_encoder", "encoder.layers.0.self_attn.k_proj.weight"),
    "key": ("unet", "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k.weight"),
    "out": ("unet", "conv_out.weight"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    scene.pipeline(folder / "work").save_pretrained(folder / "tiny")
    return folder / "tiny"


def build(folder: Path, *words: str) -> BreakAScene:
    """The method with the settings of the run of the authors' code, and its formula encoder."""
    config = load(
        [
            "data=scene",
            "data.root=auto",
            f"backbone.path={folder}",
            f"backbone.resolution={scene.SIDE}",
            f"method.subjects.tokens=[{','.join(scene.TOKENS)}]",
            f"method.subjects.classes=[{','.join(scene.CLASSES)}]",
            f"method.subjects.token_lr={scene.TOKEN_LR}",
            f"trainer.steps={len(scene.DRAWS)}",
            f"trainer.lr={scene.LR}",
            f"trainer.weight_decay={scene.DECAY}",
            "trainer.warmup=0",
            "trainer.schedule=constant",
            "trainer.accelerator=cpu",
            "method.latents=mode",  # They are given
            *words,
        ],
        schema=Run,
        required=False,
    )
    method = build_method(config, Backbone.load(str(folder)))
    if "encoder" in method.adapter:
        with torch.no_grad():
            for parameter, value in zip(
                method.adapter["encoder"].project.parameters(),
                scene.encoder_weights(method.cross_sites[0].context),
                strict=True,
            ):
                parameter.copy_(value)
    method.draw = draw  # type: ignore[method-assign]
    return method


def draw(latents: Tensor, draws: Any, stream: int = 0) -> tuple[Tensor, Tensor]:
    row = 0 if stream else 1  # The class image comes first
    timestep = scene.TIMESTEPS[draws.number][row]
    return scene.noise(draws.number)[row : row + 1], torch.tensor([timestep])


def batch(step: int) -> Batch:
    order, mirrored = scene.DRAWS[step]
    masks = [mask.flip(-1) if mirrored else mask for mask in scene.masks()]
    caption, phrases = "a photo of ", []
    for i, subject in enumerate(order):
        caption += " and " * bool(i)
        token = scene.TOKENS[subject]
        phrases.append(Phrase(token, len(caption), len(caption) + len(token), masks[subject]))
        caption += token
    class_latents, latents = scene.latents(step).split(1)
    prior = Batch([0], [scene.CLASS_PROMPT], latents=class_latents)
    return Batch([step], [caption], latents=latents, phrases=[phrases], prior=prior)


def train(method: BreakAScene) -> list[dict[str, Any]]:
    """What the golden numbers are of, for each step."""
    records: list[dict[str, Any]] = []
    watched = {
        name: dict(method.adapter[part].named_parameters())[path]
        for name, (part, path) in WATCHED.items()
        if part in method.adapter and path in dict(method.adapter[part].named_parameters())
    }

    class Recorder(L.Callback):
        def on_after_backward(self, trainer: Any, module: Any) -> None:
            graded = {name: p.grad for name, p in watched.items() if p.grad is not None}
            norms = [p.grad.norm() for p in method.parameters() if p.grad is not None]
            records.append(
                {
                    "terms": {
                        name.removeprefix("train/"): float(value)
                        for name, value in trainer.callback_metrics.items()
                    },
                    "gradients": {name: scene.probe(grad) for name, grad in graded.items()},
                    "norm": float(torch.stack(norms).norm()),
                }
            )

        def on_train_batch_end(self, *_: Any) -> None:
            records[-1]["weights"] = {name: scene.probe(p) for name, p in watched.items()}

    trainer = L.Trainer(
        max_steps=len(scene.DRAWS),
        gradient_clip_val=scene.CLIP,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Recorder()],
    )
    steps = [batch(step) for step in range(len(scene.DRAWS))]
    trainer.fit(method, torch.utils.data.DataLoader(steps, batch_size=None))
    return records


def assert_golden(ours: list[dict[str, Any]], golden: list[dict[str, Any]]) -> None:
    assert len(ours) == len(golden)
    for mine, theirs in zip(ours, golden, strict=True):
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=1e-5)
        terms = {"mask_attention": 0.0} | theirs["terms"]  # A term without a token is zero
        assert mine["terms"] == pytest.approx({k: terms[k] for k in mine["terms"]}, rel=1e-5)
        assert theirs["terms"].keys() <= mine["terms"].keys()
        for what, share in (("gradients", 1e-5), ("weights", 1e-6)):
            assert mine[what].keys() == theirs[what].keys()
            for name, numbers in theirs[what].items():
                assert mine[what][name] == pytest.approx(numbers, abs=share * numbers[0]), name


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("break_a_scene", ["method=break_a_scene_released"]),
        ("mcgm", ["method=mcgm_released"]),
        *(
            pytest.param(
                f"mcgm_{slots}",
                ["method=mcgm_released", f"method.masks.slots={slots}"],
                marks=pytest.mark.slow,
            )
            for slots in ("fixed", "fixed_one", "first_one")
        ),
    ],
)
def test_both_phases_are_those_of_the_authors_code(case: str, words: list[str], folder: Path):
    assert_golden(train(build(folder, *words)), GOLDEN[case])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("break_a_scene", ["method=break_a_scene_released", f"method.subjects.{change}"])
        for change in (
            "mask_resize=area",
            "token_decay=false",
            "stock_words=false",
            "new_optimizer=false",
        )
    ]
    + [
        (
            "mcgm_fixed",
            ["method=mcgm_released", "method.masks.slots=fixed", f"method.masks.{change}"],
        )
        for change in ("supervised=shown", "blank=zeros", "slots=drawn")
    ],
)
def test_every_setting_of_the_released_code_shows(case: str, words: list[str], folder: Path):
    with pytest.raises(AssertionError):
        assert_golden(train(build(folder, *words)), GOLDEN[case])


def test_a_class_image_has_as_many_zero_tokens_as_subjects_were_drawn(folder: Path):
    method = build(folder, "method=mcgm_released")
    counts = []
    for number in range(len(scene.DRAWS)):
        step = method.prepare(batch(number), StepDraws(0, number))
        with pytest.MonkeyPatch.context() as patch:

            def read(*_: Any) -> Tensor:
                tokens = method.mask_tokens.tokens  # type: ignore[attr-defined]
                counts.append(tokens.shape[1])
                assert not tokens.any()
                return torch.zeros(1, 4, scene.LATENT, scene.LATENT)

            patch.setattr(method, "predict", read)
            method._prior_terms(step)
    assert counts == [len(order) for order, _ in scene.DRAWS]
