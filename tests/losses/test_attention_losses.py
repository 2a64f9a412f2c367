"""Attention losses against golden numbers, plain float64 loops, and the properties that they
promise."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers.golden_maps import golden_layer
from torch import Tensor
from torch.nn.functional import conv2d, pad

from losses.attention import (
    enhance_loss,
    gaussian_kernel,
    mask_attention_loss,
    separate_loss,
    smooth,
)


def golden_maps() -> Tensor:
    """Tokens 2 and 5, layers averaged, [1, 2, heads, 16, 16]."""
    return ((golden_layer(0) + golden_layer(0.9)) / 2)[[2, 5]][None]


def golden_masks(size: int) -> Tensor:
    """Upper left quarter, and lower half from 3/8 of the width on; [1, 2, size, size]."""
    y, x = torch.arange(size)[:, None], torch.arange(size)
    return torch.stack([(y < size / 2) & (x < size / 2), (y >= size / 2) & (x >= 3 * size / 8)])[
        None
    ].float()


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def halves(seed: int, *shape: int) -> Tensor:
    return (uniform(seed, *shape) > 0.5).float()


def mask_loss(maps: Tensor, present: Tensor | None = None) -> Tensor:
    """To masks that follow from the sample's position, so that all losses can be called alike."""
    masks = halves(7, 1, *maps.shape[1:2], *maps.shape[-2:]).expand(len(maps), -1, -1, -1)
    return mask_attention_loss(maps, masks, present)


LOSSES = pytest.mark.parametrize("loss", [separate_loss, enhance_loss, mask_loss])
Loss = Callable[..., Tensor]


def gradient(loss: Loss, maps: Tensor, *args: Tensor | None) -> Tensor:
    maps = maps.clone().requires_grad_()
    loss(maps, *args).backward()
    assert maps.grad is not None
    return maps.grad


def reference_separate(maps: Tensor) -> Tensor:
    """Of one sample [objects, heads, H, W] in float64, as the following two."""
    product, total = maps[0], maps[0]
    for one in maps[1:]:
        product, total = product * one, total + one
    return (product / total).max()


def reference_enhance(maps: Tensor) -> Tensor:
    kernel = torch.tensor(
        [[math.exp(-(y * y) - x * x) for x in (-1, 0, 1)] for y in (-1, 0, 1)], dtype=torch.float64
    )
    weight = (kernel / kernel.sum()).expand(maps.shape[1], 1, 3, 3)
    padded = pad(maps, (1, 1, 1, 1), mode="reflect")
    return 1 - min(conv2d(one[None], weight, groups=maps.shape[1]).max() for one in padded)


def reference_mask(maps: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for one, mask in zip(maps, halves(7, 1, len(maps), *maps.shape[-2:])[0], strict=True):
        attention = one.mean(0)
        total = total + (attention / attention.max() - mask).square().mean()
    return total


REFERENCES = pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (separate_loss, reference_separate),
        (enhance_loss, reference_enhance),
        (mask_loss, reference_mask),
    ],
)


def test_the_golden_input_is_rebuilt():
    mean = golden_maps().mean(2)[0, 0]
    assert [float(mean.sum()), float(mean.max())] == pytest.approx(
        [18.3705807, 0.4173058], rel=1e-6
    )


def test_separate_value_of_the_released_code():
    assert float(separate_loss(golden_maps())) == pytest.approx(0.068282016, rel=1e-6)


@pytest.mark.parametrize("size", [16, 64, 512])
def test_mask_attention_value_of_the_released_code(size: int):
    assert 0.01 * float(mask_attention_loss(golden_maps(), golden_masks(size))) == pytest.approx(
        0.003772663, rel=1e-6
    )
    # Two layers stacked along the heads are as good as their mean, and heads may be averaged
    # beforehand.
    stacked = torch.cat([golden_layer(0), golden_layer(0.9)], 1)[[2, 5]][None]
    assert 0.01 * float(mask_attention_loss(stacked.mean(2), golden_masks(size))) == pytest.approx(
        0.003772663, rel=1e-6
    )


