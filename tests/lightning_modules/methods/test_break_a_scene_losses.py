"""Break-A-Scene's losses: inside the masks, on each placeholder's maps, on class images; what their
gradients reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.training_steps import at_step, draws, run_step, terms
from helpers.unet_inputs import draw
from torch import Tensor

from conf.schema import Method as MethodConfig
from conf.schema import Subjects, Trainer, Weights
from datamodules.batch import Batch, Phrase
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.break_a_scene import BreakAScene
from losses.attention import mask_attention_loss

TOKENS, CLASSES = ["<asset0>", "<asset1>"], ["circle", "square"]
CAPTIONS = ["a photo of <asset1> and <asset0>", "a photo of <asset0>"]


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


LATENTS = draw(0, 2, 8, 16, 16)
MASKS = {"<asset0>": torch.zeros(64, 64), "<asset1>": torch.zeros(64, 64)}
MASKS["<asset0>"][:32, :16] = 1
MASKS["<asset1>"][16:48, 8:24] = 1  # overlaps the other


def batch(prior: Batch | None = None) -> Batch:
    """The first sample shows both subjects, the second one alone."""
    found = []
    for caption in CAPTIONS:
        places = sorted((caption.index(token), token) for token in TOKENS if token in caption)
        found.append([Phrase(token, at, at + len(token), MASKS[token]) for at, token in places])
    return Batch([0, 1], CAPTIONS, latents=LATENTS, phrases=found, prior=prior)


def step(method: BreakAScene, given: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    return run_step(method, given)


@pytest.mark.parametrize("normalise", ["area", "all"])
def test_the_denoising_loss_looks_inside_the_drawn_subjects_masks_alone(
    embedded: Backbone, normalise: str
):
    method = breaker(embedded, normalise=normalise)
    union = torch.zeros(2, 1, 16, 16)  # four pixels a latent
    union[:, :, :8, :4] = 1
    union[0, :, 4:12, 2:6] = 1
    prediction, target = draw(1, 2, 8, 16, 16), draw(2, 2, 8, 16, 16)
    step = method.prepare(batch(), draws(method))

    def loss_of(method: BreakAScene, target: Tensor) -> Tensor:
        step.prediction, step.target = prediction, target
        return method._masked_denoising(step).value

    loss = loss_of(method, target)
    assert torch.equal(loss_of(method, target + 9 * (1 - union)), loss)
    assert all(
        loss_of(method, target + at) != loss
        for at in (union, union * torch.tensor([0, 1])[:, None, None, None])
    )
    areas = union.sum((1, 2, 3)) if normalise == "area" else torch.tensor([256.0, 256.0])
    by_hand = ((prediction - target).square() * union).sum((1, 2, 3)) / (8 * areas)
    assert areas.unique().numel() == (2 if normalise == "area" else 1) and torch.allclose(
        loss, by_hand.mean()
    )

    method.remove()
    plain = loss_of(breaker(embedded, masked_loss=False), target)
    assert torch.allclose(plain, (prediction - target).square().mean()) and not torch.allclose(
        plain, loss
    )


def test_the_nearest_pixel_of_a_mask_multiplies_prediction_and_target(embedded: Backbone):
    method = breaker(embedded, normalise="all", mask_resize="nearest")
    step = method.prepare(batch(), draws(method))
    step.prediction, step.target = draw(1, 2, 8, 16, 16), draw(2, 2, 8, 16, 16)
    # Grey, too, and with edges off the grid of four pixels a latent
    step.masks = draw(3, 2, 2, 64, 64).clamp(0, 1)
    step.masks[0, 0, 5:31, 2:19] = 1
    union = step.masks.amax(1, keepdim=True)[..., ::4, ::4]
    by_hand = (step.prediction * union - step.target * union).square().mean()
    assert torch.allclose(method._masked_denoising(step).value, by_hand, rtol=1e-6)


def test_the_attention_loss_holds_each_placeholder_to_its_own_mask(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = breaker(embedded, attention_weight=0.7)
    noise, timesteps = draw(5, 2, 8, 16, 16), torch.tensor([700, 300])
    monkeypatch.setattr(method, "draw", lambda *_: (noise, timesteps))
    loss, logged = step(method, batch())
    assert set(logged) == {"train/denoising", "train/attention", "train/loss"}
    assert torch.allclose(loss, logged["train/denoising"] + 0.7 * logged["train/attention"])
    # Each sample alone, at the positions of the placeholders' ids, in the maps of 16 by 16.
    by_hand, swapped = [], []
    ids = embedded.text.tokenize(CAPTIONS).input_ids
    base = method.subjects.bases[0]
    for row, tokens in enumerate((["<asset1>", "<asset0>"], ["<asset0>"])):
        positions = [(ids[row] == base + TOKENS.index(token)).nonzero().item() for token in tokens]
        masks = torch.stack([MASKS[token] for token in tokens])[None]
        noised, _ = embedded.schedule.add_noise(
            LATENTS[row : row + 1], noise[row : row + 1], timesteps[row : row + 1]
        )
        with (
            torch.no_grad(),
            Capture(method.map_sites, [positions]).attached(embedded.unet) as capture,
        ):
            method.predict(
                noised, timesteps[row : row + 1], embedded.text.encode(CAPTIONS[row : row + 1])
            )
        maps = capture.maps.mean(16)
        by_hand.append(mask_attention_loss(maps, masks, resize="area"))
        swapped.append(mask_attention_loss(maps, masks.flip(1), resize="area"))
    assert torch.allclose(logged["train/attention"], sum(by_hand) / 2, atol=1e-5)
    assert not torch.allclose(logged["train/attention"], sum(swapped) / 2, atol=1e-4)

    attention = terms(method, batch())["attention"].value
    grad = torch.autograd.grad(attention, method.subjects.rows["text_encoder"])[0]
    assert (grad.abs().sum(1) > 0).all()
    method.remove()
    _, without = step(breaker(embedded, attention_weight=0.0), batch())
    assert "train/attention" not in without


def test_class_images_are_learnt_whole_with_noise_of_their_own(embedded: Backbone):
    latents, caption = draw(7, 2, 8, 16, 16), "a photo of a blue square"
    prior = Batch([4, 5], [caption] * 2, latents=latents)
    method = breaker(embedded, prior_weight=0.3, attention_weight=2.0)
    loss, logged = step(method, batch(prior))
    assert torch.allclose(
        loss,
        logged["train/denoising"] + 2 * logged["train/attention"] + 0.3 * logged["train/prior"],
    )
    alone, others = step(method, batch())
    assert torch.allclose(alone + 0.3 * logged["train/prior"], loss) and torch.equal(
        others["train/attention"], logged["train/attention"]
    )
    noise, timesteps = method.draw(latents, draws(method), 1)
    assert not torch.equal(noise, method.draw(latents, draws(method))[0])
    noised, target = embedded.schedule.add_noise(latents, noise, timesteps)
    with torch.no_grad():
        prediction = method.predict(noised, timesteps, embedded.text.encode([caption] * 2))
    assert torch.allclose(logged["train/prior"], (prediction - target).square().mean(), rtol=1e-4)
    method.remove()
    assert "train/prior" not in step(breaker(embedded, prior_weight=0.0), batch(prior))[1]


def test_captions_without_subjects_train_the_weights_on_their_phrases(embedded: Backbone):
    method = breaker(embedded, tokens=[], classes=[])
    assert method.subjects is None and method.first_phase == 0 and set(method.adapter) == {"unet"}
    mask = MASKS["<asset0>"].bool()
    given = Batch(
        [0, 1],
        ["a red ring", "a photo"],
        latents=LATENTS,
        phrases=[[Phrase("red ring", 2, 10, mask)], []],
    )
    loss, logged = step(method, given)
    loss.backward()
    assert (
        set(logged) == {"train/denoising", "train/attention", "train/loss"}
        and logged["train/attention"] > 0
    )
    assert all(p.grad is not None for p in method.adapter.parameters())
    with pytest.raises(
        ValueError, match=("subjects need masks: .*set the training set's with_phrases")
    ):
        step(method, Batch([0], ["a red ring"], latents=LATENTS[:1]))


def test_a_training_step_changes_and_grades_nothing_else(embedded: Backbone):
    method = breaker(embedded, Trainer(steps=2, lr=0.1), Weights("k"))
    stock = {name: value.clone() for name, value in embedded.unet.state_dict().items()}
    trained = {id(p) for p in method.parameters()}
    # Phase two
    at_step(method, 1)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    step(method, batch())[0].backward()
    optimizer.step()
    models = (embedded.unet, embedded.vae, *embedded.text.encoders)
    assert all(
        p.grad is None and not p.requires_grad
        for model in models
        for p in model.parameters()
        if id(p) not in trained
    )
    now = embedded.unet.state_dict()
    assert {name for name in stock if not torch.equal(now[name], stock[name])} == {
        n for n in stock if ".attn2.to_k." in n
    }
