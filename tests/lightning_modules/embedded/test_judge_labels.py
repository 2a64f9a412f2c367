"""Labels made by looking, and the error rates of the judges that follow from them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from datamodules.shapes.scenes import sample_scene
from lightning_modules.backbone import sampling
from lightning_modules.embedded import grade, judge, judge_labels
from lightning_modules.embedded.judge_data import to_images
from lightning_modules.metrics.correction import ErrorRates

ROWS = [("right", "right"), ("right", "wrong"), ("wrong", "wrong"), ("right", "right")]


def write_tables(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Rows of labels and of what both judges say."""
    labels = ["number,prompt,seed,label"]
    verdicts = ["number,judge,judge_reward"]
    for number, (label, said) in enumerate(rows, 1):
        labels.append(f'{number},"a red ring, a blue ring",{number + 7},{label}')
        verdicts.append(f"{number},{said},{said}")
    folder.mkdir(exist_ok=True)
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    (folder / "verdicts.csv").write_text("\n".join(verdicts) + "\n")


def test_errors_are_counted_of_what_labels_call_right_and_wrong(tmp_path: Path):
    write_tables(tmp_path, ROWS)
    rows = judge_labels.join_labels(tmp_path)
    assert rows[1] == {
        "prompt": "a red ring, a blue ring",
        "seed": "9",
        "label": "right",
        "judge": "wrong",
        "judge_reward": "wrong",
    }
    assert judge_labels.count_errors(rows, "judge") == ErrorRates((2, 3), (1, 1))
    with pytest.raises(ValueError, match="is wrong"):
        judge_labels.count_errors([row for row in rows if row["label"] == "right"], "judge")


def test_labels_that_are_missing_or_of_other_images_are_refused(tmp_path: Path):
    write_tables(tmp_path, [*ROWS, ("", "right"), ("perhaps", "right")])
    with pytest.raises(ValueError, match="2 images without a label.*number 5"):
        judge_labels.join_labels(tmp_path)
    write_tables(tmp_path, ROWS)
    (tmp_path / "verdicts.csv").write_text("number,judge,judge_reward\n2,right,right\n")
    with pytest.raises(ValueError, match="different images"):
        judge_labels.join_labels(tmp_path)


def test_reading_ships_the_table_and_renews_the_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assets = tmp_path / "assets"
    for name in ("judge", "judge_reward"):
        (assets / name).mkdir(parents=True)
        (assets / name / "README.md").write_text(
            "# A judge\n\nText.\n\n## Errors, looked at\n\nA.\n"
        )
    monkeypatch.setattr(judge, "ASSETS", assets)
    monkeypatch.setattr(judge, "ASSET", assets / "judge")
    assert judge_labels.read_error_rates() is None
    write_tables(tmp_path / "labels", ROWS)
    with pytest.raises(ValueError, match="4 labels; expected 200"):
        judge_labels.read(tmp_path / "labels")
    write_tables(tmp_path / "labels", ROWS * 50)
    judge_labels.read(tmp_path / "labels")
    assert judge_labels.read_error_rates("judge_reward") == ErrorRates((100, 150), (50, 50))
    first = (assets / "judge" / "README.md").read_text()
    assert "| sensitivity | 100 of 150 | 0.667 | 0.588 to 0.737 |" in first
    judge_labels.read(tmp_path / "labels")
    card = (assets / "judge" / "README.md").read_text()
    assert card == first and card.count(judge_labels.SECTION) == 1
    assert "\n## Errors, looked at\n\nA.\n" in card


def test_sheets_show_what_the_tables_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    groups = {"one object": "one", "of one shape": "similar"}
    monkeypatch.setattr(grade, "GROUPS", groups)

    def sample(backbone, prompts, noises, steps, guidance, side):
        """What the prompts ask for, but for the last, which is an empty ground."""
        scenes = [
            sample_scene(split, i, judge_labels.SCENE_SEED)
            for i in range(2)
            for split in groups.values()
        ]
        images = to_images(scenes)
        images[-1] = 90
        return images

    monkeypatch.setattr(sampling, "sample", sample)
    backbone: object = None
    judge_labels.draw(backbone, tmp_path, images=2, steps=1, guidance=1.0)  # type: ignore[arg-type]
    with (tmp_path / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    with (tmp_path / "verdicts.csv").open(newline="") as file:
        verdicts = list(csv.DictReader(file))
    assert [row["label"] for row in labels] == [""] * 4
    assert len({row["seed"] for row in labels}) == 4
    assert labels[1]["prompt"].count(" and ") and not labels[0]["prompt"].count(" and ")
    for name in ("judge", "judge_reward"):
        assert [row[name] for row in verdicts] == ["right"] * 3 + ["wrong"]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["sheet-01.png"]


def test_more_images_than_anybody_looks_at_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        judge_labels.main(["draw", str(tmp_path / "labels"), "--images", "10001"])
    assert "10,000" in capsys.readouterr().err and not (tmp_path / "labels").exists()
