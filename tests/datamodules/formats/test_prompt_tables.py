"""Prompts with questions, and tables of prompts, in every form in which people have them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import question_files as files
from helpers.question_files import as_csv, as_lines, write_oneig, write_parquet, write_text

from datamodules import PromptDataModule
from datamodules.formats import benchmarks
from datamodules.formats.benchmarks import digest_texts, recognise
from datamodules.formats.index import DataError, Problems
from datamodules.formats.prompt_files import PromptFile, read_prompts, read_sources
from datamodules.formats.questions import NUMBERS, Question


def read(path: Path, problems: Problems | None = None, **more: str) -> PromptFile:
    (file,), left = read_sources([path], "auto", problems or Problems("raise"), **more)
    assert left == []
    return file


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["lines", "list", "parquet"])
def test_questions_answers_and_skills_of_each_atom(tmp_path: Path, form: str):
    path = tmp_path / f"geneval2_data.{'parquet' if form == 'parquet' else 'jsonl'}"
    if form == "parquet":
        write_parquet(path, files.GENEVAL2)
    else:
        as_text = {"lines": as_lines, "list": lambda rows: json.dumps(rows, indent=4)}[form]
        write_text(path, as_text(files.GENEVAL2))
    file = read(path)
    assert file.facts["kind"] == "geneval2" and file.facts["questions"] == 7
    first, second = file.records
    assert (first.atoms, first.task, second.atoms) == (5, "5 atoms", 3)
    assert first.questions[0] == Question("How many cows are in the image?", "four", skill="count")
    assert first.questions[0].alternatives == NUMBERS
    assert first.questions[1].alternatives == ("yes", "no")
    assert first.skills == ("count", "attribute", "object", "position")


def test_a_question_a_row_with_what_it_depends_on(tmp_path: Path):
    path = write_text(tmp_path / "dsg-1k-anns.csv", as_csv(files.DSG))
    problems = Problems("skip")
    file = read(path, problems)
    assert (file.facts["kind"], file.facts["prompts"], file.facts["questions"]) == ("dsg", 3, 5)
    cube, pose, again = file.records
    assert [question.needs for question in cube.questions] == [(), (0, 2), (0,)]
    assert [question.skill for question in cube.questions] == ["entity", "attribute", "attribute"]
    assert (cube.category, cube.name, cube.place) == ("whoops", "whoops_5", f"{path}:2")
    # Two items of one text are two prompts
    assert pose.text == again.text and [len(one.questions) for one in (pose, again)] == [1, 1]
    assert problems.counts == {"dependency on no question": 2}
    assert "'right' of question 3" in problems.examples["dependency on no question"][0]
    with pytest.raises(DataError, match=r"csv:4: dependency on no question: 'right'"):
        read(path)


def test_a_question_a_row_with_choices(tmp_path: Path):
    path = write_text(tmp_path / "questions.json", json.dumps(files.TIFA, indent=4))
    file = read(path)
    surfer, cats = file.records
    assert (file.facts["kind"], surfer.category, cats.category) == ("tifa", "coco", "drawbench")
    assert surfer.questions[1] == Question(
        "what color is the board?", "white", ("white", "red"), skill="color"
    )
    assert surfer.skills == ("animal/human", "color") and surfer.tags == {"coco_val_id": "380711"}
    assert (surfer.place, cats.place) == (f"{path}:2", f"{path}:27")
    rows = [row | {"answer": "blue"} for row in files.TIFA[:1]]
    with pytest.raises(DataError, match=r"x.json:1: wrong questions: answer 'blue' of 'is this"):
        read(write_text(tmp_path / "x.json", json.dumps(rows)))


def test_a_list_of_questions_to_which_yes_is_right(tmp_path: Path):
    path = write_text(tmp_path / "100_sentences_k=3.json", json.dumps(files.CONCEPTMIX, indent=4))
    (record,) = read(path).records
    assert (record.text, record.task) == (files.CONCEPTMIX[0]["sentence"], "k=3")
    assert [question.text for question in record.questions] == [
        "Is there a cake?",
        "Is it tiny?",
        "Is it heart-shaped?",
    ]
    assert record.skills == ("shape", "size", "texture")


def test_questions_that_lie_in_other_files(tmp_path: Path):
    file = read(write_oneig(tmp_path))
    bedroom, girl, menu = file.records
    assert file.facts["kind"] == "oneig" and bedroom.questions[1].needs == (0,)
    assert girl.questions == menu.questions == () and menu.task == "menu"
    assert menu.text == 'A menu that says "tea"'


def test_attributes_are_asked_for_with_their_things(tmp_path: Path):
    path = write_text(tmp_path / "color_val.txt", "a green bench and a blue bowl\r\n")
    assert [question.text for question in read_prompts(path)[0].questions] == [
        "a green bench?",
        "a blue bowl?",
    ]
    path = write_text(tmp_path / "spatial_val.txt", "a cat on the left of a dog\n")
    assert read_prompts(path)[0].questions == ()


def test_own_lines_have_questions_skills_and_whatever_else(tmp_path: Path):
    line = {
        "prompt": "two cats near a ball",
        "questions": [
            "are there cats?",
            ["how many cats are there?", "two"],
            {"question": "where?", "answer": "left", "choices": ["left", "right"], "needs": [0]},
            {"question": "is it night?", "answer": False, "skill": "light"},
        ],
        "skills": ["pets"],
        "atom_count": 3,
        "source": {"by": "me"},
    }
    (record,) = read(write_text(tmp_path / "mine.jsonl", as_lines([line]))).records
    assert [(q.text, q.answer, q.choices, q.needs) for q in record.questions] == [
        ("are there cats?", "yes", (), ()),
        ("how many cats are there?", "two", (), ()),
        ("where?", "left", ("left", "right"), (0,)),
        ("is it night?", "no", (), ()),
    ]
    assert record.skills == ("pets", "light") and record.atoms == 3
    assert record.tags == {"source": {"by": "me"}}


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_have_their_prompts_in_a_column_of_many_names(tmp_path: Path, end: str):
    parti = read(write_text(tmp_path / "PartiPrompts.tsv", as_csv(files.PARTI, "\t", end)))
    first, second = parti.records
    assert first.text == '"G I G" painted on a wall', "quotes are words on the wall"
    assert (first.category, first.task) == ("Illustrations", "Writing & Symbols")
    assert second.tags == {"Note": "Two meanings"} and parti.facts["tags"] == ["Note"]
    draw = read(write_text(tmp_path / "drawbench.csv", as_csv(files.DRAWBENCH, end=end)))
    assert [one.text for one in draw.records] == [row["Prompts"] for row in files.DRAWBENCH]
    (hrs,) = read(write_text(tmp_path / "counting.csv", as_csv(files.HRS, end=end))).records
    assert hrs.text == files.HRS[0]["synthetic_prompt"] and hrs.tags["n1"] == "2"


def test_a_column_can_be_named(tmp_path: Path):
    path = write_text(tmp_path / "counting.csv", as_csv(files.HRS))
    (record,) = read(path, column="vanilla_prompt").records
    assert record.text == "2 cats and 1 chair"
    with pytest.raises(DataError, match=r"data.column=vanilla: there is none; found meta_prompt,"):
        read(path, column="vanilla")
    path = write_text(tmp_path / "mine.txt", "a cat\n")
    with pytest.raises(DataError, match="data.column=text: there are no columns in a file of text"):
        read(path, column="text")
    module = PromptDataModule(tmp_path / "counting.csv", column="vanilla_prompt")
    module.setup()
    assert module.train_set.texts() == ["2 cats and 1 chair"]


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("a.json", '["a cat", "a dog"]', ["a cat", "a dog"]),
        ("a.json", '{"x1": "a cat", "x2": "a dog"}', ["a cat", "a dog"]),
        ("a.json", '{"x1": {"prompt": "a cat"},\n "x2": {"prompt": "a dog"}}', ["a cat", "a dog"]),
        ("a.json", '{"version": 1, "prompts": ["a cat"]}', ["a cat"]),
        ("a.json", '{\n "prompt": "a cat"\n}', ["a cat"]),
        ("a.json", '{"caption": "a cat"}', ["a cat"]),
        ("a.csv", 'text,n\n"a cat,\nasleep",1\n', ["a cat, asleep"]),
        ("a.csv", "Prompt\na cat\n\n", ["a cat"]),
        ("a.tsv", 'n\tcaption\n1\t"a ""big"" cat"\n', ['a "big" cat']),
    ],
)
def test_documents_of_any_form(tmp_path: Path, name: str, text: str, prompts: list[str]):
    records = read_prompts(write_text(tmp_path / name, text))
    assert [record.text for record in records] == prompts


def test_rows_that_cannot_be_read_are_left_out_with_their_place(tmp_path: Path):
    path = write_text(tmp_path / "a.csv", "prompt,n\na cat,1\na dog, asleep,2\n,3\na bus\n")
    problems = Problems("skip")
    assert [one.text for one in read(path, problems).records] == ["a cat", "a bus"]
    examples = [where for places in problems.examples.values() for where in places]
    assert examples[0].startswith(f"{path}:3: 3 cells, 2 in the header: quote those")
    assert examples[1].startswith(f"{path}:4: no 'prompt': found n")


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_of_one_prompt_files_is_one_set(tmp_path: Path):
    for i, text in enumerate(("a cat", "a dog\n", "a bus\r\n")):
        write_text(tmp_path / "prompts" / f"whoops{i}.txt", text)
    write_text(tmp_path / "prompts" / "README.txt", "about\nthem\n")
    (file,), left = read_sources([tmp_path / "prompts"], "auto", Problems("raise"))
    assert file.name == "prompts" and file.facts["file"] == str(tmp_path / "prompts")
    assert [record.text for record in file.records] == ["a cat", "a dog", "a bus"]
    assert file.records[1].place == f"{tmp_path / 'prompts' / 'whoops1.txt'}:1"
    assert [Path(path).name for path in left] == ["README.txt"]


def test_shards_are_one_set_and_a_folder_of_data_is_looked_into(tmp_path: Path):
    for i, row in enumerate(files.DRAWBENCH):
        write_parquet(tmp_path / "data" / f"train-0000{i}-of-00002.parquet", [row])
    write_text(tmp_path / "README.md", "about")
    file = read(tmp_path)
    assert (file.name, len(file.records)) == ("train", 2)


def test_a_saved_dataset_is_read(tmp_path: Path):
    table = pa.Table.from_pylist([{"caption": "a cat", "image": {"bytes": b"x", "path": None}}])
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        file = str(tmp_path / split / "data-00000-of-00001.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        write_text(tmp_path / split / "state.json", "{}")
    write_text(tmp_path / "dataset_dict.json", '{"splits": ["train", "test"]}')
    sets, _ = read_sources([tmp_path], "auto", Problems("raise"))
    assert [(one.name, one.records[0].text) for one in sets] == [
        ("test", "a cat"),
        ("train", "a cat"),
    ]


def test_a_dataset_of_the_hub_is_read_from_the_cache(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo, commit = tmp_path / "datasets--me--bench", "a" * 40
    write_parquet(repo / "snapshots" / commit / "data" / "train.parquet", files.DRAWBENCH)
    write_text(repo / "refs" / "main", commit)
    (file,), _ = read_sources(["hub:me/bench"], "auto", Problems("raise"))
    assert [record.category for record in file.records] == ["Colors", "DALL-E"]
    with pytest.raises(FileNotFoundError, match="hub:me/other cannot be had.*hf download"):
        read_sources(["hub:me/other"], "auto", Problems("raise"))
    with pytest.raises(ValueError, match="expected hub:OWNER/NAME"):
        read_sources(["hub:bench"], "auto", Problems("raise"))


# --- benchmarks -----------------------------------------------------------------------------------


def test_a_benchmark_has_its_name_where_all_its_prompts_are_there(tmp_path: Path, monkeypatch):
    texts = [row["prompt"] for row in files.GENEVAL2]
    monkeypatch.setitem(benchmarks.PUBLISHED, digest_texts(texts), ("Twice", 4))
    path = write_text(tmp_path / "a.jsonl", as_lines(files.GENEVAL2[::-1]))
    known = read(path).records[0].benchmark
    assert known is not None and (known.name, known.images) == ("Twice", 4)
    assert known.tasks == {"3 atoms": 1, "5 atoms": 1} and known.why_not({"3 atoms": 1})
    path = write_text(tmp_path / "b.jsonl", as_lines(files.GENEVAL2[:1]))
    assert read(path).records[0].benchmark is None
    assert recognise([("a cat", "")]) is None


# Of each published file: SHA-256, kind, prompts, questions, benchmark
PUBLISHED = {
    "geneval2_data.jsonl": (
        "09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43",
        ("geneval2", 800, 6012, "GenEval 2"),
    ),
    "PartiPrompts.tsv": (
        "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
        ("table", 1632, 0, "PartiPrompts"),
    ),
    "dsg-1k-anns.csv": (
        "b7ce06ea8a0478ccfd8fba105ecd26d7d301eb99d5c412987546c4cc8e08917a",
        ("dsg", 1060, 8182, "DSG-1k"),
    ),
    "tifa_v1.0_text_inputs.json": (
        "650281d508b056ac9782bc84d5493626424ee851a8778af90b9db554cfbc1a0f",
        ("table", 4081, 0, "TIFA v1.0"),
    ),
    # The two prompts of TIFA's repository, in the form of its file of questions
    "sample_question_answers.json": (
        "99b7ffd220d5252de6e729786af057165a97cc8dbc715d9548c25f6842e14fe5",
        ("tifa", 2, 19, None),
    ),
    "OneIG-Bench.csv": (
        "e06c65b32252d82406fb1a27f13022b38d432c899a2486eb49ab0c100f83b3e1",
        ("oneig", 1120, 11231, "OneIG-Bench"),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_open(name: str):
    """Where they lie in the folder that PUBLISHED_PROMPTS names (OneIG's Q_D beside its table)."""
    path = Path(os.environ.get("PUBLISHED_PROMPTS", "/nowhere")) / name
    if not path.is_file():
        pytest.skip("no published files: set PUBLISHED_PROMPTS to their folder")
    digest, expected = PUBLISHED[name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    file = read(path, Problems("skip"))
    (benchmark,) = {record.benchmark for record in file.records}
    found = (file.facts["kind"], len(file.records), file.facts.get("questions", 0))
    assert (*found, benchmark.name if benchmark else None) == expected


def test_the_data_know_atoms_skills_and_questions(tmp_path: Path):
    path = write_text(tmp_path / "a.jsonl", as_lines(files.GENEVAL2))
    module = PromptDataModule(path)
    module.setup()
    dataset = module.eval_sets["a"]
    assert [dataset.count_atoms(i) for i in (0, 1)] == [5, 3]
    assert Counter(dataset.skills(0)) == Counter(["count", "attribute", "object", "position"])
    assert [len(dataset.questions(i)) for i in (0, 1)] == [5, 2]
    # Who asks other questions measures something else
    rows = [row | {"vqa_list": row["vqa_list"][::-1]} for row in files.GENEVAL2]
    other = PromptDataModule(write_text(tmp_path / "b.jsonl", as_lines(rows)))
    other.setup()
    assert other.train_set.digest() != module.train_set.digest()
