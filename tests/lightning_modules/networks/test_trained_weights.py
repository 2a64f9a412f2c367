"""Trained copies and low-rank adapters: what they train, what the model is with them and without,
what stock diffusers reads."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import build_pipeline, build_unet
from helpers.marks import slow
from helpers.unet_inputs import draw, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.gates import Gates
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.networks.trained_weights import (
    PARTS,
    TrainedWeights,
    parameter_names,
    save_stock,
)

EVERY = [("k", 0), ("kv", 2), *slow(("model", 0), ("model", 2))]
HALF = (torch.float16, torch.bfloat16)


@cache
def built(name: str) -> Any:
    return build_unet(name, "cpu", scale="tiny").requires_grad_(False)


@pytest.fixture
def unet() -> Any:
    return deepcopy(built("sd15"))


def stock_pipeline(name: str, folder: Path) -> Any:
    return build_pipeline(name, folder, scale="tiny")


def changed(weights: TrainedWeights, by: float = 0.1) -> TrainedWeights:
    """The weights after a training that led anywhere."""
    with torch.no_grad():
        for seed, parameter in enumerate(weights.parameters()):
            parameter += by * draw(seed, *parameter.shape)
    return weights


def plain(unet: Any) -> Tensor:
    with torch.no_grad():
        return run(unet)


def text(encoder: Any) -> Tensor:
    with torch.no_grad():
        return encoder(torch.arange(24).view(2, 12), output_hidden_states=True).hidden_states[-1]


def snapshot(unet: Any) -> dict[str, Any]:
    """Every parameter and module by name, and the values."""
    named = dict(unet.named_parameters()) | dict(unet.named_modules())
    return named | {f"value of {name}": value.clone() for name, value in unet.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = (
        [(value, other[name], name) for name, value in one.items()]
        if list(one) == list(other)
        else [(0, 1, "")]
    )
    return all(torch.equal(a, b) if name.startswith("value of") else a is b for a, b, name in pairs)


@pytest.mark.parametrize(
    ("part", "count", "tensors"),
    [
        ("k", 9_584_640, 16),
        ("qkv", 31_559_680, 48),
        ("attn2", 43_962_560, 80),
    ],
)
def test_the_counts_of_sd14(part: str, count: int, tensors: int):
    weights = TrainedWeights(build_unet("sd14"), part)
    assert weights.parameter_count() == count and len(weights.state_dict()) == tensors


def test_the_counts_of_low_rank_weights_at_full_size():
    unet = build_unet("sd14")
    weights = TrainedWeights(unet, "k", rank=4)
    widths = [layer.width for layer in select(sites(unet))]
    assert (
        weights.parameter_count() == sum(4 * (768 + width) for width in widths)
        and len(weights.state_dict()) == 32
    )


def test_names_are_the_models_own(unet: Any):
    weights = TrainedWeights(unet, "attn2")
    names = [name for name in unet.state_dict() if ".attn2." in name]
    assert list(weights.state_dict()) == list(dict(weights.named_parameters())) == names
    assert any(name.endswith("to_out.0.bias") for name in names)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert torch.equal(
        weights.get_parameter(f"{layer}.to_k.weight"), unet.get_parameter(f"{layer}.to_k.weight")
    )
    low = TrainedWeights(unet, "k", rank=2)
    assert {f"{layer}.to_k.lora_A.weight", f"{layer}.to_k.lora_B.weight"} <= set(low.state_dict())
    assert all(".attn2.to_k.lora_" in name for name in low.state_dict())


def test_sites_and_words_narrow_the_choice(unet: Any):
    chosen = select(sites(unet), stage="low")
    assert parameter_names(unet, "k", chosen) == [
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    ]
    everything = parameter_names(unet, "model")
    assert everything == list(dict(unet.named_parameters()))
    assert parameter_names(unet, "model", without=["attn", "bias"]) == [
        n for n in everything if "attn" not in n and "bias" not in n
    ]
    assert len(parameter_names(unet, "k", sites(unet))) == len(parameter_names(unet, "k")), (
        "self-attention is not among them"
    )


@pytest.mark.parametrize(("part", "rank"), EVERY)
def test_the_model_starts_as_it_was_and_is_the_stock_one_afterwards(
    unet: Any, part: str, rank: int
):
    before, output = snapshot(unet), plain(unet)
    weights = TrainedWeights(unet, part, rank=rank)
    assert (
        not weights.is_installed
        and same(before, snapshot(unet))
        and "peft_config" not in vars(unet)
    )
    weights.install()
    weights.install()
    assert weights.is_installed and torch.equal(plain(unet), output)
    changed(weights)
    there = plain(unet)
    assert not torch.allclose(there, output, atol=1e-3)
    with weights.swapped_out():
        assert (
            not weights.is_installed
            and same(before, snapshot(unet))
            and torch.equal(plain(unet), output)
        )
    assert weights.is_installed and torch.equal(plain(unet), there)
    with pytest.raises(RuntimeError, match="broken"), weights.swapped_out():
        raise RuntimeError("broken")
    assert weights.is_installed
    weights.remove()
    weights.remove()
    assert same(before, snapshot(unet)) and torch.equal(plain(unet), output)
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    with weights.swapped_out():
        pass
    assert not weights.is_installed, "what was out stays out"


@pytest.mark.parametrize(("part", "rank"), EVERY)
def test_a_step_reaches_every_trained_parameter_and_no_other(unet: Any, part: str, rank: int):
    output, stock = plain(unet), dict(unet.named_parameters())
    weights = changed(TrainedWeights(unet, part, rank=rank), 1e-3)
    weights.install()
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.1)
    loss = run(unet).square().mean()
    with weights.swapped_out():
        assert torch.equal(plain(unet), output)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in weights.parameters())
    assert all(p.grad is None for p in stock.values()) and not any(
        p.requires_grad for p in stock.values()
    )
    optimizer.step()
    assert plain(unet).square().mean() < loss


@pytest.mark.parametrize("rank", [0, *slow(2)])
def test_checkpointing_changes_no_gradient(unet: Any, rank: int):
    weights = changed(TrainedWeights(unet, "model", rank=rank), 1e-2)
    weights.install()
    unet.train()
    run(unet).square().mean().backward()
    expected = [p.grad.clone() for p in weights.parameters() if p.grad is not None]
    weights.zero_grad()
    unet.enable_gradient_checkpointing()
    loss = run(unet).square().mean()
    with weights.swapped_out():
        plain(unet)
    loss.backward()
    assert all(
        torch.allclose(p.grad, e, atol=1e-6)
        for p, e in zip(weights.parameters(), expected, strict=True)
        if p.grad is not None
    )


@pytest.mark.parametrize(("part", "rank"), EVERY)
def test_captures_and_gates_work_with_the_weights_in_place(unet: Any, part: str, rank: int):
    torch.manual_seed(0)
    gates, capture = (
        Gates(select(sites(unet)), Gate(width=8, bias=0.0)),
        Capture(select(sites(unet)), [[1], [2]]),
    )
    weights = TrainedWeights(unet, part, rank=rank)
    with gates.attached(unet), capture.attached(unet):
        gated = plain(unet)
        weights.install()
        assert torch.equal(plain(unet), gated)
        changed(weights)
        there = run(unet)
        maps = torch.cat([m.flatten() for m in capture.maps.by_site.values()])
        assert not torch.allclose(there, gated, atol=1e-3)
        (there.mean() + maps.square().mean()).backward()
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all())
        for p in weights.parameters()
        if p.requires_grad
    )
    unwired = plain(unet)
    weights.remove()
    assert not torch.allclose(plain(unet), unwired, atol=1e-3)
    assert all(
        type(processor).__name__ != "SiteProcessor" for processor in unet.attn_processors.values()
    )


@pytest.mark.parametrize(
    ("part", "rank", "dtype"),
    [("k", 0, HALF[1]), *slow(("model", 0, HALF[0]), ("kv", 2, HALF[0]))],
)
def test_float32_weights_in_a_half_precision_model(
    unet: Any, part: str, rank: int, dtype: torch.dtype
):
    unet = unet.to(dtype)
    inputs = (
        draw(0, 2, 4, 16, 16).to(dtype),
        torch.tensor([900, 20]),
        draw(1, 2, 12, unet.config.cross_attention_dim).to(dtype),
    )
    with torch.no_grad():
        output = unet(*inputs).sample
    before = snapshot(unet)
    weights = TrainedWeights(unet, part, rank=rank)
    weights.install()
    assert {p.dtype for p in weights.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(unet(*inputs).sample, output)
    assert unet.dtype == next(unet.parameters()).dtype == dtype
    # Too small a change for half precision: it is kept all the same.
    changed(weights, 1e-6)
    kept = weights.tensors()
    unet.train()
    unet.enable_gradient_checkpointing()
    loss = unet(*inputs).sample.float().square().mean()
    with torch.no_grad():
        unet(*inputs)
    loss.backward()
    # Gradients of half-precision layers may round to zero here and there.
    reached = [p.grad is not None and p.grad.dtype == torch.float32 for p in weights.parameters()]
    assert all(reached) and sum(
        bool(p.grad.any()) for p in weights.parameters() if p.grad is not None
    ) > 0.9 * len(reached)
    assert all(torch.equal(value, kept[name]) for name, value in weights.state_dict().items())
    changed(weights)
    if not rank:
        state = unet.state_dict()
        assert all(
            torch.equal(state[name], value.to(dtype))
            for name, value in weights.state_dict().items()
        ), "saved as trained"
    with torch.no_grad():
        assert not torch.allclose(unet(*inputs).sample, output, atol=1e-2)
    weights.remove()
    assert same(before, snapshot(unet)) and not any(
        layer._forward_pre_hooks for layer in unet.modules()
    )
    with torch.no_grad():
        assert torch.equal(unet(*inputs).sample, output)


@pytest.mark.parametrize(
    ("rank", "dtype"),
    [(0, torch.bfloat16), *slow((0, torch.float32), (2, torch.bfloat16))],
)
def test_training_under_autocast(unet: Any, rank: int, dtype: torch.dtype):
    unet = unet.to(dtype)
    weights = changed(TrainedWeights(unet, "attn2", rank=rank), 1e-3)
    weights.install()
    with torch.autocast("cpu", torch.bfloat16):
        plain(unet)  # casts that a pass without gradients makes are not for the one with
        loss = run(unet).float().square().mean()
        with weights.swapped_out(), torch.no_grad():
            run(unet)
    loss.backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and bool(p.grad.any())
        for p in weights.parameters()
    )


@pytest.mark.gpu
@pytest.mark.parametrize("rank", [0, 2])
def test_the_model_may_move_with_the_weights_in_it(unet: Any, rank: int):
    before = snapshot(unet)
    weights = TrainedWeights(unet, "k", rank=rank)
    weights.install()
    unet.to("cuda")
    weights.remove()
    assert {p.device.type for p in unet.parameters()} == {"cuda"}
    unet.to("cpu")
    weights.install()
    assert {p.device.type for p in weights.parameters()} == {"cpu"}
    weights.remove()
    assert same(before, snapshot(unet))


def test_a_text_encoder(sd1: Any):
    encoder = sd1.text.encoders[0]
    before, output = snapshot(encoder), text(encoder)
    for weights in (
        TrainedWeights(encoder, "model"),
        TrainedWeights(encoder, "model", without=["token_embedding"]),
        TrainedWeights(encoder, "model", rank=2),
    ):
        weights.install()
        assert torch.equal(text(encoder), output)
        changed(weights)
        assert not torch.allclose(text(encoder), output, atol=1e-2)
        weights.remove()
        assert same(before, snapshot(encoder)) and torch.equal(text(encoder), output)
    assert not any("token_embedding" in name for name in weights.state_dict())


@pytest.mark.parametrize("rank", [0, 2])
def test_values_come_back_from_safetensors(unet: Any, tmp_path: Path, rank: int):
    weights = changed(TrainedWeights(unet, "kv", rank=rank))
    save_file(weights.tensors(), tmp_path / "weights.safetensors")
    other = TrainedWeights(deepcopy(unet), "kv", rank=rank)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights.state_dict().values(), other.state_dict().values(), strict=True)
    )
    for one in (weights, other):
        one.install()
    assert torch.equal(plain(weights.model), plain(other.model))
    kept = weights.tensors()
    changed(weights)
    assert not any(
        torch.equal(kept[name], value) for name, value in weights.state_dict().items()
    ), "tensors() are copies"


def test_torchs_generator_gives_the_adapters(unet: Any):
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(TrainedWeights(unet, "k", rank=2).tensors())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not any(
        torch.equal(drawn[0][name], drawn[2][name]) for name in drawn[0] if "lora_A" in name
    )
    assert not any(value.any() for name, value in drawn[0].items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("name", "part", "rank"),
    [("sdxl", "attn2", 0), *slow(("sd15", "k", 0), ("sdxl", "model", 2))],
)
def test_a_stock_pipeline_draws_the_same(name: str, part: str, rank: int, tmp_path: Path):
    ours, stock = (
        Backbone(stock_pipeline(name, tmp_path / "a"), "ours"),
        stock_pipeline(name, tmp_path / "b"),
    )
    untouched = sample(ours, ["a red circle"], [5], 2, 4.0, 64)
    weights = {"unet": changed(TrainedWeights(ours.unet, part, rank=rank))}
    if part == "model":
        encoders = zip(("text_encoder", "text_encoder_2"), ours.text.encoders, strict=False)
        weights |= {
            name: changed(TrainedWeights(encoder, part, rank=rank)) for name, encoder in encoders
        }
    for one in weights.values():
        one.install()
    files = save_stock(tmp_path / "out", **weights)
    if rank:
        assert [file.name for file in files] == ["pytorch_lora_weights.safetensors"]
        stock.load_lora_weights(tmp_path / "out")
    else:
        found = stock.unet.load_state_dict(
            load_file(tmp_path / "out" / "unet.safetensors"), strict=False
        )
        assert files == [tmp_path / "out" / "unet.safetensors"] and not found.unexpected_keys
    expected = sample(ours, ["a red circle"], [5], 2, 4.0, 64)
    assert (
        apart(sample(Backbone(stock, "stock"), ["a red circle"], [5], 2, 4.0, 64), expected)
        <= ROUNDING
    )
    assert apart(expected, untouched) > 10 * ROUNDING
    if rank:
        stock.unload_lora_weights()
        assert (
            apart(sample(Backbone(stock, "stock"), ["a red circle"], [5], 2, 4.0, 64), untouched)
            <= ROUNDING
        )


ROUNDING = 1  # grey level: two pipelines of the same weights need not add in the same order


def apart(some: torch.Tensor, others: torch.Tensor) -> int:
    """The largest difference between two sets of images, in grey levels."""
    return int((some.int() - others.int()).abs().max())


def test_one_model_alone_is_saved_the_same(unet: Any, tmp_path: Path):
    weights = changed(TrainedWeights(unet, "k", rank=2))
    (file,) = save_stock(tmp_path / "one", unet=weights)
    assert weights.save_stock(tmp_path / "other").read_bytes() == file.read_bytes()


def test_the_mistakes_of_a_caller_are_named(unet: Any, sd1: Any):
    with pytest.raises(
        ValueError, match=(f"part 'keys' is unknown: expected one of {', '.join(PARTS)}")
    ):
        TrainedWeights(unet, "keys")
    with pytest.raises(
        ValueError,
        match=(
            "part 'k' chooses no parameter of CLIPTextModel: expected at least one; give it "
            "sites .* model"
        ),
    ):
        TrainedWeights(sd1.text.encoders[0], "k")
    with pytest.raises(ValueError, match="part 'k' chooses no parameter of UNet2DConditionModel"):
        TrainedWeights(unet, "k", select(sites(unet), kind="self"))
    with pytest.raises(ValueError, match="rank=-1: expected 0"):
        TrainedWeights(unet, "k", rank=-1)
    with pytest.raises(
        ValueError, match=("no linear or convolution layer is chosen in UNet2DConditionModel")
    ):
        TrainedWeights(unet, "model", rank=2, without=["weight"])


@pytest.mark.parametrize("rank", [0, 2])
def test_one_set_of_weights_at_a_time(unet: Any, rank: int):
    one, other = TrainedWeights(unet, "k", rank=rank), TrainedWeights(unet, "v", rank=rank)
    one.install()
    for attempt in (other.install, lambda: TrainedWeights(unet, "k")):
        with pytest.raises(
            ValueError,
            match=(
                "UNet2DConditionModel holds other trained weights or adapters.*take them out first"
            ),
        ):
            attempt()
    one.remove()
    other.install()
    assert other.is_installed and not one.is_installed


def test_what_was_done_to_the_model_from_outside_is_named(unet: Any):
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    layer = unet.get_submodule(path)
    for rank in (0, 2):
        weights = TrainedWeights(unet, "k", rank=rank)
        unet.set_submodule(path, torch.nn.Linear(3, 3))
        with pytest.raises(
            ValueError, match=(f"{path}.* has been replaced from outside: make the weights anew")
        ):
            weights.install()
        assert not weights.is_installed
        unet.set_submodule(path, layer)
        weights.install()
        unet.set_submodule(path, torch.nn.Linear(3, 3))
        with pytest.raises(
            ValueError, match=(f"{path}.* has been replaced from outside: undo that first")
        ):
            weights.remove()
        unet.set_submodule(path, layer if rank == 0 else weights._ours[path])
        weights.remove()
    unet.load_lora_adapter(
        {f"unet.{n}": t for n, t in TrainedWeights(unet, "k", rank=2).tensors().items()},
        prefix="unet",
    )
    with pytest.raises(
        ValueError, match=("holds other trained weights or adapters.*unload_lora_weights")
    ):
        TrainedWeights(unet, "k")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_weights_are_not_loaded_over_trained_ones(unet: Any, dtype: torch.dtype):
    unet.to(dtype)
    stock = {name: value.clone() for name, value in unet.state_dict().items()}
    weights = TrainedWeights(unet, "k")
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.add_(1)
    weights.install()
    mine = weights.tensors()
    for load in (
        lambda: unet.load_state_dict(stock),
        lambda: unet.load_state_dict(stock, strict=False),
        lambda: unet.mid_block.load_state_dict(
            {n[10:]: v for n, v in stock.items() if n.startswith("mid_block.")}
        ),
    ):
        with pytest.raises(ValueError, match=r"to_k.weight is one of the trained.*remove\(\)"):
            load()
    assert all(torch.equal(mine[name], value) for name, value in weights.tensors().items())
    unet.load_state_dict(unet.state_dict())  # Changes nothing
    others = {name: value for name, value in stock.items() if ".attn2.to_k." not in name}
    unet.load_state_dict(others, strict=False)
    weights.remove()
    unet.load_state_dict(stock)
    weights.load_state_dict(mine)
