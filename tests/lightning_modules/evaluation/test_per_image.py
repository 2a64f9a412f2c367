"""Every declared metric follows from a column of scores.parquet, as its declaration says, or is
declared to have none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.vision_language_models import make_blip, make_clip, make_siglip
from torch import Tensor

from conf import spec
from conf.schema import Evaluation, Run, Trainer
from conf.schema import Method as MethodConfig
from datamodules.batch import Phrase
from datamodules.build import build_data
from datamodules.formats.benchmarks import GENEVAL
from datamodules.shapes.rendering import render
from datamodules.shapes.scenes import sample_scene
from datamodules.shapes.vocabulary import COLORS, INVERSE
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.evaluation.diagnostics import diagnose, keep_columns
from lightning_modules.evaluation.evaluate import prepare_scorers, score, write_scores
from lightning_modules.evaluation.images import ImageStore
from lightning_modules.evaluation.plan import Prompt, plan, real_images
from lightning_modules.methods.untouched import Untouched
from lightning_modules.metrics import t2i_spatial
from lightning_modules.metrics.detection import Detection, Target
from lightning_modules.metrics.detectors import write_detections
from lightning_modules.metrics.registry import ScoringContext, build_scorers

Measured = tuple[dict[str, float], pd.DataFrame]  # Metrics without ``eval/``, scores.parquet
WORLD = Evaluation(
    splits=["val", "heldout", "size", "relation", "pattern"],
    prompts=8,
    noise_seeds=2,
    follow_masks=True,
    attention=True,
    steps=1,
    vqa="judge",
    metrics=["judge_reward"],
)
DECLARED = [
    pytest.param(name, metric, by_split, id=f"{name}-{metric.key}{'_split' * by_split}")
    for name, of in spec.metrics().items()
    for metric in of.outputs
    for by_split in {False, metric.key in of.by_split}
]


class Shown:
    """Images that are there already."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def name(self, row: int) -> str:
        return f"some/{row:05d}.png"

    def load(self, rows: Sequence[int]) -> Tensor:
        return self.images[list(rows)]


def table(
    folder: Path, prompts: list[Prompt], images: Tensor, columns: dict[str, list[Any]]
) -> pd.DataFrame:
    write_scores(folder, prompts, Shown(images), columns, 0, None)
    return pd.read_parquet(folder / "scores.parquet")


def show_bars(image: Tensor, prompt: Prompt, count: int) -> Prompt:
    """Draws bars that lie, and asks for them; the first should stand."""
    image[:] = 100
    phrases = []
    for number, (color, top) in enumerate((("blue", 8), ("white", 40))[:count]):
        bar = torch.zeros(64, 64, dtype=torch.bool)
        bar[top : top + 10, 8:56] = True
        image[:, bar] = torch.tensor(COLORS[color], dtype=torch.uint8)[:, None]
        phrases.append(Phrase(f"a {color} square", 0, 8, bar if number else bar.T.contiguous()))
    names = tuple(phrase.text for phrase in phrases)
    return replace(prompt, phrases=tuple(phrases), names=names)


