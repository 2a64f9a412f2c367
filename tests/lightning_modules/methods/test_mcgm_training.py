"""MCGM in training: its losses and their weights, which masks are shown where, what gets a
gradient."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.marks import slow
from helpers.training_steps import at_step, denoised, draws, run_step
from safetensors.torch import load_file
from torch import Tensor

from conf.schema import Masks, Subjects, Trainer
from conf.schema import Method as MethodConfig
from datamodules.batch import Batch, Phrase
from lightning_modules import MCGM
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.methods.optimizers import lr_multiplier
from lightning_modules.networks.mask_encoder import KINDS
from losses.attention import mask_attention_loss

LATENTS = torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
ASSETS = ("<asset0>", "<asset1>", "<asset2>")
MASKS = torch.zeros(3, 64, 64)
MASKS[0, 8:40, :16] = MASKS[1, 8:40, 24:40] = MASKS[2, 20:60, 48:] = 1


def mcgm(
    backbone: Backbone,
    tokens: tuple[str, ...] = (),
    subjects: dict[str, Any] | None = None,
    **masks: Any,
) -> MCGM:
    """Not at its start, where a bound encoder says nothing and a merging one lets nothing
    through."""
    torch.manual_seed(3)
    chosen = Subjects(tokens=list(tokens), **{"schedule": "joint"} | (subjects or {}))
    method = MCGM(
        backbone,
        MethodConfig("mcgm", subjects=chosen, masks=Masks(**{"dropout": 0.0} | masks)),
        Trainer(),
        64,
    )
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return method


def captioned(channels: int = 8) -> Batch:
    """Two samples of a dataset with captions: two phrases and none; SD1's latents have four
    channels."""
    found = [
        Phrase("red circle", 2, 12, MASKS[0].bool()),
        Phrase("orange square", 24, 37, MASKS[2].bool()),
    ]
    return Batch(
        [0, 1],
        ["a red circle left of an orange square", "a white ring"],
        latents=LATENTS[:2, :channels],
        phrases=[found, []],
    )


def scene(*draws: tuple[int, ...], prior: bool = False) -> Batch:
    """Samples of a scene that name these of its three subjects."""
    captions, phrases = [], []
    for drawn in draws:
        captions.append("a photo of " + " and ".join(ASSETS[i] for i in drawn))
        starts = [captions[-1].index(ASSETS[i]) for i in drawn]
        phrases.append(
            [
                Phrase(ASSETS[i], at, at + len(ASSETS[i]), MASKS[i])
                for i, at in zip(drawn, starts, strict=True)
            ]
        )
    others = Batch(
        list(range(len(draws))),
        ["a photo at the beach"] * len(draws),
        latents=LATENTS.flip(0)[: len(draws)],
    )
    return Batch(
        list(range(len(draws))),
        captions,
        latents=LATENTS[: len(draws)],
        phrases=phrases,
        prior=others if prior else None,
    )


def step(
    method: MCGM, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, dict[str, Any]]:
    return run_step(method, batch)


def grid(masks: Tensor) -> Tensor:
    """[n, 64, 64] -> [n, 16, 16]."""
    return torch.nn.functional.avg_pool2d(masks, 4)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """For each step, and in it each sample, which subject's mask stood in which slot: "2-" is the
    third one's, then a blank."""
    steps: list[list[str]] = []
    steer = MCGM.set_mask_tokens

    def name(mask: Tensor) -> str:
        return (
            next((str(i) for i in range(3) if torch.equal(mask.float(), MASKS[i])), "?")
            if mask.any()
            else "-"
        )

    def listen(method: MCGM, targets: Any, *rest: Any) -> None:
        steps.append(["".join(name(mask) for mask in sample) for sample in targets])
        steer(method, targets, *rest)

    monkeypatch.setattr(MCGM, "set_mask_tokens", listen)
    return steps


