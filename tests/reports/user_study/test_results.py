from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.user_study.analysis import analyse
from reports.user_study.answers import Answer, Gathered, Item, Key, gather
from reports.user_study.results import write
from reports.user_study.wording import conclusion, facts, rule, warning


@pytest.fixture
def study_of(
    key: Key, saved: Callable[..., Any], save: Callable[..., Path]
) -> Callable[..., Gathered]:
    """Answers of so many participants who all say the same of each pair."""

    def answers(people: int, choice: int | None, *, careless: int = 0) -> Gathered:
        for number in range(people):
            say = saved(
                f"{number:032d}",
                lambda item, question: (choice, (4, 2)),
                attentive=number >= careless,
            )
            folder = save(f"{number}.json", say)
        return gather(folder, key)

    return answers


def test_all_files_are_written_and_agree(study_of: Callable[..., Gathered], tmp_path: Path) -> None:
    gathered = study_of(6, 1, careless=1)
    said = write(gathered, tmp_path / "results")
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {
        "user_study.csv",
        "user_study.md",
        "user_study.json",
        "user_study.pdf",
        "items.csv",
        "answers.csv",
    }
    told = json.loads(
        (tmp_path / "results" / "user_study.json").read_text(encoding="utf-8"),
        parse_constant=pytest.fail,
    )
    assert (
        told["questions"][0]["preference"]["share"] == 0.0
        and told["questions"][0]["alpha_choice"] is None
    )
    rows = list(
        csv.DictReader(
            io.StringIO((tmp_path / "results" / "user_study.csv").read_text(encoding="utf-8"))
        )
    )
    preference = next(
        row for row in rows if row["question"] == "text" and row["measure"] == "preference"
    )
    assert (
        preference["cell"] == "target"
        and float(preference["value"]) == 0.0
        and float(preference["clustered_high95"]) > 0.4
    )
    answers = list(
        csv.DictReader(
            io.StringIO((tmp_path / "results" / "answers.csv").read_text(encoding="utf-8"))
        )
    )
    assert (
        len(answers) == 36
        and {row["choice"] for row in answers} == {"blank"}
        and {row["rating_right_cell"] for row in answers} == {"2"}
    )
    text = (tmp_path / "results" / "user_study.md").read_text(encoding="utf-8")
    assert "# User study: mask\\_vs\\_blank" in text and "a red circle 3" in text
    assert "0 / 24 / 0" in said and "0 / 24 / 0" in text and "p, people" in said
    pdf = (tmp_path / "results" / "user_study.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_the_answer_claims_what_the_rule_allows(key: Key) -> None:
    pairs = {
        f"item{i}": Item(f"prompt {i}", "val", 0, "pair", False, (f"{i}a", f"{i}b"))
        for i in range(12)
    }

    def said(people: int) -> str:
        places = [(f"p{p}", name) for p in range(people) for name in pairs]
        answers = [
            Answer(*place, "text", 1, "left", (2, 4), 1.0, n) for n, place in enumerate(places)
        ]
        return conclusion(
            analyse(Gathered(replace(key, items=pairs), [f"p{p}" for p in range(people)], answers))
        )

    assert said(8) == (
        "“Which fits?” blank is preferred to target in 100.0 % of the 96 answers that choose (95 % interval 58.9 to 100.0); "
        "0 of 96 say “no difference”."
    )
    assert said(4).startswith(
        "“Which fits?” No preference can be claimed: blank has 100.0 % of the 48 answers that choose (95 %"
    )


def test_any_name_can_be_set(
    study_of: Callable[..., Gathered], key: Key, special: str, tmp_path: Path
) -> None:
    gathered = study_of(6, 0)
    names = (
        special,
        "bias=0.0, surrogate=released, protect=none, and_a_name_that_does_not_end_" + "x" * 80,
    )
    gathered.key = replace(
        key, cells=names, sweep=special, questions={"text": special, "mask": special}
    )
    write(gathered, tmp_path / "results")
    assert (tmp_path / "results" / "user_study.pdf").read_bytes().startswith(b"%PDF")
    heading = (tmp_path / "results" / "user_study.md").read_text(encoding="utf-8").splitlines()[0]
    assert "<b>" not in heading.replace("\\<b\\>", "")


def test_nobody_sees_a_difference(study_of: Callable[..., Gathered], tmp_path: Path) -> None:
    gathered = study_of(5, None)
    assert conclusion(analyse(gathered)).startswith(
        "“Which fits?” All 20 answers were “no difference”."
    )
    assert "50.0" in write(gathered, tmp_path / "results")


def test_few_participants_warn(study_of: Callable[..., Gathered], tmp_path: Path) -> None:
    assert warning(analyse(study_of(1, 0))).startswith("only one participant: too few")
    said = write(study_of(4, 0), tmp_path / "results")
    assert said.startswith("warning: only 4 participants")
    assert warning(analyse(study_of(5, 0))) == ""


def test_the_rule_names_the_interval_to_quote(study_of: Callable[..., Gathered]) -> None:
    said = rule(analyse(study_of(6, 0)))
    assert (
        said.startswith("Quote the clustered interval.")
        and "The 24 answers that choose are worth about 4 independent ones" in said
    )


def test_facts_name_what_was_left_out(
    study_of: Callable[..., Gathered],
    saved: Callable[..., Any],
    save: Callable[..., Path],
    key: Key,
) -> None:
    study_of(5, 0, careless=2)
    save("half.json", saved("x", lambda item, question: (0, (3, 3)), stop=2))
    told = dict(facts(analyse(gather(save("torn.json", "{"), key))))
    assert (
        "half.json: unfinished: 2 of 7 questions answered" in told["Left out"]
        and "torn.json: cannot be read" in told["Left out"]
    )
    assert (
        told["Attention"].startswith("2 of 5 checks failed, by 2 of the participants counted")
        and "without them target has 100.0 %" in told["Attention"]
    )
    assert (
        told["Items"]
        == "4 pairs, drawn at random from the 9 that both cells kept; 2 that were equal in every pixel were left out"
    )
    assert "all 5 checks passed" in dict(facts(analyse(study_of(5, 0))))["Attention"]
