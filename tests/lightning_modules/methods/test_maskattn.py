"""MaskAttn: its presets, where its gates are, what its training adds, and what it can do with a
stock pipeline."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.marks import slow
from helpers.training_steps import at_step, run_step, terms
from torch import Tensor

from conf import load as conf
from conf.schema import Gate, Run, Trainer
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch, Phrase
from lightning_modules import MaskAttn
from lightning_modules.attention import sites
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.sampling import sample
from lightning_modules.methods.gate_supervision import density_supervision, mask_supervision
from losses.gates import gate_density

PROMPTS, SEEDS = ["a red circle left of an orange square", "a white ring"], [1, 2]


def maskattn(backbone: Backbone, recipe: Trainer | None = None, **gate: Any) -> MaskAttn:
    """With gates about half open, so that they are seen in the images."""
    torch.manual_seed(3)
    config = MethodConfig(
        "maskattn", gate=Gate(**{"width": 16, "bias": 0.0, "stage": "all"} | gate)
    )
    return MaskAttn(backbone, config, recipe or Trainer(), 64)


# --- presets --------------------------------------------------------------------------------


def preset(name: str) -> Gate:
    return conf.load([f"method={name}"], schema=Run).method.gate


def test_the_two_presets_differ_in_surrogate_bias_and_protection_alone():
    sound, released = asdict(preset("maskattn")), asdict(preset("maskattn_released"))
    differ = {key: (sound[key], released[key]) for key in sound if sound[key] != released[key]}
    assert differ == {
        "gradient": ("finite_difference", "released"),
        "bias": (2.0, 0.0),
        "protect": ("bos", "none"),
    }
    assert conf.load(["method=maskattn_released"], schema=Run).method.name == "maskattn"
    assert Gate() == preset("maskattn")


@pytest.mark.parametrize("name", ["maskattn", "maskattn_released"])
def test_closed_gates_re_open_under_the_sound_preset_and_cannot_under_the_released_one(
    embedded: Backbone, name: str
):
    """All gates start closed, and the loss is the distance to the prediction that all of them open
    would give."""
    method = maskattn(embedded, **asdict(preset(name)) | {"width": 16, "bias": -1.0})
    latents, timesteps = (
        torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)),
        torch.tensor([900, 300]),
    )
    text = embedded.text.encode(PROMPTS)
    with torch.no_grad():
        method.remove()
        wanted = method.predict(latents, timesteps, text)
        method.install()
    start = {key: value.clone() for key, value in method.gates.state_dict().items()}
    optimizer = torch.optim.AdamW(method.gates.parameters(), lr=0.05, weight_decay=0.0)
    closed, losses = [], []
    for _ in range(9):
        with method.gates.recording(live=True) as record:
            loss = (method.predict(latents, timesteps, text) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        closed.append(record.share_closed())
        losses.append(loss.item())
        if closed[-1]:
            assert (record.gradients()["closed"] == 0) == (name == "maskattn_released")
    assert closed[0] > 0.9 and losses[0] > 1e-5
    after = method.gates.state_dict()
    if name == "maskattn":
        assert closed[-1] < 0.5 and losses[-1] < losses[0] / 2
    else:
        # One gate a location is open by rule: its share of the softmax is 1 whatever it does.
        assert closed == [closed[0]] * 9 and all(
            torch.equal(after[key], start[key]) for key in start
        )


# --- sites --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "placement", "attention"),
    [
        ("all", "both", "both"),
        ("mid", "encoder", "cross"),
        ("high", "decoder", "self"),
        ("low", "decoder", "cross"),
        *slow(*product(["all", "high", "mid"], ["encoder", "decoder"], ["cross", "self"])),
    ],
)
def test_every_stage_placement_and_kind_of_attention(
    embedded: Backbone, stage: str, placement: str, attention: str
):
    expected = [
        site
        for site in sites(embedded.unet)
        if stage in ("all", site.stage)
        and placement in ("both", site.placement)
        and attention in ("both", site.kind)
    ]
    if not expected:
        assert stage == "low"
        with pytest.raises(ValueError, match=f"attention at stage=low, placement={placement}"):
            maskattn(embedded, stage=stage, placement=placement, attention=attention)
        return
    method = maskattn(embedded, stage=stage, placement=placement, attention=attention)
    assert method.gates.sites == expected
    text, latents = embedded.text.encode(PROMPTS), torch.zeros(2, 8, 16, 16)
    with torch.no_grad(), method.gates.recording() as record:
        method.predict(latents, torch.tensor([500]), text)
    assert list(record.counted) == [site.name for site in expected]


# --- images --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gate",
    [{}, {"attention": "both", "apply_at": "post_softmax"}, *slow({"mode": "soft"})],
    ids=str,
)
def test_open_gates_draw_the_stock_image_bit_by_bit(embedded: Backbone, gate: dict[str, Any]):
    stock = sample(embedded, PROMPTS, SEEDS, 2, 3.0, 64)
    method = maskattn(embedded, bias=50.0, **gate)
    with method.collect_stats(3.0) as seen:
        assert torch.equal(method.generate(PROMPTS, SEEDS, None, 2, 3.0), stock)
    assert [closed for closed, _ in seen["gate_closed"]] == [0] * len(PROMPTS)


@pytest.mark.parametrize(
    "gate",
    [{"protect": "specials"}, *slow({"padding_gate": "open", "head": "conv3x3"})],
    ids=str,
)
@pytest.mark.parametrize("wiring", ["embedded", *slow("sd1")])
def test_a_stock_pipeline_that_encodes_its_prompts_itself_tells_words_from_padding(
    request: pytest.FixtureRequest, wiring: str, gate: dict[str, Any]
):
    backbone = request.getfixturevalue(wiring)
    method = maskattn(backbone, **gate)
    mine = method.generate(PROMPTS, SEEDS, None, 2, 3.0)
    pipeline = method.to_pipeline()
    backbone.text.token_types.past.clear()  # what it encodes itself is all that it can know
    backbone.text.token_types.latest = None
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    images = pipeline(
        PROMPTS,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=64,
        width=64,
        generator=generators,
        output_type="pt",
    ).images
    assert int(((images * 255).round().int() - mine.int()).abs().max()) <= 1
    # The test could tell: without kinds of tokens the images are others.
    method.gates.token_types = None
    assert int((method.generate(PROMPTS, SEEDS, None, 2, 3.0).int() - mine.int()).abs().max()) > 1


# --- training --------------------------------------------------------------------------------

LATENTS = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))


def phrases() -> list[list[Phrase]]:
    left = torch.zeros(64, 64, dtype=torch.bool)
    left[:, :20] = True
    return [
        [Phrase("red circle", 2, 12, left), Phrase("orange square", 24, 37, ~left)],
        [Phrase("white ring", 2, 12, left)],
    ]


def step(
    method: MaskAttn, monkeypatch: pytest.MonkeyPatch, with_phrases: bool = True
) -> tuple[torch.Tensor, dict[str, Any]]:
    return run_step(
        method,
        Batch([0, 1], PROMPTS, latents=LATENTS, phrases=phrases() if with_phrases else None),
    )


def test_the_signal_is_added_with_its_weight(embedded: Backbone, monkeypatch: pytest.MonkeyPatch):
    expected = None
    for signal, weight in (("none", 1.0), ("density", 0.0), ("density", 0.7), ("masks", 0.7)):
        method = maskattn(
            embedded, supervision=signal, supervision_weight=weight, supervision_density=0.9
        )
        loss, logged = step(method, monkeypatch)
        method.remove()
        expected = logged["train/denoising"] if expected is None else expected
        assert (
            torch.equal(logged["train/denoising"], expected)
            and logged["train/gate_closed"] == method.window.share_closed() > 0
        )
        assert ("train/signal" in logged) == (signal != "none" and weight > 0)
        assert torch.allclose(loss, expected + weight * logged.get("train/signal", 0.0))
        if "train/signal" in logged:
            window, config = method.window, method.config.gate
            if signal == "density":
                again = density_supervision(config, window)
                # BOS is no reason: it is open by rule.
                by_hand = [gate_density(gate[..., 1:], 0.9) for gate in window.gates.values()]
                assert torch.allclose(again, torch.stack(by_hand).mean())
            else:
                positions = [[[2, 3], [7, 8]], [[2, 3]]]
                again = mask_supervision(config, window, method.gates.sites, phrases(), positions)
            assert torch.equal(logged["train/signal"], again) and again > 0


def test_the_signal_fades_with_the_steps_that_are_done(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = maskattn(
        embedded,
        Trainer(steps=10),
        supervision="density",
        supervision_anneal="linear",
        supervision_weight=2.0,
    )
    for done, weight in ((0, 2.0), (5, 1.0), (10, 0.0), (12, 0.0)):
        at_step(method, done)
        loss, logged = step(method, monkeypatch)
        assert torch.allclose(
            loss, logged["train/denoising"] + weight * logged.get("train/signal", 0.0)
        )
        assert ("train/signal" in logged) == (weight > 0)


def test_the_denoising_loss_has_its_weight(embedded: Backbone, monkeypatch: pytest.MonkeyPatch):
    method = maskattn(
        embedded, supervision="density", supervision_weight=0.7, denoising_weight=0.25
    )
    loss, logged = step(method, monkeypatch)
    assert torch.allclose(loss, 0.25 * logged["train/denoising"] + 0.7 * logged["train/signal"])


@pytest.mark.parametrize("signal", ["density", "masks"])
def test_supervision_alone_trains_the_same_gates_without_a_backward_pass(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, signal: str
):
    # One site: nothing reaches it through another
    method = maskattn(embedded, stage="low", supervision=signal, denoising_weight=0.0)
    parameters = list(method.gates.parameters())
    loss, logged = step(method, monkeypatch)
    assert torch.equal(loss, logged["train/signal"])
    batch = Batch([0, 1], PROMPTS, latents=LATENTS, phrases=phrases())
    assert not terms(method, batch)["denoising"].value.requires_grad
    grads = torch.autograd.grad(loss, parameters)
    method.config.gate.denoising_weight = 1.0
    again = terms(method, batch)
    denoising, signal = again["denoising"].value, again["signal"].value
    assert denoising.requires_grad and torch.allclose(denoising, logged["train/denoising"])
    for mine, theirs in zip(grads, torch.autograd.grad(signal, parameters), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7) and bool(mine.any())
    assert not method.gates.watch_only
    with torch.no_grad(), method.gates.recording(live=True) as record:
        method.predict(LATENTS, torch.tensor([500]), embedded.text.encode(PROMPTS))
    assert not any(logits.requires_grad for logits in record.logits.values()), "in training alone"


def test_gates_that_only_look_on_in_training_learn_the_same_at_every_threshold(
    embedded: Backbone,
):
    def learn(**gate: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(denoising loss, supervision, gradients)"""
        method = maskattn(embedded, supervision="masks", denoising_weight=0.0, **gate)
        found = terms(method, Batch([0, 1], PROMPTS, latents=LATENTS, phrases=phrases()))
        signal, parameters = found["signal"].value, list(method.gates.parameters())
        method.remove()
        return found["denoising"].value, signal.detach(), torch.autograd.grad(signal, parameters)

    def same(*runs: tuple[Tensor, Tensor, list[Tensor]]) -> bool:
        pairs = zip(*([first, second, *grads] for first, second, grads in runs), strict=True)
        return all(torch.equal(mine, theirs) for mine, theirs in pairs)

    looking_on = learn(threshold=0.3, act_in_training=False)
    for change in ({"threshold": 0.7}, {"mode": "topk"}, {"apply_at": "post_softmax"}):
        assert same(looking_on, learn(act_in_training=False, **change))
    assert not same(learn(threshold=0.3), learn(threshold=0.7))
    # As the untouched backbone denoises; open gates are the same
    assert same(looking_on, learn(threshold=1e-6))
    # A single site sees nothing of what its gates do
    single = {"stage": "low", "threshold": 0.6}
    _, *acting = learn(**single)
    _, *alone = learn(act_in_training=False, **single)
    assert same((alone[0], *alone), (acting[0], *acting))


