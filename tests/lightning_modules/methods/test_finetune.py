"""Fine-tuning on any objective: its terms on the right maps, what is trained, presets, adapters and
what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.training_steps import denoised, run_step, values
from torch import Tensor

from conf import load as conf
from conf.method.finetune import LOSSES, WITH_MASKS
from conf.method.finetune import Finetune as Settings
from conf.schema import Method as MethodConfig
from conf.schema import Run, Trainer, Weights
from datamodules.batch import Batch, Phrase
from lightning_modules import Finetune, SeparateEnhance
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.base import Method
from lightning_modules.training.checks import check
from lightning_modules.training.run import run
from losses.objectives.inputs import ObjectiveInputs
from losses.objectives.table import OBJECTIVES

RECIPE = Trainer(steps=4, warmup=0, lr=1e-2)
TOKEN_COMPOSE = {"token_compose_token": 1e-3, "token_compose_pixel": 5e-5}


def tuned(
    backbone: Backbone, part: str = "k", rank: int = 0, recipe: Trainer = RECIPE, **given: Any
) -> Finetune:
    torch.manual_seed(3)
    settings = Settings(**{"losses": {"enhance": 1.0}, **given})
    config = MethodConfig("finetune", weights=Weights(part, rank), finetune=settings)
    return Finetune(backbone, config, recipe, 64)


def shake(method: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in method.weights.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def square(row: int, column: int, side: int = 24) -> Tensor:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[row : row + side, column : column + side] = True
    return mask


def pictures() -> Batch:
    """Two objects, one, and none; each with the mask of a square."""
    captions = ["a red circle and a blue square", "a cyan diamond", "nothing at all"]
    named = [[("red circle", 3, 3), ("blue square", 30, 35)], [("cyan diamond", 21, 0)], []]
    phrases = [
        [
            Phrase(words, text.index(words), text.index(words) + len(words), square(row, column))
            for words, row, column in sample
        ]
        for text, sample in zip(captions, named, strict=True)
    ]
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return Batch([0, 1, 2], captions, images, phrases=phrases)


def capture_maps(method: Finetune, batch: Batch, sites: list, heads: str = "keep") -> Any:
    """What the denoiser's layers pay to the words of all objects in the method's own pass."""
    step = method.prepare(batch, method.draws_of(0))
    _, tokens = method.backbone.text.locate_phrases(batch.captions, batch.phrases or [])
    capture = Capture(sites, tokens, heads)
    with torch.no_grad(), capture.attached(method.backbone.denoiser):
        method.predict(step.noised, step.timesteps, step.text)
    return capture.maps, tokens


# --- terms ----------------------------------------------------------------------------------------


def test_separate_enhance_is_the_default_preset(embedded: Backbone) -> None:
    found = []
    preset = conf.load(["method=finetune"], schema=Run).method
    for cls, config in (
        (Finetune, preset),
        (SeparateEnhance, conf.load(["method=separate_enhance"], schema=Run).method),
    ):
        method = cls(embedded, config, RECIPE, 64)
        shake(method)
        total, logged = run_step(method, pictures())
        total.backward()
        gradients = {name: p.grad for name, p in method.weights.named_parameters()}
        found.append(({name: float(value) for name, value in logged.items()}, gradients))
        method.remove()
    (ours, own), (theirs, other) = found
    assert ours == theirs and ours["train/drift"] > 0
    assert any(grad is not None and float(grad.abs().max()) > 0 for grad in own.values())
    assert all(
        (grad is None and other[name] is None) or torch.equal(grad, other[name])
        for name, grad in own.items()
    )


@pytest.mark.parametrize("heads", ["each", "mean"])
def test_terms_are_the_pure_functions_of_the_captured_maps(embedded: Backbone, heads: str) -> None:
    weights = {"enhance": 2.0, "iou": 0.5, "layout": 3.0}
    method = tuned(embedded, losses=weights, heads=heads, inputs="images", kernel=5, sigma=1.0)
    total, logged = run_step(method, pictures())
    batch = pictures()
    keep = "keep" if heads == "each" else "mean"
    maps, _ = capture_maps(method, batch, method.readers[0].cross, keep)
    masks = torch.zeros(3, 2, 64, 64)
    for row, sample in enumerate(batch.phrases or []):
        for number, phrase in enumerate(sample):
            masks[row, number] = phrase.mask.float()
    inputs = ObjectiveInputs(maps.mean(), maps.present, masks=masks)
    smoothed = {"size": 5, "sigma": 1.0}
    for name in weights:
        given = smoothed if "size" in OBJECTIVES[name].settings else {}
        wanted = OBJECTIVES[name](inputs, **given)
        assert wanted[2] == 0, "a caption without an object adds nothing"
        assert float(logged[f"train/{name}"]) == pytest.approx(float(wanted.mean()), rel=1e-5)
    assert float(total.detach()) == pytest.approx(
        sum(weight * float(logged[f"train/{name}"]) for name, weight in weights.items()), rel=1e-6
    )


def test_token_compose_is_as_released(embedded: Backbone) -> None:
    """Against the release's loops: the token loss of each layer, the pixel loss of the mean over a
    side's layers, both summed over sides."""
    method = tuned(
        embedded,
        "model",
        losses=TOKEN_COMPOSE,
        denoising_weight=1.0,
        inputs="images",
        heads="each",
        sides=[8, 16, 32, 64],
        placement="decoder",
        by_layer=["token_compose_token"],
    )
    batch = pictures()
    found = values(method, batch)
    levels = [reader.cross for reader in method.readers]
    assert [[site.resolution for site in level] for level in levels] == [[8, 8, 8], [16, 16]]
    assert all(site.placement != "encoder" for level in levels for site in level)

    token = pixel = torch.zeros(3)
    for level in levels:
        maps, tokens = capture_maps(method, batch, level)
        side, average = level[0].resolution, torch.stack([*maps.by_site.values()]).mean((0, 3))
        for row, sample in enumerate(batch.phrases or []):
            for number, phrase in enumerate(sample):
                inside = F.adaptive_max_pool2d(phrase.mask[None].float(), side)[0]
                share = 1 / len(sample) * torch.eye(3)[row]
                for layer in maps.by_site.values():
                    own = layer[row, number]  # [heads, H, W]
                    part = (own * inside).sum((1, 2)) / own.sum((1, 2))
                    token = token + share * (1 - part.mean()) ** 2
                summed = average[row, number] * len(tokens[row][number])
                pixel = pixel + share * F.binary_cross_entropy(summed, inside)
    assert found["token_compose_token"] == pytest.approx(float(token.mean()), rel=1e-4)
    assert found["token_compose_pixel"] == pytest.approx(float(pixel.mean()), rel=1e-4)
    assert found["denoising"] > 0


