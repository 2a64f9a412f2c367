"""What is recorded of gates, against naive counts."""

from __future__ import annotations

import gc
import math
import weakref
from collections import defaultdict
from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw
from torch import Tensor

from conf.schema import Gate
from lightning_modules.attention import Site, select, sites
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.gates import Gates
from lightning_modules.attention.hooks import ForwardContext
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.embedded.pipeline import CONTEXT

CROSS = Site("a.attn2", "mid", "encoder", 2, 8, 2, 6)
OTHER = Site("b.attn2", "mid", "decoder", 2, 8, 2, 6)
SELF = Site("a.attn1", "mid", "encoder", 2, 8, 2, 8, "self")
NAMES = {BOS: "bos", WORD: "word", EOS: "eos", PADDING: "padding"}
SPANS = ("0-249", "250-499", "500-749", "750-999")


def call(seed: int, site: Site, timesteps: list[int] | None, batch: int = 4) -> tuple[Any, ...]:
    """The arguments of one `GateRecord.add`: random binary gates, free tokens and kinds."""
    tokens = 4 if site.kind == "self" else 6
    gate = (draw(seed, batch, 4, tokens) > 0).float()
    generator = torch.Generator().manual_seed(seed)
    kinds = (
        torch.randint(4, (batch, tokens), generator=generator, dtype=torch.uint8)
        if site.kind == "cross"
        else None
    )
    free = (
        ~torch.eye(4, dtype=torch.bool)[None]
        if kinds is None
        else (kinds != BOS)[:, None]
        if seed % 2
        else torch.ones(batch, 1, 6) > 0
    )
    return (
        site,
        gate,
        draw(seed + 50, batch, 4, tokens),
        free,
        kinds,
        ForwardContext(None, None if timesteps is None else torch.tensor(timesteps)),
    )


def naive(calls: list[tuple[Any, ...]], conditional_half: bool) -> tuple[float, dict[str, float]]:
    """(share closed over everything, shares by name), counted one gate at a time."""
    closed: defaultdict[str, int] = defaultdict(int)
    counted: defaultdict[str, int] = defaultdict(int)
    for site, gate, _, free, kinds, now in calls:
        batch, pixels, tokens = gate.shape
        every = free.expand_as(gate)
        for b in range(batch // 2 if conditional_half else 0, batch):
            time = int(now.timesteps[b if len(now.timesteps) > 1 else 0])
            for i in range(pixels):
                for t in range(tokens):
                    if not every[b, i, t]:
                        continue
                    names = ["", f"site/{site.name}", f"time/{SPANS[time // 250]}"]
                    if kinds is not None:
                        names.append(f"kind/{NAMES[int(kinds[b, t])]}")
                    for name in names:
                        counted[name] += 1
                        closed[name] += int(gate[b, i, t] == 0)
    shares = {name: closed[name] / number for name, number in counted.items()}
    return shares.pop(""), shares


@pytest.mark.parametrize("conditional_half", [False, True], ids=["all", "conditional half"])
def test_shares_by_site_kind_and_time_are_those_of_a_naive_count(conditional_half: bool):
    record = GateRecord(conditional_half)
    calls = [
        call(1, CROSS, [0, 249, 250, 999]),
        call(2, CROSS, [510]),
        call(3, OTHER, [749, 750, 12, 600]),
        call(4, SELF, [100, 300, 500, 700]),
        call(5, SELF, [33]),
    ]
    for one in calls:
        record.add(*one)
    share, shares = naive(calls, conditional_half)
    assert record.share_closed() == pytest.approx(share)
    assert record.shares() == pytest.approx(shares)
    assert {
        "site/a.attn2",
        "kind/word",
        "kind/bos",
        "kind/padding",
        "time/0-249",
        "time/750-999",
    } <= set(shares)


def test_gates_that_a_rule_holds_are_not_counted_and_soft_ones_are_closed_below_a_half():
    record = GateRecord()
    types = torch.tensor([[BOS, WORD, EOS]], dtype=torch.uint8)
    gate = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 0.5, 1.0], [1.0, 0.49, 1.0], [1.0, 0.9, 1.0]]])
    free = torch.tensor([[[False, True, False]]])
    record.add(CROSS, gate, gate, free, types, ForwardContext(None, torch.tensor([5])))
    assert record.shares() == {"site/a.attn2": 0.5, "kind/word": 0.5, "time/0-249": 0.5}


def test_a_site_whose_gates_a_rule_holds_has_no_share():
    record = GateRecord()
    types = torch.tensor([[BOS, EOS]], dtype=torch.uint8)
    held = torch.zeros(1, 1, 2, dtype=torch.bool)
    gate = torch.ones(1, 4, 2)
    record.add(CROSS, gate, gate, held, types, ForwardContext(None, torch.tensor([5])))
    assert math.isnan(record.share_closed()) and record.shares() == {}


