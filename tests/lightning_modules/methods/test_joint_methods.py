"""Methods on joint attention (SD3, SD3.5, FLUX.1): what they train, draw and write, and what cannot
be."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.joint_architectures import build_joint_pipeline
from helpers.training_steps import loss, run_step
from safetensors import safe_open
from torch import Tensor

from conf import load as conf
from conf.method.attention_guidance import AttentionGuidance as Guidance
from conf.method.finetune import Finetune as Tuning
from conf.schema import Gate, Masks, Run, Trainer, Weights
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch, Phrase
from lightning_modules import MCGM, AttentionGuidance, Finetune, MaskAttn
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method
from lightning_modules.methods.registry import method_class
from lightning_modules.training import run as train

PROMPTS = ["a red circle and a blue square", "a white ring and a green cross"]
OBJECTS = [["red circle", "blue square"], ["white ring", "green cross"]]


@pytest.fixture(scope="module", params=["sd3", "sd35_medium", "flux_dev"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_joint_pipeline(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def backbone(stock: Any) -> Backbone:
    return Backbone(deepcopy(stock), "tiny")


def is_flux(backbone: Backbone) -> bool:
    return backbone.family.label == "FLUX.1"


def batch() -> Batch:
    half = torch.zeros(64, 64, dtype=torch.bool)
    half[:, :32] = True
    phrases = [
        [
            Phrase(words, text.index(words), text.index(words) + len(words), mask)
            for words, mask in zip(named, (half, ~half), strict=True)
        ]
        for text, named in zip(PROMPTS, OBJECTS, strict=True)
    ]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return Batch([0, 1], list(PROMPTS), images, phrases=phrases)


def untouched(backbone: Backbone) -> Tensor:
    return sample(backbone, PROMPTS, [1, 2], 2, 3.0, 64).int()


def drawn(method: Method, **given: Any) -> Tensor:
    return method.generate(PROMPTS, [1, 2], steps=2, guidance=3.0, **given).int()


def in_stock_pipeline(backbone: Backbone) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    images = backbone.pipeline(
        PROMPTS,
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=generators,
        output_type="pt",
    ).images
    return (images * 255).round().int()


def gated(backbone: Backbone, **settings: Any) -> MaskAttn:
    torch.manual_seed(0)
    given = {"width": 8, "bias": 0.0, "stage": "all", **settings}
    return MaskAttn(backbone, MethodConfig("maskattn", gate=Gate(**given)), Trainer(), 64)


# --- gates ----------------------------------------------------------------------------------------


def test_gates_learn_act_and_leave(backbone: Backbone, tmp_path: Path):
    before = untouched(backbone)
    method = gated(backbone, supervision="masks")
    value, logged = run_step(method, batch())
    value.backward()
    assert value.isfinite() and logged["train/signal"] > 0 and logged["train/denoising"] > 0
    heads = dict(method.gates.heads.named_parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.values())
    assert any(p.grad.abs().max() > 0 for p in heads.values())
    images = drawn(method)
    assert int((images - before).abs().max()) > 1 and torch.equal(drawn(method), images)
    assert int((in_stock_pipeline(backbone) - images).abs().max()) <= 1, "they act there, too"
    method.save_adapter(tmp_path / "adapter")
    method.remove()
    assert torch.equal(untouched(backbone), before)
    again = Method.load_adapter(tmp_path / "adapter", backbone)
    assert torch.equal(drawn(again), images)
    again.remove()


def test_gates_know_words_from_padding(backbone: Backbone):
    method = gated(backbone, protect="specials", padding_gate="open", mode="hard")
    with method.gates.recording() as record, torch.no_grad():
        latents = torch.zeros(2, 4, 8, 8)
        timesteps = backbone.schedule.timesteps_at(torch.tensor([900, 100]))
        method.predict(latents, timesteps, backbone.text.encode(PROMPTS))
    shares = record.shares()
    assert "kind/word" in shares and shares["kind/word"] > 0
    # Of the padding no gate is free, and there are hundreds of them
    assert "kind/padding" not in shares and "kind/eos" not in shares
    method.remove()


# --- guidance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["attend_and_excite", "initno_conflict"])
def test_guidance_moves_each_image_by_itself(backbone: Backbone, loss: str):
    """By maps of words, and by what pixels pay to pixels; a random model's maps hardly move."""
    before = untouched(backbone)
    settings = Guidance(losses={loss: 1.0}, step_size=3000.0, side=4)
    config = MethodConfig("attention_guidance", attention_guidance=settings)
    method = AttentionGuidance(backbone, config, Trainer(), 64)
    images = drawn(method, objects=OBJECTS)
    assert (images - before).abs().max() > 1
    alone = method.generate(PROMPTS[1:], [2], steps=2, guidance=3.0, objects=OBJECTS[1:]).int()
    assert int((alone[0] - images[1]).abs().max()) <= 1
    method.remove()
    assert torch.equal(untouched(backbone), before)


# --- keys -----------------------------------------------------------------------------------------


def tuned(backbone: Backbone, part: str, rank: int, **settings: Any) -> Finetune:
    torch.manual_seed(0)
    tuning = Tuning(**{"losses": {"enhance": 1.0}, "sides": [4], "kernel": 1, **settings})
    config = MethodConfig("finetune", weights=Weights(part, rank), finetune=tuning)
    return Finetune(backbone, config, Trainer(warmup=0), 64)


