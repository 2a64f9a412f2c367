"""What gates do: on fixed images, in pictures, and in the store while they are trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.token_types import list_token_types
from PIL import Image
from torch import Tensor, nn

from conf.schema import Evaluation, Gate, Trainer
from conf.schema import Method as MethodConfig
from conf.seeds import Seeds
from datamodules import ShapesDataModule
from lightning_modules import MaskAttn
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.token_types import PADDING
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded.pipeline import CONTEXT
from lightning_modules.evaluation import gate_diagnostics
from lightning_modules.evaluation.gate_diagnostics import (
    GateDiagnostics,
    GateMaps,
    GateProbe,
    draw_gate_maps,
    measure_gates,
)
from lightning_modules.evaluation.plan import plan
from losses.gates import mask_to_pixels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataModule:
    datamodule = ShapesDataModule(
        tmp_path_factory.mktemp("world"), train_images=8, eval_images=20, batch=2
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_diagnostics, "IMAGES", 2)
    monkeypatch.setattr(gate_diagnostics, "WATCHED", 2)


# --- fixed images ---


def maskattn(backbone: Backbone, seed: int = 3, **gate: Any) -> MaskAttn:
    torch.manual_seed(seed)
    return MaskAttn(
        backbone,
        MethodConfig("maskattn", gate=Gate(**{"width": 16, "bias": 0.0, "stage": "all"} | gate)),
        Trainer(),
        64,
    )


def state(method: MaskAttn) -> tuple:
    unet = method.backbone.unet
    return (
        {name: type(processor).__name__ for name, processor in unet.attn_processors.items()},
        method.gates.is_attached,
        method.gates.record,
        method.training,
        {name: p.requires_grad for name, p in method.named_parameters()},
        {name: value.clone() for name, value in method.gates.state_dict().items()},
        torch.get_rng_state(),
    )


def same(one: tuple, other: tuple) -> bool:
    tensors = all(torch.equal(value, other[5][name]) for name, value in one[5].items())
    return one[:5] == other[:5] and tensors and torch.equal(one[6], other[6])


def test_every_look_leaves_the_method_as_it_was(embedded: Backbone, world: ShapesDataModule):
    method = maskattn(embedded).train()
    torch.manual_seed(11)
    before = state(method)
    probe = GateProbe(method, world.eval_sets["val"], seed=0, images=3)
    assert same(state(method), before)
    start = once_more(method)
    before = state(method)
    for look in (
        probe.run,
        lambda: probe.run(start),
        lambda: probe.changes(start),
        probe.mask_iou,
        lambda: probe.overhead(1),
    ):
        look()
        assert same(state(method), before) and not start.is_attached
    # Also when the pass fails.
    probe.noised = probe.noised[:, :3]
    for gates in (None, start):
        with pytest.raises(RuntimeError):
            probe.run(gates)
        assert same(state(method), before)


def once_more(method: MaskAttn) -> Any:
    """The method's gates once more, not attached."""
    gates = method.build_gates()
    gates.load_state_dict(method.gates.state_dict())
    return gates


def test_images_noise_and_timesteps_depend_on_the_seed_alone(
    embedded: Backbone, world: ShapesDataModule
):
    method, dataset = maskattn(embedded), world.eval_sets["val"]
    one, again, other = (GateProbe(method, dataset, seed, images=16) for seed in (1, 1, 2))
    assert one.captions == [dataset.caption(i).text for i in range(16)]
    assert torch.equal(one.noised, again.noised) and not torch.equal(one.noised, other.noised)
    # Spread evenly: one timestep in each sixteenth, and no two neighbours in neighbouring ones.
    found = one.timesteps.tolist()
    assert sorted(t * 16 // 1000 for t in found) == list(range(16)) and torch.equal(
        one.timesteps, other.timesteps
    )
    assert min(abs(a - b) for a, b in zip(found, found[1:], strict=False)) > 125
    latents = embedded.autoencoder.encode(torch.stack([dataset.image(i) for i in range(16)]))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(one.noised, embedded.schedule.add_noise(latents, noise, one.timesteps)[0])


@pytest.mark.parametrize("images", [1, 6, 7, 14, 50])
def test_any_number_of_images_has_timesteps_of_its_own(
    embedded: Backbone, world: ShapesDataModule, images: int
):
    probe = GateProbe(maskattn(embedded), world.eval_sets["val"], 0, images)
    count = min(images, 20)
    assert len(probe.captions) == len(probe.noised) == len(set(probe.timesteps.tolist())) == count
    assert all(0 <= t < 1000 for t in probe.timesteps.tolist())


