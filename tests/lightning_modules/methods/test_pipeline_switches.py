"""The stock pipeline's own switches while a method is in it: the method survives, or its loss is an
error of one line; the untouched image never comes in silence."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from helpers.installed_methods import METHODS, PROMPTS, SEEDS, draw_with, install_method, prompts_of
from helpers.marks import slow

from lightning_modules.backbone.backbone import Backbone

FULL = ("weights", "subjects", "mask tokens")
LOW_RANK = ("low rank", "low-rank subjects")
HOOKED = ("gates", "mask tokens")
PLACEHOLDERS = ("subjects", "low-rank subjects", "mask tokens")


def use_other_processors(pipeline: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    pipeline.unet.set_attn_processor(AttnProcessor())


def load_lora(pipeline: Any) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = type(pipeline.unet).from_config(pipeline.unet.config)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]), "other")
    state = get_peft_model_state_dict(unet, adapter_name="other")
    generator = torch.Generator().manual_seed(0)
    pipeline.load_lora_weights(
        {f"unet.{k}": 0.01 * torch.randn(v.shape, generator=generator) for k, v in state.items()}
    )


def scale_layers(pipeline: Any) -> None:
    """Halves every low-rank layer of the pipeline."""
    for part in (pipeline.unet, pipeline.text_encoder):
        for layer in part.modules():
            if hasattr(layer, "scale_layer"):
                layer.scale_layer(0.5)


def set_scale(pipeline: Any) -> None:
    for layer in pipeline.unet.modules():
        if hasattr(layer, "set_scale"):
            layer.set_scale("default", 0)


def load_and_unload_lora(pipeline: Any) -> None:
    load_lora(pipeline)
    pipeline.unload_lora_weights()


def skip_a_block(pipeline: Any) -> None:
    block = pipeline.unet.down_blocks[0].attentions[0]
    block.forward = lambda hidden, *_, **__: (hidden,)


def offload_layers(pipeline: Any) -> None:
    import accelerate

    accelerate.cpu_offload(pipeline.unet, torch.device("cpu"), offload_buffers=True)


def offload_layers_and_back(pipeline: Any) -> None:
    offload_layers(pipeline)
    pipeline.remove_all_hooks()


def offload_model(pipeline: Any) -> None:
    import accelerate

    accelerate.cpu_offload_with_hook(pipeline.unet, torch.device("cpu"))


def compile_unet(pipeline: Any) -> None:
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")


def replace(part: str) -> Callable[[Any], None]:
    return lambda pipeline: setattr(pipeline, part, deepcopy(STOCK[part]))


def replace_block(pipeline: Any) -> None:
    pipeline.unet.mid_block = deepcopy(STOCK["unet"].mid_block)


def copy_part(part: str) -> Callable[[Any], None]:
    return lambda pipeline: setattr(pipeline, part, deepcopy(getattr(pipeline, part)))


def replace_a_parameter(pipeline: Any) -> None:
    layer = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    layer = getattr(layer, "base_layer", layer)
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight))


def unload_placeholders(pipeline: Any) -> None:
    """As it goes on while a method is in: the tokenizer has lost its words before it fails."""
    with contextlib.suppress(AttributeError):
        pipeline.unload_textual_inversion()


STOCK: dict[str, Any] = {}
# Switch -> what it does, the methods that it takes out, a word of the error
SWITCHES: dict[str, tuple[Callable[[Any], Any], tuple[str, ...], str]] = {
    "slicing": (lambda p: p.enable_attention_slicing(1), HOOKED, "SlicedAttnProcessor"),
    "slicing off": (lambda p: p.disable_attention_slicing(), HOOKED, "attention slicing"),
    "fused": (lambda p: p.fuse_qkv_projections(), tuple(METHODS), "fused projections"),
    "processors": (use_other_processors, HOOKED, "set_attn_processor"),
    "backend": (lambda p: p.unet.set_attention_backend("native"), (), ""),
    "dtype": (lambda p: p.to(torch.bfloat16), (), ""),
    "compile": (compile_unet, (), ""),
    "compile in place": (lambda p: p.unet.compile(backend="eager"), (), ""),
    "checkpointing": (lambda p: p.unet.enable_gradient_checkpointing(), (), ""),
    "lora": (load_lora, LOW_RANK, "switched off"),
    "scaled": (scale_layers, LOW_RANK, "scaled by 0.5"),
    "scaled away": (set_scale, LOW_RANK, "scaled by 0 "),
    "lora and back": (load_and_unload_lora, LOW_RANK, "replaced from outside"),
    "channels last": (lambda p: p.unet.to(memory_format=torch.channels_last), (), ""),
    "freeu": (lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), (), ""),
    "cache": (skip_a_block, HOOKED, "did not attend"),
    "other unet": (replace("unet"), tuple(METHODS), "pipeline.unet has been replaced"),
    "copied unet": (copy_part("unet"), tuple(METHODS), "pipeline.unet has been replaced"),
    "other parameter": (replace_a_parameter, FULL, "attn2.to_k.weight.*replaced"),
    "other text encoder": (replace("text_encoder"), tuple(METHODS), "text_encoder has been"),
    "other tokenizer": (replace("tokenizer"), PLACEHOLDERS, "does not know|tokenizer of"),
    "words unloaded": (unload_placeholders, PLACEHOLDERS, "<asset0> have been taken out"),
    "other block": (replace_block, tuple(METHODS), "mid_block.*replaced|mid_block.*acts there"),
    "other vae": (replace("vae"), (), ""),
    "layers offloaded": (offload_layers, (), ""),
    "layers back": (offload_layers_and_back, (), ""),
    "model offloaded": (offload_model, (), ""),
    "copy": (deepcopy, (), ""),
    "layerwise": (
        lambda p: p.unet.enable_layerwise_casting(torch.bfloat16, torch.float32),
        (),
        "",
    ),
}
# These change images by themselves
CHANGING = ("dtype", "lora", "freeu", "cache", "layerwise", "other parameter")
DEFAULT = [
    ("gates", "slicing"),
    ("gates", "cache"),
    ("gates", "copy"),
    ("gates", "other unet"),
    ("weights", "fused"),
    ("weights", "dtype"),
    ("weights", "layers back"),
    ("weights", "other parameter"),
    ("low rank", "lora"),
    ("low rank", "scaled"),
    ("subjects", "other tokenizer"),
    ("subjects", "words unloaded"),
]


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        *DEFAULT,
        *slow(*((n, s) for n in METHODS for s in SWITCHES if (n, s) not in DEFAULT)),
    ],
)
def test_a_method_survives_a_switch_or_its_loss_is_an_error(
    name: str, switch: str, sd1_pipeline: Any
):
    STOCK.update(sd1_pipeline.components)
    pipeline = deepcopy(sd1_pipeline)
    method, prompts = install_method(name, Backbone(pipeline, "sd1")), prompts_of(name)
    mine = draw_with(pipeline, prompts)
    turn, lost, word = SWITCHES[switch]
    drawn_by = turn(pipeline) if switch == "copy" else pipeline
    if switch != "copy":
        turn(pipeline)
    if name in lost:
        with pytest.raises(ValueError, match=word) as error:
            draw_with(pipeline, prompts)
        assert "\n" not in str(error.value)
        return
    images = draw_with(drawn_by, prompts)
    method.remove() if switch not in ("lora", "layers offloaded") else None
    plain = deepcopy(sd1_pipeline)
    if switch in CHANGING:
        turn(plain)
        assert int((images - draw_with(plain, prompts)).abs().max()) > 20
    else:
        assert int((images - mine).abs().max()) <= 1
        assert int((mine - draw_with(plain, prompts)).abs().max()) > 20


@pytest.mark.parametrize("name", ["low rank", *slow("low-rank subjects")])
def test_a_scale_of_one_call_is_an_error_for_low_rank_weights(name: str, sd1_pipeline: Any):
    pipeline, prompts = deepcopy(sd1_pipeline), prompts_of(name)
    install_method(name, Backbone(pipeline, "sd1"))
    for scale in (0.0, 0.5, -1.0):
        given = {"cross_attention_kwargs": {"scale": scale}}
        with pytest.raises(ValueError, match=f"scaled by {scale:g} .*expected 1"):
            pipeline(prompts, num_inference_steps=1, output_type="latent", **given)
        # What diffusers leaves behind where a call fails
        for layer in pipeline.text_encoder.modules():
            if hasattr(layer, "unscale_layer"):
                layer.unscale_layer()
    draw_with(pipeline, prompts)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gates", "unet"),
        ("weights", "unet"),
        ("subjects", "text_encoder"),
        *slow(*((n, "unet") for n in METHODS if n not in ("gates", "weights"))),
        *slow(("low-rank subjects", "text_encoder")),
    ],
)
def test_the_method_goes_out_of_a_copy_of_its_model_too(name: str, part: str, sd1_pipeline: Any):
    pipeline, prompts = deepcopy(sd1_pipeline), prompts_of(name)
    method = install_method(name, Backbone(pipeline, "sd1"))
    copy_part(part)(pipeline)
    with pytest.raises(ValueError, match=r"remove\(\), and open the pipeline"):
        draw_with(pipeline, prompts)
    method.remove()
    assert torch.equal(draw_with(pipeline, prompts), draw_with(deepcopy(sd1_pipeline), prompts))
    # Put back it would go into the model that the pipeline has no more
    method.install()
    with pytest.raises(ValueError, match=f"pipeline.{part} has been replaced"):
        draw_with(pipeline, prompts)


def test_a_changed_copy_of_which_the_method_cannot_be_taken_is_named(sd1_pipeline: Any):
    pipeline = deepcopy(sd1_pipeline)
    method = install_method("weights", Backbone(pipeline, "sd1"))
    copy_part("unet")(pipeline)
    replace_a_parameter(pipeline)
    with pytest.raises(ValueError, match=r"cannot be taken out of pipeline.unet.*remove\(\) again"):
        method.remove()
    pipeline.unet = deepcopy(sd1_pipeline.unet)
    method.remove()
    assert torch.equal(draw_with(pipeline), draw_with(deepcopy(sd1_pipeline)))


@pytest.mark.parametrize("name", ["weights", *slow("subjects", "mask tokens")])
def test_trained_weights_go_from_below_low_rank_layers(name: str, sd1_pipeline: Any):
    pipeline, plain = deepcopy(sd1_pipeline), deepcopy(sd1_pipeline)
    prompts = prompts_of(name)
    method = install_method(name, Backbone(pipeline, "sd1"))
    load_lora(pipeline)
    load_lora(plain)
    mine, stock = draw_with(pipeline, prompts), draw_with(plain, prompts)
    assert int((mine - stock).abs().max()) > 20
    method.remove()
    assert torch.equal(draw_with(pipeline, prompts), stock)


@pytest.mark.parametrize("name", ["gates", "weights", *slow("low rank", "subjects", "mask tokens")])
def test_neither_pipeline_nor_method_leaves_the_process_together(name: str, sd1_pipeline: Any):
    pipeline = deepcopy(sd1_pipeline)
    method, prompts = install_method(name, Backbone(pipeline, "sd1")), prompts_of(name)
    mine = draw_with(pipeline, prompts)
    for pickled in (pipeline, pipeline.unet, method):
        with pytest.raises(
            ValueError, match=r"cannot be pickled.*remove\(\).*save_adapter"
        ) as error:
            pickle.dumps(pickled)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"copy the pipeline alone.*remove\(\)"):
        deepcopy(method)
    assert torch.equal(draw_with(pipeline, prompts), mine)
    method.remove()
    opened = pickle.loads(pickle.dumps(pipeline))
    assert torch.equal(draw_with(opened, prompts), draw_with(deepcopy(sd1_pipeline), prompts))


def test_another_scheduler_of_the_pipeline_draws_for_the_method_too(sd1_pipeline: Any):
    pipeline = deepcopy(sd1_pipeline)
    method = install_method("gates", Backbone(pipeline, "sd1"))
    before = method.generate(PROMPTS, SEEDS, None, 2, 3.0).int()
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    images = method.generate(PROMPTS, SEEDS, None, 2, 3.0).int()
    assert int((images - draw_with(pipeline)).abs().max()) <= 1
    assert int((images - before).abs().max()) > 20
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="not one of diffusion, but of flows"):
        method.generate(PROMPTS, SEEDS, None, 2, 3.0)


@pytest.mark.parametrize("name", ["gates", *slow(*(n for n in METHODS if n != "gates"))])
def test_after_an_error_the_method_can_be_taken_out_and_put_back(name: str, sd1_pipeline: Any):
    pipeline = deepcopy(sd1_pipeline)
    method, prompts = install_method(name, Backbone(pipeline, "sd1")), prompts_of(name)
    mine, stock = draw_with(pipeline, prompts), draw_with(deepcopy(sd1_pipeline), prompts)
    pipeline.fuse_qkv_projections()
    with pytest.raises(ValueError, match="fused projections"):
        draw_with(pipeline, prompts)
    if name not in HOOKED[:1]:  # Copies of the trained projections would stay at work
        with pytest.raises(ValueError, match="unfuse_qkv_projections"):
            method.remove()
    pipeline.unfuse_qkv_projections()
    assert torch.equal(draw_with(pipeline, prompts), mine)
    method.remove()
    assert torch.equal(draw_with(pipeline, prompts), stock)
    method.install()
    assert torch.equal(draw_with(pipeline, prompts), mine)


def test_processors_of_ours_that_are_put_back_later_are_stock_ones(sd1_pipeline: Any):
    pipeline = deepcopy(sd1_pipeline)
    stock = draw_with(pipeline)
    method = install_method("gates", Backbone(pipeline, "sd1"))
    mine = draw_with(pipeline)
    pipeline.fuse_qkv_projections()
    method.remove()
    pipeline.unfuse_qkv_projections()  # To those that were there when it was fused
    assert torch.equal(draw_with(pipeline), stock)
    method.install()
    assert torch.equal(draw_with(pipeline), mine)


@pytest.mark.parametrize("name", ["gates", "low rank", "subjects", *slow("weights", "mask tokens")])
def test_a_pipeline_is_not_saved_while_a_method_is_in_it(
    name: str, sd1_pipeline: Any, tmp_path: Path
):
    pipeline = deepcopy(sd1_pipeline)
    method = install_method(name, Backbone(pipeline, "sd1"))
    with pytest.raises(ValueError, match=r"remove\(\).*save_adapter"):
        pipeline.save_pretrained(tmp_path)
    if name in (*HOOKED, *LOW_RANK):  # Its own files would not hold the method
        with pytest.raises(ValueError, match="save_pretrained of UNet2DConditionModel"):
            pipeline.unet.save_pretrained(tmp_path)
    if name in PLACEHOLDERS:  # Its files would lack the rows of words that the tokenizer knows
        for saved in (pipeline.text_encoder, type(pipeline).from_pipe(pipeline)):
            with pytest.raises(ValueError, match=r"save_pretrained of CLIPTextModel.*placeholder"):
                saved.save_pretrained(tmp_path.parent / "part")
    assert not list(tmp_path.iterdir())
    method.remove()
    pipeline.save_pretrained(tmp_path)
    saved = type(pipeline).from_pretrained(tmp_path, safety_checker=None)
    assert torch.equal(draw_with(saved), draw_with(deepcopy(sd1_pipeline)))


@pytest.mark.parametrize("switch", ["model offloaded", *slow("layers offloaded", "compile")])
@pytest.mark.parametrize("name", ["gates", *slow("weights", "subjects")])
def test_a_method_is_installed_into_a_pipeline_that_was_switched_before(
    name: str, switch: str, sd1_pipeline: Any, tmp_path: Path
):
    from lightning_modules.methods.base import Method

    prompts = prompts_of(name)
    first = install_method(name, Backbone(deepcopy(sd1_pipeline), "sd1"))
    mine = first.generate(prompts, [1, 2], None, 2, 3.0)
    first.save_adapter(tmp_path)
    pipeline = deepcopy(sd1_pipeline)
    SWITCHES[switch][0](pipeline)
    stock = draw_with(pipeline)
    if switch == "layers offloaded" and name != "gates":
        with pytest.raises(ValueError, match=r"offloaded layer by layer.*remove_all_hooks"):
            Method.load_adapter(tmp_path, Backbone(pipeline, "sd1"))
    else:
        method = Method.load_adapter(tmp_path, Backbone(pipeline, "sd1"))
        assert int((draw_with(pipeline, prompts) - mine.int()).abs().max()) <= 1
        assert torch.equal(method.generate(prompts, [1, 2], None, 2, 3.0), mine)
        method.remove()
    assert torch.equal(draw_with(pipeline), stock)
