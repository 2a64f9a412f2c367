"""Flickr30k Entities: sentences with marked phrases, boxes, and captions as English is written,
under which phrases stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.flickr_files import thing, write_boxes

from datamodules.formats.entities import (
    Sentence,
    Span,
    carry,
    detokenise,
    parse_sentence,
    read_regions,
    read_unrelated,
)


def said(sentence: Sentence) -> list[tuple[str, str]]:
    return [(span.chain, sentence.text[span.start : span.end]) for span in sentence.spans]


def plain(text: str) -> str:
    return detokenise(Sentence(text)).text


def test_a_sentence_and_its_phrases():
    line = (
        "  [/EN#6727/people/other A  man] rides  [/EN#6729/vehicles/scene the subway] , "
        "[/EN#0/notvisual which] is late .\r\n"
    )
    sentence = parse_sentence(line)
    assert sentence.text == "A man rides the subway , which is late ."
    assert said(sentence) == [("6727", "A man"), ("6729", "the subway"), ("0", "which")]
    assert [span.types for span in sentence.spans] == [
        ("people", "other"),
        ("vehicles", "scene"),
        ("notvisual",),
    ]


def test_blanks_around_a_phrase_are_no_part_of_it():
    assert said(parse_sentence("Here [/EN#1/people  A man ]and[/EN#2/people a boy ].")) == [
        ("1", "A man"),
        ("2", "a boy"),
    ]
    assert parse_sentence("[/EN#1/people   ]Nobody .") == Sentence("Nobody .")


@pytest.mark.parametrize(
    "line", ["[/EN#12/people A man is here .", "[/EN#x/people A man] .", "[/EN#12/people ] ."]
)
def test_markup_that_cannot_be_read(line: str):
    with pytest.raises(ValueError, match="markup"):
        parse_sentence(line)


def test_phrases_are_carried_to_a_text_with_other_blanks():
    sentence = parse_sentence("[/EN#1/people A man 's dog] runs , [/EN#2/people he] said .")
    assert said(carry(sentence, "A man's dog runs, he said.")) == [
        ("1", "A man's dog"),
        ("2", "he"),
    ]
    with pytest.raises(ValueError, match="other words"):
        carry(sentence, "A man's dog ran, he said.")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("A dog runs .", "A dog runs."),
        ("Two young , White males", "Two young, White males"),
        ("a man 's dog does n't run , they 're late", "a man's dog doesn't run, they're late"),
        ("a dog ' s bone", "a dog's bone"),
        ("the girls ' hats", "the girls' hats"),
        ('He says " Wet paint " .', 'He says "Wet paint".'),
        ('" One " and " two " !', '"One" and "two"!'),
        ('a 5 " pipe', 'a 5 " pipe'),
        ("the ' wild ' dog", "the 'wild' dog"),
        ("He says `` hello '' ?", 'He says "hello"?'),
        ("a dog ( brown ) and -LRB- one -RRB- more", "a dog (brown) and (one) more"),
        ("player # 7 pays $ 5 , or 5 % ; wait ...", "player #7 pays $5, or 5%; wait..."),
        ("a white - haired man and / or a dog", "a white - haired man and / or a dog"),
        (". odd", ". odd"),
        ("", ""),
    ],
)
def test_captions_as_english_is_written(tokens: str, text: str):
    assert plain(tokens) == text
    assert plain(text) == text


def test_phrases_stay_on_their_words():
    line = (
        "`` [/EN#1/people The boys '] -LRB- [/EN#2/people two] -RRB- '' say "
        '[/EN#3/other " wet , paint "] , '
        "[/EN#4/people do n't] [/EN#5/other # 7] ."
    )
    sentence = detokenise(parse_sentence(line))
    assert sentence.text == '"The boys\' (two)" say "wet, paint", don\'t #7.'
    assert said(sentence) == [
        ("1", "The boys'"),
        ("2", "two"),
        ("3", '"wet, paint"'),
        ("4", "don't"),
        ("5", "#7"),
    ]


def test_a_phrase_of_a_respelled_token_covers_all_of_it():
    sentence = detokenise(Sentence("a `` b", (Span(2, 4, "1", ("other",)),)))
    assert said(sentence) == [("1", '"')]


def test_boxes_count_from_one_and_chains_have_several_or_none(tmp_path: Path):
    objects = thing(1, box=(1, 1, 10, 20)) + thing(1, 2, box=(11, 21, 96, 64)) + thing(3)
    regions = read_regions(write_boxes(tmp_path, "7", objects), (96, 64))
    assert regions.boxes == {"1": [(0, 0, 10, 20), (10, 20, 96, 64)], "2": [(10, 20, 96, 64)]}
    assert regions.empty == []


def test_boxes_beyond_the_image_are_cut_and_empty_ones_told(tmp_path: Path):
    objects = (
        thing(1, box=(0, -3, 500, 10))
        + thing(2, box=(97, 1, 120, 10))
        + thing(3, box=(20, 10, 10, 30))
    )
    regions = read_regions(write_boxes(tmp_path, "7", objects), (96, 64))
    assert regions.boxes == {"1": [(0, 0, 96, 10)]}
    assert regions.empty == [(97, 1, 120, 10), (20, 10, 10, 30)]


def test_boxes_of_an_image_that_was_resized(tmp_path: Path):
    path = write_boxes(tmp_path, "7", thing(1, box=(21, 11, 40, 30)), size=(192, 128))
    assert read_regions(path, (96, 64)).boxes == {"1": [(10, 5, 20, 15)]}
    with pytest.raises(ValueError, match="192x128 pixels, but it has 64x96"):
        read_regions(path, (64, 96))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", "no XML"),
        ("<html><body>not found</body></html>", "a file of <html>, not of <annotation>"),
        ("", "no XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "document type"),
        (
            "<annotation><object><name>1</name><bndbox><xmin>a</xmin></bndbox></object></annotation>",
            "'a' as <xmin>",
        ),
        ("<annotation><size><width>0</width><height>0</height></size></annotation>", "0x0"),
    ],
)
def test_xml_that_does_not_serve(tmp_path: Path, content: str, message: str):
    path = tmp_path / "7.xml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_regions(path, (96, 64))


def test_unrelated_captions(tmp_path: Path):
    path = tmp_path / "UNRELATED_CAPTIONS"
    path.write_bytes(b"# format: <imageID> <sentence number>\r\n129602216 5\r\n\r\n180753784 3")
    assert read_unrelated(path) == {("129602216", 5), ("180753784", 3)}