def test_kernels_beyond_the_maps_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match="cannot be smoothed with size=10000000000001"):
        smooth(torch.ones(2, 4, 4), 10**13 + 1)


def test_kernel_reads_sigma_as_the_released_code():
    kernel = gaussian_kernel(3, 0.5)
    assert kernel.dtype == torch.float32 and float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert kernel.sum(0).tolist() == pytest.approx([0.21194157, 0.57611692, 0.21194157], rel=1e-6)
    assert torch.equal(kernel, kernel.mT) and torch.equal(kernel, kernel.flip(0))
    # Of standard deviation √2 sigma: with sigma 2 that is √8, whose variance a wide kernel shows.
    weights, offsets = (
        gaussian_kernel(41, 2.0).double().sum(0),
        torch.arange(41.0, dtype=torch.float64) - 20,
    )
    assert float((weights * offsets.square()).sum()) == pytest.approx(8, rel=1e-5)


@pytest.mark.parametrize(("size", "sigma"), [(1, 0.5), (3, 0.5), (5, 1.3), (7, 1e-200)])
def test_smoothing_is_a_convolution_with_reflected_borders(size: int, sigma: float):
    maps = uniform(0, 2, 3, 5, 8)
    padding = size // 2
    padded = pad(maps.double(), (padding,) * 4, mode="reflect").flatten(0, 1)[:, None]
    expected = conv2d(padded, gaussian_kernel(size, sigma).double()[None, None]).reshape(maps.shape)
    assert torch.allclose(smooth(maps, size, sigma), expected.float(), atol=1e-6, rtol=1e-6)
    assert torch.equal(smooth(maps[0, 0], size, sigma), smooth(maps, size, sigma)[0, 0])
    assert size > 1 or torch.equal(smooth(maps, size, sigma), maps)


@REFERENCES
@pytest.mark.parametrize("objects", [2, 3, 4])
def test_value_and_gradient_are_those_of_a_plain_float64_loop(
    loss: Loss, reference: Loss, objects: int
):
    maps = uniform(objects, 3, objects, 4, 8, 6)
    doubles = maps.double().requires_grad_()
    expected = torch.stack([reference(sample) for sample in doubles]).mean()
    expected.backward()
    assert doubles.grad is not None
    assert float(loss(maps)) == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient(loss, maps), doubles.grad.float(), rtol=2e-5, atol=1e-7)


def test_one_object_is_enough_for_enhance_and_for_masks():
    maps = uniform(0, 2, 1, 4, 8, 6)
    assert float(enhance_loss(maps)) == pytest.approx(
        sum(float(reference_enhance(m)) for m in maps.double()) / 2, rel=1e-6
    )
    assert float(mask_loss(maps)) == pytest.approx(
        sum(float(reference_mask(m)) for m in maps.double()) / 2, rel=1e-6
    )


def test_maps_as_they_are():
    maps, masks = uniform(0, 2, 3, 8, 8), halves(1, 2, 3, 8, 8)
    expected = (maps - masks).square().sum() / 64 / 2
    assert float(mask_attention_loss(maps, masks, normalise="none")) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_normalised_maps_have_no_scale():
    maps, masks = uniform(0, 2, 3, 4, 8, 8), halves(1, 2, 3, 8, 8)

    def loss(m: Tensor) -> Tensor:
        return mask_attention_loss(m, masks)

    assert float(loss(0.001 * maps)) == pytest.approx(float(loss(maps)), rel=1e-5)
    # The gradient flows through the maximum, so that nothing is gained by scaling a map (Euler: the
    # radial derivative is zero).
    radial = (gradient(loss, maps) * maps).sum((2, 3, 4))
    assert radial.abs().max() < 1e-7
    assert gradient(loss, maps).abs().max() > 1e-4


def test_masks_are_brought_to_the_size_of_the_maps():
    maps, masks = uniform(0, 1, 2, 4, 8, 8), uniform(1, 1, 2, 32, 32)
    assert torch.equal(
        mask_attention_loss(maps, masks), mask_attention_loss(maps, masks[..., ::4, ::4])
    )
    blocks = masks.unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    assert torch.allclose(
        mask_attention_loss(maps, masks, resize="area"), mask_attention_loss(maps, blocks)
    )
    assert torch.equal(
        mask_attention_loss(maps, masks > 0.5), mask_attention_loss(maps, (masks > 0.5).float())
    )


