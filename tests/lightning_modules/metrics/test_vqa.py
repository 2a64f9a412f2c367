"""Scores of answers, and the whole path with the embedded judge as the one who answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.answering_models import make_qwen

from conf.schema import Evaluation
from datamodules.formats.questions import Question, yes_no
from datamodules.shapes.captions import draw_prompt
from datamodules.shapes.questions import ask_for
from datamodules.shapes.reading import read_prompt
from datamodules.shapes.rendering import render
from datamodules.shapes.scenes import sample_scene
from lightning_modules.embedded.answers import JudgeAnswerer
from lightning_modules.embedded.judge import Judge
from lightning_modules.embedded.targets import read_target
from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics.correction import CorrectedScorer, ErrorRates, read_rates
from lightning_modules.metrics.detection import Target
from lightning_modules.metrics.judge import JudgeScorer
from lightning_modules.metrics.registry import ScoringContext, build_scorers, undefined_by_prompts
from lightning_modules.metrics.vqa import VqaScorer, geometric_mean, score_answers


def prompt(text: str, index: int = 0, split: str = "val", **more) -> Prompt:
    return Prompt(split, index, index, text, Target([]), 0, **more)


# --- scores ---------------------------------------------------------------------------------------

QUESTIONS = (
    yes_no("is there a cat?"),
    Question("how many cats are there?", "two", needs=(0,)),
    Question("what color is it?", "red", ("red", "blue"), needs=(0, 1)),
)


def test_means_products_and_what_depends_on_what():
    answers = [{"yes": 0.9, "no": 0.1}, {"two": 0.4, "three": 0.5}, {"red": 0.5, "blue": 0.3}]
    scores = score_answers(QUESTIONS, answers)
    assert scores == {
        "vqa_success": False,
        "questions_right": pytest.approx(2 / 3),
        # The third is right, but makes no sense with the second one wrong
        "questions_right_in_order": pytest.approx(1 / 3),
        "soft_tifa_am": pytest.approx(0.6),
        "soft_tifa_gm": pytest.approx((0.9 * 0.4 * 0.5) ** (1 / 3)),
        "answers_product": pytest.approx(0.9 * 0.4 * 0.5),
    }
    assert score_answers(QUESTIONS[:1], [{"yes": 0.5, "no": 0.5}])["vqa_success"] is False
    assert geometric_mean([0.5, 0.0]) == 0 and geometric_mean([0.25, 1.0]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no question was asked"):
        score_answers([], [])


def test_only_what_it_needs_itself_makes_a_question_wrong():
    # As DSG's code: through one right question, a wrong one far away does not reach
    chain = (yes_no("a?"), yes_no("b?", needs=(0,)), yes_no("c?", needs=(1,)))
    answers = [{"yes": 0.1, "no": 0.9}, {"yes": 0.9, "no": 0.1}, {"yes": 0.9, "no": 0.1}]
    assert score_answers(chain, answers)["questions_right_in_order"] == pytest.approx(1 / 3)


class Fixed:
    """Says the same to every question."""

    label, template, identity = "fixed", "Q: {}", ""

    def __init__(self, known: dict[str, float]) -> None:
        self.known, self.facts = known, {"model": "fixed"}
        self.asked: list = []

    def probabilities(self, images, asked):
        self.asked += asked
        return [[self.known.get(answer, 0.05) for _, answer in pairs] for pairs in asked]


def test_prompts_without_questions_have_the_score_of_the_whole():
    answerer = Fixed({"Yes": 0.7, "yes": 0.8, "no": 0.1, "two": 0.6})
    scorer = VqaScorer(answerer)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    prompts = [prompt("two cats", questions=QUESTIONS[:2]), prompt("a {dog}", 1, "other")]
    columns = scorer.add(prompts, images, ["a", "b"])
    assert columns["vqa_score"] == [0.7, 0.7]
    assert columns["vqa_success"] == [True, None]
    assert answerer.asked[0][:2] == [
        ('Does this figure show "two cats"? Please answer yes or no.', "Yes"),
        ("Q: is there a cat?", "yes"),
    ]
    assert answerer.asked[1] == [
        ('Does this figure show "a {dog}"? Please answer yes or no.', "Yes")
    ]
    numbers = scorer.finish()
    assert numbers["soft_tifa_am"] == pytest.approx(0.7) and numbers["vqa_success"] == 1
    assert numbers["vqa_success_val"] == 1 and math.isnan(numbers["vqa_success_other"])
    assert scorer.facts["soft_tifa_am"]["images"] == 1
    assert scorer.facts["vqa_success_other"]["undefined"]


def test_what_no_prompt_gives_is_known_before():
    evaluation = Evaluation(detector="none", extractor="none", vqa="judge")
    assert set(undefined_by_prompts(evaluation, [prompt("a cat")]).values()) == {
        "no prompt has questions"
    }
    asked = [prompt("a cat", questions=QUESTIONS[:1])]
    assert undefined_by_prompts(evaluation, asked) == {
        "questions_right_in_order": "no question depends on another"
    }


# --- the embedded world ---------------------------------------------------------------------------


def test_questions_name_all_that_a_prompt_asks_for():
    asked = ask_for(read_prompt("two small striped red circles left of a blue ring"))
    assert [(one.text, one.answer, one.skill, one.needs) for one in asked] == [
        ("Are there two red circles?", "yes", "object", ()),
        ("Is there a blue ring?", "yes", "object", ()),
        ("Are there two small red circles?", "yes", "size", (0,)),
        ("Are there two striped red circles?", "yes", "pattern", (0,)),
        ("How many red circles are there?", "two", "counting", (0,)),
        ("Is a red circle left of a blue ring?", "yes", "relation", (0, 1)),
    ]
    asked = ask_for(read_prompt("a plain red square and a large red square"))
    assert asked[0].text == "Are there two red squares?"


def make_images(split: str, count: int) -> tuple[list[Prompt], torch.Tensor]:
    """Half of them show another scene than their prompt."""
    prompts, images = [], []
    for i in range(count):
        scene = sample_scene(split, i)
        text = draw_prompt(split, i, scene).text
        shown = scene if i % 2 else sample_scene(split, i + 1)
        pixels, _ = render(shown)
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
        asked = ask_for(read_prompt(text))
        target = read_target(text)
        prompts.append(Prompt(split, i, i, text, target, 0, questions=asked))
    return prompts, torch.stack(images)


def test_answers_of_the_judge_give_its_success():
    judge = Judge.load()
    for split in ("three", "heldout", "similar"):  # Those of the default evaluation
        prompts, images = make_images(split, 24)
        vqa, direct = VqaScorer(JudgeAnswerer(judge)), JudgeScorer(judge)
        answered = vqa.add(prompts, images, [""] * len(prompts))
        judged = direct.add(prompts, images, [""] * len(prompts))
        assert answered["vqa_success"] == judged["success"]
        assert answered["vqa_score"] == [float(value) for value in judged["success"]]
        assert 0 < sum(judged["success"]) < len(prompts)
        assert vqa.finish()["vqa_success"] == direct.finish()["success"]
        assert answered["questions_right"] == answered["soft_tifa_am"]
        assert {q.skill for one in prompts for q in one.questions} == {"object"}


def test_what_else_is_asked_for_is_seen_by_its_questions():
    judge = Judge.load()
    for split, rate in (("relation", "relation_rate"), ("counting", "count_rate")):
        prompts, images = make_images(split, 16)
        answered = VqaScorer(JudgeAnswerer(judge)).add(prompts, images, [""] * 16)
        judged = JudgeScorer(judge).add(prompts, images, [""] * 16)
        both = [
            right and held is not False
            for right, held in zip(judged["success"], judged[rate], strict=True)
        ]
        assert answered["vqa_success"] == both


# --- settings -------------------------------------------------------------------------------------


def test_a_model_is_asked_once_and_its_answers_are_kept(tmp_path: Path):
    folder = make_qwen(tmp_path / "tiny-qwen")
    evaluation = Evaluation(detector="none", extractor="none", vqa=str(folder))
    asked = [prompt("two cats", questions=QUESTIONS)]
    images = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    found = []
    for _ in range(2):
        context = ScoringContext(evaluation, asked, None, tmp_path / "cache")
        (scorer,) = build_scorers(context)["vqa"]
        found.append(scorer.add(asked, images, ["a"]))
        count = scorer.answerer.asked
    assert found[0] == found[1] and count == 0
    assert 0 < found[0]["vqa_score"][0] < 1
    numbers = scorer.finish()
    assert scorer.facts["soft_tifa_gm"]["model"] == "tiny-qwen"
    assert scorer.facts["vqa_score"]["template"].startswith("Does this figure show")
    assert numbers["soft_tifa_gm"] <= numbers["soft_tifa_am"]
    (kept,) = (tmp_path / "cache" / "answers").iterdir()
    assert len(list(kept.glob("*.jsonl"))) == 1


def test_labels_say_how_often_success_errs(tmp_path: Path):
    path = tmp_path / "errors.json"
    path.write_text(json.dumps({"sensitivity": [45, 50], "specificity": [38, 40]}))
    rates = ErrorRates((45, 50), (38, 40))
    assert read_rates(path, ["vqa_success", "fid"]) == {"vqa_success": rates}
    labels = tmp_path / "labels.csv"
    rows = ["right,right"] * 9 + ["right,wrong"] + ["wrong,wrong"] * 5
    labels.write_text("\n".join(["label,verdict", *rows]))
    assert read_rates(labels, ["success"]) == {"success": ErrorRates((9, 10), (5, 5))}
    evaluation = Evaluation(detector="none", extractor="none", vqa="judge", judge_errors=str(path))
    asked = [prompt("a red circle", questions=ask_for(read_prompt("a red circle")))]
    (scorer,) = build_scorers(ScoringContext(evaluation, asked, None, tmp_path))["vqa"]
    assert isinstance(scorer, CorrectedScorer)
    scorer.add(asked, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a"])
    scorer.finish()
    expected = {"sensitivity": [45, 50], "specificity": [38, 40]}
    assert scorer.facts["vqa_success"]["errors"] == expected
    assert scorer.facts["vqa_success_val"]["errors"] == expected
    assert "errors" not in scorer.facts["vqa_score"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "a.json: no JSON"),
        ("a.json", "[]", r"a.json: \[\]; expected"),
        ("a.json", '{"sensitivity": [3, 2], "specificity": [1, 2]}', "expected"),
        ("a.json", '{"sensitivity": [1, 2], "specificity": [1, 2]}', "as often"),
        ("a.json", '{"fid": {"sensitivity": [2, 2], "specificity": [1, 2]}}', "expected"),
        ("a.csv", "label,verdict\nright,right\nmaybe,right\n", "a.csv:3: label 'maybe', verdict"),
    ],
)
def test_rates_that_say_nothing_are_refused(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_rates(tmp_path / name, ["success"])
    assert "\n" not in str(raised.value)


def test_rates_of_two_judges_are_told_apart(tmp_path: Path):
    path = tmp_path / "errors.json"
    path.write_text('{"sensitivity": [2, 2], "specificity": [2, 2]}')
    with pytest.raises(ValueError, match="by evaluation.detector and by evaluation.vqa"):
        read_rates(path, ["success", "vqa_success"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rates(tmp_path / "none.json")
