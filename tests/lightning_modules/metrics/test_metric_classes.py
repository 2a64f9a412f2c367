from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_modules.metrics import Composition, Detection, FeatureDistance, Target
from lightning_modules.metrics.distribution import WHICH
from lightning_modules.metrics.functional import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)

ROOT = Path(__file__).resolve().parents[3]


def seen(color: str, shape: str, x: float = 20) -> Detection:
    return Detection(shape, (x - 5, 5, x + 5, 15), 0.9, color=color)


PAIR = Target([("red", "circle"), ("blue", "square")], "left of")
CASES = [
    ([seen("red", "circle", 10), seen("blue", "square", 40)], PAIR),  # right
    ([seen("red", "circle", 40), seen("blue", "square", 10)], PAIR),  # wrong relation
    # Colour and shape of one each, two extra
    ([seen("red", "square", 40), seen("white", "ring", 10)], PAIR),
    ([seen("green", "cross")], Target([("green", "cross")])),
]


def test_composition_rates():
    metric = Composition()
    for detections, target in CASES:
        metric.update([detections], [target])
    result = metric.compute()
    assert result == {
        "success": 3 / 4,
        "object_rate": 5 / 7,
        "color_rate": 6 / 7,
        "shape_rate": 6 / 7,
        "extra_objects": 2 / 4,
        "n_images": 4.0,
        "relation_rate": 1 / 3,  # a missing object counts as wrong
    }
    whole = Composition()
    whole.update(*zip(*CASES, strict=True))
    assert whole.compute() == result
    metric.reset()
    with pytest.raises(ValueError, match="no image was judged"):
        metric.compute()


def test_relation_rate_is_absent_without_relations():
    metric = Composition()
    metric.update([CASES[3][0]], [CASES[3][1]])
    assert "relation_rate" not in metric.compute()


def test_composition_refuses_unequal_lists():
    with pytest.raises(ValueError, match="2 images but 1 targets"):
        Composition().update([[], []], [PAIR])


def test_feature_distance_equals_the_functions():
    real, fake = torch.randn(30, 4), torch.randn(21, 4) + 0.5
    metric = FeatureDistance(k=2)
    for part in real.split(7):
        metric.update(part, real=True)
    metric.update(fake.bfloat16(), real=False)
    precision, recall = precision_recall(real, fake.bfloat16().float(), k=2)
    assert metric.compute() == {
        "fid": float(frechet_distance(real, fake.bfloat16().float())),
        "precision": float(precision),
        "recall": float(recall),
        "n_real": 30.0,
        "n_fake": 21.0,
    }
    assert all(part.dtype == torch.float32 for part in metric.fake)
    assert not metric.state_dict()  # features are never written into a checkpoint


def test_feature_distance_gives_what_is_asked_for_and_says_what_it_is():
    real, fake = torch.randn(30, 4), torch.randn(21, 4) + 0.5
    told = {"extractor": "judge", "resolution": 64, "filter": "none", "side": 64}
    metric = FeatureDistance(which=WHICH, about=told)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with pytest.raises(ValueError, match="call compute"):
        metric.facts()
    values = metric.compute()
    density, coverage = density_coverage(real, fake, k=5)
    assert list(values) == [*WHICH, "n_real", "n_fake"]
    assert values["kid"] == float(kernel_distance(real, fake))
    assert (values["precision"], values["recall"]) == tuple(
        map(float, precision_recall(real, fake, 3))
    )
    assert (values["density"], values["coverage"]) == (float(density), float(coverage))
    expected = {
        **told,
        "k": 3,
        "density_k": 5,
        "strict": False,
        "n_real": 30,
        "n_fake": 21,
        "features": 4,
        "small": False,
    }
    assert json.loads(json.dumps(metric.facts())) == expected
    metric.reset()
    with pytest.raises(ValueError, match="call compute"):
        metric.facts()