@LOSSES
def test_heads_may_come_in_any_order_and_a_single_one_unnamed(loss: Loss):
    maps = uniform(0, 2, 3, 4, 8, 8)
    assert torch.allclose(loss(maps[:, :, [2, 0, 3, 1]]), loss(maps), rtol=1e-6)
    assert torch.equal(loss(maps[:, :, 0]), loss(maps[:, :, :1]))


@pytest.mark.parametrize("shift", [1, 2])
def test_objects_may_come_in_any_order(shift: int):
    maps, masks, present = (
        uniform(0, 4, 3, 4, 8, 8),
        halves(1, 4, 3, 8, 8),
        torch.ones(4, 3, dtype=torch.bool),
    )
    present[1, 0], present[2, :2], present[3] = False, False, False
    rolled = [t.roll(shift, 1) for t in (maps, masks, present)]
    for loss in (separate_loss, enhance_loss):
        assert torch.allclose(loss(rolled[0], rolled[2]), loss(maps, present), rtol=1e-6)
        expected = gradient(loss, maps, present).roll(shift, 1)
        assert torch.allclose(gradient(loss, rolled[0], rolled[2]), expected, rtol=1e-5, atol=1e-7)
    assert torch.allclose(
        mask_attention_loss(*rolled), mask_attention_loss(maps, masks, present), rtol=1e-6
    )


@LOSSES
@pytest.mark.parametrize("other", [0.0, 1.0, 0.3, torch.nan, torch.inf])
def test_no_sample_depends_on_another(loss: Loss, other: float):
    maps = uniform(0, 3, 3, 4, 8, 8)
    assert torch.allclose(
        loss(maps), torch.stack([loss(sample[None]) for sample in maps]).mean(), rtol=1e-6
    )
    assert torch.allclose(gradient(loss, maps)[1], gradient(loss, maps[1:2])[0] / 3, rtol=1e-6)
    changed = maps.clone()
    changed[[0, 2]] = other
    assert torch.equal(gradient(loss, changed)[1], gradient(loss, maps)[1])


