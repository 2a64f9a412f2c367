from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.shapes.world import SHAPES, Thing, coverage
from lightning_modules.metrics import MaskFollowing
from lightning_modules.metrics.functional import mask_iou
from lightning_modules.metrics.masks import (
    centre_error,
    follow,
    mirrored,
    orientation_error,
    turn_error,
)

ROOT = Path(__file__).resolve().parents[3]
EMPTY = torch.zeros(64, 64, dtype=torch.bool)


def drawn(
    shape: str, degrees: float = 0, radius: float = 10, x: float = 32, y: float = 32
) -> Tensor:
    """A mask of the shape, turned about its centre, which is then moved to (x, y); drawn large, so
    that turning leaves it sharp."""
    big = torch.from_numpy(coverage(Thing("red", shape, 32, 32, radius), 512))[None, None]
    return turned(big, degrees, x, y)


def bar(degrees: float = 0, x: float = 32, y: float = 32) -> Tensor:
    big = torch.zeros(1, 1, 512, 512)
    big[..., 236:276, 136:376] = 1
    return turned(big, degrees, x, y)


def turned(big: Tensor, degrees: float, x: float, y: float) -> Tensor:
    a = math.radians(degrees)
    dx, dy = (x - 32) / 32, (y - 32) / 32
    rows = [[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]]
    theta = torch.tensor([[[*r, -r[0] * dx - r[1] * dy] for r in rows]])
    moved = F.grid_sample(
        big, F.affine_grid(theta, list(big.shape), align_corners=False), align_corners=False
    )
    return F.avg_pool2d(moved, 8)[0, 0] >= 0.5


@pytest.mark.parametrize(("empty", "expected"), [("one", 1.0), ("zero", 0.0), ("nan", None)])
def test_iou(empty: str, expected: float | None):
    pred = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    target = pred.clone()
    pred[0, 0, :2], target[0, 0, 1:3] = True, True  # 4 of 12 pixels
    pred[0, 1], target[0, 1] = True, True
    target[1, 0, 0, 0] = True
    values = mask_iou(pred, target, empty)
    assert values.dtype == torch.float32 and values.shape == (2, 2)
    assert values.flatten()[:3].tolist() == pytest.approx([1 / 3, 1, 0])
    assert mask_iou(target, pred, empty).flatten()[2] == 0
    assert values[1, 1].isnan() if expected is None else values[1, 1] == expected


@pytest.mark.parametrize(
    ("pred", "target", "empty", "message"),
    [
        (EMPTY, EMPTY, "skip", "empty='skip' is unknown: expected one of one, zero, nan"),
        (EMPTY.float(), EMPTY, "one", "must be bool"),
        (EMPTY, EMPTY[:1], "one", r"one shape .* not \[64, 64\] and \[1, 64\]"),
        (EMPTY[None], EMPTY, "one", "one shape"),
    ],
)
def test_iou_refuses(pred: Tensor, target: Tensor, empty: str, message: str):
    with pytest.raises(ValueError, match=message):
        mask_iou(pred, target, empty)


def test_centre_error_is_in_pixels():
    assert centre_error(drawn("square", x=30, y=40), drawn("square", x=33, y=36)) == pytest.approx(
        5, abs=0.05
    )
    assert centre_error(drawn("ring"), drawn("circle", radius=6)) == pytest.approx(0, abs=0.05)
    assert centre_error(EMPTY, drawn("ring")) is None and centre_error(drawn("ring"), EMPTY) is None
    with pytest.raises(ValueError, match="one size"):
        centre_error(EMPTY[1:], EMPTY)
    with pytest.raises(ValueError, match="bool"):
        centre_error(EMPTY.float(), EMPTY.float())


@pytest.mark.parametrize("degrees", [0, 7, 30, 60, 90, 120, 175, 180, 270])
@pytest.mark.parametrize("base", [0, 40, 90])
def test_orientation_error_of_a_bar(degrees: float, base: float):
    error = orientation_error(bar(base + degrees, 28, 35), bar(base))
    assert error == pytest.approx(min(degrees % 180, 180 - degrees % 180), abs=0.5)


def test_orientation_needs_a_long_axis():
    for shape in SHAPES:
        assert orientation_error(bar(), drawn(shape)) is None
    assert orientation_error(bar(), EMPTY) is None


@pytest.mark.parametrize("degrees", [0, 8, 31, 60, 90, 120, 180, 250])
def test_turn_error_tells_a_triangle_up_from_one_down(degrees: float):
    error = turn_error(drawn("triangle", degrees, 9, 27, 36), drawn("triangle", 0, 12))
    assert error == pytest.approx(min(degrees, 360 - degrees), abs=2)


@pytest.mark.parametrize("shape", ["square", "diamond", "cross"])
@pytest.mark.parametrize(
    ("degrees", "error"), [(0, 0), (10, 10), (44, 44), (70, 20), (90, 0), (180, 0), (260, 10)]
)
def test_turn_error_knows_quarter_turns(shape: str, degrees: float, error: float):
    assert turn_error(drawn(shape, degrees, 9, 27, 36), drawn(shape, 0, 12)) == pytest.approx(
        error, abs=2
    )