def test_feature_distance_flags_few_samples():
    metric = FeatureDistance(which=["fid"])
    metric.update(torch.randn(16, 8), real=True)
    metric.update(torch.randn(16, 8), real=False)
    metric.compute()
    assert metric.facts() == {
        "extractor": None,
        "resolution": None,
        "filter": None,
        "n_real": 16,
        "n_fake": 16,
        "features": 8,
        "small": False,
    }
    metric = FeatureDistance(which=["fid"])
    metric.update(torch.randn(16, 8), real=True)
    metric.update(torch.randn(15, 8), real=False)
    assert list(metric.compute()) == ["fid", "n_real", "n_fake"]
    facts = metric.facts()
    assert facts["small"] and facts["warning"].startswith("15 samples for 8 features")


def test_feature_distance_under_autocast():
    real, fake = torch.randn(30, 4), torch.randn(21, 4) + 0.5

    def values() -> dict[str, float]:
        metric = FeatureDistance(which=WHICH)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return metric.compute()

    expected = values()
    with torch.autocast("cpu", torch.bfloat16):
        assert values() == expected


def test_feature_distance_says_what_is_missing():
    with pytest.raises(ValueError, match="distance 'is' is unknown: expected some of fid, kid"):
        FeatureDistance(which=("fid", "is"))
    unequal = FeatureDistance(which=["fid"])
    unequal.update(torch.randn(8, 4), real=True)
    unequal.update(torch.randn(8, 5), real=False)
    with pytest.raises(ValueError, match="equal d"):
        unequal.compute()
    metric = FeatureDistance()
    metric.update(torch.randn(8, 4), real=True)
    with pytest.raises(
        ValueError, match=(r"no fake features were given: call update\(features, " r"real=False\)")
    ):
        metric.compute()
    with pytest.raises(ValueError, match="matrix"):
        metric.update(torch.randn(8), real=False)


WORKER = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from lightning_modules.metrics import Composition, Detection, FeatureDistance, Target
from lightning_modules.metrics.distribution import WHICH
from lightning_modules.metrics.reference import reference

rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
real, fake = torch.load(sys.argv[3], weights_only=True)
distance = FeatureDistance(k=2, which=WHICH)
distance.update(real[:5] if rank == 0 else real[5:], real=True)
facts = {"data": "0", "extractor": "none", "weights": "0", "filter": "none", "n": len(real)}
kept = reference(Path(sys.argv[4]), facts, lambda rows: real[rows], batch=2)
known = FeatureDistance(k=2, which=WHICH, reference=kept)
if rank == 1:  # rank 0 has no generated image at all
    distance.update(fake, real=False)
    known.update(fake, real=False)
composition = Composition()
right = Detection("circle", (0, 0, 9, 9), 0.9, color="red")
if rank == 0:
    composition.update([[right], []], [Target([("red", "circle")])] * 2)
assert known.compute() == distance.compute(), (known.compute(), distance.compute())
assert known.facts()["n_fake"] == len(fake)
result = {**distance.compute(), **composition.compute()}
print(json.dumps(result))
dist.destroy_process_group()
"""


def test_two_ranks_equal_one(tmp_path):
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.randn(17, 4, generator=generator),
        torch.randn(12, 4, generator=generator) + 0.5,
    )
    torch.save([real, fake], tmp_path / "features.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                tmp_path / "worker.py",
                str(rank),
                port,
                tmp_path / "features.pt",
                tmp_path / "cache",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], answers
    results = [json.loads(out.strip().splitlines()[-1]) for out, _ in answers]
    alone = FeatureDistance(k=2, which=WHICH)
    alone.update(real, real=True)
    alone.update(fake, real=False)
    assert results[0] == results[1]
    for key, value in {**alone.compute(), "success": 0.5, "n_images": 2.0}.items():
        # Shares of images are counts; sums of other numbers may be rounded in another order.
        assert results[0][key] == (
            pytest.approx(value, abs=1e-12) if key in ("fid", "kid") else value
        ), key
