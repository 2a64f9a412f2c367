"""Maps of words over all steps of a drawing, against DAAM's arithmetic on whole attention matrices,
and the command that writes them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from conf.schema import Gate, Trainer
from conf.schema import Method as MethodConfig
from lightning_modules import MaskAttn
from lightning_modules.attention import heatmaps
from lightning_modules.attention.capture import CapturedMaps
from lightning_modules.attention.early_exit import stop_after
from lightning_modules.attention.word_maps import (
    DrawingCapture,
    draw_with_maps,
    find_words,
    outer_sites,
    prompt_tokens,
)
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.heatmaps import measure_iou

PROMPT = "a red circle and a blue square"
STEPS, GUIDANCE = 3, 4.0


class Stored:
    """Attention multiplied out, as an explicit softmax; adds up the conditional half's
    probabilities, [heads, pixels, tokens], over calls."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query, key = split(attn.to_q(hidden_states)), split(attn.to_k(context))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        p = scores.softmax(-1)
        self.total = self.total + p[len(p) // 2 :][0]
        out = (p @ split(attn.to_v(context))).transpose(1, 2).flatten(2)
        return attn.to_out[0](out)


def sharpen(backbone: Backbone) -> None:
    """Random weights attend to all tokens alike, so that nothing would undershoot."""
    with torch.no_grad():
        for site in backbone.sites():
            if site.kind == "cross":
                backbone.denoiser.get_submodule(site.name).to_q.weight.mul_(10)


def daam_maps(backbone: Backbone, seed: int, side: int, clamped: bool, mid: bool) -> Tensor:
    """[T, side, side]: DAAM's raw maps of a drawing of the stock pipeline."""
    unet = backbone.unet
    stored = {name: Stored() for name in unet.attn_processors}
    stock = dict(unet.attn_processors)
    unet.set_attn_processor(dict(stored))
    backbone.pipeline(
        PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        height=side * backbone.vae_scale_factor,
        width=side * backbone.vae_scale_factor,
        output_type="latent",
    )
    unet.set_attn_processor(stock)
    merged = []
    for name, own in stored.items():
        if ".attn2." not in name or (name.startswith("mid_block") and not mid):
            continue
        assert isinstance(own.total, Tensor)
        for head in own.total:
            root = round(head.shape[0] ** 0.5)
            plane = head.T.reshape(-1, 1, root, root)
            large = F.interpolate(plane, size=(side, side), mode="bicubic")
            merged.append(large.clamp(min=0) if clamped else large)
    return torch.stack(merged).mean(0)[: len(backbone.text.token_names(PROMPT)), 0]


def test_maps_are_those_of_daam(sd1: Backbone) -> None:
    sharpen(sd1)
    side = sd1.latent_size()[1]
    (one,) = draw_with_maps(sd1, [PROMPT], [7], STEPS, GUIDANCE)
    raw = one.token_maps * one.passes
    expected = daam_maps(sd1, 7, side, clamped=True, mid=False)
    # PNDM takes a step twice
    assert one.passes == STEPS + 1 and raw.shape == expected.shape
    torch.testing.assert_close(raw, expected, atol=5e-6, rtol=0)
    for clamped, mid in ((False, False), (True, True)):
        other = daam_maps(sd1, 7, side, clamped, mid)
        assert float((raw - other).abs().max()) > 1e-4, "what is cut off and left out is seen"
    # The mean over words' tokens; begin and end are no word's
    assert [word.text for word in one.words] == PROMPT.split()
    assert one.tokens[0] == "BOS" and one.tokens[-1] == "EOS"
    torch.testing.assert_close(one.maps[1], one.token_maps[one.token_indices[1]].mean(0))


def test_a_stock_pipeline_is_captured_as_it_draws(sd1: Backbone) -> None:
    (one,) = draw_with_maps(sd1, [PROMPT], [7], STEPS, GUIDANCE)
    side = sd1.latent_size()[1]
    (tokens,) = prompt_tokens(sd1, [PROMPT])
    capture = DrawingCapture(outer_sites(sd1.sites()), [tokens, tokens])
    with capture.attached(sd1.denoiser):
        sd1.pipeline(
            [PROMPT, PROMPT],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
            output_type="latent",
        )
    assert capture.passes == one.passes == STEPS + 1
    maps = capture.mean(side)
    torch.testing.assert_close(maps[0], one.token_maps, atol=1e-5, rtol=0)
    assert float((maps[1] - maps[0]).abs().max()) > 1e-4, "another noise"
    assert {s: m[0].shape for s, m in capture.by_side().items()} == {
        s: m.shape for s, m in one.by_side.items()
    }


def test_a_transformer_without_a_first_token_has_maps(pixart: Backbone) -> None:
    (one,) = draw_with_maps(pixart.pipeline, ["a red circle"], [0], 2, 4.0)
    assert one.maps.shape == (3, 8, 8) and one.token_indices[0] == [0]
    assert float(one.maps.min()) > 0


def test_only_the_passes_of_the_latest_drawing_count(embedded: Backbone) -> None:
    sites = outer_sites(embedded.sites(64))
    assert not any(site.placement == "bridge" for site in sites)
    capture = DrawingCapture(sites, prompt_tokens(embedded, [PROMPT]))
    text = embedded.text.encode([PROMPT])
    latents = torch.randn(1, *embedded.latent_size(64))

    def run(timestep: int) -> None:
        embedded.predict(latents, torch.tensor([timestep]), text, 64)

    with capture.attached(embedded.denoiser):
        with torch.no_grad():
            run(999)
            run(900)
            first = capture.mean(16)
            run(500)
        run(400)  # With gradients: guidance's
        with torch.no_grad(), stop_after(embedded.denoiser, sites[:1]):
            run(300)
        assert capture.passes == 3
        with torch.no_grad():
            run(950)
        assert capture.passes == 1
        with torch.no_grad():
            run(900)
    again = capture.mean(16)
    assert capture.passes == 2 and float((again - first).abs().max()) > 0
    capture = DrawingCapture(sites, [[1]])
    with pytest.raises(ValueError, match="no step of a drawing"):
        capture.mean(16)
    assert isinstance(capture.maps, CapturedMaps)


def test_words_of_several_tokens_and_words_that_are_cut_off(embedded: Backbone) -> None:
    long = "a red circle beside an extraordinary zebra, " + "and a blue square " * 10
    (one,) = draw_with_maps(embedded, [long], [0], 1, 1.0)
    words = [word.text for word in one.words]
    at = words.index("extraordinary")
    assert len(one.token_indices[at]) > 1
    torch.testing.assert_close(one.maps[at], one.token_maps[one.token_indices[at]].mean(0))
    assert one.cut and words + one.cut == [word.text for word in find_words(long)]
    assert len(one.maps) == len(words) and len(one.tokens) == embedded.text.length


@pytest.mark.parametrize("prompt", ["", "  ", "… !"])
def test_a_prompt_without_a_word_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="has no word"):
        find_words(prompt)