@pytest.mark.parametrize("gate", [{"protect": "specials"}, {"padding_gate": "closed"}], ids=str)
def test_a_look_knows_its_texts_also_long_after_they_were_encoded(
    embedded: Backbone, world: ShapesDataModule, gate: dict[str, Any]
):
    method = maskattn(embedded, **gate)
    probe = GateProbe(method, world.eval_sets["val"], 0, 3)
    first = probe.run()
    for i in range(20):  # As training does in between
        embedded.text.token_types(
            embedded.text.encode([world.train_set.caption(i % 8).text]).hidden
        )
    again = probe.run()
    kinds = list_token_types(embedded.text.tokenizers[0], probe.captions)
    for name, gates in first.gates.items():
        assert torch.equal(again.gates[name], gates) and torch.equal(again.token_types[name], kinds)
        padding = gates.transpose(1, 2)[kinds == PADDING]
        assert bool((padding == (1 if "protect" in gate else 0)).all())


class Set(nn.Module):
    """A head that opens where it is told to."""

    def __init__(self, opened: Tensor) -> None:
        super().__init__()
        self.register_buffer("opened", opened)

    def forward(self, features: Tensor, tokens: Tensor, plane: tuple[int, int]) -> Tensor:
        return (20 * self.opened - 10.0).expand(len(features), -1, -1)


def set_gates(gates: Any, opened: dict[int, Tensor]) -> Any:
    """Every head opens ``opened`` [N, T] or [B, N, T] of its plane's size."""
    for site in gates.sites:
        gates.heads[gates.key(site)] = Set(opened[site.resolution**2])
    return gates


def test_changes_are_shares_of_what_was_closed_and_of_what_was_open(
    embedded: Backbone, world: ShapesDataModule
):
    method = maskattn(embedded, protect="none", stage="high")
    probe = GateProbe(method, world.eval_sets["val"], 0, 2)
    before, after = torch.zeros(256, CONTEXT), torch.zeros(256, CONTEXT)
    before[:, :6] = 1  # The others are closed
    after[:64, :12] = 1  # Of a quarter of the locations, six more
    after[:, 0] = 1
    start = set_gates(method.build_gates(), {256: before})
    set_gates(method.gates, {256: after})
    found = probe.changes(start)
    reopened = 64 * 6 / (256 * (CONTEXT - 6))
    shut = (256 - 64) * 5 / (256 * 6)
    assert found == pytest.approx({"gates_reopened": reopened, "gates_shut": shut})
    set_gates(start, {256: torch.ones(256, CONTEXT)})
    set_gates(method.gates, {256: torch.ones(256, CONTEXT)})
    found = probe.changes(start)
    assert math.isnan(found["gates_reopened"]) and found["gates_shut"] == 0, "none was closed"


@pytest.mark.parametrize(
    "rules", [{"protect": "none", "padding_gate": "closed"}, {"protect": "specials"}], ids=str
)
def test_gates_that_a_rule_holds_neither_reopen_nor_shut(
    embedded: Backbone, world: ShapesDataModule, rules: dict[str, Any]
):
    method = maskattn(embedded, stage="high", **rules)
    probe = GateProbe(method, world.eval_sets["val"], 0, 2)
    first, all_open = torch.zeros(256, CONTEXT), torch.ones(256, CONTEXT)
    first[:, 1] = 1  # A word: no location may be empty
    start = set_gates(method.build_gates(), {256: first})
    set_gates(method.gates, {256: all_open})
    assert probe.changes(start) == {"gates_reopened": 1, "gates_shut": 0}
    start = set_gates(method.build_gates(), {256: all_open})
    set_gates(method.gates, {256: first})
    free = int(probe.run().free[method.gates.sites[0].name].sum())
    shut = probe.changes(start)["gates_shut"]
    assert shut == pytest.approx((free - 2) / free), "all but a word of each caption"


def test_an_untrained_method_has_changed_nothing_since_its_start(
    embedded: Backbone, world: ShapesDataModule, monkeypatch: pytest.MonkeyPatch
):
    method = maskattn(embedded, seed=5)
    state_before, predict, sizes = torch.get_rng_state(), method.predict, []

    def count(noised: Tensor, *more: Any) -> Tensor:
        sizes.append(len(noised))
        return predict(noised, *more)

    monkeypatch.setattr(method, "predict", count)
    found = measure_gates(method, world.eval_sets["val"], Seeds.same(5))
    assert torch.equal(torch.get_rng_state(), state_before)
    images = min(len(world.eval_sets["val"]), gate_diagnostics.IMAGES)
    timed = min(images, gate_diagnostics.TIMED)
    assert sizes == [images] * 2 + [timed] * 8, "gates are looked at once before, once after"
    assert found["gates_reopened"] == found["gates_shut"] == 0
    assert set(found) == {"gates_reopened", "gates_shut", "gate_mask_iou", "overhead", "parameters"}
    assert (
        found["parameters"] == sum(p.numel() for p in method.parameters()) and found["overhead"] > 0
    )
    with torch.no_grad():
        for head in method.gates.heads.values():
            head.bias += 0.3
    moved = measure_gates(method, world.eval_sets["val"], Seeds.same(5))
    assert moved["gates_reopened"] > 0 and moved["gates_shut"] == 0


