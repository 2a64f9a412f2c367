"""Images of prompts and of data of one's own are scored by models; a metric that is asked for later
draws nothing again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.coco_files import write_coco
from helpers.vision_language_models import make_blip, make_clip

from conf import load as conf
from conf.schema import Evaluation, Run
from lightning_modules.metrics import alignment
from lightning_modules.metrics.detection import Detection
from lightning_modules.metrics.detectors import write_detections
from lightning_modules.metrics.registry import ScoringContext
from lightning_modules.training import run as train
from lightning_modules.training.checks import check

PROMPTS = [
    {
        "prompt": "a red circle and a blue square",
        "category": "pairs",
        "wanted": {"include": [{"class": "circle"}, {"class": "square"}]},
    },
    {"prompt": "a star", "category": "one", "wanted": {"include": [{"class": "star"}]}},
    {"prompt": "a picture of a cat"},
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def prompted(base: Run, tmp_path: Path) -> Run:
    """The untouched backbone on a file of prompts, two images each."""
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in PROMPTS))
    return conf.replace(
        base,
        {
            "method": "untouched",
            "data.name": "prompts",
            "data.root": str(tmp_path / "mine.jsonl"),
            "evaluation.splits": ["mine"],
            "evaluation.prompts": 3,
            "evaluation.noise_seeds": 2,
            "evaluation.extractor": "none",
            "evaluation.detector": "none",
            "output": str(tmp_path / "out"),
            "data.train_images": 8,
        },
    )


def detected(path: Path, config: Run) -> Path:
    """Draws the six images, and writes what is on them: of 0 and 1 the pair is whole once, of 2 and
    3 the star is never there."""
    train.run(
        conf.replace(config, {"evaluation.aligners": [str(path.parent / "looks")]}),
        path.parent / "drawn",
    )
    names = pd.read_parquet(path.parent / "drawn" / "scores.parquet")["image"].tolist()
    there = [["circle", "square"], ["circle"], ["square"], [], ["cat"], []]
    found = [[Detection(label, (8, 8, 40, 40), 0.9) for label in labels] for labels in there]
    write_detections(path, found, names)
    return path


def test_prompts_are_scored_by_detections_and_models(prompted: Run, clip: Path, tmp_path: Path):
    make_clip(tmp_path / "looks", seed=1)
    path = detected(tmp_path / "found.jsonl", prompted)
    config = conf.replace(
        prompted,
        {
            "evaluation.detector": str(path),
            "evaluation.aligners": [str(clip), str(tmp_path / "looks")],
        },
    )
    result = train.run(config, tmp_path / "trial")
    metrics = {key.removeprefix("eval/"): value for key, value in result["metrics"].items()}
    assert metrics["success"] == metrics["success_mine"] == 0.25 and metrics[
        "tasks_mean"
    ] == pytest.approx(0.25)
    assert "overall" not in metrics, "it is not GenEval"
    assert math.isfinite(metrics["clip_score"]) and "fid" not in metrics
    table = pd.read_parquet(tmp_path / "trial" / "scores.parquet")
    assert table["success"].tolist() == [True, False, False, False, None, None], (
        "what nobody wanted is not judged"
    )
    prompts = pd.read_parquet(tmp_path / "trial" / "prompts.parquet")
    assert prompts[["prompt", "images", "right"]].values.tolist() == [
        [PROMPTS[0]["prompt"], 2, 1],
        [PROMPTS[1]["prompt"], 2, 0],
    ]
    assert prompts["low"].tolist() == pytest.approx([0.0945, 0], abs=1e-3)
    assert prompts["high"].tolist() == pytest.approx([0.9055, 0.6576], abs=1e-3)
    assert (
        table["clip_score"].mean() == pytest.approx(metrics["clip_score"], rel=1e-4)
        or metrics["clip_score"] == 0
    )
    assert table["clip_score_weakest_part"].notna().tolist() == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    facts = result["facts"]
    assert (
        facts["success"]["file"] == "found.jsonl"
        and "100" in facts["clip_score"]["score"]
        and facts["clip_score"]["images"] == 6
    )
    assert str(tmp_path) not in json.dumps(facts), "results name no place of this machine"
    assert {"eval/clip_score_2", "eval/clip_score_weakest_part_2"} <= set(result["metrics"]), (
        "a second model has columns of its own"
    )
    with pytest.raises(ValueError, match="nothing about image"):
        train.run(conf.replace(config, {"evaluation.steps": 3}), tmp_path / "other")


@pytest.mark.slow
def test_prompts_of_the_plane_have_a_spatial_score(prompted: Run, tmp_path: Path):
    (tmp_path / "spatial_val.txt").write_text(
        "a cat next to a dog\na cat on the left of a dog\na cat near a bench\n"
    )
    make_clip(tmp_path / "looks")
    config = conf.replace(
        prompted,
        {
            "data.root": str(tmp_path / "spatial_val.txt"),
            "evaluation.splits": ["spatial_val"],
            "evaluation.noise_seeds": 1,
            "evaluation.aligners": [str(tmp_path / "looks")],
        },
    )
    train.run(config, tmp_path / "drawn")
    names = pd.read_parquet(tmp_path / "drawn" / "scores.parquet")["image"].tolist()
    pair = [Detection("cat", (2, 20, 22, 40), 0.9), Detection("dog", (36, 20, 56, 40), 0.8)]
    write_detections(tmp_path / "found.jsonl", [pair, pair, []], names)
    result = train.run(
        conf.replace(config, {"evaluation.detector": str(tmp_path / "found.jsonl")}),
        tmp_path / "judged",
    )
    table = pd.read_parquet(tmp_path / "judged" / "scores.parquet")
    assert table["spatial"].tolist() == pytest.approx([0.925, 0.925, 0])
    assert result["metrics"]["eval/spatial"] == pytest.approx(0.925 * 2 / 3)
    assert table["success"].tolist() == [None, True, None], (
        "GenEval has a rule for left of, and none for next to and near"
    )
    assert result["facts"]["spatial"]["images"] == 3


def test_prompts_that_want_nothing_need_no_detector(prompted: Run, tmp_path: Path):
    (tmp_path / "plain.txt").write_text("a dream\nanother dream\na third one\n")
    write_detections(tmp_path / "found.jsonl", [[]])
    more = {
        "data.root": str(tmp_path / "plain.txt"),
        "evaluation.splits": ["plain"],
        "evaluation.detector": str(tmp_path / "found.jsonl"),
    }
    with pytest.raises(
        ValueError, match=("evaluation.detector=file, but no prompt says what it wants")
    ):
        train.run(conf.replace(prompted, more), tmp_path / "trial")


def test_a_metric_that_is_asked_for_later_draws_nothing(prompted: Run, clip: Path, tmp_path: Path):
    first = train.run(
        conf.replace(prompted, {"evaluation.aligners": [str(clip)]}), tmp_path / "first"
    )
    blip, said = make_blip(tmp_path / "blip", "BlipForImageTextRetrieval"), []
    more = conf.replace(prompted, {"evaluation.aligners": [str(clip), str(blip)]})
    again = train.run(more, tmp_path / "again", progress=lambda text, share: said.append(text))
    assert "sampling: 6 images, all there already" in said
    assert {"eval/blip_itc", "eval/blip_itm"} <= {key for key in again["metrics"]} - {
        key for key in first["metrics"]
    }
    assert again["metrics"]["eval/clip_score"] == pytest.approx(first["metrics"]["eval/clip_score"])


def test_captions_need_a_model_that_compares(clip: Path, tmp_path: Path):
    captioner = make_blip(tmp_path / "captioner", "BlipForConditionalGeneration")
    alone = Evaluation(aligners=[str(captioner)])
    with pytest.raises(ValueError, match="captions are compared by a CLIP; name one beside"):
        alignment.build(ScoringContext(alone, [], None, tmp_path))
    both = Evaluation(aligners=[str(captioner), str(clip)])
    scorers = alignment.build(ScoringContext(both, [], None, tmp_path))
    assert [scorer.key for scorer in scorers] == [
        "caption_similarity",
        "clip_score",
        "clip_score_weakest_part",
    ]


def test_photographs_are_compared_by_any_extractor(base: Run, clip: Path, tmp_path: Path):
    write_coco(tmp_path / "data", "val2017", range(1, 9))
    config = conf.replace(
        base,
        {
            "method": "untouched",
            "data.name": "coco",
            "data.root": str(tmp_path / "data"),
            "data.train_split": "val2017",
            "evaluation.splits": ["val2017"],
            "evaluation.prompts": 8,
            "data.eval_images": 8,
            "evaluation.extractor": str(clip),
            "evaluation.detector": "none",
            "output": str(tmp_path / "out"),
        },
    )
    result = train.run(config, tmp_path / "trial")
    metrics = result["metrics"]
    assert {
        f"eval/{key}" for key in ("fid", "kid", "precision", "recall", "density", "coverage")
    } == set(metrics)
    facts = result["facts"]["fid"]
    assert (
        facts["n_fake"] == facts["n_real"] == 8
        and facts["resolution"] == 64
        and "warning" in facts
        and "k" not in facts
    )
    assert result["facts"]["recall"]["k"] == 3 and result["facts"]["density"]["density_k"] == 5
    kept = list((tmp_path / "out" / "cache" / "real_stats").iterdir())
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.name": "coco", "data.root": "d"},
            (
                "evaluation.detector=judge with data.name='coco': the judge knows only the "
                "embedded world"
            ),
        ),
        (
            {"data.name": "coco", "data.root": "d", "evaluation.detector": "none"},
            ("evaluation.extractor=judge with data.name='coco'"),
        ),
        (
            {"evaluation.detector": "none", "evaluation.extractor": "none"},
            "nothing would be measured",
        ),
        (
            {
                "method": "untouched",
                "data.name": "prompts",
                "data.root": "p",
                "evaluation.detector": "none",
                "evaluation.extractor": "none",
                "evaluation.aligners": ["c"],
                "evaluation.attention": True,
            },
            ("evaluation.attention=true with data=prompts"),
        ),
        (
            {"evaluation.prompts": 1, "evaluation.noise_seeds": 9},
            ("2 prompts in all, too few for evaluation.precision_recall_k=3"),
        ),
        (
            {
                "method": "untouched",
                "data.name": "prompts",
                "data.root": "p",
                "evaluation.detector": "none",
                "evaluation.extractor": "inception",
            },
            "evaluation.extractor=inception with data=prompts: there are no real images",
        ),
        (
            {
                "data.name": "coco",
                "data.root": "d",
                "evaluation.detector": "none",
                "evaluation.extractor": "vgg16",
                "evaluation.follow_masks": True,
            },
            "evaluation.follow_masks with data=coco",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_early(base: Run, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        check(conf.replace(base, changes))


def test_a_model_that_is_not_there_is_said_before_it_is_needed(prompted: Run, tmp_path: Path):
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
        train.run(
            conf.replace(prompted, {"evaluation.aligners": [str(tmp_path / "nowhere")]}),
            tmp_path / "trial",
        )
    assert not (tmp_path / "out" / "images").exists(), (
        "nothing was drawn, and nothing would have been trained"
    )