def test_words_keep_marks_inside_and_lose_those_around() -> None:
    words = find_words("“A well-lit <asset0>’s naïve cat, no. 3!”")
    assert [word.text for word in words] == [
        "A",
        "well-lit",
        "asset0>’s",
        "naïve",
        "cat",
        "no",
        "3",
    ]
    assert all(
        "“A well-lit <asset0>’s naïve cat, no. 3!”"[w.start : w.end] == w.text for w in words
    )


def test_the_overlap_with_a_mask_is_that_of_the_map_above_its_threshold() -> None:
    maps = torch.tensor([[[1.0, 0.5], [0.3, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = torch.tensor([[[1, 0], [1, 0]], [[1, 1], [0, 0]]], dtype=torch.bool)
    # At .4 the upper two pixels are covered, one of them and one more are the mask
    assert measure_iou(maps, masks).tolist() == pytest.approx([1 / 3, 0.0])
    assert measure_iou(maps, masks, 0.25).tolist() == pytest.approx([2 / 3, 0.0])
    assert measure_iou(maps, masks, 0.6).tolist() == pytest.approx([1 / 2, 0.0])
    large = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert measure_iou(large[:1, ::8, ::8].float(), large[:1], 0.5).tolist() == pytest.approx([1.0])


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_pictures_and_numbers(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(tmp_path / "upper.png")
    words = [f"backbone={tiny_folder}", "steps=2", "guidance=2", f"output={tmp_path / 'out'}"]
    long = "a red circle " + "and a blue square " * 10
    masks = f"masks=red circle:{tmp_path / 'upper.png'}"
    assert heatmaps.main([long, *words, masks, "seed=3,4", "side=8"]) == 0
    told = capsys.readouterr().out
    (first, _) = sorted((tmp_path / "out").iterdir())
    assert str(first) in told and "not read" in told and "IoU" in told
    facts = json.loads((first / "heatmaps.json").read_text())
    assert (facts["seed"], facts["passes"], facts["sides"]) == (3, 2, [8]) and facts["cut"]
    with np.load(first / "maps.npz") as arrays:
        assert arrays["token_maps_8"].shape == (len(facts["tokens"]), 8, 8)
        assert arrays["word_maps"].shape == (len(facts["words"]), 16, 16)
        maps = torch.from_numpy(arrays["token_maps"])
        region = maps[[2, 3]].mean(0, keepdim=True)
    upper = torch.from_numpy(mask > 0)[None]
    assert facts["iou"][0]["iou"] == pytest.approx(float(measure_iou(region, upper)))
    assert sorted(facts["files"]) == sorted(path.name for path in first.glob("[0-9][0-9]-*.png"))
    assert Image.open(first / facts["files"][1]).size == (384, 384)
    assert Image.open(first / "image.png").size == (64, 64)
    assert min(Image.open(first / "heatmaps.png").size) > 100


def test_the_command_draws_with_an_adapter_and_with_layers(
    embedded: Backbone, tiny_folder: Path, tmp_path: Path
) -> None:
    gates = MethodConfig("maskattn", gate=Gate(width=8, bias=-0.1, stage="all"))
    method = MaskAttn(embedded, gates, Trainer(accelerator="cpu"), 64)
    method.save_adapter(tmp_path / "adapter")
    method.remove()
    words = [PROMPT, f"backbone={tiny_folder}", "steps=1", "layers=down_blocks.1,up_blocks"]

    def maps(*more: str) -> np.ndarray:
        assert heatmaps.main([*words, *more, f"output={tmp_path / 'out'}"]) == 0
        (folder,) = (tmp_path / "out").iterdir()
        with np.load(folder / "maps.npz") as arrays:
            return arrays["token_maps"]

    gated = maps(f"adapter={tmp_path / 'adapter'}")
    assert np.abs(gated - maps()).max() > 1e-3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], "has no word"),
        ([], "no prompt"),
        (["a", "sede=1"], "did you mean seed"),
        (["a", "steps=0"], "steps=0"),
        (["a", "seed=x"], "seed=x"),
        (["a", "adapter=x", "method=untouched"], "the adapter says its method"),
        (["a", "backbone=nowhere"], "nowhere"),
        (["a", "layers=down_block.1"], "did you mean"),
        (["a", "side=5"], "resolution=5"),
        (["a", "masks=circle.png"], "PHRASE:FILE"),
        (["a", "masks=dog:circle.png"], "not in the"),
        (["a", "method=maskattn"], "adapter="),
        (["a", "adapter=nowhere"], "nowhere"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: list[str],
    expected: str,
    tiny_pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Backbone, "load", lambda path, *_: Backbone(deepcopy(tiny_pipeline), path))
    monkeypatch.chdir(tmp_path)
    assert heatmaps.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and expected in error
    assert not list(tmp_path.iterdir())


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert heatmaps.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"{key}=" in told for key in ("backbone", "method", *heatmaps.READERS))