def test_nothing_seen_has_no_share():
    assert (
        math.isnan(GateRecord().share_closed())
        and GateRecord().shares() == {}
        and GateRecord(live=True).gradients() == {}
    )


def test_mean_maps_of_the_calls_of_a_site():
    record = GateRecord(conditional_half=True, keep_maps=True)
    calls = [call(seed, CROSS, [5]) for seed in (1, 2, 3)]
    for one in calls:
        record.add(*one)
    assert record.calls == {"a.attn2": 3}
    assert torch.allclose(
        record.maps["a.attn2"], torch.stack([gate[2:] for _, gate, *_ in calls]).mean(0)
    )


def test_gradients_are_the_root_mean_square_over_all_closed_and_all_open_free_gates():
    record, squares = GateRecord(live=True), {"closed": [], "open": []}
    for seed, site in ((1, CROSS), (2, OTHER), (3, CROSS), (4, SELF)):
        _, gate, logits, free, kinds, now = call(seed, site, [5])
        gate.requires_grad_()
        record.add(site, gate, logits, free, kinds, now)
        weight = draw(seed + 9, *gate.shape)
        (gate * weight).sum().backward()
        for g, w, f in zip(
            gate.flatten().tolist(),
            weight.flatten().tolist(),
            free.expand_as(gate).flatten().tolist(),
            strict=True,
        ):
            if f:
                squares["open" if g else "closed"].append(w * w)
    expected = {name: (sum(values) / len(values)) ** 0.5 for name, values in squares.items()}
    assert record.gradients() == pytest.approx(expected, rel=1e-5)


def test_a_live_record_of_a_step_is_freed_with_its_graph():
    record = GateRecord(live=True)
    _, gate, logits, free, kinds, now = call(1, CROSS, [5])
    gate = gate.requires_grad_() * 1
    record.add(CROSS, gate, logits, free, kinds, now)
    gate.sum().backward()
    gone = weakref.ref(record)
    del record, gate
    gc.collect()
    assert gone() is None


def test_a_state_that_no_gate_is_in_has_no_gradient_and_without_live_there_is_none():
    for live in (True, False):
        record = GateRecord(live=live)
        gate = torch.ones(1, 4, 6, requires_grad=True)
        free = torch.ones(1, 1, 6, dtype=torch.bool)
        record.add(
            CROSS,
            gate,
            gate,
            free,
            torch.full((1, 6), WORD, dtype=torch.uint8),
            ForwardContext(None, torch.tensor([5])),
        )
        (2 * gate).sum().backward()
        assert record.gradients() == ({"open": 2.0} if live else {})
        assert (
            set(record.logits)
            == set(record.gates)
            == set(record.token_types)
            == ({"a.attn2"} if live else set())
        )


# --- of a UNet --------------------------------------------------------------------------------


def inputs(backbone: Any, seed: int = 9) -> dict[str, Any]:
    text = backbone.text.encode(["a red circle above a white ring", "a green cross"])
    return {
        "latents": draw(seed, 2, *backbone.latent_size()),
        "timesteps": torch.tensor([900, 20]),
        "text": text,
        "resolution": 64,
    }


def gates_for(
    backbone: Any,
    kind: str | None = "cross",
    stage: str | None = None,
    placement: str | None = None,
    **config: Any,
) -> Gates:
    torch.manual_seed(0)
    chosen = select(sites(backbone.unet), stage, placement, kind=kind)
    return Gates(chosen, Gate(**{"width": 16, "bias": 0.0} | config), backbone.text.token_types)


def test_free_gates_are_counted_site_by_site(embedded: Any):
    gates = gates_for(embedded, stage="high", bias=50.0)
    gates.attach(embedded.unet)
    given = inputs(embedded)
    tokens = given["text"].hidden.shape[1]
    with torch.no_grad(), gates.recording() as record:
        embedded.predict(**given)
        embedded.predict(**given)
    assert (
        gates.record is None
        and record.share_closed() == 0
        and not record.maps
        and not record.logits
    )
    expected = {site.name: 2 * 2 * 256 * (tokens - 1) for site in gates.sites}
    assert {
        name: int(counted.sum()) for name, counted in record.counted.items()
    } == expected and len(expected) == 3
    with torch.no_grad(), gates.recording(conditional_half=True) as half:
        embedded.predict(**given)
    assert {name: int(counted.sum()) for name, counted in half.counted.items()} == {
        name: n // 4 for name, n in expected.items()
    }


