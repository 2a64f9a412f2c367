"""What methods share: draws, adapters, sampling, and the baseline that changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_steps import draws
from safetensors.torch import load_file

from conf.schema import Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch
from lightning_modules import MaskAttn, Untouched
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method, StepDraws

PROMPTS, SEEDS = ["a red circle left of an orange square", "a white ring"], [1, 2]


def maskattn(backbone: Backbone, seed: int = 0, **gate: Any) -> MaskAttn:
    """With gates about half open, so that they are seen in the images."""
    torch.manual_seed(3)
    return MaskAttn(
        backbone,
        MethodConfig("maskattn", gate=Gate(**{"width": 16, "bias": 0.0, "stage": "all"} | gate)),
        Trainer(),
        64,
        seed,
    )


def draw(method: Method, guidance: float = 3.0) -> torch.Tensor:
    return method.generate(PROMPTS, SEEDS, None, 2, guidance)


def test_the_baseline_is_the_stock_backbone_and_trains_nothing(embedded: Backbone):
    expected = sample(embedded, PROMPTS, SEEDS, 2, 3.0, 64)
    baseline = Untouched(embedded, MethodConfig("untouched"), Trainer(), 64)
    assert torch.equal(draw(baseline), expected)
    assert not list(baseline.parameters()) and not baseline.state_dict()
    assert baseline.to_pipeline() is embedded.pipeline
    with baseline.collect_stats(3.0) as seen:
        draw(baseline)
    assert seen == {}


def test_gates_change_images_until_they_are_removed(embedded: Backbone):
    stock = sample(embedded, PROMPTS, SEEDS, 2, 3.0, 64)
    method = maskattn(embedded)
    gated = draw(method)
    assert not torch.equal(gated, stock)
    method.remove()
    method.remove()
    assert torch.equal(draw(method), stock)
    method.install()
    assert torch.equal(draw(method), gated)


def test_the_pipeline_of_a_method_is_a_stock_one_with_the_adapter_in_it(embedded: Backbone):
    method = maskattn(embedded)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = method.to_pipeline()(
        PROMPTS,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=generators,
        output_type="pt",
    ).images
    assert int(((images * 255).round().int() - draw(method).int()).abs().max()) <= 1


@pytest.mark.parametrize(("guidance", "halves"), [(3.0, 2), (1.0, 1)])
def test_observed_counts_the_conditional_half_alone(
    embedded: Backbone, guidance: float, halves: int
):
    method = maskattn(embedded)
    with method.gates.recording() as record:
        draw(method, guidance)
    with method.collect_stats(guidance) as seen:
        draw(method, guidance)
    # The zeros of the unconditional half close other gates than words do.
    with method.gates.recording(conditional_half=halves == 2) as conditional:
        draw(method, guidance)
    counts = [
        float(sum(counted.sum() for counted in one.counted.values()))
        for one in (record, conditional)
    ]
    assert counts[0] == halves * counts[1]
    assert len(seen["gate_closed"]) == len(PROMPTS), "of each image"
    closed, free = (sum(of_images) for of_images in zip(*seen["gate_closed"], strict=True))
    assert 0 < closed / free < 1 and closed / free == conditional.share_closed()
    assert (record.share_closed() == closed / free) == (halves == 1)


def test_sites_follow_the_config(embedded: Backbone):
    def gates(**gate: Any) -> Any:
        method = maskattn(embedded, **gate)
        method.remove()
        return method.gates

    assert len(gates().sites) == 7
    assert {s.stage for s in gates(stage="high").sites} == {"high"}
    assert {s.placement for s in gates(placement="decoder").sites} == {"decoder"}
    assert {s.kind for s in gates(attention="self").sites} == {"self"} and len(
        gates(attention="both").sites
    ) == 14
    with pytest.raises(ValueError, match="no cross-attention at stage=low, placement=decoder"):
        gates(stage="low", placement="decoder")


def test_a_second_set_of_gates_is_refused_until_the_first_is_removed(embedded: Backbone):
    first = maskattn(embedded)
    with pytest.raises(
        ValueError,
        match=(
            r"attn2 has Gates already: expected none; detach it first \(a method's " r"remove\(\)\)"
        ),
    ):
        maskattn(embedded)
    first.remove()
    maskattn(embedded)


def test_an_adapter_comes_back_with_the_same_images_and_holds_no_backbone_weight(
    embedded: Backbone, tiny_pipeline: Any, tmp_path: Path
):
    from copy import deepcopy

    method = maskattn(embedded, threshold=0.45, protect="none")
    method.save_adapter(tmp_path)
    card = json.loads((tmp_path / "adapter.json").read_text())
    assert (
        card["method"] == "maskattn"
        and card["config"]["gate"]["threshold"] == 0.45
        and card["resolution"] == 64
    )
    assert card["backbone"]["source"] == embedded.source
    assert set(card["versions"]) == {"torch", "diffusers", "transformers", "lightning", "peft"}
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in method.parameters())
    assert {name.split(".")[0] for name in tensors} == {"heads"}
    assert {path.name for path in tmp_path.iterdir()} == {"adapter.safetensors", "adapter.json"}

    for kind in (Method, MaskAttn):
        loaded = kind.load_adapter(tmp_path, Backbone(deepcopy(tiny_pipeline), "again"))
        assert (
            isinstance(loaded, MaskAttn)
            and not loaded.training
            and loaded.config.gate == method.config.gate
        )
        assert torch.equal(draw(loaded), draw(method))


def test_an_adapter_of_another_method_is_refused(embedded: Backbone, tmp_path: Path):
    Untouched(embedded, MethodConfig("untouched"), Trainer(), 64).save_adapter(tmp_path)
    assert isinstance(Method.load_adapter(tmp_path, embedded), Untouched)
    with pytest.raises(ValueError, match="holds a 'untouched' adapter: expected 'maskattn'"):
        MaskAttn.load_adapter(tmp_path, embedded)
    with pytest.raises(ValueError, match="holds a 'untouched' adapter: expected 'maskattn'"):
        maskattn(embedded).load_weights(tmp_path)


def test_methods_with_one_seed_draw_the_same_noise_and_timesteps(embedded: Backbone):
    latents = torch.zeros(4, *embedded.latent_size())
    method = maskattn(embedded, seed=7)
    noise, timesteps = method.draw(latents, draws(method))
    untouched = Untouched(embedded, MethodConfig("untouched"), Trainer(), 64, seed=7)
    again, same = untouched.draw(latents, draws(untouched))
    assert torch.equal(noise, again) and torch.equal(timesteps, same)
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert (
        timesteps.dtype == torch.long
        and all(0 <= t < 1000 for t in timesteps.tolist())
        and len(set(timesteps.tolist())) == 4
    )
    assert method.draw(latents.bfloat16(), draws(method))[0].dtype == torch.bfloat16
    other, _ = untouched.draw(latents, StepDraws(8, 0))
    assert not torch.equal(noise, other)


def test_the_training_loss_is_the_denoising_error_of_the_gated_backbone(embedded: Backbone):
    method = maskattn(embedded, seed=7)
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = embedded.autoencoder.encode(images)
    noise, timesteps = method.draw(latents, draws(method))
    noised, target = embedded.schedule.add_noise(latents, noise, timesteps)
    text = embedded.text.encode(PROMPTS)
    with torch.no_grad():
        expected = (embedded.predict(noised, timesteps, text, 64) - target).square().mean()
    loss = method.training_step(Batch([0, 1], PROMPTS, images=images), 0)
    assert torch.allclose(loss.detach(), expected, rtol=1e-4)
    assert torch.equal(method.training_step(Batch([0, 1], PROMPTS, latents=latents), 0), loss), (
        "latents stand in for images"
    )
    method.remove()
    with torch.no_grad():
        assert not torch.allclose(
            (embedded.predict(noised, timesteps, text, 64) - target).square().mean(), expected
        )


def test_the_optimiser_holds_the_adapter_alone_and_its_rate_warms_up_and_falls_to_zero(
    embedded: Backbone,
):
    method = maskattn(embedded)
    method.recipe = Trainer(steps=20, warmup=4, lr=0.1)
    setup = method.configure_optimizers()
    optimizer, schedule = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in method.gates.parameters()}
    rates = []
    for _ in range(21):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1]) and rates[4] == pytest.approx(0.1)
    assert (
        rates[12] == pytest.approx(0.05)
        and rates[20] == pytest.approx(0, abs=1e-9)
        and rates[4:] == sorted(rates[4:], reverse=True)
    )


def test_masks_are_refused_and_a_thawed_backbone_too(embedded: Backbone):
    method = maskattn(embedded)
    with pytest.raises(ValueError, match="maskattn takes no masks"):
        method.generate(PROMPTS, SEEDS, masks=torch.ones(2, 1, 64, 64))
    embedded.unet.conv_in.requires_grad_(True)
    with pytest.raises(RuntimeError, match="2 tensors of the backbone .* would be trained"):
        method.on_fit_start()
    with pytest.raises(RuntimeError, match="0 parameters of the adapter"):
        Untouched(embedded, MethodConfig("untouched"), Trainer(), 64).on_fit_start()


def test_a_method_moves_and_saves_its_adapter_only(embedded: Backbone):
    method = maskattn(embedded)
    assert set(method.state_dict()) == {f"adapter.{name}" for name in method.gates.state_dict()}
    method.train()
    assert not embedded.unet.training and method.gates.training


def test_public_names():
    import datamodules
    import lightning_modules

    assert {cls.__name__ for cls in (lightning_modules.MaskAttn, datamodules.CocoDataModule)} == {
        "MaskAttn",
        "CocoDataModule",
    }
    with pytest.raises(AttributeError, match="'lightning_modules' has no attribute 'Maskattn'"):
        lightning_modules.Maskattn  # noqa: B018