@pytest.mark.parametrize("attention", ["cross", "both"])
def test_gates_that_are_the_masks_agree_with_them_wholly_and_open_gates_by_their_share(
    embedded: Backbone, world: ShapesDataModule, attention: str
):
    method = maskattn(embedded, protect="none", attention=attention, sharing="layer")
    probe = GateProbe(method, world.eval_sets["val"], 0, 4)
    shares, at_masks = [], {}
    for locations in (256, 64):
        opened = torch.zeros(4, locations, CONTEXT)
        opened[..., 0] = 1  # No location may be empty
        for b, phrases in enumerate(probe.phrases):
            positions = embedded.text.token_indices(
                probe.captions[b], [(p.start, p.end) for p in phrases]
            )
            for phrase, at in zip(phrases, positions, strict=True):
                mask = mask_to_pixels(phrase.mask, locations)
                opened[b][:, at] = mask.float()[:, None]
                repeats = sum(
                    site.kind == "cross" and site.resolution**2 == locations
                    for site in method.gates.sites
                )
                shares += [float(mask.float().mean())] * (len(at) * repeats)
        at_masks[locations] = opened

    def only_cross(opened: dict[int, Tensor]) -> None:
        for site in method.gates.sites:
            size = site.resolution**2
            method.gates.heads[method.gates.key(site)] = Set(
                opened[size] if site.kind == "cross" else torch.ones(size, size)
            )

    only_cross(at_masks)
    assert probe.mask_iou() == {"gate_mask_iou": 1.0}
    only_cross({size: torch.ones(size, CONTEXT) for size in (256, 64)})
    assert probe.mask_iou()["gate_mask_iou"] == pytest.approx(sum(shares) / len(shares))
    only_cross({size: 1 - opened for size, opened in at_masks.items()})
    assert probe.mask_iou()["gate_mask_iou"] < 0.05  # Where nothing is left, a rule opens one


def test_without_phrases_or_cross_attention_there_is_no_agreement(
    embedded: Backbone, world: ShapesDataModule
):
    method = maskattn(embedded, attention="self", stage="low")
    probe = GateProbe(method, world.eval_sets["val"], 0, 2)
    assert probe.mask_iou() == {} and set(probe.changes(once_more(method))) == {
        "gates_reopened",
        "gates_shut",
    }
    method.remove()
    method = maskattn(embedded, stage="low")
    probe = GateProbe(method, world.eval_sets["val"], 0, 2)
    probe.phrases = [[], []]
    assert probe.mask_iou() == {}


def test_overhead_is_the_time_with_gates_over_that_without(
    embedded: Backbone, world: ShapesDataModule, monkeypatch: pytest.MonkeyPatch
):
    method = maskattn(embedded, stage="low")
    probe = GateProbe(method, world.eval_sets["val"], 0, 1)
    clock = [0.0]
    predict = method.predict

    def slow(*args: Any) -> Tensor:
        clock[0] += 3.0 if method.gates.is_attached else 2.0
        return predict(*args)

    monkeypatch.setattr(method, "predict", slow)
    monkeypatch.setattr(gate_diagnostics.time, "perf_counter", lambda: clock[0])
    assert probe.overhead() == 1.5 and method.gates.is_attached


# --- pictures ---