@LOSSES
def test_larger_maps_of_the_same_picture_change_nothing(loss: Loss):
    maps, masks = uniform(0, 2, 3, 4, 8, 8), halves(1, 2, 3, 8, 8)

    def measured(m: Tensor, scale: int) -> Tensor:
        if loss is mask_loss:
            return mask_attention_loss(
                m, masks.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
            )
        return loss(m) if loss is separate_loss else enhance_loss(m, size=1)

    for scale in (2, 4):
        large = maps.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        assert torch.allclose(measured(large, scale), measured(maps, 1), rtol=1e-6)
        # Copies of a pixel share the gradient that the pixel had.
        blocks = (
            gradient(measured, large, scale)
            .unfold(3, scale, scale)
            .unfold(4, scale, scale)
            .sum((-1, -2))
        )
        assert torch.allclose(blocks, gradient(measured, maps, 1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fill", [0.0, 1.0, torch.nan, torch.inf, -torch.inf])
@LOSSES
def test_an_absent_object_is_as_good_as_a_removed_one(loss: Loss, fill: float):
    maps, masks = uniform(0, 1, 4, 4, 8, 8), halves(7, 1, 4, 8, 8)
    present = torch.tensor([[True, False, True, False]])
    kept = maps[:, [0, 2]]
    maps[:, [1, 3]], masks[:, [1, 3]] = fill, fill

    def measured(m: Tensor, p: Tensor | None = None) -> Tensor:
        return (
            mask_attention_loss(m, masks if m.shape[1] == 4 else masks[:, [0, 2]], p)
            if loss is mask_loss
            else loss(m, p)
        )

    assert torch.allclose(measured(maps, present), measured(kept), rtol=1e-6)
    grad = gradient(measured, maps, present)
    assert torch.allclose(grad[:, [0, 2]], gradient(measured, kept), rtol=1e-6)
    assert torch.equal(grad[:, [1, 3]], torch.zeros(1, 2, 4, 8, 8))


@LOSSES
def test_a_sample_without_objects_adds_zero(loss: Loss):
    maps = uniform(0, 2, 3, 4, 8, 8)
    present = torch.tensor([[True, True, True], [False, False, False]])
    maps[1] = torch.nan
    assert torch.allclose(loss(maps, present), loss(maps[:1]) / 2)
    assert torch.equal(gradient(loss, maps, present)[1], torch.zeros(3, 4, 8, 8))
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    with torch.autograd.set_detect_anomaly(True):
        assert float(loss(maps, nothing)) == 0 and torch.equal(
            gradient(loss, maps, nothing), torch.zeros_like(maps)
        )


def test_a_lone_object_cannot_overlap():
    maps, present = (
        uniform(0, 2, 3, 4, 8, 8),
        torch.tensor([[True, True, True], [False, True, False]]),
    )
    maps[1] = torch.inf
    assert torch.allclose(separate_loss(maps, present), separate_loss(maps[:1]) / 2)
    assert torch.equal(gradient(separate_loss, maps, present)[1], torch.zeros(3, 4, 8, 8))
    assert float(separate_loss(maps[:1, :1])) == 0


@LOSSES
@pytest.mark.parametrize("objects", [1, 2, 4])
@pytest.mark.parametrize("fill", [0.0, 1.0, 1e-30, 1e-40])
def test_constant_maps_give_a_finite_value_and_gradient(loss: Loss, objects: int, fill: float):
    maps = torch.full((2, objects, 4, 8, 8), fill)
    # The norm, which clipping takes, is finite too.
    assert bool(loss(maps).isfinite()) and bool(gradient(loss, maps).norm().isfinite())


def test_values_on_constant_maps():
    zeros, ones = torch.zeros(1, 2, 4, 8, 8), torch.ones(1, 2, 4, 8, 8)
    assert float(separate_loss(zeros)) == 0 and float(separate_loss(ones)) == 0.5
    assert float(separate_loss(torch.ones(1, 5, 4, 8, 8))) == pytest.approx(0.2)
    assert float(enhance_loss(zeros)) == 1 and float(enhance_loss(ones)) == pytest.approx(
        0, abs=1e-6
    )
    assert (
        float(mask_attention_loss(zeros, ones[:, :, 0])) == 2
        and float(mask_attention_loss(ones, ones[:, :, 0])) == 0
    )
    # Ties share the gradient: of 4 × 64 pixels, of which each has the derivative 1/4, and of two
    # objects as weak as each other.
    assert torch.equal(gradient(separate_loss, ones), torch.full_like(ones, 0.25 / 256))
    assert gradient(enhance_loss, ones).sum((2, 3, 4)).flatten().tolist() == pytest.approx(
        [-0.5, -0.5]
    )
    # A map of zeros is not lost: it is drawn up where the mask is.
    grad = gradient(lambda m: mask_attention_loss(m, golden_masks(8)), torch.zeros(1, 2, 8, 8))
    assert torch.equal(grad < 0, golden_masks(8).bool())


def test_the_overlap_of_tiny_maps_keeps_its_gradient():
    maps = uniform(0, 1, 2, 4, 8, 8) * 1e-30
    doubles = maps.double().requires_grad_()
    expected = reference_separate(doubles[0])
    expected.backward()
    assert doubles.grad is not None
    assert float(separate_loss(maps)) == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradient(separate_loss, maps), doubles.grad.float(), rtol=1e-5)


@pytest.mark.parametrize(
    "loss", [separate_loss, enhance_loss, mask_loss, lambda m: smooth(m).mean()]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_whatever_the_autocast(loss: Loss, dtype: torch.dtype):
    maps = uniform(0, 2, 3, 4, 8, 8).to(dtype)
    expected = loss(maps.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, grad = loss(maps), gradient(loss, maps.float())
    assert expected.shape == () and inside.dtype == loss(maps).dtype == torch.float32
    assert torch.equal(inside, expected) and torch.equal(loss(maps), expected)
    assert torch.equal(grad, gradient(loss, maps.float()))
    assert smooth(maps).dtype == torch.float32 and torch.equal(smooth(maps), smooth(maps.float()))


@pytest.mark.parametrize("loss", [separate_loss, enhance_loss, mask_loss, mask_attention_loss])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"maps": torch.zeros(2, 8, 8)},
            (
                r"maps \(2, 8, 8\) do not fit: expected \[B, objects, heads, H, W\] or \[B, "
                r"objects, H, W\]"
            ),
        ),
        ({"maps": torch.zeros(0, 3, 8, 8)}, r"maps \(0, 3, 8, 8\) do not fit: .*nothing empty"),
        ({"maps": torch.zeros(2, 3, 0, 8)}, r"maps \(2, 3, 0, 8\) do not fit: .*nothing empty"),
        (
            {"present": torch.ones(3, 2, dtype=torch.bool)},
            (r"present \(3, 2\) of torch.bool does not " r"fit: expected bool of shape \(2, 3\)"),
        ),
        (
            {"present": torch.ones(2, 3)},
            (
                r"present \(2, 3\) of torch.float32 does not "
                r"fit: expected bool of shape \(2, 3\)"
            ),
        ),
    ],
)
def test_maps_and_present_that_do_not_fit_are_refused(loss: Loss, change: dict, message: str):
    masks = {"masks": torch.zeros(2, 3, 8, 8)} if loss is mask_attention_loss else {}
    with pytest.raises(ValueError, match=message):
        loss(**{"maps": torch.zeros(2, 3, 4, 8, 8)} | masks | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"masks": torch.zeros(2, 2, 8, 8)},
            (r"masks \(2, 2, 8, 8\) do not " r"fit: expected \[2, 3, H', W'\]"),
        ),
        (
            {"masks": torch.zeros(2, 3, 1, 8, 8)},
            (r"masks \(2, 3, 1, 8, 8\) do " r"not fit: expected \[2, 3, H', W'\]"),
        ),
        ({"masks": torch.zeros(2, 3, 0, 8)}, r"masks \(2, 3, 0, 8\) do not fit"),
        ({"normalise": "sum"}, "normalise='sum' is unknown: expected 'max' or 'none'"),
        ({"resize": "bilinear"}, "resize='bilinear' is unknown: expected 'nearest' or 'area'"),
    ],
)
def test_masks_that_do_not_fit_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        mask_attention_loss(
            **{"maps": torch.zeros(2, 3, 4, 8, 8), "masks": torch.zeros(2, 3, 8, 8)} | change
        )


