"""The fixed images on which gates are looked at: what they are, and what is read off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.token_types import list_token_types
from torch import Tensor, nn

from conf.schema import Gate, Trainer
from conf.schema import Method as MethodConfig
from datamodules import ShapesDataModule
from lightning_modules import MaskAttn
from lightning_modules.attention.token_types import PADDING
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.gate_diagnostics import GateProbe, measure_gates
from losses.gates import mask_to_pixels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataModule:
    datamodule = ShapesDataModule(
        tmp_path_factory.mktemp("world"), train_images=8, eval_images=20, batch=4
    )
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


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
    gates = method.build()
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
    for i in range(20):  # as training does in between
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
    before, after = torch.zeros(256, 24), torch.zeros(256, 24)
    before[:, :6] = 1  # a quarter is open
    after[:64, :12] = 1  # of a quarter of the locations, six more
    after[:, 0] = 1
    start = set_gates(method.build(), {256: before})
    set_gates(method.gates, {256: after})
    found = probe.changes(start)
    reopened = 64 * 6 / (256 * 18)
    shut = (256 - 64) * 5 / (256 * 6)
    assert found == pytest.approx({"gates_reopened": reopened, "gates_shut": shut})
    set_gates(start, {256: torch.ones(256, 24)})
    set_gates(method.gates, {256: torch.ones(256, 24)})
    assert probe.changes(start) == {"gates_reopened": 0, "gates_shut": 0}


def test_an_untrained_method_has_changed_nothing_since_its_start(
    embedded: Backbone, world: ShapesDataModule
):
    method = maskattn(embedded, seed=5)
    state_before = torch.get_rng_state()
    found = measure_gates(method, world.eval_sets["val"], seed=5)
    assert torch.equal(torch.get_rng_state(), state_before)
    assert found["gates_reopened"] == found["gates_shut"] == 0
    assert set(found) == {"gates_reopened", "gates_shut", "gate_mask_iou", "overhead", "parameters"}
    assert (
        found["parameters"] == sum(p.numel() for p in method.parameters()) and found["overhead"] > 0
    )
    with torch.no_grad():
        for head in method.gates.heads.values():
            head.bias += 0.3
    moved = measure_gates(method, world.eval_sets["val"], seed=5)
    assert moved["gates_reopened"] > 0 and moved["gates_shut"] == 0


@pytest.mark.parametrize("attention", ["cross", "both"])
def test_gates_that_are_the_masks_agree_with_them_wholly_and_open_gates_by_their_share(
    embedded: Backbone, world: ShapesDataModule, attention: str
):
    method = maskattn(embedded, protect="none", attention=attention, sharing="layer")
    probe = GateProbe(method, world.eval_sets["val"], 0, 4)
    shares, at_masks = [], {}
    for locations in (256, 64):
        opened = torch.zeros(4, locations, 24)
        opened[..., 0] = 1  # no location may be empty
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
    only_cross({size: torch.ones(size, 24) for size in (256, 64)})
    assert probe.mask_iou()["gate_mask_iou"] == pytest.approx(sum(shares) / len(shares))
    only_cross({size: 1 - opened for size, opened in at_masks.items()})
    assert probe.mask_iou()["gate_mask_iou"] < 0.05  # where nothing is left, a rule opens one


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
    from lightning_modules.evaluation import gate_diagnostics

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