def test_each_loss_trains(embedded: Backbone) -> None:
    for name in LOSSES:
        inputs = "images" if name in WITH_MASKS else "noise"
        method = tuned(embedded, losses={name: 1.0}, inputs=inputs)
        shake(method)
        total, logged = run_step(method, pictures())
        assert total.isfinite() and set(logged) == {f"train/{name}", "train/loss"}, name
        total.backward()
        gradients = [p.grad for p in method.weights.parameters() if p.grad is not None]
        assert gradients and all(bool(grad.isfinite().all()) for grad in gradients), name
        # Untrained, the embedded backbone's self-attention may have no conflict to lessen, and
        # nobody has anything there
        if name not in ("self_cross", "initno_conflict", "predicated_possession"):
            assert any(bool(grad.any()) for grad in gradients), name
        method.remove()


def test_a_batch_without_an_object_has_a_gradient_of_zero(embedded: Backbone) -> None:
    batch = pictures()
    nothing = Batch(batch.ids, batch.captions, batch.images, phrases=[[], [], []])
    method = tuned(embedded, losses={"iou": 1.0, "layout": 1.0}, inputs="images")
    total, logged = run_step(method, nothing)
    total.backward()
    assert float(total.detach()) == 0 and {float(value) for value in logged.values()} == {0.0}


# --- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "rank"), [("k", 0), ("qkv", 2)])
def test_the_gradient_reaches_the_chosen_weights_alone(
    embedded: Backbone, part: str, rank: int
) -> None:
    method = tuned(
        embedded, part, rank, losses={"enhance": 1.0}, denoising_weight=1.0, inputs="images"
    )
    shake(method)
    run_step(method, pictures())[0].backward()
    own = set(method.parameters())
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in own)
    assert not any(
        p.grad is not None
        for module in (embedded.unet, embedded.vae, *embedded.text.encoders)
        for p in module.parameters()
        if p not in own
    )
    names = {
        name.split(".attn2.")[1].split(".")[0] for name, _ in method.weights.named_parameters()
    }
    assert names == {"k": {"to_k"}, "qkv": {"to_q", "to_k", "to_v"}}[part]


def test_maps_alone_need_no_prediction(embedded: Backbone) -> None:
    alone = tuned(embedded)
    assert not hasattr(denoised(alone, pictures()), "prediction")
    alone.remove()
    both = tuned(embedded, denoising_weight=1.0, inputs="images")
    assert denoised(both, pictures()).prediction.shape == (3, *embedded.latent_size(64))


def test_training_lowers_the_losses(embedded: Backbone) -> None:
    weights = {"token_compose_token": 1.0, "enhance": 1.0}
    method, batch = tuned(embedded, losses=weights, inputs="images"), pictures()
    optimizer = torch.optim.Adam(method.weights.parameters(), lr=2e-2)
    before = values(method, batch)
    for _ in range(5):
        optimizer.zero_grad()
        run_step(method, batch)[0].backward()
        optimizer.step()
    after = values(method, batch)
    assert all(after[name] < before[name] - 0.005 for name in weights)


