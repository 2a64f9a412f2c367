"""The cards of the embedded models, and the commands that make backbone and judge from nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from conf.data.shapes import WEB
from lightning_modules.backbone.backbone import Backbone
from lightning_modules.embedded import grade, judge_card, pretrain


def test_the_backbones_card_shows_figures_and_the_course_of_training(tmp_path: Path):
    for stage, steps in (("vae", 300), ("denoiser", 2600)):
        folder = tmp_path / f"{stage}_training"
        folder.mkdir()
        points = [
            {"step": step, "loss": 1 / step, "seconds": 80.0, "cpu_seconds": 60.0}
            for step in range(100, steps + 1, 100)
        ]
        (folder / "loss.json").write_text(json.dumps(points))
    (tmp_path / "shapes" / "annotations").mkdir(parents=True)
    made = {"count": 1234, "careless": asdict(WEB), "zipf": 0.5}
    (tmp_path / "shapes" / "annotations" / "made_train.json").write_text(json.dumps(made))
    row = dict.fromkeys(("success", "score", "object_rate", "color_rate", "shape_rate"), 0.5)
    table = {
        "one object": row | {"extra_objects": 0.25},
        "two objects": row
        | {"extra_objects": 1.0, "relation_rate": 0.125, "relation_given_success": 0.25}
        | {"corrected_share": 0.6, "corrected_low": 0.45, "corrected_high": 0.75},
    }
    (tmp_path / pretrain.SETTINGS).write_text(json.dumps(["--captions", "clean"]))
    facts = {"backbone": "b", "hardware": "x", "date": "x"}
    facts |= {"images": 512, "steps": 8, "guidance": 3.0}
    grade.write_card(tmp_path, tmp_path, table, facts)
    card = (tmp_path / "README.md").read_text()
    half = " | ".join(["0.500"] * 5)
    assert f"| one object | {half} | - | - | - | - | - | 0.25 | - |" in card
    corrected = "0.600 (0.450 to 0.750)"
    assert f"| two objects | {half} | 0.125 | 0.250 | - | - | - | 1.00 | {corrected} |" in card
    assert "1234 rendered" in card and "left out 0.35, color dropped 0.25" in card
    assert "Zipf's law 0.5" in card
    assert "300 steps in 3 CPU minutes" in card and "2600 steps in 26 CPU minutes." in card
    assert "pretrain --captions clean\n" in card and "grade --backbone b --images 512" in card
    shown = [line for line in card.splitlines() if line.startswith(("| 100 |", "| 2600 |"))]
    assert shown == ["| 100 | 0.0100 |", "| 2600 | 0.0004 |"]
    (tmp_path / "README.md").write_text(card + "\n## Failures, looked at\n\nOne is left out.\n")
    grade.write_card(tmp_path, tmp_path, table, facts)
    again = (tmp_path / "README.md").read_text()
    assert again == card + "\n## Failures, looked at\n\nOne is left out.\n"


def test_the_judges_card_keeps_what_a_person_wrote(tmp_path: Path):
    facts = {"command": "c", "parameters": 1234, "combinations": 48, "cpu_seconds": 96, "loss": 0.5}
    facts |= {"steps": 2, "batch": 3, "pool": 4, "threads": 1, "seed": 0, "architecture": "n"}
    clean = {"1 seen": {"exact": 1.0, "size": 0.5}, "2 seen": {"exact": 0.75, "relation": 0.25}}
    damaged = {"none": dict.fromkeys(judge_card.DAMAGED, 0.125)}
    judge_card.write_card(tmp_path, facts, judge_card.Tables(clean, damaged), 7)
    card = (tmp_path / "README.md").read_text()
    assert "| renders | exact | size | pattern | relation |" in card
    assert "| 1 seen | 1.0000 | 0.5000 | - | - |" in card
    assert "| 2 seen | 0.7500 | - | - | 0.2500 |" in card
    assert "| none | 0.1250 | 0.1250 |" in card
    assert "1,234 parameters" in card and "of 7 fresh" in card and "1.6 CPU minutes on 1" in card
    own = f"\n{judge_card.SEEN_WITH_EYES}\n\nIt confuses rings.\n"
    (tmp_path / "README.md").write_text(card + own)
    judge_card.write_card(
        tmp_path, facts | {"threads": 2}, judge_card.Tables({"1 seen": {"exact": 0.5}}, damaged), 7
    )
    card = (tmp_path / "README.md").read_text()
    assert card.endswith("\n\nIt confuses rings.\n") and "| 1 seen | 0.5000 |" in card
    assert "on 2 threads" in card and card.count(judge_card.SEEN_WITH_EYES) == 1


@pytest.mark.slow
def test_a_backbone_is_made_from_nothing_and_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = ["--output", str(tmp_path / "work"), "--target", str(tmp_path / "made")]
    arguments += ["--images", "8", "--vae-steps", "2", "--steps", "2", "--batch", "4"]
    arguments += ["--threads", str(torch.get_num_threads())]
    pretrain.main(arguments)
    monkeypatch.setattr(grade, "GROUPS", {"one object": "one"})
    backbone, kept = Backbone.load(str(tmp_path / "made")), tmp_path / "grades.json"
    table = grade.grade(backbone, 2, 1, 3.0, kept, "these")
    assert table["one object"]["n_images"] == 2 and 0 <= table["one object"]["success"] <= 1
    # A row that is known is not drawn again, with other weights it is
    monkeypatch.setattr(grade, "draw_prompts", lambda *_: pytest.fail("drawn again"))
    assert grade.grade(backbone, 2, 1, 3.0, kept, "these") == table
    with pytest.raises(pytest.fail.Exception):
        grade.grade(backbone, 2, 1, 3.0, kept, "others")


def test_a_card_without_curves_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        grade.main(["--card", str(tmp_path)])
    assert "no vae_training/loss.json; expected the working" in capsys.readouterr().err


def test_a_card_says_what_kind_of_time_it_knows(tmp_path: Path):
    for stage, point in (("vae", {}), ("denoiser", {"cpu_seconds": 120.0})):
        (tmp_path / f"{stage}_training").mkdir()
        curve = [{"step": 5, "loss": 0.5, "seconds": 180.0} | point]
        (tmp_path / f"{stage}_training" / "loss.json").write_text(json.dumps(curve))
    assert grade.describe_time(grade.read_curves(tmp_path)["vae"]) == "3 minutes"
    assert grade.describe_time(grade.read_curves(tmp_path)["denoiser"]) == "2 CPU minutes"
