"""PixArt as a backbone: what it is told, predicts and draws is what its stock pipeline does, and
padding never acts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.architectures import build_pipeline, build_transformer, config
from helpers.unet_inputs import draw

from conf.schema import Gate
from conf.schema import Method as MethodConfig
from conf.schema import Trainer as TrainerConfig
from datamodules.batch import Batch
from datamodules.cache import TextCache, text_facts
from lightning_modules.attention import nearest, select, sites
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.token_types import EOS, PADDING, WORD
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.backbone.text import TextCondition
from lightning_modules.methods.base import Method
from lightning_modules.methods.gate_supervision import density_supervision
from lightning_modules.networks.placeholder_tokens import Subjects

PROMPTS = ["  A Red circle, above the WHITE ring! ", "", "ring " * 400]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The wiring of PixArt-XL-2-1024-MS, which is told the size of its images."""
    return Backbone(
        build_pipeline("pixart", tmp_path_factory.mktemp("large"), scale="tiny", sample_size=128),
        "large",
    )


@pytest.fixture(scope="module")
def sigma(pixart_pipeline: Any) -> Backbone:
    from diffusers import PixArtSigmaPipeline

    return Backbone(PixArtSigmaPipeline(**pixart_pipeline.components), "sigma")


@pytest.fixture
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return request.getfixturevalue(request.param)


every = pytest.mark.parametrize("backbone", ["pixart", "large", "sigma"], indirect=True)


def inputs(backbone: Backbone, prompts: list[str] | None = None) -> dict[str, Any]:
    text = backbone.text.encode(prompts or ["a red circle above a white ring", "a green cross"])
    return {
        "latents": draw(9, 2, 4, 8, 8),
        "timesteps": torch.tensor([900, 20]),
        "text": text,
        "resolution": 64,
    }


def gates_for(backbone: Backbone, bias: float, **settings: Any) -> Gates:
    torch.manual_seed(0)
    return Gates(
        select(backbone.sites(64)),
        Gate(**{"width": 8, "bias": bias, "protect": "none"} | settings),
        backbone.text.token_types,
    )


# --- at full size --------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_size_has_the_published_parameters_and_blocks(tmp_path: Path):
    pipeline = build_pipeline("pixart", tmp_path, device="meta")
    backbone = Backbone(pipeline, "pixart")
    count = [
        sum(p.numel() for p in m.parameters())
        for m in (backbone.denoiser, *backbone.text.encoders, backbone.vae)
    ]
    assert count == [610_856_096, 4_762_310_656, 83_653_863]
    assert (
        sum(p.numel() for p in build_transformer("pixart", sample_size=128).parameters())
        == 610_856_096 + 493_056
    )
    assert (
        backbone.latent_size() == (4, 64, 64)
        and backbone.vae_scale_factor == 8
        and config("pixart")["image"] == 512
    )
    assert len(backbone.text.tokenizers[0]) == 32_100 and (
        backbone.text.tokenizers[0].pad_token_id,
        backbone.text.tokenizers[0].eos_token_id,
    ) == (0, 1)
    found = backbone.sites()
    assert len(found) == 56 and [site.kind for site in found[:4]] == [
        "self",
        "cross",
        "self",
        "cross",
    ]
    assert {(site.width, site.context, site.heads, site.resolution) for site in found} == {
        (1152, 1152, 16, 32)
    }
    assert {site.resolution for site in backbone.sites(1024)} == {64}
    keys = [backbone.denoiser.get_submodule(site.name).to_k for site in select(found)]
    assert sum(p.numel() for layer in keys for p in layer.parameters()) == 28 * (1152 * 1152 + 1152)


def test_stages_are_thirds_of_the_depth_and_placements_halves():
    found = select(sites(build_transformer("pixart")))
    assert [site.name for site in found] == [f"transformer_blocks.{i}.attn2" for i in range(28)]
    assert [site.stage for site in found] == ["high"] * 10 + ["mid"] * 9 + ["low"] * 9
    assert [site.placement for site in found] == ["encoder"] * 14 + ["decoder"] * 14
    assert [site.name.split(".")[1] for site in select(found, "mid", "decoder")] == [
        "14",
        "15",
        "16",
        "17",
        "18",
    ]
    assert nearest(found, 16) == found
    with pytest.raises(
        ValueError,
        match=("this model has high/encoder/32, low/decoder/32, mid/decoder/32, mid/encoder/32"),
    ):
        select(found, "low", "encoder")