@pytest.mark.parametrize(
    ("size", "sigma", "message"),
    [
        (2, 0.5, "size=2 must be odd"),
        (-1, 0.5, "size=-1 must be odd"),
        (3, 0.0, "sigma=0.0 must be"),
        (3, math.nan, "sigma=nan must be"),
    ],
)
def test_kernels_that_are_none_are_refused(size: int, sigma: float, message: str):
    for call in (gaussian_kernel, lambda *a: enhance_loss(torch.zeros(1, 1, 8, 8), None, *a)):
        with pytest.raises(ValueError, match=message):
            call(size, sigma)


def test_maps_too_small_for_the_padding_are_refused():
    with pytest.raises(
        ValueError,
        match=(
            r"maps \(2, 8, 2\) cannot be smoothed with size=5: "
            r"expected \[..., H, W\], H and W above 2"
        ),
    ):
        smooth(torch.zeros(2, 8, 2), size=5)
    assert smooth(torch.ones(3, 3), size=5).shape == (3, 3)


def test_a_batch_of_samples_without_objects_adds_nothing():
    maps = torch.zeros(2, 0, 4, 8, 8, requires_grad=True)
    none = torch.zeros(2, 0, dtype=torch.bool)
    for loss in (
        separate_loss(maps, none),
        enhance_loss(maps),
        mask_attention_loss(maps, torch.zeros(2, 0, 16, 16), none),
    ):
        assert loss.item() == 0
        loss.backward()
