"""Reasons for gates to close: when they act, what they ask for, and that they move gates there."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.unet_inputs import draw
from torch import Tensor

from conf.schema import Gate
from datamodules.batch import Phrase
from lightning_modules.attention import Site
from lightning_modules.attention.gate_stats import GateRecord
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.methods.gate_supervision import (
    density_supervision,
    mask_supervision,
    supervision_weight,
)
from losses.gates import gate_density

FINE = Site("a.attn2", "high", "encoder", 4, 8, 2, 6)
COARSE = Site("b.attn2", "mid", "encoder", 2, 8, 2, 6)
SELF = Site("a.attn1", "high", "encoder", 4, 8, 2, 8, "self")


def phrase(rows: slice, columns: slice, size: int = 8) -> Phrase:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[rows, columns] = True
    return Phrase("x", 0, 1, mask)


LEFT, RIGHT, TOP = (
    phrase(slice(None), slice(0, 4)),
    phrase(slice(None), slice(4, 8)),
    phrase(slice(0, 4), slice(None)),
)
WHOLE = phrase(slice(None), slice(None))


# --- when --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anneal", "expected"),
    [
        ("none", [2, 2, 2, 2]),
        ("linear", [2, 1.5, 1, 0]),
        ("cosine", [2, 1 + math.cos(math.pi / 4), 1, 0]),
    ],
)
def test_the_weight_falls_over_training(anneal: str, expected: list[float]):
    config = Gate(supervision="density", supervision_weight=2.0, supervision_anneal=anneal)
    assert [supervision_weight(config, done) for done in (0, 0.25, 0.5, 1)] == pytest.approx(
        expected, abs=1e-12
    )


# --- a density --------------------------------------------------------------------------------


def recorded(
    batch: int = 2,
    tokens: int = 5,
    kinds: Tensor | None = None,
    sites: tuple[Site, ...] = (FINE, COARSE),
) -> GateRecord:
    """A live record of random logits and of the gates that they open."""
    record = GateRecord(live=True)
    for i, site in enumerate(sites):
        width = site.resolution**2 if site.kind == "self" else tokens
        logits = draw(i, batch, site.resolution**2, width).requires_grad_()
        gate = (logits > 0).float() + (logits.sigmoid() - logits.sigmoid().detach())
        record.logits[site.name], record.gates[site.name] = logits, gate
        if site.kind == "cross":
            record.token_types[site.name] = (
                torch.full((batch, tokens), WORD).index_fill(1, torch.tensor(0), BOS)
                if kinds is None
                else kinds
            )
    return record


def test_density_is_counted_over_all_tokens_but_bos_and_is_the_mean_over_sites():
    kinds = torch.tensor([[BOS, WORD, WORD, EOS, PADDING], [BOS, WORD, EOS, PADDING, PADDING]])
    record = recorded(kinds=kinds)
    expected = torch.stack(
        [
            torch.stack(
                [((record.gates[name][b] == 1).float()[:, 1:].mean() - 0.3) ** 2 for b in range(2)]
            ).mean()
            for name in ("a.attn2", "b.attn2")
        ]
    ).mean()
    signal = density_supervision(Gate(supervision_density=0.3), record)
    assert torch.allclose(signal, expected)
    signal.backward()
    for logits in record.logits.values():
        assert (
            logits.grad is not None
            and not logits.grad[..., 0].any()
            and bool((logits.grad[..., 1:] != 0).all())
        )


def test_density_of_self_attention_counts_every_location():
    record = recorded(sites=(SELF,))
    expected = gate_density(record.gates["a.attn1"], 0.3)
    assert torch.equal(density_supervision(Gate(supervision_density=0.3), record), expected)


# --- masks --------------------------------------------------------------------------------


def naive_mask_signal(
    kind: str,
    record: GateRecord,
    sites: list[Site],
    phrases: list[list[Phrase]],
    positions: list[list[list[int]]],
) -> Tensor:
    """Sample by sample, token by token, location by location, in float64; masks are those of blocks
    that a location covers."""
    means = []
    for site in sites:
        logits = record.logits[site.name].double()
        batch, locations, tokens = logits.shape
        terms = []
        for b in range(batch):
            masks = [block_mask(p.mask, site.resolution) for p in phrases[b]]
            if site.kind == "self":
                terms.append(naive_self(logits[b], masks))
                continue
            owned = {t for at in positions[b] for t in at}
            parts = []  # (weight of a token, its loss: mean of inside and outside)
            for i, at in enumerate(positions[b]):
                wanted = [
                    masks[i][n]
                    if kind == "own"
                    else not (any(m[n] for k, m in enumerate(masks) if k != i) and not masks[i][n])
                    for n in range(locations)
                ]
                inside, outside = (
                    [n for n in range(locations) if wanted[n]],
                    [n for n in range(locations) if not wanted[n]],
                )
                if not inside or not outside:
                    continue
                for t in at:
                    p = logits[b, :, t].sigmoid()
                    parts.append(-(p[inside].log().mean() + (1 - p[outside]).log().mean()) / 2)
            if not parts:
                terms.append(torch.zeros((), dtype=torch.float64))
                continue
            free = [t for t in range(tokens) if t not in owned]
            stay_open = -logits[b][:, free].sigmoid().log().mean()
            terms.append((torch.stack(parts).mean() + stay_open) / 2)
        means.append(torch.stack(terms).mean())
    return torch.stack(means).mean()


def naive_self(logits: Tensor, masks: list[list[bool]]) -> Tensor:
    """Locations of different objects, and of no common one, should not look at each other; all
    others should."""
    apart, together = [], []
    for i in range(len(logits)):
        for j in range(len(logits)):
            mine, theirs = ({k for k, mask in enumerate(masks) if mask[n]} for n in (i, j))
            p = logits[i, j].sigmoid()
            if mine and theirs and not mine & theirs:
                apart.append(-(1 - p).log())
            else:
                together.append(-p.log())
    if len(masks) < 2 or not apart:
        return torch.zeros((), dtype=torch.float64)
    return (torch.stack(apart).mean() + torch.stack(together).mean()) / 2


def block_mask(mask: Tensor, side: int) -> list[bool]:
    """Where a quarter of a location's pixels or more belongs to the mask, else where the most
    does."""
    size = mask.shape[0] // side
    shares = [
        float(mask[y * size : (y + 1) * size, x * size : (x + 1) * size].float().mean())
        for y in range(side)
        for x in range(side)
    ]
    return [share >= 0.25 or share == max(shares) > 0 for share in shares]


CASES: dict[str, tuple[list[list[Phrase]], list[list[list[int]]]]] = {
    "two objects": (
        [[LEFT, RIGHT], [TOP, phrase(slice(4, 8), slice(0, 4))]],
        [[[1, 2], [4]], [[2], [3, 4]]],
    ),
    "overlapping": (
        [[LEFT, TOP], [phrase(slice(2, 6), slice(2, 6)), WHOLE]],
        [[[1], [3, 4]], [[1], [2]]],
    ),
    "one object": ([[LEFT], [TOP]], [[[1, 2]], [[3]]]),
    "no phrase": ([[LEFT, RIGHT], []], [[[1], [2]], []]),
    "nothing at all": ([[], []], [[], []]),
    "everywhere": ([[WHOLE, LEFT], [WHOLE]], [[[1], [2]], [[1]]]),
    "the same object twice": ([[LEFT, RIGHT, LEFT], [TOP, TOP]], [[[1], [2], [4]], [[1], [2]]]),
    "small": (
        [[phrase(slice(0, 1), slice(0, 1)), RIGHT], [phrase(slice(7, 8), slice(0, 1)), TOP]],
        [[[1], [2]], [[3], [4]]],
    ),
}


@pytest.mark.parametrize("kind", ["own", "others"])
@pytest.mark.parametrize("case", CASES)
def test_masks_ask_for_what_a_naive_loop_asks_for(case: str, kind: str):
    phrases, positions = CASES[case]
    record = recorded()
    config = Gate(supervision="masks", supervision_target=kind)
    signal = mask_supervision(config, record, [FINE, COARSE], phrases, positions)
    expected = naive_mask_signal(kind, record, [FINE, COARSE], phrases, positions)
    assert float(signal) == pytest.approx(float(expected), rel=1e-5, abs=1e-9)
    assert (float(signal) == 0) == (
        case == "nothing at all" or (case, kind) == ("one object", "others")
    )


def directions(kind: str, phrases: list[Phrase], positions: list[list[int]]) -> Tensor:
    """What descending the signal does to each gate of the fine site, [16, 5]: 1 opens, -1 closes, 0
    leaves alone."""
    record = recorded(batch=1, sites=(FINE,))
    mask_supervision(
        Gate(supervision_target=kind), record, [FINE], [phrases], [positions]
    ).backward()
    grad = record.logits["a.attn2"].grad
    assert grad is not None
    return -grad[0].sign()


def test_own_closes_outside_the_own_mask_and_others_inside_the_others_alone():
    left = torch.tensor([[1.0, 1, -1, -1]] * 4).flatten()
    own = directions("own", [LEFT, TOP], [[1], [3]])
    assert torch.equal(own[:, 1], left) and torch.equal(own[:, 3], left.view(4, 4).T.flatten())
    others = directions("others", [LEFT, TOP], [[1], [3]])
    # Closed where the other one is and this one is not; where both are, both stay open.
    assert torch.equal(
        others[:, 1].view(4, 4), torch.tensor([[1.0, 1, -1, -1]] * 2 + [[1.0] * 4] * 2)
    )
    assert torch.equal(
        others[:, 3].view(4, 4), torch.tensor([[1.0] * 4] * 2 + [[-1.0, -1, 1, 1]] * 2)
    )
    # Tokens of no phrase should stay open everywhere.
    for found in (own, others):
        assert bool((found[:, [0, 2, 4]] == 1).all())


def test_one_object_says_nothing_of_others_and_a_phrase_that_is_left_out_is_not_drawn_open():
    assert not directions("others", [LEFT], [[1, 2]]).any()
    everywhere = directions("own", [WHOLE, LEFT], [[1], [2]])
    assert not everywhere[:, 1].any() and bool((everywhere[:, 2] != 0).all())


def test_inside_and_outside_count_alike_whatever_their_size():
    record = GateRecord(live=True)
    record.logits["a.attn2"] = torch.zeros(1, 16, 5, requires_grad=True)
    small = phrase(slice(0, 2), slice(0, 2))  # one location of sixteen
    mask_supervision(Gate(), record, [FINE], [[small]], [[[1, 2]]]).backward()
    grad = record.logits["a.attn2"].grad
    assert grad is not None
    assert (
        float(grad[0, 0, 1]) == pytest.approx(-float(grad[0, 1:, 1].sum()))
        and float(grad[0, 0, 1]) < 0
    )
    assert float(grad[0][:, [1, 2]].abs().sum()) == pytest.approx(
        float(grad[0][:, [0, 3, 4]].abs().sum())
    )


@pytest.mark.parametrize("case", CASES)
def test_masks_keep_locations_of_different_objects_apart_in_self_attention(case: str):
    phrases, positions = CASES[case]
    record = recorded(sites=(FINE, SELF))
    for chosen in ([SELF], [FINE, SELF]):
        signal = mask_supervision(
            Gate(supervision_target="own"), record, chosen, phrases, positions
        )
        expected = naive_mask_signal("own", record, chosen, phrases, positions)
        assert float(signal) == pytest.approx(float(expected), rel=1e-5, abs=1e-9)
    alone = mask_supervision(Gate(), record, [SELF], phrases, positions)
    assert (float(alone) == 0) == (case in ("one object", "nothing at all", "everywhere")), (
        "two objects, and apart"
    )