# --- losses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wiring", "encoder"),
    [("embedded", "per_mask"), *slow(("embedded", "union"), ("sd1", "conv"))],
)
def test_lambda_m_is_a_plain_weight_of_the_total(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, wiring: str, encoder: str
):
    totals, logs = [], []
    for weight in (0.0, 1.0, 0.25):
        method = mcgm(request.getfixturevalue(wiring), lambda_m=weight, encoder=encoder)
        batch = captioned(method.backbone.latent_size()[0])
        loss, logged = step(method, batch, monkeypatch)
        totals.append(float(loss.detach()))
        logs.append(logged)
        method.remove()
    assert "train/mask_attention" not in logs[0] and torch.equal(
        logs[0]["train/denoising"], logs[1]["train/denoising"]
    )
    distance = float(logs[1]["train/mask_attention"])
    assert distance > 0 and totals[1:] == pytest.approx(
        [totals[0] + distance, totals[0] + 0.25 * distance], rel=1e-5
    )
    assert totals[0] == pytest.approx(
        float(logs[0]["train/denoising"] + 0.01 * logs[0]["train/attention"]), rel=1e-5
    )


def test_on_a_scene_every_term_has_its_weight(embedded: Backbone, monkeypatch: pytest.MonkeyPatch):
    method = mcgm(embedded, ASSETS, {"attention_weight": 0.3, "prior_weight": 0.7}, lambda_m=0.2)
    loss, log = step(method, scene((0, 2), (1,), prior=True), monkeypatch)
    terms = [
        1.0 * log["train/denoising"],
        0.3 * log["train/attention"],
        0.2 * log["train/mask_attention"],
        0.7 * log["train/prior"],
    ]
    assert all(term > 0 for term in terms) and torch.allclose(loss, sum(terms))


@pytest.mark.parametrize("encoder", ["per_mask", "union"])
def test_the_loss_looks_at_the_mask_tokens_and_their_own_masks(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, encoder: str
):
    method = mcgm(embedded, encoder=encoder, lambda_m=1.0)
    _, logged = step(method, captioned(), monkeypatch)
    maps = denoised(method, captioned()).token_masks.maps.mean()  # [2, objects, 16, 16]
    own = MASKS[[0, 2]] if encoder == "per_mask" else MASKS[[0, 2]].sum(0, keepdim=True)
    # A token reaches no further than its mask: this is its map, not another's.
    assert torch.equal(maps[0] > 0, grid(own) > 0) and not maps[1].any()
    by_hand = (maps[0] / maps[0].amax((1, 2), keepdim=True) - grid(own)).square().mean(
        (1, 2)
    ).sum() / 2
    assert torch.allclose(logged["train/mask_attention"], by_hand)


def test_a_batch_without_any_phrase_trains_without_mask_tokens(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    batch = captioned()
    batch.phrases = [[], []]
    for encoder in KINDS:
        method = mcgm(embedded, encoder=encoder, lambda_m=1.0)
        loss, logged = step(method, batch, monkeypatch)
        assert torch.allclose(loss, logged["train/denoising"]) and bool(loss.isfinite())
        method.remove()
    batch.phrases = None
    with pytest.raises(
        ValueError, match=("subjects need masks: .*set the training set's with_phrases")
    ):
        step(mcgm(embedded), batch, monkeypatch)


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "wiring"), [*product(KINDS, ["embedded"]), *slow(("conv", "sd1"))]
)
def test_a_trained_encoder_gets_a_gradient(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, encoder: str, wiring: str
):
    method = mcgm(request.getfixturevalue(wiring), encoder=encoder)
    step(method, captioned(method.backbone.latent_size()[0]), monkeypatch)[0].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.encoder.parameters())
    assert all(p.grad is not None for p in method.adapter["unet"].parameters())
    assert sum(len(group.parameters) for group in method.parameter_groups()) == len(
        list(method.adapter.parameters())
    )


