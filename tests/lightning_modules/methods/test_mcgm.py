"""MCGM in use: what masks do to images, what a mask token holds and where it acts, and what an
adapter brings back."""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.marks import slow
from PIL import Image
from torch import Tensor

from conf.schema import Masks, Subjects, Trainer
from conf.schema import Method as MethodConfig
from lightning_modules import MCGM
from lightning_modules.attention import nearest
from lightning_modules.attention.capture import Capture
from lightning_modules.attention.hooks import ATTRIBUTE
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.base import Method
from lightning_modules.networks.mask_encoder import KINDS

PROMPTS, SEEDS = ["a red circle left of an orange square", "a white ring"], [1, 2]
FREE = [kind for kind in KINDS if kind != "merged"]


def box(top: int, left: int, height: int = 24, width: int = 24) -> Tensor:
    """float32 [64, 64]: one inside a rectangle."""
    mask = torch.zeros(64, 64)
    mask[top : top + height, left : left + width] = 1
    return mask


LEFT, RIGHT, BLANK = box(20, 4), box(8, 36), torch.zeros(64, 64)
BOTH = [{"red circle": LEFT, "orange square": RIGHT}, {"white ring": RIGHT}]


def mcgm(backbone: Backbone, tokens: tuple[str, ...] = (), **masks: Any) -> MCGM:
    """As if it were trained: nothing of it is at its start any more."""
    torch.manual_seed(3)
    config = MethodConfig("mcgm", subjects=Subjects(tokens=list(tokens)), masks=Masks(**masks))
    method = MCGM(backbone, config, Trainer(), 64)
    with torch.no_grad():
        for name, parameter in method.adapter.named_parameters():
            parameter += (0.1 if name.startswith("encoder") else 0.02) * torch.randn(
                parameter.shape
            )
    return method.eval()


def draw(
    method: Method,
    masks: Any,
    prompts: list[str] = PROMPTS,
    seeds: list[int] = SEEDS,
    guidance: float = 3.0,
    **more: Any,
) -> Tensor:
    return method.generate(prompts, seeds, masks, 1, guidance, **more).int()


def apart(one: Tensor, other: Tensor) -> int:
    """The largest difference, in grey levels."""
    return int((one - other).abs().max())


