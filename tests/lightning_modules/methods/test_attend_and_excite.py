"""Attend-and-Excite beside the stock pipeline of diffusers: the same losses and latents, step by
step, and where ours stops earlier on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from conf import load as conf
from conf.schema import Run, Trainer
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.latent_guidance import GuidedBatch
from lightning_modules.methods.registry import method_class

PROMPT, WORDS = "a red circle and a blue square", ["circle", "square"]
STEPS, TRIES = 4, 20
# The first losses of `run_stock`, by diffusers 0.42.1
RECORDED = [0.984031, 0.983224, 0.982288, 0.981204, 0.979945, 0.978471, 0.976712, 0.97456]


@pytest.fixture
def sd1_ddim(sd1: Backbone) -> Backbone:
    from diffusers import DDIMScheduler

    sd1.pipeline.scheduler = DDIMScheduler.from_config(sd1.scheduler.config)
    return sd1


def run_stock(backbone: Backbone, threshold: float) -> tuple[list[float], list[Tensor]]:
    """The losses of every look in the guided steps, and the latents after each step."""
    pipelines = pytest.importorskip(
        "diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite",
        reason="this diffusers has dropped the stock pipeline",
    )
    losses: list[float] = []

    class Recorded(pipelines.StableDiffusionAttendAndExcitePipeline):
        @staticmethod
        def _compute_loss(max_attention_per_index: list[Tensor]) -> Tensor:
            loss = pipelines.StableDiffusionAttendAndExcitePipeline._compute_loss(
                max_attention_per_index
            )
            losses.append(float(loss))
            return loss

    parts = {
        name: getattr(backbone.pipeline, name)
        for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    }
    stock = Recorded(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    stock.set_progress_bar_config(disable=True)
    indices = [own[0] for own in backbone.text.token_indices(PROMPT, WORDS)]
    latents: list[Tensor] = []
    stock(
        PROMPT,
        indices,
        64,
        64,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        max_iter_to_alter=2,
        thresholds={0: threshold},
        attn_res=(4, 4),
        output_type="latent",
        callback=lambda step, t, now: latents.append(now.detach().clone()),
    )
    return losses, latents


def run_ours(
    backbone: Backbone, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[float]], list[Tensor]]:
    """As `run_stock`, of the first image of two; the losses by step."""
    preset = conf.load(["method=attend_and_excite"], schema=Run).method
    preset.attention_guidance.side = 4
    preset.attention_guidance.thresholds = {"0": 1 - threshold}
    method = method_class("attention_guidance")(backbone, preset, Trainer(), 64)
    batches: list[GuidedBatch] = []
    latents: list[Tensor] = []
    move = GuidedBatch.move

    def watched(batch: GuidedBatch, before: Tensor, *given: Any) -> Tensor:
        batches.append(batch)
        latents.append(before[:1].clone())
        return move(batch, before, *given)

    monkeypatch.setattr(GuidedBatch, "move", watched)
    method.generate(
        [PROMPT, "a white ring"], [7, 8], None, STEPS, 3.0, 2, objects=[WORDS, ["ring"]]
    )
    method.remove()
    seen = [(step, float(known[0])) for step, known in batches[0].trace if known[0].isfinite()]
    return [[loss for at, loss in seen if at == step] for step in (0, 1)], latents[1:]


def test_losses_and_latents_are_the_stock_pipelines(
    sd1_ddim: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threshold that is never reached: all tries are used at the first step."""
    losses, latents = run_stock(sd1_ddim, threshold=0.99)
    ours, own = run_ours(sd1_ddim, 0.99, monkeypatch)
    # It looks at the first latents twice, and at each step that is not guided
    first = [losses[0], *losses[2 : TRIES + 2]]
    assert ours[0] == pytest.approx(first, rel=1e-4) and len(first) == TRIES + 1
    assert ours[1] == pytest.approx(losses[TRIES + 2 : TRIES + 3], rel=1e-4)
    assert len(losses) == TRIES + 2 + STEPS - 1
    for stock, mine in zip(latents, own, strict=False):
        assert torch.allclose(stock, mine, atol=2e-3 * float(stock.abs().max()))


def test_losses_are_those_recorded_of_the_stock_pipeline(
    sd1_ddim: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where diffusers has dropped it, too."""
    ours, _ = run_ours(sd1_ddim, 0.99, monkeypatch)
    assert ours[0][: len(RECORDED)] == pytest.approx(RECORDED, abs=3e-5)


def test_a_latent_that_reaches_its_threshold_is_moved_no_more(
    sd1_ddim: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock loop moves before it looks: once more than the threshold asks for."""
    losses, _ = run_stock(sd1_ddim, threshold=0.99)
    reached = next(i for i in range(2, TRIES) if losses[i] < losses[0])
    threshold = 1 - (losses[0] + losses[reached]) / 2
    stock, _ = run_stock(sd1_ddim, threshold)
    ours, _ = run_ours(sd1_ddim, threshold, monkeypatch)
    looks = reached  # Ours, which do not look at the first latents twice
    assert len(ours[0]) == looks and ours[0] == pytest.approx(
        [stock[0], *stock[2 : looks + 1]], rel=1e-4
    )
    assert len(stock) == looks + 2 + STEPS - 1