@pytest.fixture(scope="module")
def world(base: Run, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The embedded world: images that are right, moved, those of other prompts, or of a bar."""
    folder = tmp_path_factory.mktemp("world")
    config = replace(
        base, evaluation=WORLD, data=replace(base.data, eval_images=8), output=str(folder)
    )
    data = build_data(config, lambda text, share: None)
    config = replace(config, evaluation=replace(WORLD, splits=list(data.eval_sets)))
    prompts = plan(data, config.evaluation, 0)
    images = real_images(data, prompts).repeat_interleave(2, 0)
    right = images.clone()
    images[1::4] = right[1::4].roll((3, 5), (2, 3))
    images[2::8] = right[2::8].roll(1, 0)
    images[3::8] = 100
    prompts[4] = show_bars(images[4], prompts[4], 1)
    prompts[22] = show_bars(images[22], prompts[22], 2)
    # Two images should show four things, two five, of which the second shows none
    for row, split in ((8, "four"), (10, "five")):
        scene = sample_scene(split, 0)
        images[row], images[row + 1] = torch.from_numpy(render(scene)[0]).permute(2, 0, 1), 100
        wanted = Target([(thing.color, thing.shape) for thing in scene.things])
        for i in (row, row + 1):
            prompts[i] = replace(prompts[i], target=wanted)
    # One image has its things where its prompt does not say
    assert (target := prompts[52].target).relation
    prompts[52] = replace(prompts[52], target=target._replace(relation=INVERSE[target.relation]))
    scorers = prepare_scorers(config, data, prompts, "cpu", lambda text, share: None)
    scores, columns = score(scorers, prompts, Shown(images), lambda text, share: None)
    method = Untouched(Backbone.load(str(tiny_folder)), MethodConfig("untouched"), Trainer(), 64)
    diagnosis = diagnose(method, data, config, prompts, None, folder)
    metrics = scores.metrics | diagnosis.metrics
    return metrics, table(folder, prompts, images, columns | diagnosis.columns)


def asked(number: int, tag: str, things: Sequence[str], **more: Any) -> Prompt:
    include: list[dict[str, Any]] = [{"class": thing, "count": 1} for thing in things]
    if more.pop("left", False):
        include[1]["position"] = ["left of", 0]
    text, wanted = " and ".join(things), {"tag": tag, "include": include}
    return Prompt(
        "mine", number, number, text, Target([]), 0, wanted=wanted, stratum=(tag,), **more
    )


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """GenEval's tasks, one of them with two prompts, prompts of one's own, and spatial ones."""
    folder = tmp_path_factory.mktemp("benchmarks")
    own = [asked(i, tag, ["cat"], benchmark=GENEVAL) for i, tag in enumerate(GENEVAL.tasks)]
    own.append(asked(6, "counting", ["dog"], benchmark=GENEVAL))
    other = [asked(7, "counting", ["cat"]), asked(8, "mine", ["dog"])]
    spatial = [
        asked(9 + i, "spatial", ["cat", "dog"], left=True, benchmark=benchmark)
        for i, benchmark in enumerate((t2i_spatial.BENCHMARK, None) * 2)
    ]
    nothing = replace(own[0], index=13, id=13, wanted=None)
    five = asked(14, "mine", ["cat", "dog", "bus", "kite", "cup"])
    once = [*own, *other, *spatial, nothing, five]
    prompts = [replace(p, noise=2 * p.index + j, number=j) for p in once for j in range(2)]
    del prompts[1]  # Not all prompts have as many images
    images = torch.zeros(len(prompts), 3, 64, 64, dtype=torch.uint8)
    cat, dog = (Detection("cat", (40, 20, 60, 40), 0.95), Detection("dog", (4, 20, 24, 40), 0.8))
    rng = np.random.default_rng(0)
    found = [[d for d in (cat, dog) if rng.random() < 0.7] for _ in prompts]
    # Of the last prompt's five things all, and two
    found[-2:] = [[replace(cat, label=label) for label in five.text.split(" and ")], [cat, dog]]
    names = [Shown(images).name(row) for row in range(len(prompts))]
    write_detections(folder / "found.jsonl", found, names)
    evaluation = Evaluation(detector=str(folder / "found.jsonl"), extractor="none")
    scorers = build_scorers(ScoringContext(evaluation, prompts, None, folder))
    scores, columns = score(scorers, prompts, Shown(images), lambda text, share: None)
    return scores.metrics, table(folder, prompts, images, columns)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("aligned")
    models = [
        make_clip(folder / "clip", seed=1),
        make_siglip(folder / "siglip", seed=2),
        make_blip(folder / "matcher", "BlipForImageTextRetrieval"),
        make_blip(folder / "captioner", "BlipForConditionalGeneration"),
    ]
    texts = ["a red circle and a blue square", "a star", "a green cat with a dog", "a picture"]
    prompts = [Prompt("mine", i, i, text, Target([]), i) for i, text in enumerate(texts)]
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    evaluation = Evaluation(
        detector="none", extractor="none", aligners=[str(model) for model in models]
    )
    scorers = build_scorers(ScoringContext(evaluation, prompts, None, folder))
    shown = images.to(torch.uint8)
    scores, columns = score(scorers, prompts, Shown(shown), lambda text, share: None)
    return scores.metrics, table(folder, prompts, shown, columns)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What gates did while three images were drawn, of one of which no gate was free."""
    folder = tmp_path_factory.mktemp("gated")
    prompts = [Prompt("val", i, i, "a ring", Target([]), i) for i in range(3)]
    kept = ImageStore(folder, {"sampling": {"image_format": "png"}}, ["0", "1", "2"])
    kept.write_stats([0, 1], {"gate_closed": [(6, 8), (1, 4)], "gate_closed_kind/word": []})
    kept.write_stats([2], {"gate_closed": [(0, 0)]})
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    assert kept.stats is not None
    return kept.stats, table(folder, prompts, images, kept.columns())


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What guidance did while three images were drawn, of which one fell back to none."""
    folder = tmp_path_factory.mktemp("guided")
    prompts = [Prompt("val", i, i, "a ring", Target([]), i) for i in range(3)]
    kept = ImageStore(folder, {"sampling": {"image_format": "png"}}, ["0", "1", "2"])
    fallback, moves = [(0.0, 1), (1.0, 1), (0.0, 1)], [(4.0, 1), (2.0, 1), (7.0, 1)]
    losses = [(0.5, 1), (0, 0), (0.25, 1)]
    kept.write_stats(
        [0, 1, 2],
        {
            "guidance_fallback": fallback,
            "guidance_moves": moves,
            "guidance_loss": losses,
            "guidance_noise": [(1.0, 1), (0, 0), (0.0, 1)],
        },
    )
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    assert kept.stats is not None
    return kept.stats, table(folder, prompts, images, kept.columns())


@pytest.fixture
def measured(request: pytest.FixtureRequest, world: Measured) -> dict[str, Measured]:
    """Metric -> an evaluation that measures it."""
    benchmarks = request.getfixturevalue("benchmarks")
    return {
        "judge": world,
        "vqa": world,
        "judge_reward": world,
        "mask_adherence": world,
        "attention_maps": world,
        "distribution": world,
        "cost": world,
        "gate_stats": request.getfixturevalue("gated"),
        "attention_guidance": request.getfixturevalue("guided"),
        "geneval": benchmarks,
        "t2i_spatial": benchmarks,
        "alignment": request.getfixturevalue("aligned"),
    }


def average(rows: pd.DataFrame, metric: spec.Metric) -> float:
    """The metric, from its columns."""
    rows = rows[rows[metric.key].notna()]
    weights = rows[metric.weight].astype(float) if metric.weight else np.ones(len(rows))
    return float(np.average(rows[metric.key].astype(float), weights=weights))


@pytest.mark.parametrize(("name", "metric", "by_split"), DECLARED)
def test_a_metric_follows_from_its_column_as_declared(
    measured: dict[str, Measured], name: str, metric: spec.Metric, by_split: bool
):
    metrics, rows = measured[name]
    if not metric.per_image:
        assert metric.key not in rows
        return
    assert rows[metric.key].nunique() > 1, "equal values would agree with any mean"
    if by_split:
        for split, own in rows.groupby("split"):
            assert average(own, metric) == pytest.approx(metrics[f"{metric.key}_{split}"], abs=1e-6)
        return
    assert average(rows, metric) == pytest.approx(metrics[metric.key], abs=1e-6)
    plain = rows[metric.key].astype(float).mean()
    assert math.isclose(plain, metrics[metric.key], abs_tol=1e-6) != bool(metric.weight)


def test_columns_of_the_method_go_with_their_images():
    once = Prompt("val", 3, 3, "a ring", Target([]), 7)
    prompts = [once, replace(once, noise=8), replace(once, index=4, id=4, noise=7)]
    rows = {"split": ["val"] * 2, "id": ["4", "3"], "noise": [7, 7], "success": [True, False]}
    old = pd.DataFrame(rows | {"map_overlap": [0.5, 0.25]})
    assert keep_columns(old, prompts) == {"map_overlap": [0.25, None, 0.5]}
    assert keep_columns(pd.DataFrame(rows), prompts) == {}


def test_a_weight_needs_a_column():
    with pytest.raises(ValueError, match="weight='targets', but no image has a value"):
        spec.Metric("fid", "FID", per_image=False, weight="targets")