def predict(method: MCGM, prompts: list[str] = PROMPTS, guided: bool = False) -> Tensor:
    """The UNet's prediction at the noisiest timestep, of the unconditional half first where there
    is one."""
    text = method.backbone.text.encode(prompts)
    text = method.backbone.text.encode_empty(len(prompts)) + text if guided else text
    count, (channels, _, _) = len(text.hidden), method.backbone.latent_size()
    latents = torch.randn(
        len(prompts), channels, 16, 16, generator=torch.Generator().manual_seed(0)
    ).repeat(count // len(prompts), 1, 1, 1)
    with torch.no_grad():
        return method.predict(latents, torch.tensor([900]), text)


@pytest.fixture
def calls(embedded: Backbone) -> list[int]:
    """One entry a call of the UNet."""
    seen: list[int] = []
    embedded.unet.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


# --- images --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["per_mask", "merged", *slow("union", "conv")])
def test_without_masks_only_the_trained_weights_act(embedded: Backbone, encoder: str):
    stock = sample(embedded, PROMPTS, SEEDS, 1, 3.0, 64).int()
    method = mcgm(embedded, encoder=encoder)
    without, steered = draw(method, None), draw(method, BOTH)
    assert apart(without, steered) > 4 and apart(without, stock) > 4, "the test could tell"
    for nothing in ([None, None], [{}, ()]):
        assert torch.equal(draw(method, nothing), without)
    assert torch.equal(draw(method, None), without), "masks of one call leave nothing behind"
    method.mask_tokens.detach()
    assert torch.equal(sample(embedded, PROMPTS, SEEDS, 1, 3.0, 64).int(), without)
    method.install()
    assert torch.equal(draw(method, BOTH), steered)
    method.remove()
    assert (
        torch.equal(sample(embedded, PROMPTS, SEEDS, 1, 3.0, 64).int(), stock)
        and ATTRIBUTE not in embedded.unet.__dict__
    )


@pytest.mark.parametrize(
    ("encoder", "mask_scope"),
    [("per_mask", "inside"), ("conv", "everywhere"), *slow(("merged", "inside"))],
)
def test_blank_masks_are_none_inside_and_zero_tokens_everywhere(
    embedded: Backbone, encoder: str, mask_scope: str
):
    method = mcgm(embedded, encoder=encoder, mask_scope=mask_scope)
    blank, without = draw(method, [{"red circle": BLANK}, {None: BLANK}]), draw(method, None)
    if mask_scope == "inside" or encoder == "merged":
        assert apart(blank, without) <= 1
        return
    assert apart(blank, without) > 4
    method.mask_tokens.set(torch.zeros(2, 1, 192), method.config.masks.token_scale)
    assert apart(sample(embedded, PROMPTS, SEEDS, 1, 3.0, 64).int(), blank) <= 1


@pytest.mark.parametrize(
    ("encoder", "mask_scope", "guidance"),
    [
        ("per_mask", "inside", 3.0),
        *slow(("union", "everywhere", 3.0), ("merged", "inside", 3.0), ("conv", "everywhere", 1.0)),
    ],
)
def test_an_image_depends_on_its_own_prompt_seed_and_masks_alone(
    embedded: Backbone, encoder: str, mask_scope: str, guidance: float
):
    method = mcgm(embedded, encoder=encoder, mask_scope=mask_scope)
    prompts = [PROMPTS[0], PROMPTS[1], "a blue cross", PROMPTS[0]]
    given = [BOTH[0], None, {"blue cross": LEFT}, {"orange square": BLANK, None: RIGHT}]
    together = draw(method, given, prompts, [1, 2, 3, 4], guidance)
    parts = draw(method, given, prompts, [1, 2, 3, 4], guidance, batch=3)
    for i, image in enumerate(together):
        alone = draw(method, [given[i]], [prompts[i]], [i + 1], guidance)[0]
        assert apart(alone, image) <= 1 and apart(parts[i], image) <= 1
    assert apart(draw(method, None, prompts, [1, 2, 3, 4], guidance)[2], together[2]) > 4, (
        "masks are seen with this guidance"
    )


def test_a_mask_may_come_as_a_file_an_image_or_a_tensor(embedded: Backbone, tmp_path: Path):
    method, picture = mcgm(embedded), Image.fromarray((LEFT.numpy() * 255).astype("uint8"))
    picture.resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    expected = draw(method, [{"white ring": LEFT}], PROMPTS[1:], [2])
    for form in (
        str(tmp_path / "mask.png"),
        tmp_path / "mask.png",
        picture,
        LEFT.bool(),
        LEFT.numpy(),
    ):
        assert torch.equal(draw(method, [{"white ring": form}], PROMPTS[1:], [2]), expected), type(
            form
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([*BOTH, {"black ring": LEFT}], "phrase 'black ring' is not in the caption 'a blue cross'"),
        (
            [*BOTH, [("cross", LEFT), ("cross", RIGHT)]],
            ("phrase 'cross' is listed 2 times but only 1 time"),
        ),
        (
            [*BOTH, {"cross": LEFT[:32]}],
            "the mask of 'cross' in 'a blue cross' is 64 wide and 32 high",
        ),
        ([*BOTH, {"cross": "nowhere.png"}], "nowhere.png cannot be read as an image"),
        (BOTH, "2 entries for 3 prompts"),
        (BOTH[0], "a single mapping for 3 prompts"),
    ],
)
def test_what_is_wrong_with_any_prompt_is_said_before_anything_is_sampled(
    embedded: Backbone, calls: list[int], given: Any, message: str
):
    method, prompts = mcgm(embedded), [*PROMPTS, "a blue cross"]
    with pytest.raises(ValueError, match=message):
        draw(method, given, prompts, [1, 2, 3], batch=1)
    with pytest.raises(ValueError, match=message):
        method.mask_guidance(prompts, given)
    assert not calls


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_prompts_and_seeds_of_different_counts_are_refused_before_anything_is_sampled(
    embedded: Backbone, calls: list[int], seeds: list[int]
):
    with pytest.raises(
        ValueError, match=(f"2 prompts but {len(seeds)} seeds?: expected one seed for each prompt")
    ):
        draw(mcgm(embedded), BOTH, PROMPTS, seeds, batch=1)
    assert not calls


