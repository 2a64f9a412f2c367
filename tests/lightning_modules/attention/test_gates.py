"""Gates on attention: how they are decided, which are fixed, and which layers share a head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.unet_inputs import draw
from torch import Tensor, nn

from conf.schema import Gate
from lightning_modules.attention import Site
from lightning_modules.attention.gates import Gates, decide, keep_one_open
from lightning_modules.attention.hooks import ForwardContext
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD

# --- decisions --------------------------------------------------------------------------------


def slopes(logits: Tensor, weight: Tensor) -> Tensor:
    """The gradient of (weight * sigmoid).sum()."""
    p = logits.detach().sigmoid()
    return p * (1 - p) * weight


@pytest.mark.parametrize("mode", ["hard", "soft", "learned", "topk"])
def test_every_mode_has_the_gradient_of_the_sigmoid(mode: str):
    logits, weight = draw(0, 2, 7, 5).requires_grad_(), draw(1, 2, 7, 5)
    gate = decide(logits, mode, 0.5, 0.4)
    if mode == "soft":
        assert torch.equal(gate, logits.sigmoid())
    else:
        assert set(gate.flatten().tolist()) == {0.0, 1.0}
    if mode in ("hard", "learned"):
        assert torch.equal(gate == 1, logits > 0)
    (gate * weight).sum().backward()
    assert logits.grad is not None and torch.allclose(
        logits.grad, slopes(logits, weight), atol=1e-7
    )


@pytest.mark.parametrize("mode", ["hard", "learned"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_the_threshold_is_on_the_probability_and_itself_closed(mode: str, threshold: float):
    logits = torch.logit(torch.tensor([[[0.9, threshold - 0.01, threshold + 0.01]]]))
    assert decide(logits, mode, threshold, 1.0).tolist() == [[[1, 0, 1]]]
    assert decide(torch.zeros(1, 1, 2), mode, 0.5, 1.0).tolist() == [[[0, 0]]]


def test_a_learned_threshold_gets_the_gradient_of_closing():
    logits, weight = draw(0, 2, 7, 5), draw(1, 2, 7, 5)
    threshold = torch.tensor(0.4, requires_grad=True)
    gate = decide(logits, "learned", threshold, 1.0)
    assert torch.equal(gate == 1, logits.sigmoid() > 0.4)
    (gate * weight).sum().backward()
    assert threshold.grad is not None and torch.allclose(threshold.grad, -weight.sum(), atol=1e-5)


@pytest.mark.parametrize("tokens", [5, 24])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 1.0])
def test_topk_keeps_exactly_the_share_and_its_likeliest_tokens(tokens: int, keep: float):
    # Where probabilities are all 0 or 1, too
    logits = draw(0, 2, 7, tokens) + 40 * draw(1, 2, 7, 1)
    gate = decide(logits, "topk", 0.5, keep)
    count = max(round(keep * tokens), 1)
    assert torch.equal(gate.sum(-1), torch.full((2, 7), float(count)))
    assert bool(
        (
            logits.masked_fill(gate == 0, torch.inf).amin(-1)
            > logits.masked_fill(gate == 1, -torch.inf).amax(-1)
        ).all()
    )


def test_topk_chooses_among_the_free_tokens_of_each_text():
    free = torch.tensor(
        [[[False, True, True, True, True, False]], [[False, True, True, False, False, False]]]
    )
    logits = torch.tensor([9.0, 1, 4, 3, 2, 8]).expand(2, 3, 6)
    gate = decide(logits, "topk", 0.5, 0.5, free)
    assert gate.tolist() == [[[0, 0, 1, 1, 0, 0]] * 3, [[0, 0, 1, 0, 0, 0]] * 3]
    assert not decide(logits, "topk", 0.5, 0.5, torch.zeros(2, 1, 6, dtype=torch.bool)).any()


def test_an_empty_pixel_opens_its_likeliest_gate_or_all_and_no_other_pixel_changes():
    logits = torch.tensor([[[-3.0, -1.0, -2.0], [-3.0, 1.0, -2.0], [-1.0, -1.0, -1.0]]])
    gate = decide(logits, "hard", 0.5, 1.0)
    assert keep_one_open(gate, logits, "strongest").tolist() == [[[0, 1, 0], [0, 1, 0], [1, 0, 0]]]
    assert keep_one_open(gate, logits, "all").tolist() == [[[1, 1, 1], [0, 1, 0], [1, 1, 1]]]
    allowed = torch.tensor([[[True, False, True]]])
    assert keep_one_open(gate, logits, "strongest", allowed).tolist() == [
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    ]
    assert keep_one_open(gate, logits, "all", allowed).tolist() == [
        [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    ]
    open_ = torch.ones(1, 3, 3)
    assert keep_one_open(open_, logits, "strongest") is open_


def test_what_opens_an_empty_pixel_keeps_the_gradient_of_its_gates():
    logits = torch.full((1, 2, 3), -1.0, requires_grad=True)
    (
        keep_one_open(decide(logits, "hard", 0.5, 1.0), logits, "strongest") * draw(0, 1, 2, 3)
    ).sum().backward()
    assert logits.grad is not None and torch.allclose(
        logits.grad, slopes(logits, draw(0, 1, 2, 3)), atol=1e-7
    )


# --- tokens that are never gated ------------------------------------------------------------------

CROSS = Site("a.attn2", "mid", "encoder", 2, 8, 2, 6)
SELF = Site("a.attn1", "mid", "encoder", 2, 8, 2, 8, "self")
TYPES = torch.tensor(
    [[BOS, WORD, WORD, EOS, PADDING, PADDING], [BOS, WORD, EOS, PADDING, PADDING, PADDING]],
    dtype=torch.uint8,
)


class Given(nn.Module):
    """A head that gives the logits that it was made with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, features: Tensor, tokens: Tensor, plane: tuple[int, int]) -> Tensor:
        return self.logits