def record_pictures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Draws nothing; the arguments of all pictures."""
    drawn: list[Any] = []

    def draw(*args: Any) -> Image.Image:
        drawn.append(args)
        return Image.new("L", (1, 1))

    monkeypatch.setattr(gate_diagnostics, "draw_maps", draw)
    return drawn


@pytest.mark.parametrize(
    ("guidance", "attention"), [(3.0, "both"), pytest.param(1.0, "cross", marks=pytest.mark.slow)]
)
def test_maps_are_those_of_the_prompts(
    embedded: Any,
    world: ShapesDataModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    guidance: float,
    attention: str,
):
    datamodule = world
    torch.manual_seed(0)
    method = MaskAttn(
        embedded,
        MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, stage="all", attention=attention)),
        Trainer(),
        64,
    )
    drawn = record_pictures(monkeypatch)
    config = Evaluation(["val", "heldout"], prompts=3, steps=1, guidance=guidance)
    draw_gate_maps(method, datamodule, config, Seeds.same(0), tmp_path)
    ((images, maps, tokens),) = drawn
    assert images.shape == (4, 3, 64, 64) and {side: m.shape for side, m in maps.items()} == {
        16: (4, 16, 16, CONTEXT),
        8: (4, 8, 8, CONTEXT),
    }

    # The last prompt alone gives its own row again.
    prompts = [p for p in plan(datamodule, config, 0) if p.index < 2]
    with method.gates.recording(conditional_half=guidance > 1, keep_maps=True) as record:
        alone = method.generate([prompts[3].text], [prompts[3].noise], None, 1, guidance)
    assert int((alone[0].int() - images[3].int()).abs().max()) <= 1
    fine = torch.stack(
        [
            record.maps[s.name][0]
            for s in method.gates.sites
            if s.resolution == 16 and s.kind == "cross"
        ]
    ).mean(0)
    assert torch.allclose(fine.reshape(16, 16, -1), torch.from_numpy(maps[16][3]), atol=0.02)
    content = json.loads((tmp_path / "gates.json").read_text())
    assert [entry["prompt"] for entry in content] == [p.text for p in prompts] and content[3][
        "tokens"
    ] == tokens[3]
    assert content[3]["open"]["16"][1] == pytest.approx(float(maps[16][3, ..., 1].mean()), abs=1e-4)


def test_gates_on_self_attention_alone_have_no_maps_of_tokens(
    embedded: Any, world: ShapesDataModule, tmp_path: Path
):
    method = MaskAttn(
        embedded,
        MethodConfig("maskattn", gate=Gate(width=8, bias=0.0, attention="self")),
        Trainer(),
        64,
    )
    draw_gate_maps(
        method, world, Evaluation(["val", "heldout"], prompts=3, steps=1), Seeds.same(0), tmp_path
    )
    assert not (tmp_path / "gates.json").exists() and not (tmp_path / "gates.png").exists()


def test_gates_are_drawn_at_the_start_at_each_quarter_and_at_the_end(
    embedded: Any, world: ShapesDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    datamodule = world
    torch.manual_seed(0)
    gate = Gate(width=8, bias=0.0, stage="all")
    method = MaskAttn(
        embedded, MethodConfig("maskattn", gate=gate), Trainer(steps=4, warmup=1, lr=0.1), 64
    )
    drawn = record_pictures(monkeypatch)
    stored: list[Any] = []
    trainer = L.Trainer(
        max_steps=4,
        accumulate_grad_batches=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[
            GateMaps(datamodule.train_set, 0, lambda image, step: stored.append((step, image)))
        ],
    )
    trainer.fit(method, datamodule=datamodule)
    assert [step for step, _ in stored] == [0, 1, 2, 3, 4]
    images, maps, tokens, titles = drawn[-1]
    assert titles == ["t = 875", "t = 625", "t = 375", "t = 125"]
    datamodule.train_set.epoch = 0  # Whose captions the looks were made with
    row = GateProbe(method, datamodule.train_set, 0, 4).timesteps.argsort(descending=True).tolist()
    for shown, image in enumerate(row):
        assert torch.equal(images[shown], datamodule.train_set.pixels(image))
        assert tokens[shown] == method.backbone.text.token_names(
            datamodule.train_set.caption(image).text
        )
    assert {side: m.shape for side, m in maps.items()} == {
        16: (4, 16, 16, CONTEXT),
        8: (4, 8, 8, CONTEXT),
    }
    before, after = drawn[0][1][16], maps[16]
    assert 0 < before.mean() < 1 and (before != after).any(), "the pictures show the training"
    gates = GateProbe(method, datamodule.train_set, 0, 4).run().gates
    fine = [(gates[s.name] > 0.5).float() for s in method.gates.sites if s.resolution == 16]
    # Another pass may round a gate at the threshold to its other side.
    assert (
        float(
            (torch.stack(fine).mean(0)[row].reshape(4, 16, 16, -1) - torch.from_numpy(after))
            .abs()
            .mean()
        )
        < 0.005
    )


# --- in training ---


def train(
    backbone: Backbone,
    world: ShapesDataModule,
    every: int = 2,
    accumulate: int = 1,
    steps: int = 3,
    **gate: Any,
) -> tuple[list[tuple[dict[str, float], int]], MaskAttn]:
    torch.manual_seed(3)
    recipe = Trainer(steps=steps, warmup=1, lr=0.05)
    method = MaskAttn(
        backbone,
        MethodConfig("maskattn", gate=Gate(**{"width": 8, "bias": 0.0, "stage": "all"} | gate)),
        recipe,
        64,
    )
    world.train_set.with_phrases = gate.get("supervision") == "masks"
    stored: list[tuple[dict[str, float], int]] = []
    callback = GateDiagnostics(
        every, world.train_set, 0, lambda values, at: stored.append((dict(values), at))
    )
    trainer = L.Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[callback],
    )
    trainer.fit(method, datamodule=world)
    return stored, method


def names(method: MaskAttn, stored: dict[str, float]) -> None:
    """Asserts that all documented names are there and no other."""
    sites = {f"gates/closed/site/{site.name}" for site in method.gates.sites}
    kinds = {f"gates/closed/kind/{kind}" for kind in ("word", "eos", "padding")}
    times = {f"gates/closed/time/{span}" for span in ("0-249", "250-499", "500-749", "750-999")}
    rest = {"gates/gradient/closed", "gates/gradient/open", "gates/opened", "gates/shut"}
    assert sites | kinds | rest <= set(stored) <= sites | kinds | times | rest and times & set(
        stored
    )
    assert all(0 <= value <= 1 for name, value in stored.items() if "gradient" not in name)


def test_every_few_steps_and_at_the_end_all_names_reach_the_store(
    embedded: Backbone, world: ShapesDataModule
):
    stored, method = train(embedded, world)
    assert [step for _, step in stored] == [2, 3]
    for values, _ in stored:
        names(method, values)
        assert values["gates/gradient/closed"] > 0 and values["gates/gradient/open"] > 0
    assert any(values["gates/opened"] + values["gates/shut"] > 0 for values, _ in stored)
    assert method.window is None and method.gates.record is None


def test_with_accumulation_every_step_is_stored_once(embedded: Backbone, world: ShapesDataModule):
    stored, _ = train(embedded, world, accumulate=2, steps=2, every=1)
    assert [step for _, step in stored if step] == [1, 2]


def test_each_report_is_of_what_happened_since_the_last(
    embedded: Backbone, world: ShapesDataModule, monkeypatch: pytest.MonkeyPatch
):
    seen: list[GateRecord] = []
    shares = GateRecord.shares

    def spy(record: GateRecord) -> dict[str, float]:
        seen.append(record)
        return shares(record)

    monkeypatch.setattr(GateRecord, "shares", spy)
    train(embedded, world, steps=3)
    counts = [float(sum(counted.sum() for counted in record.counted.values())) for record in seen]
    assert counts[0] == 2 * counts[1], "two steps, then one"


@pytest.mark.parametrize(
    "gate",
    [
        {"supervision": "masks", "head": "conv3x3"},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"attention": "both", "head": "film"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradient_checkpointing_reports_the_same(
    embedded: Backbone, world: ShapesDataModule, gate: dict[str, Any]
):
    plain, method = train(embedded, world, steps=2, **gate)
    method.remove()
    embedded.unet.train()
    embedded.unet.enable_gradient_checkpointing()
    again, _ = train(embedded, world, steps=2, **gate)
    assert [step for _, step in again] == [step for _, step in plain] == [2]
    assert again[0][0] == pytest.approx(plain[0][0], rel=1e-3, abs=1e-6)


def test_closed_gates_have_no_gradient_under_the_released_surrogate(
    embedded: Backbone, world: ShapesDataModule
):
    ((values, _),), _ = train(embedded, world, steps=1, gradient="released", protect="none")
    assert values["gates/gradient/closed"] == 0 < values["gates/gradient/open"]
    assert 0 <= values["gates/closed/kind/bos"] <= 1


@pytest.mark.parametrize("padding", [pytest.param("open", marks=pytest.mark.slow), "closed"])
def test_gates_that_a_rule_holds_change_nothing_however_long_it_takes(
    embedded: Backbone, world: ShapesDataModule, padding: str
):
    # More batches between two looks than texts are remembered; the free gates are so far shut that
    # no step opens one.
    stored, _ = train(
        embedded, world, every=12, steps=12, padding_gate=padding, protect="specials", bias=-50.0
    )
    assert [step for _, step in stored] == [12]
    assert stored[0][0]["gates/opened"] == stored[0][0]["gates/shut"] == 0


def test_watching_changes_no_step_of_the_training(embedded: Backbone, world: ShapesDataModule):
    _, watched = train(embedded, world, every=1, steps=2)
    watched.remove()
    _, alone = train(embedded, world, every=1000, steps=2)
    assert all(
        torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True)
    )
