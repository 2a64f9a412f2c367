"""Prompt files of every kind, with the traps inside."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from datamodules.formats.index import DataError, Problems
from datamodules.formats.made_prompts import make_pairs
from datamodules.formats.prompt_files import read_prompts, read_sources
from datamodules.formats.prompt_folders import Source, prompt_files
from datamodules.formats.prompt_forms import (
    ANIMALS,
    COLORS,
    OBJECTS,
    WORN,
    colored,
    counted,
    find_words,
    pair,
    plural,
    spatial,
)
from datamodules.formats.prompt_lines import PromptRecord


def write(path: Path, content: str | bytes | list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(line) + "\n" for line in content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def words(record: PromptRecord) -> list[str]:
    return [record.text[start:end] for start, end in record.phrases]


# --- texts --------------------------------------------------------------------------------

TEXT = (
    "\ufeffa cat on a mat  \r\n\r\n# a hash is no comment\r\n   \r\na cat on a mat\r\nein "
    "H\u00fcndchen\u2028im Gras\r\na dog"
)


def test_a_text_is_one_prompt_a_line(tmp_path: Path):
    path = write(tmp_path / "mine.txt", TEXT)
    records = read_prompts(path)
    assert [r.text for r in records] == [
        "a cat on a mat",
        "# a hash is no comment",
        "ein Hündchen\u2028im Gras",
        "a dog",
    ]
    assert [r.place for r in records] == [f"{path}:{line}" for line in (1, 3, 6, 7)]
    assert [r.id for r in records] == [0, 1, 2, 3] and {r.category for r in records} == {"mine"}
    assert words(records[0]) == ["cat", "mat"] and records[0].wanted is None
    assert len(read_prompts(path, keep_duplicates=True)) == 5
    (file,), _ = read_sources([path], "auto", Problems("raise"))
    assert file.facts == {
        "file": str(path),
        "kind": "text",
        "prompts": 4,
        "blank": 2,
        "duplicates": 1,
        "wanted": 0,
    }


def test_the_last_line_needs_no_end_and_any_end_will_do(tmp_path: Path):
    for i, end in enumerate(("\n", "\r\n", "\r")):
        for j, last in enumerate(("", end, end + end)):
            records = read_prompts(
                write(tmp_path / f"{i}{j}.txt", f"one red bus{end}two red buses{last}")
            )
            assert [r.text for r in records] == ["one red bus", "two red buses"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            "a caf\u00e9\na na\u00efve cat\n".encode("latin-1"),
            ("a.txt: not UTF-8 (byte 0xe9 in line 1): save it as UTF-8"),
        ),
        ("a.txt", "a cat\n".encode("utf-16"), "a.txt: UTF-16: save it as UTF-8"),
        ("a.txt", "a cat\n".encode("utf-16-le"), "a.txt: no text (it holds NUL bytes)"),
        ("a.txt", b"", "a.txt: no prompts: the file is empty"),
        ("a.txt", "\ufeff \n\n", "a.txt: no prompts: the file is blank"),
        ("a.csv", "id,prompt\n", "a.csv: no prompts: the file is without a row below its header"),
        (
            "a.xls",
            "id,prompt\n",
            (
                "found the ending .xls; known kinds, to be given where they are not recognised: "
                "text, geneval, t2i, pairs, own, table, geneval2, dsg, tifa, conceptmix, oneig"
            ),
        ),
        ("a.csv", "id,title\n1,a cat\n", "found the columns id, title; name one by data.column"),
        ("a.jsonl", '{"title": "a cat", "n": 1}\n', "found the columns title, n"),
        ("a.csv", 'id,prompt\n1,"a" cat\n', "a.csv:2: "),
        ("a.json", "[1, 2]", "no object: '1' in the list: expected an object or a prompt"),
        ("a.parquet", "no parquet", "a.parquet: cannot be read"),
    ],
)
def test_what_is_no_prompt_file_is_explained(
    tmp_path: Path, name: str, content: str | bytes, message: str
):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert (
        str(raised.value).startswith(str(path))
        and message in str(raised.value)
        and "\n" not in str(raised.value)
    )


def test_a_kind_that_is_given_is_taken(tmp_path: Path):
    assert [r.text for r in read_prompts(write(tmp_path / "a.csv", "a cat, asleep\n"), "text")] == [
        "a cat, asleep"
    ]
    assert (
        read_prompts(write(tmp_path / "color_val.txt", "a red car and a blue bus\n"), "text")[
            0
        ].category
        == "color_val"
    )
    assert (
        read_prompts(write(tmp_path / "wild.txt", "{red|blue} cat\n"))[0].text == "{red|blue} cat"
    )
    with pytest.raises(
        ValueError, match=("kind='csv': expected auto, text, geneval, t2i, pairs, own, table")
    ):
        read_prompts(tmp_path / "a.csv", "csv")
    with pytest.raises(
        DataError,
        match=(
            "category unknown: kind t2i has it from the file's name: expected one like "
            "color_val.txt, not 'a'"
        ),
    ):
        read_prompts(tmp_path / "a.csv", "t2i")
    with pytest.raises(
        FileNotFoundError,
        match=("no prompts at .*nowhere.txt: expected a file, a folder of prompt files"),
    ):
        read_prompts(tmp_path / "nowhere.txt")


# --- GenEval --------------------------------------------------------------------------------

GENEVAL: list[dict] = [
    {
        "tag": "single_object",
        "include": [{"class": "bench", "count": 1}],
        "prompt": "a photo of a bench",
    },
    {
        "tag": "two_object",
        "include": [{"class": "dog", "count": 1}, {"class": "hot dog", "count": 1}],
        "prompt": "a photo of a hot dog and a dog",
    },
    {
        "tag": "counting",
        "include": [{"class": "knife", "count": 4}],
        "exclude": [{"class": "knife", "count": 5}],
        "prompt": "a photo of four knifes",
    },
    {
        "tag": "colors",
        "include": [{"class": "car", "count": 1, "color": "blue"}],
        "prompt": "a photo of a blue car",
    },
    {
        "tag": "position",
        "include": [
            {"class": "tv", "count": 1},
            {"class": "cow", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a cow left of a tv",
    },
    {
        "tag": "color_attr",
        "include": [
            {"class": "car", "count": 1, "color": "blue"},
            {"class": "car", "count": 1, "color": "red"},
        ],
        "prompt": "a photo of a red car and a blue car",
    },
]


def test_geneval_says_what_is_wanted(tmp_path: Path):
    records = read_prompts(write(tmp_path / "evaluation_metadata.jsonl", GENEVAL))
    assert [r.wanted for r in records] == [
        {k: v for k, v in line.items() if k != "prompt"} for line in GENEVAL
    ]
    assert [r.category for r in records] == [line["tag"] for line in GENEVAL]
    assert [words(r) for r in records] == [
        ["bench"],
        ["hot dog", "dog"],
        ["knifes"],
        ["blue car"],
        ["cow", "tv"],
        ["red car", "blue car"],
    ]


def test_a_prompt_in_other_words_falls_back_on_its_noun_phrases(tmp_path: Path):
    line = GENEVAL[0] | {"prompt": "a wooden seat in a park"}
    (record,) = read_prompts(write(tmp_path / "rewritten.jsonl", [line]))
    assert words(record) == ["wooden seat", "park"] and record.wanted == {
        "tag": "single_object",
        "include": line["include"],
    }


# --- T2I-CompBench --------------------------------------------------------------------------------


def test_the_category_is_in_the_name(tmp_path: Path):
    for category in (
        "color",
        "shape",
        "texture",
        "spatial",
        "3d_spatial",
        "numeracy",
        "non_spatial",
        "complex",
    ):
        for rest in ("", "_val", "_train", "_val_seen", "_val_unseen"):
            (record,) = read_prompts(
                write(tmp_path / f"{category}{rest}.txt", "Dogs sleep.\r\n\r\n")
            )
            assert (
                record.category == category
                and record.text == "Dogs sleep."
                and record.wanted is None
            )
    for part in ("spatial", "action", "spatialaction"):
        assert (
            read_prompts(write(tmp_path / f"complex_val_{part}.txt", "A dog sleeps."))[0].category
            == "complex"
        )
    assert read_prompts(write(tmp_path / "colors.txt", "A dog sleeps."))[0].category == "colors"


@pytest.mark.parametrize(
    ("words", "relation"),
    [
        ("on the left of", "left of"),
        ("on the right of", "right of"),
        ("on the top of", "above"),
        ("on the bottom of", "below"),
        ("on side of", "on side of"),
        ("next to", "next to"),
        ("near", "near"),
        ("behind", "behind"),
        ("hidden by", "hidden by"),
    ],
)
def test_a_spatial_sentence_says_its_relation(words: str, relation: str):
    text = f"a bee {words} an airplane"
    said = spatial(text)
    assert said and said.wanted["include"] == [
        {"class": "airplane", "count": 1},
        {"class": "bee", "count": 1, "position": [relation, 0]},
    ]
    assert [text[start:end] for start, end in said.spans] == ["bee", "airplane"]


@pytest.mark.parametrize(
    "text",
    [
        ("The red hat was on top of the brown coat rack."),
        "a cat near a dog near a cow",
        "a cat and a dog",
        "a cat near the dog",
        "a photo of a cat near a dog",
        "two cats near a dog",
        "a cat near a dog and a cow",
    ],
)
def test_other_sentences_say_no_relation(text: str):
    assert spatial(text) is None


def test_spatial_files_give_relations_and_else_noun_phrases(tmp_path: Path):
    records = read_prompts(
        write(
            tmp_path / "spatial_val.txt",
            ("a girl on the top of a frog\r\nThe dog was near the red house.\r\n"),
        )
    )
    assert [words(r) for r in records] == [["girl", "frog"], ["dog", "red house"]] and records[
        1
    ].wanted is None
    assert records[0].wanted and records[0].wanted["tag"] == "spatial"
    (deep,) = read_prompts(write(tmp_path / "3d_spatial_val.txt", "a cow in front of a cow\n"))
    assert words(deep) == ["cow", "cow"] and deep.wanted and deep.wanted["tag"] == "3d_spatial"


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("two boys", {"boy": 2}),
        ("one turtle", {"turtle": 1}),
        ("eight peaches", {"peach": 8}),
        ("six fish swam in the aquarium", {"fish": 6}),
        ("four mice, three women and two people", {"mouse": 4, "woman": 3, "person": 2}),
        (
            "a backpack, three apples, two strawberries, and an egg were on the kitchen counter",
            {"backpack": 1, "apple": 3, "strawberry": 2, "egg": 1},
        ),
        ("four microphones sang a lively tune", {"microphone": 4}),
        ("three knives near two butterflies", {"knife": 3, "butterfly": 2}),
    ],
)
def test_numeracy_says_how_many(text: str, counts: dict[str, int]):
    said = counted(text)
    assert said and {t["class"]: t["count"] for t in said.wanted["include"]} == counts
    assert {t["class"]: t["count"] - 1 for t in said.wanted["exclude"]} == counts and len(
        said.spans
    ) == len(counts)
    assert all(
        plural(noun) == text[s:e] or noun == text[s:e]
        for noun, (s, e) in zip(counts, said.spans, strict=True)
    )


def test_what_is_counted_twice_or_not_at_all_is_not_wanted():
    assert (
        counted("two fish and three fish") is None
        and counted("many cats") is None
        and counted("two ideas") is None
    )


def test_colors_are_wanted_where_both_objects_have_one(tmp_path: Path):
    said = colored("a red orange and a blue cell phone")
    assert said and said.wanted["include"] == [
        {"class": "orange", "count": 1, "color": "red"},
        {"class": "cell phone", "count": 1, "color": "blue"},
    ]
    for text in (
        "a red apple and yellow bananas",
        "a stop sign and a red line",
        ("a white bathroom with a black and white shower curtain"),
    ):
        assert colored(text) is None
    records = read_prompts(
        write(
            tmp_path / "color_val.txt",
            ("a green bench and a blue bowl\r\nThe man has pink chaps.\r\n"),
        )
    )
    assert [words(r) for r in records] == [["green bench", "blue bowl"], ["man", "pink chaps"]]
    assert [r.wanted is None for r in records] == [False, True]


# --- pairs --------------------------------------------------------------------------------


def test_the_pairs_are_those_of_the_protocol():
    records = make_pairs()
    texts = [r.text for r in records]
    assert len(set(texts)) == len(texts) == 276 and [r.id for r in records] == list(range(276))
    assert Counter(r.category for r in records) == {
        "animals": 66,
        "animals_objects": 144,
        "objects": 66,
    }
    assert len(ANIMALS) == len(OBJECTS) == 12 and len(COLORS) == 11
    assert {
        "a cat and a dog",
        "a dog and a elephant",
        "a elephant with a crown",
        "a mouse with a glasses",
    } <= set(texts)
    assert sum(" with a " in text for text in texts) == 36 == 12 * len(WORN)
    for record in records:
        assert record.wanted and record.wanted["tag"] == record.category
        named = [
            f"{t['color']} {t['class']}" if "color" in t else t["class"]
            for t in record.wanted["include"]
        ]
        assert words(record) == named and len(named) == 2
        colors = [t.get("color") for t in record.wanted["include"]]
        assert {"animals": 0, "objects": 2}.get(
            record.category, 0 if " with " in record.text else 1
        ) == sum(c is not None for c in colors)
    assert {
        t["color"] for r in records if r.wanted for t in r.wanted["include"] if "color" in t
    } == set(COLORS)


def test_a_seed_draws_the_colors_of_the_pairs():
    first, again, other = ([r.text for r in make_pairs(seed)] for seed in (0, 0, 1))
    assert (
        first == again
        and first[:66] == other[:66]
        and 120 < sum(a != b for a, b in zip(first, other, strict=True)) <= 174
    )


def test_a_published_list_of_pairs_is_known_by_its_form(tmp_path: Path):
    path = write(
        tmp_path / "prompts.txt",
        ("a elephant and a rabbit\na horse with a glasses\na blue clock and a blue apple\n"),
    )
    records = read_prompts(path)
    assert [r.category for r in records] == ["animals", "animals_objects", "objects"]
    assert records[2].wanted and records[2].wanted["include"][1] == {
        "class": "apple",
        "count": 1,
        "color": "blue",
    }
    write(path, "a cat and a dog\na cat and a crown\n")
    assert {r.category for r in read_prompts(path)} == {"prompts"}
    with pytest.raises(
        DataError, match=(r"prompts.txt:2: no pair of the protocol: " r"'a cat and a crown'")
    ):
        read_prompts(path, "pairs")
    assert (
        pair("a red cat and a dog") is None
        and pair("a car and a red bow") is None
        and pair("a dog and a red spoon") is None
    )


# --- one's own --------------------------------------------------------------------------------


def test_ones_own_lines_say_as_much_as_they_like(tmp_path: Path):
    wanted = {
        "include": [
            {"class": "cat", "count": 2},
            {"class": "ball", "color": "red", "position": ["right of", 0]},
        ],
        "exclude": [{"class": "cat", "count": 3}],
    }
    records = read_prompts(
        write(
            tmp_path / "mine.jsonl",
            [
                {
                    "prompt": "two cats near a red ball",
                    "phrases": ["Cats", [16, 24]],
                    "category": "pets",
                    "id": 7,
                    "seed": 3,
                    "wanted": wanted,
                },
                {"prompt": "two cats near a red ball", "wanted": wanted},
                {"prompt": "a hot dog\u2028near a dog", "phrases": ["dog", "hot dog"]},
                {"prompt": "a dog and a dog", "phrases": ["dog", "dog"]},
                {"prompt": "a small house"},
                {"prompt": "a small house", "phrases": []},
            ],
        )
    )
    assert [words(r) for r in records] == [
        ["cats", "red ball"],
        ["cats", "red ball"],
        ["hot dog", "dog"],
        ["dog", "dog"],
        ["small house"],
        [],
    ]
    first, second = records[:2]
    assert (first.category, first.name, first.seed) == ("pets", "7", 3)
    assert (second.category, second.name, second.seed) == ("mine", "", None)
    assert first.wanted == {
        "tag": "pets",
        "exclude": [{"class": "cat", "count": 3}],
        "include": [
            {"class": "cat", "count": 2},
            {"class": "ball", "count": 1, "color": "red", "position": ["right of", 0]},
        ],
    }
    assert first.place == f"{tmp_path / 'mine.jsonl'}:1" and records[2].wanted is None


def thing(**more: object) -> dict:
    return {
        "prompt": "a cat and a dog",
        "wanted": {"include": [{"class": "cat"}, {"class": "dog", **more}]},
    }


BAD: list[tuple[object, str]] = [
    (
        {"prompt": "a cat", "phrases": ["dog"]},
        ("phrase not in the prompt: 'dog' is not in 'a cat': write it as it stands there"),
    ),
    ({"prompt": "a catfish", "phrases": ["cat"]}, "phrase not in the prompt: 'cat'"),
    ({"prompt": "a cat", "phrases": ["cat", "cat"]}, "phrase not in the prompt: 'cat'"),
    (
        {"prompt": "a cat", "phrases": [[2, 6]]},
        ("[2, 6]: expected [start, end] with 0 <= start < end <= 5"),
    ),
    (
        {"prompt": "a cat", "phrases": [[1, 5]]},
        ("[1, 5] is ' cat': expected words without blanks around them"),
    ),
    (
        {"prompt": "a cat", "phrases": [[0, 5], "cat"]},
        ("phrases overlap: 'a cat' and 'cat': name each word once"),
    ),
    (
        {"prompt": "a cat", "phrases": "cat"},
        ("phrases 'cat': expected a list of words or of [start, end]"),
    ),
    ('{"prompt": "a cat",}', "wrong JSON: "),
    ('"a cat"', "wrong value: the line is 'a cat': expected an object"),
    (
        {"prompt": "a cat", "phrase": ["cat"]},
        ("unknown key: 'phrase' in the line: expected phrases, or a name less like it"),
    ),
    ({"prompt": "a cat", "skills": "color"}, "skills 'color': expected a list of names"),
    ({"prompt": "a cat", "atom_count": 0}, "atom_count 0: expected a whole number from 1 on"),
    ({"prompt": "a cat", "questions": "is it?"}, "questions 'is it?': expected a list"),
    (
        {"prompt": "a cat", "questions": [["how many?", "two", "three"]]},
        "question 0 is ['how many?', 'two', 'three']: expected [question, answer]",
    ),
    (
        {"prompt": "a cat", "questions": [{"question": "is it?", "needs": [1]}]},
        "question 0 needs 1: expected the places of other questions, from 0 to 0",
    ),
    (
        {"prompt": "a cat", "questions": [{"question": "is it?", "need": [1]}]},
        "'need' in question 0: expected needs",
    ),
    (
        {
            "prompt": "a cat",
            "questions": [
                {"question": "a?", "needs": [1]},
                {"question": "b?", "needs": [0]},
            ],
        },
        "question 0 needs itself in the end",
    ),
    (
        {"prompt": "a cat", "questions": [{"question": "a?", "answer": "x", "choices": ["y"]}]},
        "answer 'x' of 'a?' is none of the choices y",
    ),
    ({"phrases": ["cat"]}, "prompt missing: 'prompt' is None"),
    ({"prompt": " "}, "prompt missing: 'prompt' is ' '"),
    ({"prompt": "a cat", "seed": -1}, "seed -1: expected a whole number from 0 to 999999"),
    ({"prompt": "a cat", "seed": 10**6}, "seed 1000000: expected a whole number from 0 to 999999"),
    ({"prompt": "a cat", "id": "first"}, "id given twice: 'first'"),
    ({"prompt": "a cat", "wanted": {"include": []}}, "nothing wanted: include is empty"),
    ({"prompt": "a cat", "wanted": {"include": [{"count": 1}]}}, "class missing: 'class' is None"),
    (
        {"prompt": "a cat", "wanted": {"include": ["cat"]}},
        ("a wanted thing is 'cat': expected an object with class, count, color, position"),
    ),
    (
        {"prompt": "a cat", "wanted": {"includes": []}},
        ("unknown key: 'includes' in wanted: expected include, exclude, tag"),
    ),
    (thing(count=0), "count 0 of 'dog': expected a whole number from 1 on"),
    (thing(size="big"), "unknown key: 'size' in a wanted thing"),
    (
        thing(position=["left_of", 0]),
        ("position ['left_of', 0] of 'dog': expected [relation, index of an earlier thing]"),
    ),
    (thing(position=["left of", 1]), "position ['left of', 1] of 'dog'"),
    ('{"prompt": ' * 100_000, "more levels than a prompt has"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_wrong_line_is_left_out_or_stops_with_its_place(
    tmp_path: Path, line: object, message: str
):
    text = line if isinstance(line, str) else json.dumps(line)
    path = write(
        tmp_path / "mine.jsonl",
        (f'{{"prompt": "a bird", "id": "first"}}\n\n{text}\n{{"prompt": "a bus"}}\n'),
    )
    with pytest.raises(DataError) as raised:
        read_prompts(path)
    assert str(raised.value).startswith(f"{path}:3: ") and message in str(raised.value)
    problems = Problems("skip")
    assert [(r.id, r.text) for r in read_prompts(path, problems=problems)] == [
        (0, "a bird"),
        (1, "a bus"),
    ]
    assert (
        sum(problems.counts.values()) == 1
        and f"{path}:3" in next(iter(problems.examples.values()))[0]
    )


def test_a_file_of_wrong_lines_says_what_is_wrong_with_the_first(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", '{"prompt": ""}\n{"prompt": "a cat", "seed": -1}\n')
    with pytest.raises(
        DataError,
        match=(
            r"mine.jsonl: no prompts left of 2 lines, read as own; the first: .*mine.jsonl:1: "
            r"prompt missing"
        ),
    ):
        read_prompts(path, problems=Problems("skip"))


ENDS = "\u2028\u2029\x85\x0b\x0c\x1c"


@pytest.mark.parametrize("end", [*ENDS, "\n", "\r"])
def test_a_prompt_is_one_line_and_its_phrases_stay_in_place(tmp_path: Path, end: str):
    line = {"prompt": f"a cat{end}and a dog", "phrases": [[2, 5], "dog"], "category": f"a{end}b"}
    (record,) = read_prompts(write(tmp_path / "own.jsonl", [line]))
    assert (record.text, words(record)) == ("a cat and a dog", ["cat", "dog"])
    assert record.category == "a b"


def test_lines_that_differ_in_more_than_the_prompt_are_no_duplicates(tmp_path: Path):
    path = write(tmp_path / "mine.jsonl", [{"prompt": "a cat", "seed": seed} for seed in (1, 2, 1)])
    assert [r.seed for r in read_prompts(path)] == [1, 2]


# --- folders --------------------------------------------------------------------------------


def names(paths: list[Path] | list[Source]) -> list[str]:
    return [(one.path if isinstance(one, Source) else one).name for one in paths]


def test_of_a_benchmark_folder_the_prompts_that_count_are_read(tmp_path: Path):
    text = "a red car and a blue bus\n"
    for name in (
        "color",
        "color_train",
        "color_val",
        "color_val_seen",
        "color_val_unseen",
        "complex_val_action",
        "complex_val_spatial",
        "complex_train",
        "shape",
        "shape_train",
        "new_objects",
    ):
        write(tmp_path / f"{name}.txt", text)
    chosen, left = prompt_files(tmp_path)
    assert names(chosen) == [
        "color_val.txt",
        "complex_val_action.txt",
        "complex_val_spatial.txt",
        "shape.txt",
    ]
    assert "color_val_seen.txt" in names(left) and "new_objects.txt" in names(left)


def test_geneval_metadata_stand_for_the_texts_beside_them(tmp_path: Path):
    write(tmp_path / "evaluation_metadata.jsonl", GENEVAL)
    write(tmp_path / "generation_prompts.txt", "".join(line["prompt"] + "\n" for line in GENEVAL))
    write(tmp_path / "object_names.txt", "person\nbicycle\n")
    assert [r.category for r in read_prompts(tmp_path)] == [line["tag"] for line in GENEVAL]
    assert names(prompt_files(tmp_path)[1]) == ["generation_prompts.txt", "object_names.txt"]


def test_a_folder_of_texts_is_read_whole_but_for_what_cannot_be(tmp_path: Path):
    write(tmp_path / "b.txt", "a dog\n")
    write(tmp_path / "a.txt", "a cat\na cat\n")
    write(tmp_path / "c.txt", b"\xff\xfea\0")
    write(tmp_path / "README.txt", "how to\n")
    problems = Problems("skip")
    records = read_prompts(tmp_path, problems=problems)
    assert [(r.id, r.text, r.category) for r in records] == [(0, "a cat", "a"), (1, "a dog", "b")]
    assert problems.examples == {
        "unusable file": [(f"{tmp_path / 'c.txt'}: UTF-16: save it as UTF-8")]
    }
    with pytest.raises(DataError, match="c.txt: unusable file: UTF-16"):
        read_prompts(tmp_path)


def test_a_folder_without_prompts_is_explained(tmp_path: Path):
    write(tmp_path / "images" / "1.png", b"")
    with pytest.raises(
        DataError,
        match=r"no prompt files: looked for \*.jsonl, .* and \*.txt, found images",
    ):
        read_prompts(tmp_path)


def test_words_belong_to_the_longest_name():
    text = "a dog, a hot dog and a dog"
    assert find_words(text, [["dog"], ["hot dog"], ["dog"]]) == [(2, 5), (9, 16), (23, 26)]
    assert find_words(text, [["cat"], ["Dog"]]) == [None, (2, 5)]


@pytest.mark.parametrize("line", [{"prompt": "a \ud800 cat"}, {"prompt": "a cat", "id": "\udfff"}])
def test_half_a_character_is_refused_before_anything_is_drawn(tmp_path: Path, line: dict):
    with pytest.raises(DataError, match="half a character"):
        read_prompts(write(tmp_path / "own.jsonl", [line]))
