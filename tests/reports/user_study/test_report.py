from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.user_study.analysis import analyse
from reports.user_study.answers import PairAnswer, Responses, StudyItem, StudyKey, read_responses
from reports.user_study.report import write_analysis
from reports.user_study.words import conclude_study, list_facts, state_rule, warn


def test_all_files_are_written_and_agree(respond: Any, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shown = write_analysis(respond(6, 1, careless=1), folder)
    names = {f"user_study.{form}" for form in ("csv", "md", "json", "pdf")}
    assert {path.name for path in folder.iterdir()} == names | {"items.csv", "answers.csv"}
    texts = {
        path.name: path.read_text("utf-8") for path in folder.iterdir() if path.suffix != ".pdf"
    }

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(texts[name])))

    everything = json.loads(texts["user_study.json"], parse_constant=pytest.fail)
    question = everything["questions"][0]
    assert question["preference"]["share"] == 0.0 and question["alpha_choice"] is None
    measures = {(row["question"], row["measure"]): row for row in rows("user_study.csv")}
    preference = measures["text", "preference"]
    assert preference["cell"] == "target" and float(preference["value"]) == 0.0
    assert preference["n"] == "24" and float(preference["clustered_high95"]) > 0.4
    assert float(measures["text", "rating_difference"]["value"]) == 2.0
    answers = rows("answers.csv")
    assert len(answers) == 36 and {row["choice"] for row in answers} == {"blank"}
    assert {row["rating_right_cell"] for row in answers} == {"2"}
    markdown = texts["user_study.md"]
    assert "# User study: mask\\_vs\\_blank" in markdown and "a red circle 3" in markdown
    assert "0 / 24 / 0" in shown and "0 / 24 / 0" in markdown and "p, people" in shown
    pdf = (folder / "user_study.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_the_answer_claims_what_the_rule_allows(key: StudyKey) -> None:
    names = [f"item{i}" for i in range(12)]
    pairs = {n: StudyItem(n, "val", 0, "pair", False, (f"{n}a", f"{n}b")) for n in names}

    def conclude(people: int) -> str:
        participants = [f"p{p}" for p in range(people)]
        answers = [
            PairAnswer(person, name, "text", 1, "left", (2, 4), 1.0, n)
            for person in participants
            for n, name in enumerate(names)
        ]
        return conclude_study(analyse(Responses(replace(key, items=pairs), participants, answers)))

    text = conclude(8)
    assert "blank is preferred to target in 100.0 % of the 96 answers" in text
    assert "(95 % interval 58.9 to 100.0); 0 of 96 say “no difference”" in text
    assert "No preference can be claimed: blank has 100.0 % of the 48 answers" in conclude(4)


def test_any_name_can_be_set(respond: Any, key: StudyKey, special: str, tmp_path: Path) -> None:
    responses = respond(6, 0)
    names = (special, "bias=0.0, and_a_name_that_does_not_end_" + "x" * 80)
    questions = {"text": special, "mask": special}
    responses.key = replace(key, cells=names, sweep=special, questions=questions)
    write_analysis(responses, tmp_path / "results")
    assert (tmp_path / "results" / "user_study.pdf").read_bytes().startswith(b"%PDF")
    heading = (tmp_path / "results" / "user_study.md").read_text(encoding="utf-8").splitlines()[0]
    assert "<b>" not in heading.replace("\\<b\\>", "")


def test_nobody_sees_a_difference(respond: Any, tmp_path: Path) -> None:
    responses = respond(5, None)
    assert "All 20 answers were “no difference”" in conclude_study(analyse(responses))
    assert "50.0" in write_analysis(responses, tmp_path / "results")


def test_few_participants_warn(respond: Any) -> None:
    warnings = [warn(analyse(respond(people, 0))) for people in (1, 4, 5)]
    assert warnings[0].startswith("only one participant: too few")
    assert warnings[1].startswith("only 4 participants") and warnings[2] == ""


def test_the_rule_names_the_interval_to_quote(respond: Any) -> None:
    rule = state_rule(analyse(respond(6, 0)))
    assert rule.startswith("Quote the clustered interval.")
    assert "The 24 answers that choose are worth about 4 independent ones" in rule


def test_facts_name_what_was_left_out(respond: Any, saved: Any, save: Any, key: StudyKey) -> None:
    respond(5, 0, careless=2)
    save("half.json", saved("d" * 32, lambda *_: (0, (3, 3)), stop=2))
    facts = dict(list_facts(analyse(read_responses(save("torn.json", "{"), key))))
    assert "half.json: unfinished: 2 of 7 questions answered" in facts["Left out"]
    assert "torn.json: cannot be read" in facts["Left out"]
    assert facts["Attention"].startswith("2 of 5 checks failed, by 2 of the participants counted")
    assert "without them target has 100.0 %" in facts["Attention"]
    assert facts["Items"].startswith("4 pairs, drawn at random from the 9 that both cells kept")
    assert "2 left out, equal in every pixel" in facts["Items"]
    assert "5 checks, all passed" in dict(list_facts(analyse(respond(5, 0))))["Attention"]