# --- text --------------------------------------------------------------------------------


@every
@torch.no_grad()
def test_prompts_are_encoded_as_the_stock_pipeline_does(backbone: Backbone):
    hidden, mask, negative, without = backbone.pipeline.encode_prompt(PROMPTS)
    text = backbone.text.encode(PROMPTS)
    length = 300 if backbone.source == "sigma" else 120
    assert (
        text.hidden.shape == (3, length, 16)
        and text.pooled is None
        and backbone.text.length == length
    )
    assert (
        torch.equal(text.hidden, hidden)
        and torch.equal(text.mask, mask)
        and mask.sum(1).tolist()[1:] == [1, length]
    )
    empty = backbone.text.encode_empty(3)
    assert torch.allclose(empty.hidden, negative, atol=1e-6) and torch.equal(empty.mask, without)
    both = empty + text
    assert torch.equal(both.mask, torch.cat([without, mask])) and torch.equal(
        both[slice(3, 5)].mask, mask[:2]
    )


def test_token_indices_are_those_of_the_text_in_lower_case(pixart: Backbone):
    caption = " İ A RED circle above a dog"
    assert pixart.text.token_names("A RED circle") == ["a", "red", "circle", "EOS"]
    names = pixart.text.token_names(caption)
    indices = pixart.text.token_indices(caption, ["red circle", "dog", (1, 2)])
    assert [names[at] for at in indices[0]] == ["red", "circle"]
    assert "".join(names[at] for at in indices[1]) == "dog" and indices[2] == list(
        range(indices[0][0] - 1)
    )
    with pytest.raises(
        ValueError,
        match=("cut off: its last token is number 119, and the encoder reads 120 with EOS"),
    ):
        pixart.text.token_indices("a " * 119 + "ring", ["ring"])


@torch.no_grad()
def test_texts_from_the_cache_bring_their_mask(pixart: Backbone, tmp_path: Path):
    fresh = pixart.text.encode(PROMPTS)
    pixart.text.cache = TextCache.fill(
        tmp_path,
        text_facts(pixart.text.fingerprint(), "float32"),
        PROMPTS,
        pixart.text.encode_for_cache,
    )
    found = pixart.text.encode(PROMPTS[::-1])
    assert torch.allclose(found.hidden, fresh.hidden.flip(0), atol=1e-5) and torch.equal(
        found.mask, fresh.mask.flip(0)
    )


def test_a_dropped_caption_is_read_as_the_empty_prompt(pixart: Backbone):
    method = Method(pixart, MethodConfig(), TrainerConfig(), 64)
    text = method._encode(Batch([0, 1], ["a red ring", ""]))
    assert text.mask.sum(1).tolist() == [4, 1] and torch.allclose(
        text.hidden[1], pixart.text.encode_empty(1).hidden[0], atol=1e-6
    )