def test_a_method_without_masks_refuses_them(embedded: Backbone):
    from lightning_modules import BreakAScene, Untouched

    for kind in (Untouched, BreakAScene):
        with pytest.raises(ValueError, match=f"{kind.name} takes no masks: leave masks=None"):
            draw(kind(embedded, MethodConfig(kind.name), Trainer(), 64), BOTH)


# --- tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "text_binding", "wiring"),
    [*product(KINDS, ["text"], ["embedded"]), *slow(("conv", "none", "sd1"))],
)
def test_mask_tokens_stand_behind_the_text(
    request: pytest.FixtureRequest, encoder: str, text_binding: str, wiring: str
):
    backbone = request.getfixturevalue(wiring)
    method, lengths = mcgm(backbone, encoder=encoder, text_binding=text_binding), []
    for site in method.cross_sites:
        backbone.unet.get_submodule(site.name).to_k.register_forward_pre_hook(
            lambda _, args: lengths.append(args[0].shape[1])
        )
    text = backbone.text.tokenizers[0].model_max_length
    with method.mask_guidance(PROMPTS, BOTH):
        predict(method)
    assert set(lengths) == {text + {"union": 1, "merged": 0}.get(encoder, 2)}
    lengths.clear()
    predict(method)
    assert set(lengths) == {text}


@pytest.mark.parametrize(
    ("encoder", "text_binding"), list(product(["per_mask", "conv"], ["text", "none"]))
)
def test_a_token_is_what_the_encoder_says_and_the_words_that_it_stands_for(
    embedded: Backbone, encoder: str, text_binding: str
):
    method, prompt = (
        mcgm(embedded, encoder=encoder, text_binding=text_binding),
        ("a red circle, a blue cross and a red circle"),
    )
    given = [
        ("red circle", LEFT),
        (("red circle", "blue cross"), RIGHT),
        (None, RIGHT),
        ((14, 26), BLANK),
    ]
    with method.mask_guidance([prompt], [given]):
        tokens = method.mask_tokens.tokens[0]
    hidden = embedded.text.encode([prompt]).hidden[0]
    first, second, cross = embedded.text.token_indices(
        prompt, ["red circle", "red circle", "blue cross"]
    )
    with torch.no_grad():
        of_left, of_right = method.encoder(torch.stack([LEFT, RIGHT])[None])[0][0]
    words = [
        hidden[at].mean(0) if text_binding == "text" else 0.0 for at in (first, second + cross)
    ]
    expected = torch.stack([of_left + words[0], of_right + words[1], of_right, torch.zeros(192)])
    assert torch.allclose(tokens, expected, atol=1e-5)


def test_the_union_is_one_token_of_all_masks(embedded: Backbone):
    method = mcgm(embedded, encoder="union")
    with method.mask_guidance(PROMPTS, BOTH):
        tokens, where = method.mask_tokens.tokens, method.mask_tokens.region
    with torch.no_grad():
        expected, _ = method.encoder(torch.stack([LEFT + RIGHT, RIGHT])[:, None])
    assert tokens.shape == (2, 1, 192) and torch.allclose(tokens, expected, atol=1e-6)
    assert torch.equal(where[:, 0], torch.stack([LEFT + RIGHT, RIGHT]))


@pytest.mark.parametrize("encoder", FREE)
def test_a_mask_token_is_attended_to_inside_its_mask_alone_or_everywhere(
    embedded: Backbone, encoder: str
):
    whole = {}
    for mask_scope in ("inside", "everywhere"):
        method = mcgm(embedded, encoder=encoder, mask_scope=mask_scope)
        length = embedded.text.tokenizers[0].model_max_length
        objects = [[length]] if encoder == "union" else [[length, length + 1]]
        with (
            method.mask_guidance(PROMPTS[:1], BOTH[:1]),
            Capture(nearest(method.cross_sites, 16), objects).attached(embedded.unet) as capture,
        ):
            predict(method, PROMPTS[:1])
        whole[mask_scope] = capture.maps.mean()[0] > 0
        method.remove()
    masks = (LEFT + RIGHT)[None] if encoder == "union" else torch.stack([LEFT, RIGHT])
    assert torch.equal(whole["inside"], torch.nn.functional.avg_pool2d(masks, 4) > 0) and bool(
        whole["everywhere"].all()
    )