def test_shares_of_a_unet_are_those_of_its_maps(embedded: Any):
    gates = gates_for(embedded, protect="none", placement="bridge")
    gates.attach(embedded.unet)
    (name,) = (site.name for site in gates.sites)
    first, second = inputs(embedded), inputs(embedded, seed=10)
    shares, maps = [], []
    with torch.no_grad():
        for given in (first, second):
            with gates.recording(keep_maps=True) as one:
                embedded.predict(**given)
            shares.append(one.share_closed())
            maps.append(one.maps[name])
        with gates.recording(conditional_half=True, keep_maps=True) as half:
            embedded.predict(**first)
        with gates.recording(keep_maps=True) as both:
            embedded.predict(**first)
            embedded.predict(**second)
    assert (
        0 < shares[0] < 1
        and both.share_closed() == pytest.approx(sum(shares) / 2)
        and both.calls[name] == 2
    )
    assert maps[0].shape == (2, 64, CONTEXT) and set(maps[0].flatten().tolist()) == {0.0, 1.0}
    assert torch.allclose(both.maps[name], (maps[0] + maps[1]) / 2) and not torch.equal(
        maps[0], maps[1]
    )
    assert shares[0] == pytest.approx(float(1 - maps[0].mean()))
    assert torch.equal(half.maps[name], maps[0][1:]) and not torch.equal(maps[0][1:], maps[0][:1])
    # Sample 0 has timestep 900 and sample 1 has 20; kinds are those of the two captions.
    kinds = embedded.text.token_types(first["text"].hidden)
    found = one_pass(embedded, gates, first).shares()
    closed = 1 - maps[0]
    assert found["time/750-999"] == pytest.approx(float(closed[0].mean())) and found[
        "time/0-249"
    ] == pytest.approx(float(closed[1].mean()))
    for kind, label in NAMES.items():
        assert found[f"kind/{label}"] == pytest.approx(
            float(closed.transpose(1, 2)[kinds == kind].mean())
        )


def one_pass(backbone: Any, gates: Gates, given: dict[str, Any]) -> GateRecord:
    with torch.no_grad(), gates.recording() as record:
        backbone.predict(**given)
    return record


def watched(
    backbone: Any, gates: Gates, checkpointing: bool
) -> tuple[GateRecord, dict[str, Tensor]]:
    """(record, gradients by name) of a loss on the prediction and on the recorded logits."""
    unet = backbone.unet
    unet.train()
    (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
    gates.zero_grad(set_to_none=True)
    with gates.attached(unet), gates.recording(live=True) as record:
        prediction = backbone.predict(**inputs(backbone))
    loss = prediction.square().mean() + sum(
        logits.sigmoid().mean() for logits in record.logits.values()
    )
    loss.backward()
    unet.disable_gradient_checkpointing()
    unet.eval()
    return record, {name: p.grad for name, p in gates.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "config",
    [{"head": "mlp"}, {"head": "conv3x3", "gradient": "released"}, {"head": "film", "kind": None}],
    ids=str,
)
def test_gradient_checkpointing_changes_neither_what_is_recorded_nor_the_gradients(
    embedded: Any, config: dict[str, Any]
):
    gates = gates_for(embedded, **config)
    plain, grads = watched(embedded, gates, checkpointing=False)
    again, same = watched(embedded, gates, checkpointing=True)
    assert again.shares() == plain.shares() and set(plain.gradients()) == {"closed", "open"}
    assert again.gradients() == pytest.approx(plain.gradients(), rel=1e-4)
    assert (plain.gradients()["closed"] == 0) == (config.get("gradient") == "released")
    assert grads.keys() == same.keys() == dict(gates.named_parameters()).keys()
    for name, grad in grads.items():
        assert torch.allclose(
            same[name], grad, rtol=1e-3, atol=1e-6 * max(1, float(grad.abs().max()))
        ), name


def test_what_is_live_is_the_latest_pass_in_its_graph(embedded: Any):
    gates = gates_for(embedded, kind=None)
    with gates.attached(embedded.unet), gates.recording(live=True) as record:
        embedded.predict(**inputs(embedded, seed=10))
        earlier = dict(record.logits)
        embedded.predict(**inputs(embedded))
    names = {site.name for site in gates.sites}
    assert set(record.logits) == set(record.gates) == names and set(record.token_types) == {
        s.name for s in gates.sites if s.kind == "cross"
    }
    for name in names:
        assert (
            record.logits[name].requires_grad
            and record.gates[name].requires_grad
            and record.logits[name] is not earlier[name]
        )
    assert not torch.equal(
        record.logits["mid_block.attentions.0.transformer_blocks.0.attn2"],
        earlier["mid_block.attentions.0.transformer_blocks.0.attn2"],
    )