def test_weights_are_trained_on_each_prompt_and_put_back(embedded: Backbone) -> None:
    recipe = Trainer(steps=4, warmup=0, lr=5e-2, batch=2)
    method = tuned(embedded, recipe=recipe, losses={"conform": 1.0}, test_time=1)
    start, texts = method.weights.tensors(), ["a red circle and a blue square"]
    adapted = method.generate(texts, [1], None, 2, 3.0)
    assert not method.trains and method.takes_objects
    assert all(torch.equal(t, start[name]) for name, t in method.weights.tensors().items())
    assert not torch.equal(adapted, Method.generate(method, texts, [1], None, 2, 3.0))


# --- presets, adapters ----------------------------------------------------------------------------


def test_the_adapter_is_what_was_trained(
    embedded: Backbone, tiny_folder: Path, tmp_path: Path
) -> None:
    method = tuned(embedded, "kv", losses=TOKEN_COMPOSE, inputs="images", by_layer=[*TOKEN_COMPOSE])
    shake(method)
    ours = method.generate(["a red circle"], [5], None, 2, 3.0)
    method.save_adapter(tmp_path)
    loaded = Method.load_adapter(tmp_path, Backbone.load(str(tiny_folder)))
    assert loaded.config.finetune == method.config.finetune
    saved = loaded.weights.tensors()
    assert all(torch.equal(t, saved[name]) for name, t in method.weights.tensors().items())
    theirs = loaded.generate(["a red circle"], [5], None, 2, 3.0)
    assert int((theirs.int() - ours.int()).abs().max()) <= 1
    assert next((tmp_path / "stock").glob("*.safetensors"))
    loaded.remove()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["finetune", "token_compose"])
def test_a_preset_trains_two_steps(base: Run, tmp_path: Path, preset: str) -> None:
    config = conf.replace(base, {"method": preset, "trainer.steps": 2, "trainer.warmup": 0})
    result = run(config, tmp_path)
    assert result["counts"]["trained_parameters"] > 0
    assert any(key.startswith("eval/success") for key in result["metrics"])


# --- faults ---------------------------------------------------------------------------------------


def test_losses_are_the_objectives_that_a_training_step_can_read() -> None:
    unread = {name for name, one in OBJECTIVES.items() if "previous" in one.needs}
    readable = {name: one.fewest for name, one in OBJECTIVES.items() if name not in unread}
    assert readable == LOSSES
    assert {name for name in LOSSES if "masks" in OBJECTIVES[name].needs} == WITH_MASKS.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"enhanse": 1.0}}, "there is no loss 'enhanse'; .*did you mean enhance"),
        ({"losses": {"enhance": -1.0}}, "losses has enhance: -1; expected a weight of at least 0"),
        ({"losses": {"a_star_retention": 1.0}}, "there is no loss 'a_star_retention'"),
        (
            {"losses": {"enhance": 0.0}, "distillation_weight": 0},
            "nothing would be trained; give a loss a weight",
        ),
        ({"losses": {"layout": 1.0}}, "layout, which looks at masks, with inputs=noise: .*images"),
        (
            {"losses": {"boxdiff": 1.0}, "inputs": "images", "objects": "nouns"},
            "boxdiff, which looks at masks, with objects=nouns",
        ),
        ({"denoising_weight": 1.0}, "denoising_weight=1 with inputs=noise: there is no image"),
        ({"sides": [16, 0]}, r"sides=\[16, 0\]: expected sides of maps in pixels, from 1"),
        ({"sides": []}, r"sides=\[\]: expected sides"),
        ({"kernel": 4}, "kernel=4 with sides=.*: expected an odd number"),
        ({"by_layer": ["seperate"]}, "by_layer=.* no loss 'seperate'.*did you mean separate"),
        ({"test_time": 2, "inputs": "images"}, "test_time=2 with inputs=images: a prompt has no"),
        (
            {"data.concepts": ["a", "b"], "inputs": "images"},
            "inputs=images with data.concepts: these prompts have no images",
        ),
        (
            {"data.concepts": ["a"], "data.objects": 1, "losses": {"iou": 1.0, "enhance": 1.0}},
            "data.objects=1 with method.finetune.losses iou, which compares objects",
        ),
        ({"data.concepts": ["a"]}, "make no prompt of data.objects=2"),
        ({"data.concepts": ["a", "b"], "objects": "nouns"}, "objects=nouns with data.concepts"),
        ({"method.weights.trainable": "none"}, "trainable=none with method=finetune"),
        (
            {"evaluate_with": {"method.finetune.kernel": 5}},
            "method.finetune.kernel cannot change after training",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    base: Run, changes: dict[str, Any], message: str
) -> None:
    own = {
        key if "." in key or key == "evaluate_with" else f"method.finetune.{key}": value
        for key, value in changes.items()
    }
    with pytest.raises(ValueError, match=message):
        check(conf.replace(base, {"method": "finetune"} | own))


@pytest.mark.parametrize("preset", ["finetune", "token_compose"])
def test_presets_pass_the_checks(base: Run, preset: str) -> None:
    check(conf.replace(base, {"method": preset}))