def test_an_encoder_that_stays_as_it_is_has_no_gradient_and_is_saved(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    method = mcgm(embedded, trained=False)
    step(method, captioned(), monkeypatch)[0].backward()
    assert all(p.grad is None and not p.requires_grad for p in method.encoder.parameters())
    own = {id(p) for p in method.encoder.parameters()}
    assert not any(id(p) in own for group in method.parameter_groups() for p in group.parameters)
    method.configure_optimizers()
    method.save_adapter(tmp_path)
    saved = load_file(tmp_path / "adapter.safetensors")
    assert torch.equal(saved["encoder.project.weight"], method.encoder.project.weight)


def test_the_encoder_has_its_own_learning_rate(embedded: Backbone):
    method = mcgm(embedded, lr=0.5)
    group = method.parameter_groups()[-1]
    assert {id(p) for p in group.parameters} == {id(p) for p in method.encoder.parameters()}
    assert [group.learning_rate(i) for i in (0, 4, 10)] == pytest.approx(
        [0.5 * lr_multiplier(method.recipe, i) for i in (0, 4, 10)]
    ) and group.learning_rate(4) == 0.5


@pytest.mark.parametrize("encoder", ["per_mask", *slow("merged")])
def test_a_half_precision_backbone_trains_and_draws(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, encoder: str
):
    for module in (embedded.unet, embedded.vae, *embedded.text.encoders):
        module.to(torch.bfloat16)
    method, batch = mcgm(embedded, encoder=encoder), captioned()
    batch.latents = LATENTS[:2].bfloat16()
    step(method, batch, monkeypatch)[0].backward()
    assert all(
        bool(p.grad.any()) and p.grad.dtype == torch.float32 and bool(p.grad.isfinite().all())
        for p in method.encoder.parameters()
    )
    without, steered = (
        method.generate(batch.captions[1:], [1], given, 1, 3.0)
        for given in (None, [{"white ring": MASKS[0]}])
    )
    assert not torch.equal(without, steered)


@pytest.mark.parametrize("encoder", ["conv", *slow("merged")])
def test_gradient_checkpointing_gives_the_same_gradients(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, encoder: str
):
    found = []
    for checkpointing in (False, True):
        method = mcgm(embedded, ASSETS, {"attention_weight": 0.5}, encoder=encoder, lambda_m=0.5)
        embedded.unet.train()
        if checkpointing:
            embedded.unet.enable_gradient_checkpointing()
        step(method, scene((0, 2), (1,), prior=True), monkeypatch)[0].backward()
        found.append({name: p.grad for name, p in method.adapter.named_parameters()})
        method.remove()
    assert len(found[0]) > 20 and bool(found[0]["subjects.rows.text_encoder"].any())
    for name, expected in found[0].items():
        assert torch.allclose(found[1][name], expected, rtol=1e-3, atol=1e-7), name


# --- which masks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # Subjects drawn:  1     2     0,2    2,0    (papers: strategies 0, 2, 3 and 4)
        ("drawn", ["1", "2", "02", "20"]),
        ("fixed", ["-1-", "--2", "0-2", "0-2"]),
        ("fixed_one", ["-1-", "--2", "02", "20"]),
        ("first_one", ["1--", "2--", "02", "20"]),
    ],
)
def test_masks_stand_in_the_slots_of_the_strategy(
    embedded: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    shown: list[list[str]],
    rule: str,
    expected: list[str],
):
    method = mcgm(embedded, ASSETS, slots=rule, lambda_m=1.0)
    batch = scene((1,), (2,), (0, 2), (2, 0))
    _, logged = step(method, batch, monkeypatch)
    assert shown == [expected]
    # The loss looks where the masks stand, and at no blank one.
    maps = denoised(method, batch).token_masks.maps.mean()
    for found, slots in zip(maps, expected, strict=True):
        for found_one, name in zip(found, slots.replace("-", ""), strict=False):
            assert torch.equal(found_one > 0, grid(MASKS[[int(name)]])[0] > 0)
    masks = torch.stack(
        [torch.stack([MASKS[int(n)] for n in (s.replace("-", "") * 2)[:2]]) for s in expected]
    )
    present = torch.tensor([[True, False], [True, False], [True, True], [True, True]])
    assert torch.allclose(
        logged["train/mask_attention"], mask_attention_loss(maps, masks, present, resize="area")
    )