def test_masks_teach_the_learned_threshold_as_well(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = maskattn(embedded, mode="learned", supervision="masks", denoising_weight=0.0)
    loss, logged = step(method, monkeypatch)
    loss.backward()
    slopes = [float(threshold.grad) for threshold in method.gates.thresholds.values()]
    assert len(slopes) == len(method.gates.heads) and all(slopes)
    # A threshold that rises closes gates as a bias that falls does.
    biases = [float(head.bias.grad) for head in method.gates.heads.values()]
    assert slopes == pytest.approx([-bias for bias in biases], rel=1e-4)


def test_masks_without_phrases_are_refused(embedded: Backbone, monkeypatch: pytest.MonkeyPatch):
    method = maskattn(embedded, supervision="masks")
    with pytest.raises(
        ValueError,
        match=("gate.supervision needs phrases with masks: set the training set's with_phrases"),
    ):
        step(method, monkeypatch, with_phrases=False)
    assert method.gates.record is None


@pytest.mark.parametrize(
    ("gate", "bias"),
    [
        ({"supervision": "masks"}, 1.0),
        *slow(
            ({"supervision": "density", "supervision_density": 0.3}, 1.0),
            ({"supervision": "masks"}, -2.0),
        ),
    ],
)
def test_a_signal_moves_gates_where_it_wants_them(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, gate: dict[str, Any], bias: float
):
    method = maskattn(embedded, stage="high", bias=bias, supervision_weight=10.0, **gate)
    # The same noise in every step: the signal must win, not luck.
    noise, timesteps = torch.zeros_like(LATENTS), torch.tensor([400, 700])
    monkeypatch.setattr(method, "draw", lambda *_: (noise, timesteps))
    optimizer = torch.optim.Adam(method.gates.parameters(), lr=0.04)
    signals = []
    for _ in range(12):
        loss, logged = step(method, monkeypatch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        signals.append(float(logged["train/signal"]))
    assert signals[-1] < 0.7 * signals[0]


def test_what_happens_in_training_is_kept_until_it_is_read_and_no_longer_on(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = maskattn(embedded)
    step(method, monkeypatch)
    window = method.window
    assert isinstance(window, GateRecord) and method.gates.record is None
    counted = float(sum(c.sum() for c in window.counted.values()))
    loss, _ = step(method, monkeypatch)
    assert (
        method.window is window
        and float(sum(c.sum() for c in window.counted.values())) == 2 * counted
    )
    loss.backward()
    assert set(window.gradients()) == {"closed", "open"}
    method.generate(PROMPTS[:1], SEEDS[:1], None, 1, 1.0)
    assert float(sum(c.sum() for c in window.counted.values())) == 2 * counted, (
        "sampling is no training"
    )


def test_observed_splits_by_kind_and_time_but_not_by_site(embedded: Backbone):
    method = maskattn(embedded)
    with method.collect_stats(3.0) as seen:
        method.generate(PROMPTS, SEEDS, None, 4, 3.0)
    kinds = {f"gate_closed_kind/{kind}" for kind in ("word", "eos", "padding")}
    assert {"gate_closed"} | kinds <= set(seen) and not any("site" in key for key in seen)
    spans = {key for key in seen if key.startswith("gate_closed_time/")}
    assert set(seen) == {"gate_closed"} | kinds | spans and len(spans) == 4
    assert all(len(of_images) == len(PROMPTS) for of_images in seen.values())
    assert all(0 <= part <= count for of in seen.values() for part, count in of)


def test_gates_with_options_come_back_from_their_adapter(
    embedded: Backbone, tiny_pipeline: Any, tmp_path: Path
):
    from copy import deepcopy

    method = maskattn(
        embedded,
        mode="learned",
        head="concat",
        sharing="layer",
        stage="high",
        padding_gate="closed",
    )
    with torch.no_grad():
        for threshold in method.gates.thresholds.values():
            threshold += 0.1
    method.save_adapter(tmp_path)
    loaded = MaskAttn.load_adapter(tmp_path, Backbone(deepcopy(tiny_pipeline), "again"))
    assert loaded.config.gate == method.config.gate and len(loaded.gates.thresholds) == len(
        method.gates.sites
    )
    assert torch.equal(
        loaded.generate(PROMPTS, SEEDS, None, 2, 3.0), method.generate(PROMPTS, SEEDS, None, 2, 3.0)
    )