# --- prediction and sampling ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "guidance"),
    [("pixart", 4.5), ("pixart", 1.0), ("large", 4.5), ("sigma", 4.5)],
    indirect=["backbone"],
)
def test_it_draws_as_the_stock_pipeline_does(backbone: Backbone, guidance: float):
    mine = sample(backbone, ["A red circle above a dog!", "a ring"], [5, 6], 3, guidance, 64)
    noises = torch.cat(
        [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
    )
    stock = backbone.restored_pipeline()(
        ["A red circle above a dog!", "a ring"],
        num_inference_steps=3,
        guidance_scale=guidance,
        height=64,
        width=64,
        latents=noises,
        output_type="pt",
        clean_caption=False,
        use_resolution_binning=False,
    ).images
    assert (
        mine.float().std() > 10 and int((mine.int() - (stock * 255).round().int()).abs().max()) <= 1
    )


@torch.no_grad()
def test_the_noise_is_the_first_half_and_the_size_is_told_where_the_model_asks(
    pixart: Backbone, large: Backbone
):
    given = inputs(pixart)
    text = given["text"]
    output = pixart.denoiser(
        given["latents"],
        encoder_hidden_states=text.hidden,
        timestep=given["timesteps"],
        encoder_attention_mask=text.mask,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
    ).sample
    assert output.shape == (2, 8, 8, 8) and torch.equal(pixart.predict(**given), output[:, :4])
    assert torch.equal(pixart.predict(**given | {"resolution": 512}), output[:, :4])
    told = [large.predict(**inputs(large) | {"resolution": side}) for side in (64, 512)]
    assert not torch.allclose(*told, atol=1e-3)


@torch.no_grad()
def test_padding_cannot_matter_whatever_acts(pixart: Backbone):
    given = inputs(pixart)
    text = given["text"]
    other = text.hidden.masked_fill((text.mask == 0)[..., None], 7.0)
    stock, outputs = pixart.predict(**given), []
    for bias in (None, 50.0, 0.0, -50.0):
        part = Capture(select(pixart.sites(64))) if bias is None else gates_for(pixart, bias)
        with part.attached(pixart.denoiser):
            outputs.append(pixart.predict(**given))
            changed = pixart.predict(**given | {"text": TextCondition(other, mask=text.mask)})
        assert torch.equal(changed, outputs[-1]), bias
    idle, opened, some, closed = outputs
    assert torch.equal(idle, stock) and torch.equal(opened, stock)
    assert not torch.allclose(some, stock, atol=1e-4) and not torch.allclose(
        closed, some, atol=1e-4
    )


# --- gates and maps under a mask ------------------------------------------------------------------


@torch.no_grad()
def test_gates_know_words_from_padding_by_the_mask(pixart: Backbone):
    given, gates = inputs(pixart, ["a red ring", ""]), gates_for(pixart, -50.0, stage="all")
    with gates.attached(pixart.denoiser), gates.recording(live=True) as record:
        pixart.predict(**given)
    for site in gates.sites:
        assert record.token_types[site.name][:, :5].tolist() == [
            [WORD, WORD, WORD, EOS, PADDING],
            [EOS, *[PADDING] * 4],
        ]
        gate = record.gates[site.name]
        assert gate[:, :, 4:].eq(1).all() and gate[0, :, :4].sum(-1).eq(1).all(), (
            "one token is open, and padding has no gate"
        )
        assert not record.free[site.name][:, :, 4:].any() and record.free[site.name][0, 0, :4].all()
    assert (
        set(record.shares()) >= {"kind/word", "kind/eos"} and "kind/padding" not in record.shares()
    )
    assert record.share_closed() == pytest.approx(3 / 5), (
        "of a location's four gates three, of the empty prompt's one none"
    )
    loss = density_supervision(Gate(supervision_density=1 / 4), record)
    assert float(loss) == pytest.approx((0 + 0.75**2) / 2)


KINDS = [
    {"mode": "topk", "keep": 0.5},
    {"mode": "soft"},
    {"apply_at": "post_softmax"},
    {"gradient": "released"},
]


@pytest.mark.parametrize("settings", KINDS)
def test_every_kind_of_gate_is_trained_under_a_mask(pixart: Backbone, settings: dict[str, Any]):
    with (
        gates_for(pixart, 0.0, **settings).attached(pixart.denoiser) as gates,
        gates.recording(live=True) as record,
    ):
        pixart.predict(**inputs(pixart)).square().mean().backward()
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any())
        for p in gates.parameters()
    )
    if "keep" in settings:
        # "a red circle above a white ring" and EOS are eight tokens, of which four are kept.
        assert record.gates[gates.sites[0].name][0, :, :8].sum(-1).eq(4).all()


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointing_and_autocast_give_what_the_plain_pass_gives(
    pixart: Backbone, autocast: bool
):
    found = []
    for checkpointing in (False, True):
        (
            pixart.denoiser.enable_gradient_checkpointing
            if checkpointing
            else pixart.denoiser.disable_gradient_checkpointing
        )()
        gates, capture = (
            gates_for(pixart, 0.0),
            Capture(select(pixart.sites(64)), [[[1, 2]], [[1]]]),
        )
        with (
            gates.attached(pixart.denoiser),
            capture.attached(pixart.denoiser),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            out = pixart.predict(**inputs(pixart))
            (out.float().square().mean() + capture.maps.mean().square().sum()).backward()
        found.append([out.detach(), *(p.grad for p in gates.parameters())])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(*found, strict=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        stock = pixart.predict(**inputs(pixart))
        with gates_for(pixart, 50.0).attached(pixart.denoiser):
            assert torch.equal(pixart.predict(**inputs(pixart)), stock)


@torch.no_grad()
def test_maps_are_the_layers_own_probabilities(pixart: Backbone):
    given, chosen = inputs(pixart), select(pixart.sites(64))
    tokens = [list(range(120))] * 2
    with Capture(chosen, tokens).attached(pixart.denoiser) as capture:
        pixart.predict(**given)
    maps = capture.maps.mean()  # [2, 120, 4, 4]
    read = given["text"].mask.bool()
    assert (
        torch.allclose(maps.sum(1), torch.ones(2, 4, 4), atol=1e-5)
        and maps[~read].eq(0).all()
        and (maps[read] > 0).all()
    )


def test_the_stock_pipeline_with_gates_draws_as_the_method_does(pixart: Backbone):
    with gates_for(pixart, 0.0).attached(pixart.denoiser):
        mine = sample(pixart, ["a red ring"], [3], 2, 4.0, 64)
        stock = pixart.restored_pipeline()(
            "a red ring",
            num_inference_steps=2,
            guidance_scale=4.0,
            height=64,
            width=64,
            generator=torch.Generator().manual_seed(3),
            output_type="pt",
            clean_caption=False,
            use_resolution_binning=False,
        ).images
    assert int((mine.int() - (stock * 255).round().int()).abs().max()) <= 1
    assert int((mine.int() - sample(pixart, ["a red ring"], [3], 2, 4.0, 64).int()).abs().max()) > 1


# --- opened and refused ---------------------------------------------------------------------------


def test_a_folder_is_opened_also_when_it_is_as_old_as_the_published_ones(
    pixart_pipeline: Any, tmp_path: Path
):
    pixart_pipeline.save_pretrained(tmp_path)
    index, inner = tmp_path / "model_index.json", tmp_path / "transformer" / "config.json"
    index.write_text(
        json.dumps(
            json.loads(index.read_text()) | {"transformer": ["diffusers", "Transformer2DModel"]}
        )
    )
    inner.write_text(
        json.dumps(json.loads(inner.read_text()) | {"_class_name": "Transformer2DModel"})
    )
    opened = Backbone.load(str(tmp_path))
    assert opened.family.denoiser_name == "transformer" and opened.text.length == 120
    one, other = (
        sample(b, ["a red ring"], [1], 2, 3.0, 64)
        for b in (opened, Backbone(pixart_pipeline, "pixart"))
    )
    assert int((one.int() - other.int()).abs().max()) <= 1
    with pytest.raises(AttributeError, match="unet"):
        _ = opened.unet


def test_a_tokenizer_that_cannot_be_read_says_what_is_missing(
    pixart_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from diffusers import DiffusionPipeline

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(
            "`tiktoken` is required to read a `tiktoken` file. Install it with `pip "
            "install tiktoken`."
        )

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
    monkeypatch.setattr("lightning_modules.backbone.backbone.read_configs", lambda *_: None)
    with pytest.raises(
        FileNotFoundError,
        match=(r"T5's tokenizer needs sentencepiece: pip install -e " r"\.\[pixart\]$"),
    ):
        Backbone.load(str(tmp_path))


def test_what_it_cannot_do_is_refused(pixart: Backbone):
    with pytest.raises(
        ValueError, match=("backbone.resolution=72: PixArt expects a multiple of 16 pixels")
    ):
        pixart.sites(72)
    with pytest.raises(ValueError, match="placeholders <asset0> are words of CLIP: PixArt has T5"):
        Subjects(pixart, ["<asset0>"], [None])
    with pytest.raises(
        ValueError,
        match="'flux' is a SimpleNamespace: expected .*PixArt.*Stable Diffusion",
    ):
        Backbone(SimpleNamespace(transformer=torch.nn.Linear(1, 1)), "flux")