def test_words_are_bound_to_their_masks_in_whichever_slot(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method, batch, seen = mcgm(embedded, ASSETS, slots="fixed"), scene((2, 0)), []
    monkeypatch.setattr(
        method, "predict", lambda noised, *_: (seen.append(method.mask_tokens.tokens), noised)[1]
    )
    step_without_maps(method, batch, monkeypatch)
    hidden = embedded.text.encode(batch.captions).hidden[0]
    second, first = embedded.text.token_indices(batch.captions[0], ["<asset2>", "<asset0>"])
    with torch.no_grad():
        encoded, _ = method.encoder(MASKS[[0, 2]][None])
        expected = torch.stack(
            [
                encoded[0, 0] + hidden[first].mean(0),
                torch.zeros(192),
                encoded[0, 1] + hidden[second].mean(0),
            ]
        )
    assert torch.allclose(seen[0][0], expected, atol=1e-5)


def step_without_maps(method: MCGM, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose UNet is never called."""
    method.config.masks.lambda_m = method.config.subjects.attention_weight = 0.0
    step(method, batch, monkeypatch)


@pytest.mark.parametrize("encoder", ["per_mask", "union", "merged"])
def test_class_images_have_as_many_blank_masks_as_their_scene(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, encoder: str
):
    method, seen = mcgm(embedded, ASSETS, encoder=encoder, mask_scope="everywhere"), []
    present: list[Tensor | None] = []

    def predict(noised: Tensor, timesteps: Tensor, text: Any) -> Tensor:
        seen.append(
            method.mask_tokens.merge(text.hidden) - text.hidden
            if encoder == "merged"
            else method.mask_tokens.tokens
        )
        present.append(getattr(method.mask_tokens, "present", None))
        return noised

    monkeypatch.setattr(method, "predict", predict)
    step_without_maps(method, scene((0, 1), (2,), prior=True), monkeypatch)
    shape = {
        "per_mask": (2, 2, 192),
        "union": (2, 1, 192),
        "merged": (2, embedded.text.tokenizers[0].model_max_length, 192),
    }[encoder]
    assert len(seen) == 2 and seen[0].any() and seen[1].shape == shape and not seen[1].any()
    if encoder == "per_mask":
        assert [tokens.tolist() for tokens in present] == [[[True, True], [True, False]]] * 2


def test_dropout_blanks_its_share_of_the_samples_whatever_the_noise(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch, shown: list[list[str]]
):
    batch, noised = scene((0, 2), (1,), (2,), (0,)), []
    method = mcgm(embedded, ASSETS)
    draw = method.draw
    monkeypatch.setattr(
        method, "draw", lambda *given: (drawn := draw(*given), noised.append(drawn[0]))[0]
    )
    monkeypatch.setattr(method, "predict", lambda latents, *_: latents)
    for share, number in product((0.0, 0.5, 1.0), range(20)):
        method.config.masks.dropout = share
        at_step(method, number)
        step_without_maps(method, batch, monkeypatch)
    never, half, always = shown[:20], shown[20:40], shown[40:]
    assert all(step == ["02", "1", "2", "0"] for step in never) and all(
        step == ["--", "-", "-", "-"] for step in always
    )
    blank = [sample.startswith("-") for step in half for sample in step]
    assert 0.35 < sum(blank) / 80 < 0.65 and len(set(map(tuple, half))) > 8
    assert {step[0] for step in half} == {"02", "--"}, "all masks of a sample, or none"
    assert all(
        torch.equal(a, b) and torch.equal(a, c)
        for a, b, c in zip(noised[:20], noised[20:40], noised[40:], strict=True)
    )
    at_step(method, 7)
    method.config.masks.dropout = 0.5
    step_without_maps(method, batch, monkeypatch)
    assert shown[-1] == half[7]


def test_blank_samples_leave_the_mask_loss_alone(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = mcgm(embedded, ASSETS, lambda_m=1.0, dropout=1.0)
    loss, logged = step(method, scene((0, 1), (2,)), monkeypatch)
    assert logged["train/mask_attention"] == 0 and logged["train/denoising"] > 0
    assert torch.allclose(loss, logged["train/denoising"] + 0.01 * logged["train/attention"])


@pytest.mark.parametrize(("which", "first"), [("high_noise", 500), ("uniform", 0)])
def test_timesteps_are_those_of_the_noisier_half_or_all(embedded: Backbone, which: str, first: int):
    method, drawn = mcgm(embedded), []
    method.recipe.timesteps = which
    for number in range(100):
        drawn.append(method.draw(LATENTS, draws(method, number))[1])
    found = torch.cat(drawn)
    assert first <= found.min() < first + 25 and 975 < found.max() < 1000


def test_samples_without_masks_and_class_images_see_all_timesteps(embedded: Backbone):
    method = mcgm(embedded, dropout=0.5)
    method.recipe.timesteps = "high_noise"
    blank, masked, others = [], [], []
    for number in range(100):
        own = draws(method, number)
        timesteps = method.draw(LATENTS, own)[1].tolist()
        for without, t in zip(method._blank_samples(own, 4), timesteps, strict=True):
            (blank if without else masked).append(t)
        others += method.draw(LATENTS, own, 1)[1].tolist()
    assert min(masked) >= 500 and all(
        min(some) < 25 and 0.4 < sum(t < 500 for t in some) / len(some) < 0.6
        for some in (blank, others)
    )


# --- staying near the backbone --------------------------------------------------------------------


def test_samples_without_masks_are_held_near_the_backbone(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    method = mcgm(embedded, distillation_weight=2.0, lambda_m=0.0, dropout=0.5)
    number = next(
        n for n in range(50) if method._blank_samples(draws(method, n), 2) == [True, False]
    )
    at_step(method, number)
    _, logged = step(method, captioned(), monkeypatch)
    assert logged["train/drift"] < 1e-10, "nothing has been trained yet"
    with torch.no_grad():
        for parameter in method.adapter["unet"].parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    loss, logged = step(method, captioned(), monkeypatch)
    noise, timesteps = method.draw(LATENTS[:2], draws(method, number))
    noised = embedded.schedule.add_noise(LATENTS[:2], noise, timesteps)[0][:1]
    text = embedded.text.encode(captioned().captions[:1])
    with torch.no_grad(), method.adapter["unet"].swapped_out():
        frozen = embedded.predict(noised, timesteps[:1], text, 64)
    with torch.no_grad():
        distance = (embedded.predict(noised, timesteps[:1], text, 64) - frozen).square().mean()
    assert (
        float(logged["train/drift"]) == pytest.approx(float(distance), rel=1e-3) and distance > 1e-6
    )
    rest = float(logged["train/denoising"] + 0.01 * logged["train/attention"])
    assert float(loss) == pytest.approx(rest + 2.0 * float(distance), rel=1e-4)
    loss.backward()
    assert method.adapter["unet"].is_installed and all(
        p.grad is not None for p in method.adapter["unet"].parameters()
    )


def test_nothing_is_held_on_a_scene_nor_where_all_have_masks(
    embedded: Backbone, monkeypatch: pytest.MonkeyPatch
):
    for tokens, share in ((ASSETS, 1.0), ((), 0.0)):
        method = mcgm(embedded, tokens, distillation_weight=1.0, dropout=share)
        _, logged = step(method, scene((0, 1), (2,)) if tokens else captioned(), monkeypatch)
        assert "train/drift" not in logged
        method.remove()
