"""What all objectives promise: samples apart from each other, objects in any order, numbers and
gradients that are finite, clear refusals."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from losses.objectives.excitation import refinement_target, wants_refinement
from losses.objectives.inputs import ObjectiveInputs
from losses.objectives.maps import mean_of_largest, otsu_mask, renormalise_tokens
from losses.objectives.table import OBJECTIVES

NAMES = pytest.mark.parametrize("name", OBJECTIVES)
# Of an object each, in its order
PER_OBJECT = ("maps", "present", "masks", "previous")


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 0.9 + 0.05


def batch(size: int = 5, samples: int = 2) -> ObjectiveInputs:
    """Samples of three objects, the second one of two, with everything that objectives read."""
    present = torch.tensor([[True, True, True], [True, True, False]])[:samples]
    masks = torch.zeros(samples, 3, size, size)
    masks[:, 0, :2, :3], masks[:, 1, 2:, 1:4], masks[:, 2, 3:, :2] = 1, 1, 1
    return ObjectiveInputs(
        maps=draw(0, samples, 3, 2, size, size),
        present=present,
        modifiers=draw(1, samples, 2, size, size),
        modifier_of=torch.tensor([[0, 1], [1, -1]])[:samples],
        others=draw(2, samples, 2, size, size),
        others_present=torch.tensor([[True, True], [True, False]])[:samples],
        owner_of=torch.tensor([[-1, 0, 1], [1, -1, 0]])[:samples],
        masks=masks,
        self_maps=draw(3, samples, size**2, size**2),
        previous=draw(4, samples, 3, size, size),
        previous_modifiers=draw(5, samples, 2, size, size),
    )


def of_sample(inputs: ObjectiveInputs, sample: int, objects: int | None = None) -> ObjectiveInputs:
    """One sample alone, with its first ``objects``."""
    given = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    cut = {name: value[sample : sample + 1] for name, value in given.items() if value is not None}
    if objects is not None:
        for name in (*PER_OBJECT, "owner_of"):
            cut[name] = cut[name][:, :objects]
    return ObjectiveInputs(**cut)


@NAMES
def test_a_sample_has_the_loss_that_it_has_alone_without_padding(name: str):
    inputs = batch()
    losses = OBJECTIVES[name](inputs)
    assert losses.shape == (2,) and losses.isfinite().all()
    alone = [OBJECTIVES[name](of_sample(inputs, 0)), OBJECTIVES[name](of_sample(inputs, 1, 2))]
    assert torch.allclose(losses, torch.cat(alone), rtol=1e-6, atol=1e-9)


@NAMES
def test_what_is_absent_does_nothing_and_gets_no_gradient(name: str):
    inputs = batch()
    expected = OBJECTIVES[name](inputs)
    absent = {"maps": 2, "modifiers": 1, "others": 1}  # In the second sample
    leaves = {key: getattr(inputs, key).clone() for key in (*absent, "self_maps")}
    for key, number in absent.items():
        leaves[key][1, number] = torch.nan if key == "maps" else torch.inf
    leaves = {key: value.requires_grad_() for key, value in leaves.items()}
    losses = OBJECTIVES[name](replace(inputs, **leaves))
    assert torch.equal(losses, expected)
    losses.sum().backward()
    gradients = {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
    assert any(gradient[0].any() for gradient in gradients.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not any(gradients[key][1, absent[key]].any() for key in gradients.keys() & absent)


@NAMES
def test_objects_may_come_in_any_order(name: str):
    inputs = batch(samples=1)
    order = torch.tensor([2, 0, 1])  # New place -> old number
    place = order.argsort()  # Old number -> new place
    moved = {key: getattr(inputs, key)[:, order] for key in PER_OBJECT}
    owners = inputs.owner_of[:, order]
    shuffled = replace(
        inputs,
        **moved,
        modifier_of=place[inputs.modifier_of],
        owner_of=torch.where(owners < 0, owners, place[owners.clamp_min(0)]),
    )
    assert torch.allclose(OBJECTIVES[name](shuffled), OBJECTIVES[name](inputs))


@NAMES
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_flat_maps_give_finite_numbers_and_gradients(name: str, level: float):
    """All pixels tie, of all words, in the step before and in self-attention."""
    inputs = batch()
    flat = {
        key: torch.full_like(getattr(inputs, key), level)
        for key in ("modifiers", "others", "self_maps", "previous", "previous_modifiers")
    }
    maps = torch.full_like(inputs.maps, level).float().requires_grad_()
    losses = OBJECTIVES[name](replace(inputs, maps=maps, **flat))
    assert losses.isfinite().all()
    if losses.requires_grad:
        losses.sum().backward()
        assert maps.grad.isfinite().all()


@NAMES
def test_empty_masks_give_finite_numbers_and_gradients(name: str):
    inputs = batch()
    masks = inputs.masks.clone()
    masks[0, 0] = 0
    masks[1] = 0
    maps = inputs.maps.clone().requires_grad_()
    seen = inputs.self_maps.clone().requires_grad_()
    losses = OBJECTIVES[name](replace(inputs, maps=maps, masks=masks, self_maps=seen))
    losses.sum().backward()
    gradients = [leaf.grad for leaf in (maps, seen) if leaf.grad is not None]
    assert losses.isfinite().all() and all(one.isfinite().all() for one in gradients)
    if name in ("boxdiff", "layout", "bounded_attention"):
        assert losses[1] == 0 and losses[0] > 0 and not maps.grad[1].any()
        assert not maps.grad[0, 0].any()


# The two others compute in float32, and are compared with float64 loops elsewhere
@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"separate", "enhance"}))
def test_gradient_is_that_of_finite_differences(name: str):
    inputs = batch(size=4)
    leaves = [inputs.maps, inputs.modifiers, inputs.others, inputs.self_maps]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]

    def compute(maps: Tensor, modifiers: Tensor, others: Tensor, self_maps: Tensor) -> Tensor:
        given = replace(inputs, maps=maps, modifiers=modifiers, others=others, self_maps=self_maps)
        return OBJECTIVES[name](given) + 0 * sum(leaf.sum() for leaf in leaves)

    assert compute(*leaves).dtype == torch.float64
    assert torch.autograd.gradcheck(compute, leaves, fast_mode=True)


@NAMES
def test_float32_whatever_the_autocast(name: str):
    inputs = batch()
    halves = {
        field.name: value.bfloat16() if value.is_floating_point() else value
        for field in fields(inputs)
        if (value := getattr(inputs, field.name)) is not None
    }
    expected = OBJECTIVES[name](ObjectiveInputs(**halves))
    with torch.autocast("cpu", torch.bfloat16):
        inside = OBJECTIVES[name](ObjectiveInputs(**halves))
    assert inside.dtype == torch.float32 and torch.equal(inside, expected)


@NAMES
def test_one_object_is_enough_or_refused(name: str):
    one = of_sample(batch(), 0, 1)
    one = replace(one, modifier_of=torch.tensor([[0, 0]]), owner_of=torch.tensor([[-1]]))
    if OBJECTIVES[name].fewest == 1:
        OBJECTIVES[name].check(one)
        assert OBJECTIVES[name](one).isfinite().all()
        return
    with pytest.raises(ValueError, match=f"{name} .*at least 2, got 1 object"):
        OBJECTIVES[name](one)
    # In a batch with more the sample adds nothing, and is named by a check beforehand
    ragged = replace(batch(), present=torch.tensor([[True, True, True], [False, True, False]]))
    assert OBJECTIVES[name](ragged)[1] == 0
    with pytest.raises(ValueError, match=f"{name} needs 2 objects in each sample, sample 1 has 1"):
        OBJECTIVES[name].check(ragged)


@NAMES
def test_missing_inputs_are_named(name: str):
    needs = OBJECTIVES[name].needs
    if not needs:
        assert OBJECTIVES[name](ObjectiveInputs(batch().maps)).isfinite().all()
        return
    with pytest.raises(ValueError, match=f"{name} needs {' and '.join(needs)}: got maps alone"):
        OBJECTIVES[name](ObjectiveInputs(batch().maps))
    assert set(OBJECTIVES[name].uses) <= {field.name for field in fields(ObjectiveInputs)}


def test_the_table_has_the_names_that_settings_use():
    assert all(one.name == name and one.__doc__ for name, one in OBJECTIVES.items())
    assert OBJECTIVES["conform"].settings == {"temperature": 0.5, "size": 3, "sigma": 0.5}
    with pytest.raises(ValueError, match="no setting 'temprature'.*temperature"):
        OBJECTIVES["conform"](batch(), temprature=1)
    with pytest.raises(ValueError, match="pixels='product'"):
        OBJECTIVES["predicated_existence"](batch(), pixels="product")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("maps", torch.zeros(2, 3, 5), "expected .B, objects, H, W."),
        ("maps", torch.zeros(2, 0, 5, 5), "nothing empty"),
        ("present", torch.ones(2, 2, dtype=torch.bool), r"present \(2, 2\) .*expected \[2, 3\]"),
        ("present", torch.ones(2, 3), "expected torch.bool"),
        ("masks", torch.zeros(2, 2, 8, 8), r"masks \(2, 2, 8, 8\)"),
        ("self_maps", torch.zeros(2, 16, 16), r"expected \[2, 25, 25\]"),
        ("previous", torch.zeros(2, 3, 4, 4), r"previous \(2, 3, 4, 4\)"),
        ("modifier_of", None, "belong together"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, value: Tensor | None, message: str):
    with pytest.raises(ValueError, match=message):
        replace(batch(), **{name: value})


def test_numbers_of_objects_that_are_not_there_are_refused():
    wrong = replace(batch(), modifier_of=torch.tensor([[0, 3], [0, -1]]))
    with pytest.raises(ValueError, match="modifier_of .*numbers from 0 to 2, or -1"):
        OBJECTIVES["syngen"].check(wrong)


def test_equal_objects_share_a_gradient():
    maps = draw(0, 1, 1, 5, 5).expand(-1, 2, -1, -1).clone().requires_grad_()
    OBJECTIVES["attend_and_excite"](ObjectiveInputs(maps)).sum().backward()
    assert maps.grad[0, 0].any() and torch.equal(maps.grad[0, 0], maps.grad[0, 1])


def test_renormalised_tokens_sum_to_one_where_they_are_counted():
    maps, counted = draw(0, 2, 4, 3, 3), torch.tensor([[False, True, True, True], [False] * 4])
    soft = renormalise_tokens(maps, counted, scale=10)
    assert torch.allclose(soft[0, 1:], (10 * maps[0, 1:]).softmax(0))
    assert not soft[0, 0].any() and not soft[1].any()


def test_the_largest_values_share_the_last_place():
    values = torch.tensor([[3.0, 1, 3, 3, 0], [5, 2, 2, 0, 0]], requires_grad=True)
    mean = mean_of_largest(values, torch.tensor([2, 3]))
    assert mean.tolist() == [3.0, 3.0]
    mean.sum().backward()
    third = 1 / 3
    expected = [[third, 0, third, third, 0], [third, third, third, 0, 0]]
    assert torch.allclose(values.grad, torch.tensor(expected))


def test_otsu_s_threshold_is_that_of_trying_all():
    maps = torch.cat((draw(0, 6, 6, 6) ** 3, torch.full((1, 6, 6), 0.4, dtype=torch.float64)))
    for one, mask, strict in zip(maps, otsu_mask(maps), otsu_mask(maps, False), strict=True):
        bins = (one * 255).long()
        best, threshold = 0.0, 0
        for t in range(255):
            low, high = bins[bins <= t].double(), bins[bins > t].double()
            if len(low) and len(high):
                variance = len(low) * len(high) * float(low.mean() - high.mean()) ** 2
                if variance > best * (1 + 1e-9):
                    best, threshold = variance, t
        assert torch.equal(mask, one >= threshold / 255)
        assert torch.equal(strict, (bins > threshold) & (best > 0))


def test_refinement_goes_on_above_the_target_alone():
    assert [refinement_target(step) for step in (0, 1, 10, 20)] == [0.95, None, 0.5, 1 - 0.8]
    loss = torch.tensor([0.9, 0.5, 0.4])
    assert wants_refinement(loss, 0.5, tries=0).tolist() == [True, False, False]
    assert not wants_refinement(loss, 0.5, tries=20).any()
    assert not wants_refinement(loss, None, tries=0).any()