@pytest.mark.parametrize("shape", ["circle", "ring"])
@pytest.mark.parametrize("radius", [7.5, 8.3, 9.1, 12])
def test_turn_error_of_what_is_round_is_zero(shape: str, radius: float):
    for x, y in ((20.2, 40.9), (33.5, 30.1)):
        assert turn_error(drawn(shape, 25, radius, x, y), drawn(shape, 0, 8.7)) == 0
        assert turn_error(drawn(shape, 25, radius, x, y), bar()) == 0  # no direction to compare


def test_a_wide_range_of_turns_says_nothing():
    """A ring of 5 pixels has a square's stairs; wide ranges of turns fit, with the best anywhere in
    them."""
    for places in (((25.3, 27.4, 6.3), (33.8, 28.0, 5.3)), ((28.4, 23.1, 6.3), (29.5, 41.9, 5.1))):
        pred, target = (
            torch.from_numpy(coverage(Thing("red", "ring", *place)) >= 0.5) for place in places
        )
        assert turn_error(pred, target) == 0


def test_turn_error_of_a_bar_and_of_nothing():
    assert turn_error(bar(110), bar(10)) == pytest.approx(80, abs=2)
    assert turn_error(EMPTY, bar()) is None and turn_error(bar(), EMPTY) is None
    one = EMPTY.clone()
    one[3, 60] = True
    assert turn_error(one, one) == 0


def test_mirrored():
    wing = EMPTY.clone()
    wing[10:40, 20:26], wing[34:40, 20:42] = True, True  # an L
    assert mirrored(wing.flip(1), wing) and mirrored(wing.flip(0), wing)
    assert not mirrored(wing.rot90(), wing) and not mirrored(wing, wing)
    assert not any(mirrored(drawn(shape, 25, 9), drawn(shape)) for shape in SHAPES)
    assert mirrored(EMPTY, wing) is None


def test_follow():
    lost = follow(EMPTY, bar())
    assert (lost.iou, lost.found, lost.centre, lost.orientation, lost.turn) == (
        0,
        False,
        None,
        None,
        None,
    )
    same = follow(bar(20), bar(20))
    assert (same.iou, same.found, same.centre, same.orientation, same.turn) == (1, True, 0, 0, 0)
    with pytest.raises(ValueError, match="target mask is empty"):
        follow(bar(), EMPTY)


PREDICTED = [[bar(30, 35, 36), EMPTY], [drawn("circle")], [drawn("triangle", 180)]]
WANTED = [[bar(), drawn("square")], [drawn("circle")], [drawn("triangle")]]


def test_means_say_what_they_are_over():
    metric = MaskFollowing()
    metric.update(PREDICTED[:1], WANTED[:1])
    metric.update(PREDICTED[1:], WANTED[1:])
    result = metric.compute()
    first, second, third = (mask_iou(PREDICTED[i][0], WANTED[i][0]).item() for i in range(3))
    assert second == 1 and 0 < first < 0.5
    assert result["mask_iou"] == pytest.approx((first + 0 + second + third) / 4)
    assert (result["found"], result["n_subjects"], result["n_images"]) == (0.75, 4, 3)
    down = centre_error(PREDICTED[2][0], WANTED[2][0])
    assert down is not None and down > 3  # a triangle's centroid lies below the middle of its box
    assert result["centre_error"] == pytest.approx((5 + 0 + down) / 3, abs=0.05)
    assert result["turn_error"] == pytest.approx((30 + 0 + 180) / 3, abs=2)
    # Of the bar, the only one that has a long axis
    assert result["orientation_error"] == pytest.approx(30, abs=0.5)
    whole = MaskFollowing()
    whole.update(PREDICTED, WANTED)
    assert whole.compute() == result
    metric.reset()
    with (
        pytest.raises(ValueError, match="no subject was measured"),
        pytest.warns(UserWarning, match="before the ``update``"),
    ):
        metric.compute()


def test_means_over_nothing_are_absent():
    metric = MaskFollowing()
    metric.update([[EMPTY], []], [[bar()], []])
    assert metric.compute() == {"mask_iou": 0, "found": 0, "n_subjects": 1, "n_images": 2}


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        ([[EMPTY]], [[bar(), bar()]], r"\[1\] predicted and \[2\] target"),
        ([[EMPTY]], [], "one predicted mask for each target mask"),
        ([[bar()]], [[EMPTY]], "target mask is empty"),
        ([[bar()[1:]]], [[bar()]], "one shape"),
    ],
)
def test_update_refuses(pred: list[list[Tensor]], target: list[list[Tensor]], message: str):
    with pytest.raises(ValueError, match=message):
        MaskFollowing().update(pred, target)


WORKER = """
import json, sys
import torch
import torch.distributed as dist
from lightning_modules.metrics import MaskFollowing

rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
pred, target = torch.load(sys.argv[3], weights_only=True)
metric = MaskFollowing()
rows = slice(0, 1) if rank == 0 else slice(1, None)
metric.update(pred[rows], target[rows])
print(json.dumps(metric.compute()))
dist.destroy_process_group()
"""


def test_two_ranks_equal_one(tmp_path: Path):
    torch.save([PREDICTED, WANTED], tmp_path / "masks.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "worker.py")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), port, str(tmp_path / "masks.pt")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], answers
    results = [json.loads(out.strip().splitlines()[-1]) for out in answers]
    alone = MaskFollowing()
    alone.update(PREDICTED, WANTED)
    assert results[0] == results[1]
    assert results[0] == pytest.approx(alone.compute(), abs=1e-9)