def weighed(
    logits: Tensor, site: Site = CROSS, types: Tensor | None = TYPES, **config: Any
) -> tuple[Tensor, Gates]:
    """The gates that a head's logits [2, 4, T] become, for two texts of one and two words."""
    gates = Gates([site], Gate(**config), None if types is None else lambda text: types)
    gates.heads[gates.key(site)] = Given(logits)
    context = torch.zeros(2, logits.shape[-1], site.context)
    return gates.weight(site, torch.zeros(2, 4, site.width), context, ForwardContext((2, 2))), gates


SHUT = torch.full((2, 4, 6), -50.0)


@pytest.mark.parametrize(
    ("protect", "padding", "expected"),
    [
        ("bos", "gated", [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
        ("specials", "gated", [[1, 0, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1]]),
        ("bos", "open", [[1, 0, 0, 0, 1, 1], [1, 0, 0, 1, 1, 1]]),
        ("none", "open", [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]),
        ("specials", "closed", [[1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0]]),
        ("bos", "closed", [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
        # The empty rule: the first of equals
        ("none", "gated", [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]),
    ],
)
def test_protected_tokens_stay_open_when_every_head_says_closed(
    protect: str, padding: str, expected: list[list[int]]
):
    gate, _ = weighed(SHUT, protect=protect, padding_gate=padding)
    assert gate.tolist() == [[row] * 4 for row in expected]


@pytest.mark.parametrize(
    ("padding", "closed"), [("gated", False), ("open", False), ("closed", True)]
)
@pytest.mark.parametrize("mode", ["hard", "soft", "learned"])
@pytest.mark.parametrize("protect", ["none", "bos", "specials"])
def test_padding_that_is_taken_out_stays_closed_when_every_head_says_open(
    protect: str, mode: str, padding: str, closed: bool
):
    gate, _ = weighed(-SHUT, protect=protect, padding_gate=padding, mode=mode)
    assert torch.equal(gate, (~((TYPES == PADDING) & closed)).float()[:, None].expand(2, 4, 6))


def test_tokens_are_protected_in_every_mode_and_their_heads_get_no_gradient():
    for mode in ("hard", "soft", "learned", "topk"):
        gate, gates = weighed(draw(0, 2, 4, 6), mode=mode, protect="specials", keep=0.5)
        (gate * draw(1, 2, 4, 6)).sum().backward()
        grad = gates.heads["mid_8_6"].logits.grad
        words = (TYPES == WORD)[:, None].expand(2, 4, 6)
        assert (
            bool((gate[~words] == 1).all())
            and not grad[~words].any()
            and bool((grad[words] != 0).all())
        ), mode
        if mode == "topk":  # of two words one, of one word one
            assert torch.equal((gate * words).sum(-1), torch.ones(2, 4))


def test_an_empty_pixel_never_opens_padding_that_is_taken_out():
    logits = SHUT.clone()
    logits[..., 5] = -1  # padding in both texts
    logits[..., 1] = -2
    strongest, _ = weighed(logits, protect="none", padding_gate="closed")
    assert strongest.tolist() == [[[0, 1, 0, 0, 0, 0]] * 4] * 2
    everything, _ = weighed(logits, protect="none", padding_gate="closed", if_all_closed="all")
    assert torch.equal(everything[:, 0], (TYPES != PADDING).float())
    gated, _ = weighed(logits, protect="none")
    assert gated.tolist() == [[[0, 0, 0, 0, 0, 1]] * 4] * 2


def test_without_knowledge_of_the_text_the_first_token_is_bos():
    gate, gates = weighed(SHUT, types=None)
    assert gate.tolist() == [[[1, 0, 0, 0, 0, 0]] * 4] * 2
    types = gates.types_at(CROSS, torch.zeros(2, 6, 6))
    assert types is not None and types.tolist() == [[BOS] + [WORD] * 5] * 2


@pytest.mark.parametrize("mode", ["hard", "soft", "learned", "topk"])
def test_a_pixel_always_looks_at_itself(mode: str):
    logits = torch.full((2, 4, 4), -50.0)
    gate, gates = weighed(logits, SELF, mode=mode, keep=0.5, protect="none", padding_gate="closed")
    assert gates.types_at(SELF, logits) is None
    assert torch.equal(torch.diagonal(gate, dim1=1, dim2=2), torch.ones(2, 4))
    if mode == "topk":  # of the three others: 1.5, which is two
        assert torch.equal(gate.sum(-1), torch.full((2, 4), 3.0))
    else:
        assert torch.allclose(gate, torch.eye(4).expand(2, 4, 4))
    (gate * draw(1, 2, 4, 4)).sum().backward()
    grad = gates.heads["self_mid_8_8"].logits.grad
    assert not torch.diagonal(grad, dim1=1, dim2=2).any() and bool((grad != 0).any())


# --- heads and thresholds of a set of sites -------------------------------------------------------


def two_stages() -> list[Site]:
    return [
        Site("d.0.attn1", "high", "encoder", 4, 8, 2, 8, "self"),
        Site("d.0.attn2", "high", "encoder", 4, 8, 2, 6),
        Site("d.1.attn2", "mid", "encoder", 2, 16, 2, 6),
        Site("u.0.attn2", "mid", "decoder", 2, 16, 2, 6),
        Site("u.1.attn2", "high", "decoder", 4, 8, 2, 6),
    ]


def test_layers_share_a_head_by_stage_kind_and_width_or_have_their_own():
    stage = Gates(two_stages(), Gate(width=4, mode="learned", threshold=0.3))
    assert (
        sorted(stage.heads) == sorted(stage.thresholds) == ["high_8_6", "mid_16_6", "self_high_8_8"]
    )
    layer = Gates(two_stages(), Gate(width=4, sharing="layer"))
    assert (
        sorted(layer.heads) == ["d_0_attn1", "d_0_attn2", "d_1_attn2", "u_0_attn2", "u_1_attn2"]
        and not layer.thresholds
    )
    one = {
        site.name: sum(p.numel() for p in layer.heads[layer.key(site)].parameters())
        for site in two_stages()
    }
    assert layer.parameter_count() == sum(one.values())
    assert stage.parameter_count() == one["d.0.attn1"] + one["d.0.attn2"] + one["d.1.attn2"] + 3
    assert len({id(p) for p in layer.parameters()}) == sum(1 for _ in layer.parameters())
    assert all(
        float(threshold.sigmoid()) == pytest.approx(0.3) for threshold in stage.thresholds.values()
    )


def test_sharing_means_the_same_gates_for_the_same_input():
    torch.manual_seed(0)
    high = [site for site in two_stages() if site.stage == "high" and site.kind == "cross"]
    hidden, text = draw(0, 2, 16, 8), draw(1, 2, 5, 6)
    for sharing in ("stage", "layer"):
        gates = Gates(high, Gate(width=4, sharing=sharing, bias=0.0))
        one, other = (gates.weight(site, hidden, text, ForwardContext((4, 4))) for site in high)
        assert torch.equal(one, other) == (sharing == "stage")


def test_what_is_learned_is_saved_and_a_threshold_moves_the_gates():
    site = two_stages()[1]
    torch.manual_seed(0)
    gates = Gates([site], Gate(width=4, mode="learned", bias=0.0))
    hidden, text = draw(0, 2, 16, 8), draw(1, 2, 5, 6)
    before = gates.weight(site, hidden, text, ForwardContext((4, 4)))
    assert "thresholds.high_8_6" in gates.state_dict()
    with torch.no_grad():
        gates.thresholds["high_8_6"] += 50
    after = gates.weight(site, hidden, text, ForwardContext((4, 4)))
    assert 0 < float(before[..., 1:].mean()) < 1 and not after[..., 1:].any()
    before.sum().backward()
    assert gates.thresholds["high_8_6"].grad is not None and gates.thresholds["high_8_6"].grad < 0


# --- watched alone, and by a layout ---------------------------------------------------------------


def test_gates_that_are_only_watched_learn_and_pass_no_gradient_on():
    site = two_stages()[1]
    gates = Gates([site], Gate(width=4, bias=0.0))
    gates.watch_only = True
    hidden, text = draw(0, 2, 16, 8).requires_grad_(), draw(1, 2, 5, 6).requires_grad_()
    with torch.no_grad(), gates.recording(live=True) as record:
        assert not gates.weight(site, hidden, text, ForwardContext((4, 4))).requires_grad
    record.logits[site.name].square().sum().backward()
    assert hidden.grad is None and text.grad is None
    assert all(p.grad is not None and bool(p.grad.any()) for p in gates.parameters())


def test_a_layout_stands_in_for_the_heads_in_the_conditional_half():
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    gates = Gates([CROSS], Gate(protect="none"))
    gates.layout = ([[SimpleNamespace(mask=left)], []], [[[1]], []])
    expected = torch.ones(2, 4, 6)
    expected[0, :, 1] = torch.tensor([1.0, 0, 1, 0])
    for first in (torch.zeros(0, 4, 6), torch.ones(2, 4, 6)):
        wanted = torch.cat([first, expected])
        hidden, text = torch.zeros(len(wanted), 4, 8), torch.zeros(len(wanted), 6, 6)
        assert torch.equal(gates.weight(CROSS, hidden, text, ForwardContext((2, 2))), wanted)
