"""Denoising losses against golden numbers and a plain reference."""

from __future__ import annotations

import pytest
import torch

from losses.denoising import denoising_loss, min_snr_weight


def field(a: float, b: float) -> torch.Tensor:
    """sin(a (c+1) + 0.11 y + b x), [1, 4, 64, 64] in float64."""
    c, y, x = (torch.arange(n, dtype=torch.float64) for n in (4, 64, 64))
    return torch.sin(a * (c[:, None, None] + 1) + 0.11 * y[:, None] + b * x)[None]


def union(size: int = 64) -> torch.Tensor:
    """Upper left quarter, and lower half from 3/8 of the width on; [1, size, size]."""
    y, x = torch.arange(size)[:, None], torch.arange(size)
    first, second = (y < size // 2) & (x < size // 2), (y >= size // 2) & (x >= 3 * size // 8)
    return (first | second).double()[None]


def sample(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_masked_value_of_the_released_code():
    assert float(denoising_loss(field(0.7, 0.05), field(0.2, 0.08), union())) == pytest.approx(
        0.165894151, abs=1e-7
    )
    with_channel = denoising_loss(field(0.7, 0.05), field(0.2, 0.08), union()[:, None])
    assert torch.equal(with_channel, denoising_loss(field(0.7, 0.05), field(0.2, 0.08), union()))


def test_area_divides_by_what_the_mask_holds():
    pred, target, mask = field(0.7, 0.05), field(0.2, 0.08), union()
    expected = ((pred - target).square() * mask).sum() / (4 * mask.sum())
    assert float(denoising_loss(pred, target, mask, normalise="area")) == pytest.approx(
        float(expected), rel=1e-6
    )
    # A mask of half weight: half of each error, and half of the area.
    half = torch.full((1, 64, 64), 0.5)
    plain = float(denoising_loss(pred, target))
    assert float(denoising_loss(pred, target, half, normalise="area")) == pytest.approx(
        plain, rel=1e-5
    )
    assert float(denoising_loss(pred, target, half)) == pytest.approx(plain / 2, rel=1e-5)


def disc_and_strip() -> torch.Tensor:
    """[2, 512, 512]: a disc, and a strip of nine pixels, whose edges are off the latents' grid."""
    y, x = torch.arange(512)[:, None], torch.arange(512)
    disc = (y - 307.7) ** 2 + (x - 200.3) ** 2 <= 91**2
    strip = (x >= 219) & (x < 228) & (y >= 37) & (y < 401)
    return torch.stack([disc, strip]).double()


@pytest.mark.parametrize("normalise", ["all", "area"])
@pytest.mark.parametrize("shape", [0, 1])
def test_each_pixel_of_the_image_counts_once(shape: int, normalise: str):
    pred, target = field(0.7, 0.05).requires_grad_(), field(0.2, 0.08)
    pixels = disc_and_strip()[shape]
    mask = torch.nn.functional.interpolate(pixels[None, None], (64, 64), mode="area")
    assert ((mask > 0) & (mask < 1)).any()
    loss = denoising_loss(pred, target, mask, normalise)
    (gradient,) = torch.autograd.grad(loss, pred)
    # Each pixel of the image has the error of the latent that it lies in.
    error = (pred - target).square().repeat_interleave(8, -1).repeat_interleave(8, -2)
    area = 512**2 if normalise == "all" else pixels.sum()
    expected = (error * pixels).sum() / (4 * area)
    (theirs,) = torch.autograd.grad(expected, pred)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.allclose(gradient, theirs, atol=1e-6 * float(theirs.abs().max()))


def test_without_mask_it_is_the_mean_squared_error():
    pred, target = sample(0, 3, 4, 8, 8), sample(1, 3, 4, 8, 8)
    assert torch.allclose(denoising_loss(pred, target), torch.nn.functional.mse_loss(pred, target))
    assert torch.allclose(
        denoising_loss(pred, target, torch.ones(3, 1, 8, 8)), denoising_loss(pred, target)
    )


@pytest.mark.parametrize("normalise", ["all", "area"])
def test_no_sample_depends_on_another(normalise: str):
    pred, target, masks = (
        sample(0, 3, 4, 8, 8),
        sample(1, 3, 4, 8, 8),
        torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2)),
    )
    masks[1] = 0
    weight = torch.tensor([0.5, 3.0, 1.5])
    alone = [
        denoising_loss(pred[i : i + 1], target[i : i + 1], masks[i : i + 1], normalise)
        for i in range(3)
    ]
    assert torch.allclose(denoising_loss(pred, target, masks, normalise), torch.stack(alone).mean())
    # Weights are not normalised: doubling them doubles the loss.
    weighted = denoising_loss(pred, target, masks, normalise, weight)
    assert torch.allclose(weighted, (torch.stack(alone) * weight).mean())
    assert torch.allclose(denoising_loss(pred, target, masks, normalise, 2 * weight), 2 * weighted)