def test_strength_weighs_the_mask_tokens(embedded: Backbone):
    method, seen = mcgm(embedded), []
    without = predict(method)
    for strength in (0.0, 1.0, 24.0):
        method.config.masks.token_scale = strength
        with method.mask_guidance(PROMPTS, BOTH):
            seen.append(float((predict(method) - without).abs().mean()))
    assert seen[0] < 1e-6 and seen[0] < seen[1] < seen[2]


@pytest.mark.parametrize(
    ("encoder", "mask_scope"),
    [("per_mask", "inside"), ("per_mask", "everywhere"), ("merged", "inside")],
)
def test_the_unconditional_half_hears_of_no_mask(sd1: Backbone, encoder: str, mask_scope: str):
    # Whose empty prompt is not zeros: tokens of zeros would be heard
    method = mcgm(sd1, encoder=encoder, mask_scope=mask_scope)
    without, stock = predict(method, guided=True).chunk(2)
    with method.mask_guidance(PROMPTS, BOTH):
        unconditional, conditional = predict(method, guided=True).chunk(2)
    assert float((conditional - stock).abs().max()) > 1e-2
    if mask_scope == "everywhere":
        method.mask_tokens.set(
            torch.zeros(2, 2, method.encoder.project.out_features),
            24.0,
            torch.tensor([[True, True], [True, False]]),
        )
        without, _ = predict(method, guided=True).chunk(2)
    assert torch.allclose(unconditional, without, atol=1e-5)


def test_an_error_inside_a_steered_block_leaves_no_tokens(embedded: Backbone):
    for encoder in ("per_mask", "merged"):
        method = mcgm(embedded, encoder=encoder)
        without = predict(method)
        with pytest.raises(RuntimeError, match="stop"), method.mask_guidance(PROMPTS, BOTH):
            raise RuntimeError("stop")
        assert torch.equal(predict(method), without)
        method.remove()


# --- adapters and pipelines -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "more"),
    [
        ("conv", {"text_binding": "none"}),
        *slow(("union", {"trained": False}), ("merged", {})),
    ],
)
def test_an_adapter_brings_the_same_images_back(
    embedded: Backbone, tiny_pipeline: Any, tmp_path: Path, encoder: str, more: dict
):
    method = mcgm(embedded, ("<asset0>",), encoder=encoder, token_scale=7.0, **more)
    prompts, given = (
        ["a photo of <asset0>", "a white ring"],
        [{"<asset0>": LEFT}, {"white ring": RIGHT}],
    )
    expected = draw(method, given, prompts)
    assert apart(expected, draw(method, None, prompts)) > 4
    method.save_adapter(tmp_path)
    torch.manual_seed(99)
    loaded = Method.load_adapter(tmp_path, Backbone(deepcopy(tiny_pipeline), "again"))
    assert isinstance(loaded, MCGM) and loaded.config.masks == method.config.masks
    assert torch.equal(draw(loaded, given, prompts), expected)


@pytest.mark.parametrize(
    ("wiring", "encoder"), [("embedded", "per_mask"), *slow(("embedded", "merged"))]
)
def test_a_stock_pipeline_is_steered_inside_the_block(
    request: pytest.FixtureRequest, wiring: str, encoder: str
):
    method = mcgm(request.getfixturevalue(wiring), ("<asset0>",), encoder=encoder)
    prompts, given = (
        ["<asset0> left of a square", "a white ring"],
        [{"<asset0>": LEFT, "square": RIGHT}, None],
    )
    pipeline = method.to_pipeline()

    def image() -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        options = {
            "num_inference_steps": 1,
            "guidance_scale": 3.0,
            "height": 64,
            "width": 64,
            "output_type": "pt",
        }
        return (pipeline(prompts, generator=generators, **options).images * 255).round().int()

    with method.mask_guidance(prompts, given):
        steered = image()
    mine, without = draw(method, given, prompts), draw(method, None, prompts)
    assert (
        apart(steered, mine) <= 1
        and apart(image(), without) <= 1
        and apart(mine[0], without[0]) > 4
    )
