"""Gates that are taught by Separate-and-Enhance's losses: what the losses are of, what they reach,
and that they fall."""

from __future__ import annotations

import pytest
import torch
from helpers.training_steps import draws

from conf.schema import Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch, Phrase
from lightning_modules import MaskAttn
from lightning_modules.attention import nearest, select
from lightning_modules.attention.capture import Capture
from lightning_modules.backbone.backbone import Backbone
from losses.attention import enhance_loss, separate_loss

NOWHERE = torch.zeros(0, 0, dtype=torch.bool)
CAPTIONS = ["a red circle left of a blue square", "a white ring"]


def batch() -> Batch:
    phrases = [
        [Phrase("red circle", 2, 12, NOWHERE), Phrase("blue square", 23, 34, NOWHERE)],
        [Phrase("white ring", 2, 12, NOWHERE)],
    ]
    latents = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    return Batch([0, 1], CAPTIONS, latents=latents, phrases=phrases)


def gated(backbone: Backbone, **gate: object) -> MaskAttn:
    torch.manual_seed(3)
    chosen = {
        "width": 16,
        "bias": 0.0,
        "stage": "all",
        "supervision": "separate_enhance",
        "denoising_weight": 0.0,
    } | gate
    return MaskAttn(backbone, MethodConfig("maskattn", gate=Gate(**chosen)), Trainer(lr=1e-2), 64)  # type: ignore[arg-type]


def test_the_loss_is_that_of_the_gated_maps(embedded: Backbone):
    method, given = gated(embedded), batch()
    loss = method.training_step(given, 0)
    assert given.latents is not None
    noise, timesteps = method.draw(given.latents, draws(method))
    noised, _ = embedded.schedule.add_noise(given.latents, noise, timesteps)
    assert given.phrases is not None
    _, tokens = embedded.text.locate_phrases(CAPTIONS, given.phrases)
    chosen = nearest(select(embedded.sites(64)), 16)
    with Capture(chosen, tokens, heads="keep").attached(embedded.unet) as capture:
        method.predict(noised, timesteps, embedded.text.encode(CAPTIONS))
    maps, present = capture.maps.mean(), capture.maps.present
    expected = separate_loss(maps, present) + 0.5 * enhance_loss(maps, present)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    method.remove()
    with Capture(chosen, tokens, heads="keep").attached(embedded.unet) as capture:
        method.predict(noised, timesteps, embedded.text.encode(CAPTIONS))
    stock = separate_loss(capture.maps.mean(), present) + 0.5 * enhance_loss(
        capture.maps.mean(), present
    )
    assert abs(loss.item() - stock.item()) > 1e-4, "gates that are half closed change the maps"


def test_gates_learn_and_the_backbone_does_not(embedded: Backbone):
    method, given = gated(embedded, sharing="layer"), batch()
    frozen = {name: tensor.clone() for name, tensor in embedded.unet.state_dict().items()}
    optimizer = torch.optim.AdamW(method.parameters(), lr=2e-2)
    losses = []
    for _ in range(8):
        loss = method.training_step(given, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1e-3
    assert all(
        torch.equal(tensor, frozen[name]) for name, tensor in embedded.unet.state_dict().items()
    )
    reached = [parameter.grad is not None for parameter in method.parameters()]
    assert any(reached) and method.find_unused_parameters, "gates behind the last map are left out"


def test_without_phrases_it_says_what_is_missing(embedded: Backbone):
    given = batch()
    given.phrases = None
    with pytest.raises(ValueError, match="needs phrases"):
        gated(embedded).training_step(given, 0)