def test_keys_are_those_of_the_text(backbone: Backbone):
    method = tuned(backbone, "k", 0)
    names = [name for name, _ in method.weights.named_parameters()]
    layers = 2 if is_flux(backbone) else 3
    assert names == [
        f"transformer_blocks.{i}.attn.add_k_proj.{kind}"
        for i in range(layers)
        for kind in ("weight", "bias")
    ]
    loss(method, batch()).backward()
    grads = [p.grad for _, p in method.weights.named_parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    assert any(grad.abs().max() > 0 for grad in grads if grad is not None)
    method.remove()
    queries = tuned(backbone, "q", 0)
    assert all(".attn.to_q." in name for name, _ in queries.weights.named_parameters())
    queries.remove()


@pytest.mark.parametrize("rank", [0, 2])
def test_what_was_trained_is_opened_by_the_stock_pipeline(
    backbone: Backbone, stock: Any, tmp_path: Path, rank: int
):
    before = untouched(backbone)
    method = tuned(backbone, "kv", rank)
    with torch.no_grad():
        for parameter in method.weights.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    after = drawn(method)
    assert int((after - before).abs().max()) > 1
    method.save_adapter(tmp_path)
    other = Backbone(deepcopy(stock), "other")
    if rank:
        other.pipeline.load_lora_weights(tmp_path / "stock")
        layers = [m for m in other.denoiser.modules() if hasattr(m, "scaling")]
        assert layers and {layer.scaling["default_0"] for layer in layers} == {1.0}
        file = tmp_path / "stock" / "pytorch_lora_weights.safetensors"
        with safe_open(file, framework="pt") as opened:
            assert '"transformer.lora_alpha": 2' in opened.metadata()["lora_adapter_metadata"]
    else:
        from safetensors.torch import load_file

        state = load_file(tmp_path / "stock" / "transformer.safetensors")
        assert not other.denoiser.load_state_dict(state, strict=False).unexpected_keys
    assert int((untouched(other) - after).abs().max()) <= 1
    method.remove()
    assert torch.equal(untouched(backbone), before)


# --- mask tokens ----------------------------------------------------------------------------------


def test_mask_tokens_steer_and_are_trained(backbone: Backbone):
    before = untouched(backbone)
    torch.manual_seed(0)
    config = MethodConfig("mcgm", weights=Weights("attn2", 0), masks=Masks(dropout=0.0))
    method = MCGM(backbone, config, Trainer(), 64)
    value, logged = run_step(method, batch())
    value.backward()
    assert value.isfinite() and logged["train/mask_attention"] > 0
    grads = [p.grad for p in method.encoder.parameters()]
    assert any(grad is not None and grad.abs().max() > 0 for grad in grads)
    half = torch.zeros(64, 64)
    half[:, :32] = 1
    masks = [{"red circle": half}, {"green cross": half}]
    steered = drawn(method, masks=masks)
    assert (steered - drawn(method, masks=[None, None])).abs().max() > 1
    assert torch.equal(drawn(method, masks=[None, None]), before)
    method.remove()
    assert torch.equal(untouched(backbone), before)


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"method": "break_a_scene", "data": "scene", "data.root": "auto"},
            "placeholders are words of CLIP, which does not read all text of",
        ),
        ({"method": "mcgm", "method.masks.encoder": "merged"}, "masks cannot be merged into it"),
        (
            {"method": "break_a_scene", "method.weights.text_encoder": True},
            "weights.text_encoder=true .* T5 is not trained",
        ),
        ({"method": "separate_enhance_released"}, "token indices are those of CLIP"),
    ],
)
def test_what_cannot_be_says_so_in_one_line(
    backbone: Backbone, settings: dict[str, Any], said: str
):
    config = conf.replace(Run(), settings)
    kind = method_class(config.method.name)
    with pytest.raises(ValueError, match=said) as caught:
        kind.check_backbone(config, backbone)
    assert "\n" not in str(caught.value)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_trains_measures_and_is_read_again(base: Run, stock: Any, tmp_path: Path):
    stock.save_pretrained(tmp_path / "model")
    changes = {
        "backbone.name": "tiny",
        "backbone.path": str(tmp_path / "model"),
        "output": str(tmp_path / "runs"),
        "method.gate.supervision": "masks",
        "trainer.timesteps": "logit_normal",
        "trainer.gradient_checkpointing": True,
        "evaluation.prompts": 4,
        "evaluation.attention": True,
        "data.cache": "all",
        "data.drop_captions": 0.3,
    }
    config = conf.replace(base, changes)
    result = train.run(config, tmp_path / "trial")
    for name in ("success", "gate_closed", "gate_mask_iou", "map_overlap", "gate_closed_kind/eos"):
        assert f"eval/{name}" in result["metrics"], name
    folder = Path(config.output) / "adapters" / train.training_key(config)
    method = Method.load_adapter(folder, Backbone.load(config.backbone.path))
    images = drawn(method)
    method.remove()
    assert int((images - drawn(method)).abs().max()) > 1
