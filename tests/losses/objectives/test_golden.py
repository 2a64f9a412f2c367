"""Objectives against what the released codes give for maps in closed form, and against small maps
worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.golden_maps import golden_layer, golden_self_maps
from torch import Tensor

from losses.masks import draw_boxes
from losses.objectives.initial_noise import move_noise, noise_divergence
from losses.objectives.inputs import ObjectiveInputs
from losses.objectives.maps import renormalise_tokens
from losses.objectives.table import OBJECTIVES

# "<begin> a red cat and a blue dog outside <end>"
NOUNS, MODIFIERS, OTHERS = [3, 7], [2, 6], [1, 4, 5, 8]
BOXES = torch.tensor([[[30, 40, 250, 300], [260, 200, 480, 500]]]) / 512


def renormalised(maps: Tensor) -> Tensor:
    """As the released codes: a softmax without begin and end of text, which stay here for the
    indices."""
    return torch.cat((maps[:1], renormalise_tokens(maps[None, 1:-1])[0], maps[-1:]))


def golden_inputs(tokens: Tensor, before: Tensor, **given: Any) -> ObjectiveInputs:
    inputs = {
        "maps": tokens[NOUNS][None],
        "self_maps": golden_self_maps()[None],
        "previous": before[NOUNS][None],
    }
    if tokens.dim() == 3:
        inputs["modifiers"], inputs["others"] = tokens[MODIFIERS][None], tokens[OTHERS][None]
        inputs["modifier_of"] = torch.tensor([[0, 1]])
    return ObjectiveInputs(**{**inputs, **given})


LAYER = golden_layer(0, tokens=10)
RAW, BEFORE = LAYER.mean(1), golden_layer(0.9, tokens=10).mean(1)
SOFT, SOFT_BEFORE = renormalised(RAW), renormalised(BEFORE)
ROUNDED, FLOORED = (draw_boxes(BOXES, (16, 16), edges) for edges in ("round", "floor"))
# Nothing passes between two masks: as bounded attention computes its maps
INSIDE = ROUNDED[0].flatten(1)
BLOCKED = {
    "masks": ROUNDED,
    "maps": RAW[NOUNS][None] * (1 - ROUNDED.flip(1)),
    "self_maps": (golden_self_maps() * (1 - INSIDE.T @ INSIDE.flip(0)))[None],
}
# InitNO's running mean after the second step
CACHE = 0.9 * SOFT_BEFORE + 0.1 * SOFT
PLAIN = {"previous": None}
# Name, maps, what else is given, settings -> the value of the released code (its weight divided
# out), run on these maps in November 2026
RELEASED = [
    ("conform", SOFT, PLAIN, {}, 0.826748729),
    (
        "conform",
        SOFT,
        {"previous": SOFT_BEFORE[NOUNS][None], "previous_modifiers": SOFT_BEFORE[MODIFIERS][None]},
        {},
        1.12047637,
    ),
    ("syngen", RAW, {}, {}, -1.72295547),
    ("boxdiff", SOFT, {"masks": ROUNDED}, {}, 2.91932058),
    ("layout", LAYER, {"masks": FLOORED}, {}, 0.577278614),
    ("token_compose_token", LAYER, {"masks": FLOORED}, {}, 0.575861871),
    ("token_compose_pixel", LAYER, {"masks": FLOORED}, {}, 0.805019975),
    ("bounded_attention", RAW, BLOCKED, {}, 2.23924303),
    ("predicated_existence", SOFT, {}, {}, 0.780118555),
    ("predicated_modification", RAW, {}, {}, 0.281351298),
    ("predicated_exclusion", RAW, {}, {}, 0.0195891535),
    ("predicated_possession", RAW, {"owner_of": torch.tensor([[-1, 0]])}, {}, 0.149549291),
    ("initno_response", SOFT, {}, {}, 0.0359298587),
    ("initno_conflict", SOFT, {}, {}, 0.0680124015),
    ("initno_clean", SOFT, {}, {}, 1.48483813),
    ("initno_alignment", SOFT, {"previous": CACHE[NOUNS][None]}, {}, 0.183431),
    ("self_cross", SOFT, {}, {}, 0.285238326),
    ("attend_and_excite", SOFT, {}, {}, 0.0359298587),
]


@pytest.mark.parametrize(("name", "maps", "given", "settings", "value"), RELEASED)
def test_value_of_the_released_code(
    name: str, maps: Tensor, given: dict[str, Any], settings: dict[str, Any], value: float
):
    before = SOFT_BEFORE if maps is SOFT else BEFORE
    loss = OBJECTIVES[name](golden_inputs(maps, before, **given), **settings)
    assert loss.shape == (1,) and loss.tolist() == pytest.approx([value], rel=2e-6, abs=4e-7)


def test_syngen_with_two_modifiers_and_a_bare_noun_is_the_released_one():
    inputs = golden_inputs(RAW, BEFORE)
    both_first = ObjectiveInputs(
        maps=inputs.maps,
        modifiers=inputs.modifiers,
        modifier_of=torch.tensor([[0, 0]]),
        others=inputs.others,
    )
    assert float(OBJECTIVES["syngen"](both_first, entities=True)) == pytest.approx(-1.42209709)


def test_contrast_of_objects_alone_needs_the_step_before():
    alone = ObjectiveInputs(SOFT[NOUNS][None], previous=SOFT_BEFORE[NOUNS][None])
    assert float(OBJECTIVES["conform"](alone)) == pytest.approx(0.426020682, abs=3e-7)
    first = ObjectiveInputs(SOFT[NOUNS][None].requires_grad_())
    loss = OBJECTIVES["conform"](first)
    loss.sum().backward()
    assert loss.tolist() == [0.0] and not first.maps.grad.any()


def test_attend_and_excite_is_the_stock_pipeline_s():
    module = pytest.importorskip(
        "diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite."
        "pipeline_stable_diffusion_attend_and_excite",
        reason="this diffusers has dropped Attend-and-Excite; recorded values stay",
    )
    stock = module.StableDiffusionAttendAndExcitePipeline
    tokens = golden_layer(0.4, tokens=10).mean(1).requires_grad_()
    # The stock code scales in place
    peaks = stock._compute_max_attention_per_index(tokens.permute(1, 2, 0) * 1, [4, 5, 8])
    expected = stock._compute_loss(peaks)
    (gradient,) = torch.autograd.grad(expected, tokens)
    objects = renormalised(tokens)[[4, 5, 8]][None]
    loss = OBJECTIVES["attend_and_excite"](ObjectiveInputs(objects))
    assert loss.tolist() == pytest.approx([expected.item()], abs=3e-7)
    (ours,) = torch.autograd.grad(loss.sum(), tokens)
    assert gradient.any() and torch.allclose(ours, gradient, atol=1e-6)


def maps_of(*rows: list[list[float]]) -> Tensor:
    return torch.tensor([list(rows)], dtype=torch.float64)


ONE = maps_of([[0.8, 0.1], [0.3, 0.2]])
TWO = maps_of([[0.4, 0.2], [0.0, 0.0]], [[0.1, 0.3], [0.0, 0.2]])
CORNERS = maps_of([[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.7]])
# As distributions 3/4 1/4 and 1/4 3/4
STEPS = maps_of([[0.6, 0.2]], [[0.1, 0.3]])
CORNER = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
PIXELS = torch.eye(4, dtype=torch.float64)[None]
# Pixel 0 looks at itself and at the last one alike, and vice versa
CROSSED = (PIXELS + PIXELS.flip(2)) / 2
BY_HAND = {
    # min .1 .2 0 0 over max .4 .3 0 .2
    "iou": (TWO, {}, {}, 0.3 / 0.9),
    "a_star_segregation": (TWO, {}, {}, 0.3 / 1.2),
    # Centres (.25, .25) and (.75, .75): √½ of √2
    "center_distance": (CORNERS, {}, {}, 0.5),
    # ½ (½ log 3 + ½ log 3)
    "kl": (STEPS, {}, {}, -math.log(3) / 2),
    # Pixels at .25 and .75: centres .375 and .625, each of variance 3/64, and each 1/8 from .5
    "compactness": (STEPS, {}, {}, (6 / 64) / (6 / 64 + 2 / 64)),
    "separate": (TWO, {}, {}, 0.2 * 0.3 / 0.5),
    "enhance": (TWO, {}, {"size": 1}, 1 - 0.3),
    "attend_and_excite": (TWO, {}, {"size": 1}, 1 - 0.3),
    "initno_response": (TWO, {}, {"size": 1}, 1 - 0.3),
    # The first noun's modifier is like it; both are ½ log 3 from the second noun
    "syngen": (
        STEPS,
        {"modifiers": STEPS[:, :1], "modifier_of": torch.tensor([[0]])},
        {},
        -math.log(3) / 2,
    ),
    # Cosine 1 within a class, 0 between classes of two
    "conform": (
        CORNERS,
        {"modifiers": CORNERS / 2, "modifier_of": torch.tensor([[0, 1]])},
        {"size": 1},
        -math.log(math.e**2 / (math.e**2 + 2)),
    ),
    # Inside .8; outside the strongest of three, .3; columns .8 .2 and rows .8 .3 against 1 0
    "boxdiff": (ONE, {"masks": CORNER}, {"size": 1}, 0.2 + 0.3 + 0.4 / 2 + 0.5 / 2),
    "layout": (ONE, {"masks": CORNER}, {}, (1 - 0.8 / 1.4) ** 2),
    "token_compose_token": (ONE, {"masks": CORNER}, {}, (1 - 0.8 / 1.4) ** 2),
    "token_compose_pixel": (
        ONE,
        {"masks": CORNER},
        {},
        -math.log(0.8 * 0.9 * 0.7 * 0.8) / 4,
    ),
    # Of what the corner pays to the corner, and the rest to it: ½ and ½
    "bounded_attention": (
        ONE,
        {"masks": CORNER, "self_maps": CROSSED},
        {},
        1.5 * (1 - 0.8 / 1.4) ** 2 + 0.5 * (1 - 0.5 / 1.0) ** 2,
    ),
    "predicated_existence": (
        ONE,
        {},
        {"pixels": "sum"},
        -math.log(1 - 0.2 * 0.9 * 0.7 * 0.8),
    ),
    # Either way, at the first and the second pixel
    "predicated_modification": (
        maps_of([[0.6, 0.2]]),
        {"modifiers": maps_of([[0.1, 0.3]]), "modifier_of": torch.tensor([[0]])},
        {"pixels": "sum", "stretched": False},
        -math.log((1 - 0.6 * 0.9) * (1 - 0.2 * 0.7) * (1 - 0.1 * 0.4) * (1 - 0.3 * 0.8)),
    ),
    # The first noun's modifier on the second noun
    "predicated_exclusion": (
        STEPS,
        {"modifiers": maps_of([[0.5, 0.4]]), "modifier_of": torch.tensor([[0]])},
        {"pixels": "sum", "stretched": False},
        -math.log((1 - 0.1 * 0.5) * (1 - 0.3 * 0.4)),
    ),
    # The second is the first one's
    "predicated_possession": (
        STEPS,
        {"owner_of": torch.tensor([[-1, 0]])},
        {"pixels": "sum", "stretched": False},
        -math.log((1 - 0.1 * 0.4) * (1 - 0.3 * 0.8)),
    ),
    # The mask of the step before is the corner
    "a_star_retention": (
        ONE,
        {"previous": maps_of([[0.9, 0.1], [0.1, 0.2]])},
        {},
        1 - 0.8 / (1.4 + 1),
    ),
    "initno_alignment": (
        ONE,
        {"previous": maps_of([[0.9, 0.1], [0.1, 0.2]])},
        {"size": 1},
        (0.1 + 0.2) / 4,
    ),
    # Peaks at pixels 0 and 1, which look at 0, 3 and at 1, 2
    "initno_conflict": (TWO, {"self_maps": CROSSED}, {"size": 1}, 0.0),
    # Otsu parts .8 from the rest; .3 is less than the object's smallest
    "initno_clean": (ONE, {}, {"size": 1}, 0.0),
    # Patches are 0 and 3, which look at 0 and 3 alike: ½ ½ against .5 at 0, .7 at 3
    "self_cross": (CORNERS, {"self_maps": CROSSED}, {"size": 1}, 0.5),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_worked_out_by_hand(name: str):
    maps, given, settings, value = BY_HAND[name]
    loss = OBJECTIVES[name](ObjectiveInputs(maps, **given), **settings)
    assert loss.tolist() == pytest.approx([value], rel=2e-4 if name == "self_cross" else 1e-6)


def test_conflict_of_peaks_that_look_at_the_same_pixels():
    """Peaks at 0 and 3, both looking at 0 and 3: all is shared, ½; a peak that is shared by pixels
    0 and 1 looks at all four alike."""
    conflict = OBJECTIVES["initno_conflict"]
    assert conflict(ObjectiveInputs(CORNERS, self_maps=CROSSED), size=1).tolist() == pytest.approx(
        [0.5]
    )
    tied = maps_of([[0.4, 0.4], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.7]])
    assert conflict(ObjectiveInputs(tied, self_maps=CROSSED), size=1).tolist() == pytest.approx(
        [0.5 / 2]
    )


def test_attention_in_another_mask_is_not_bounded():
    """All of the first map is in the second's mask, .2 of the second in the first's: 1, and with
    two objects 1 - .4 / (.4 + 2 x .2)."""
    maps = maps_of([[0.0, 0.6]], [[0.2, 0.4]])
    masks = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    loss = OBJECTIVES["bounded_attention"](ObjectiveInputs(maps, masks=masks))
    assert loss.tolist() == pytest.approx([1.5 * (1 + 0.5**2)])


@pytest.mark.parametrize("name", ["self_cross", "initno_conflict"])
def test_self_attention_waits_for_a_response(name: str):
    """The weakest object's peak is .5: a response of .5, not above the limit of .5."""
    maps = torch.cat((CORNERS, CORNERS * 0.9))
    inputs = ObjectiveInputs(maps, self_maps=CROSSED.expand(2, -1, -1))
    first, second = OBJECTIVES[name](inputs, size=1, response_limit=0.5).tolist()
    assert first > 0.4 and second == 0
    assert OBJECTIVES[name](inputs, size=1, response_limit=None)[1] > 0.4


def test_what_is_not_connected_with_the_object_is_cleaned():
    """The pixel of .8 is not connected with the object, and above its smallest value, .6; that of
    .1 is the last bin of the background."""
    maps = maps_of([[0.9, 0.6, 0.0], [0.0, 0.0, 0.0], [0.1, 0.0, 0.8]])
    loss = OBJECTIVES["initno_clean"](ObjectiveInputs(maps), size=1)
    assert loss.tolist() == pytest.approx([0.8])


def test_divergence_of_a_noise_from_the_standard_normal_one():
    """½ (μ² + σ² − 1 − log σ²): 0 at 0 and 1, ½ for μ = 1, ½ (1 − log 2) for σ² = 2."""
    mean = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(2), math.log(2)]])
    assert noise_divergence(mean, log_variance).tolist() == pytest.approx(
        [0.0, 0.5, (1 - math.log(2)) / 2]
    )
    moved = move_noise(torch.full((3, 2), 3.0), mean, 2 * log_variance)
    assert torch.allclose(moved, torch.tensor([[3.0] * 2, [4.0] * 2, [6.0] * 2]))
