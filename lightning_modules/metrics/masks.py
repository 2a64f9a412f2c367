"""How two masks compare: place, direction, and likeness of what lies inside them.

The functions take masks bool [H, W] of one size, x to the right and y down. None means that there
is nothing to measure: a mask is empty, or has no direction. Angles are in degrees.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from conf.describe import show_count

# A mask of smaller elongation is about as long as it is wide: a rectangle of 5 to 4, the triangle
# of the embedded world
ROUND = 0.2
TURNS = 180  # Angles that are tried, so every 2 degrees
TOLERANCE = 0.05  # Overlap that a turn may lose against the best one and still fit about as well
VAGUE = 60.0  # Degrees; a wider range of turns that all fit means that the shape shows no direction
SIDE = 48  # Samples along a side of the grid on which turned masks are compared
BLUR = 5  # Samples over which the turned masks are averaged
# Half the side of that grid, in root mean square radii; the corner of a triangle lies at 2, the end
# of a bar at 1.7
REACH = 3.0


class Moments(NamedTuple):
    """Area, centroid and central second moments of a mask, in pixels; each pixel is a square of
    side 1, not a point."""

    area: float
    x: float
    y: float
    xx: float
    yy: float
    xy: float

    @property
    def radius(self) -> float:
        """Root mean square distance from the centroid."""
        return math.sqrt(self.xx + self.yy)

    @property
    def elongation(self) -> float:
        """(a - b) / (a + b) of the moments along the long and the short axis: 0 for a circle and a
        square, near 1 for a thin bar."""
        return math.hypot(self.xx - self.yy, 2 * self.xy) / (self.xx + self.yy)


def moments(mask: Tensor) -> Moments | None:
    """The moments of a mask, bool [H, W]; None if it is empty. Raises ValueError on another dtype
    or rank."""
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"a mask must be bool [H, W], not {mask.dtype} {list(mask.shape)}")
    ys, xs = (v.double() + 0.5 for v in mask.nonzero().unbind(1))
    if len(xs) == 0:
        return None
    x, y = xs.mean(), ys.mean()
    dx, dy = xs - x, ys - y
    xx, yy, xy = dx.square().mean() + 1 / 12, dy.square().mean() + 1 / 12, (dx * dy).mean()
    return Moments(float(len(xs)), float(x), float(y), float(xx), float(yy), float(xy))


def has_direction(mask: Tensor) -> bool:
    """Whether a mask has a long axis: it is longer than wide (see ``ROUND``)."""
    found = moments(mask)
    return found is not None and found.elongation >= ROUND


def _both(pred: Tensor, target: Tensor) -> tuple[Moments, Moments] | None:
    if pred.shape != target.shape:
        raise ValueError(
            f"masks must have one size [H, W], not {list(pred.shape)} and {list(target.shape)}"
        )
    a, b = moments(pred), moments(target)
    return None if a is None or b is None else (a, b)


def centre_error(pred: Tensor, target: Tensor) -> float | None:
    """Distance of the centroids in pixels; None if either mask is empty."""
    found = _both(pred, target)
    if found is None:
        return None
    a, b = found
    return math.hypot(a.x - b.x, a.y - b.y)


def orientation_error(pred: Tensor, target: Tensor) -> float | None:
    """Angle between the long axes of two masks (from their second moments), in [0, 90].

    An axis has no head: upside down is no error. None if either mask is empty or about as long as
    it is wide (elongation below ``ROUND``).
    """
    found = _both(pred, target)
    if found is None or min(m.elongation for m in found) < ROUND:
        return None
    first, second = (math.degrees(math.atan2(2 * m.xy, m.xx - m.yy)) / 2 for m in found)
    between = abs(first - second) % 180
    return min(between, 180 - between)


def turn_error(pred: Tensor, target: Tensor) -> float | None:
    """How far the target must be turned to look like the predicted mask, in [0, 180], to 2 degrees;
    None if either mask is empty.

    The target is laid onto the prediction (same centroid, same root mean square radius) and turned
    in steps of 2 degrees; a turn fits as well as its soft overlap, sum of minima over sum of
    maxima. Turns within ``TOLERANCE`` of the best fit form ranges. Each range stands for its best
    turn, and the error is the smallest of these: a square turned by 90 degrees has none. A range
    wider than ``VAGUE`` degrees stands for its smallest turn, since the shapes do not tell those
    turns apart: a circle has 0. Small masks lose a few degrees in the stairs of their rims, and a
    few rings of a radius below 7 pixels seem turned.
    """
    found = _both(pred, target)
    return None if found is None else _smallest_turn(_fits(pred, target, *found))


def _fits(pred: Tensor, target: Tensor, a: Moments, b: Moments) -> list[float]:
    """Soft overlap of the prediction with the target turned by each of ``TURNS`` angles, both
    centred and brought to one size."""
    angles = torch.arange(TURNS, device=pred.device) * (2 * math.pi / TURNS)
    still = _resample(pred, a, angles[:1])
    turned = _resample(target, b, angles)
    return (
        torch.minimum(still, turned).sum((1, 2)) / torch.maximum(still, turned).sum((1, 2))
    ).tolist()


def _resample(mask: Tensor, m: Moments, angles: Tensor) -> Tensor:
    """The mask around its centroid, in units of its radius, turned by ``angles`` [A]: float32 [A,
    S, S]."""
    height, width = mask.shape
    cos, sin = angles.cos() * m.radius * REACH, angles.sin() * m.radius * REACH
    # Rows give the place in the mask, in the units of grid_sample (-1 to 1 over the whole side),
    # that a point of the new grid shows.
    row_x = torch.stack([cos, sin, torch.full_like(cos, m.x - width / 2)], 1) * (2 / width)
    row_y = torch.stack([-sin, cos, torch.full_like(cos, m.y - height / 2)], 1) * (2 / height)
    grid = F.affine_grid(
        torch.stack([row_x, row_y], 1), [len(angles), 1, SIDE, SIDE], align_corners=False
    )
    source = mask.float().expand(len(angles), 1, height, width)
    samples = F.grid_sample(
        source, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    # The stairs of small masks do not turn with them: averaged out, they cost a fit less.
    return F.avg_pool2d(samples, BLUR, stride=2)[:, 0]


def _smallest_turn(fits: list[float]) -> float:
    step, count, least = 360 / len(fits), len(fits), max(fits) - TOLERANCE
    size = [min(i, count - i) * step for i in range(count)]  # Of each turn, whichever way round
    start = next((i for i in range(count) if fits[i] < least), None)
    if start is None:
        return 0.0
    ranges: list[list[int]] = [[]]
    for i in (j % count for j in range(start, start + count)):
        if fits[i] >= least:
            ranges[-1].append(i)
        elif ranges[-1]:
            ranges.append([])
    ends = [
        min(r, key=lambda i: size[i]) if len(r) * step > VAGUE else max(r, key=lambda i: fits[i])
        for r in ranges
        if r
    ]
    return min(size[i] for i in ends)


def masked_similarity(
    features_a: Tensor, masks_a: Tensor, features_b: Tensor, masks_b: Tensor
) -> Tensor:
    """Cosine between the mean feature inside one mask and the mean feature inside another, pair by
    pair.

    Masks are brought to the size of the feature maps by area, so that a cell counts as much as the
    mask covers of it and small subjects are not lost. features: [N, d, h, w]; masks: bool [N, H,
    W]; the sides of a and b may differ, N and d may not.

    Returns float32 [N] in [-1, 1]; nan where a mask is empty. Raises ValueError if the shapes do
    not fit.
    """
    if features_a.ndim != 4 or features_b.ndim != 4 or features_a.shape[:2] != features_b.shape[:2]:
        shapes = f"{list(features_a.shape)} and {list(features_b.shape)}"
        raise ValueError(
            f"feature maps must be [N, d, h, w] with the same N and d on both sides, not {shapes}"
        )
    return F.cosine_similarity(
        _masked_mean(features_a, masks_a), _masked_mean(features_b, masks_b), dim=1
    )


def _masked_mean(features: Tensor, masks: Tensor) -> Tensor:
    if masks.ndim != 3 or len(masks) != len(features):
        raise ValueError(
            f"expected one mask [H, W] for each of {show_count(len(features), 'feature map')}, not "
            f"{list(masks.shape)}"
        )
    # [N, 1, h, w]
    weight = F.interpolate(masks.float()[:, None], features.shape[2:], mode="area").to(
        features.device
    )
    return (features.float() * weight).sum((2, 3)) / weight.sum((2, 3))  # 0 / 0 is nan on purpose