@pytest.mark.parametrize("normalise", ["all", "area"])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_gradient_is_finite_on_constant_input_and_mask(normalise: str, fill: float):
    pred = torch.full((2, 4, 8, 8), fill, requires_grad=True)
    loss = denoising_loss(pred, torch.zeros(2, 4, 8, 8), torch.full((2, 1, 8, 8), fill), normalise)
    loss.backward()
    assert loss.item() == fill and pred.grad is not None and bool(pred.grad.isfinite().all())


def test_only_what_the_mask_shows_gets_a_gradient():
    pred = sample(0, 1, 4, 64, 64).requires_grad_()
    denoising_loss(pred, torch.zeros(1, 4, 64, 64), union()).backward()
    assert pred.grad is not None and torch.equal(pred.grad[0, 0] != 0, union()[0].bool())


def test_float32_whatever_the_autocast():
    pred, target = sample(0, 2, 4, 8, 8), sample(1, 2, 4, 8, 8)
    expected = denoising_loss(pred, target, torch.ones(2, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = denoising_loss(pred, target, torch.ones(2, 8, 8))
    assert inside.dtype == torch.float32 and torch.equal(inside, expected)
    half = denoising_loss(pred.bfloat16(), target.bfloat16())
    assert half.dtype == torch.float32 and torch.equal(
        half, denoising_loss(pred.bfloat16().float(), target.bfloat16().float())
    )


def test_min_snr_weights():
    snr = torch.tensor([0.5, 5.0, 20.0])
    assert min_snr_weight(snr, 5, "epsilon").tolist() == pytest.approx([1, 1, 0.25])
    assert min_snr_weight(snr, 5, "v_prediction").tolist() == pytest.approx(
        [0.5 / 1.5, 5 / 6, 5 / 21]
    )
    assert min_snr_weight(snr, 5, "sample").tolist() == pytest.approx([0.5, 5, 5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target": torch.zeros(2, 4, 8, 4)},
            (r"pred \(2, 4, 8, 8\) and " r"target \(2, 4, 8, 4\) differ"),
        ),
        ({"normalise": "mean"}, "normalise='mean' is unknown: expected 'all' or 'area'"),
        ({"mask": torch.ones(2, 1, 16, 16)}, r"mask \(2, 1, 16, 16\) does not fit .* resized"),
        ({"mask": torch.ones(3, 8, 8)}, r"mask \(3, 1, 8, 8\) does not fit"),
        ({"weight": torch.ones(2, 1)}, r"weight \(2, 1\) does not fit 2 samples"),
        ({"weight": torch.ones(1)}, r"weight \(1,\) does not fit 2 samples"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        denoising_loss(
            **{"pred": torch.zeros(2, 4, 8, 8), "target": torch.zeros(2, 4, 8, 8)} | change
        )


def test_min_snr_refuses_other_predictions_and_gammas():
    with pytest.raises(
        ValueError,
        match=("prediction_type='flow' is unknown: expected one of epsilon, v_prediction, sample"),
    ):
        min_snr_weight(torch.ones(1), 5, "flow")
    with pytest.raises(ValueError, match="gamma=0 must be positive"):
        min_snr_weight(torch.ones(1), 0, "epsilon")
