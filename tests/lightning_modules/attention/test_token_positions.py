"""Positions of phrases against the spelling of the tokens that stand there, and kinds of tokens
whatever the padding."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.token_types import list_token_types

from lightning_modules.attention.token_positions import common_token_indices, phrase_token_indices
from lightning_modules.attention.token_types import BOS, EOS, PADDING, WORD
from lightning_modules.embedded.pipeline import CONTEXT

ADDED = ["<asset0>", "<asset1>"]


def build(folder: Path, **settings: Any) -> Any:
    from lightning_modules.embedded.pipeline import build_tokenizer

    return build_tokenizer(folder, **settings)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The embedded world's: few tokens, padded with EOS; words that it does not know are split."""
    return build(tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """77 tokens with two placeholders, the second padded with "!" as SDXL's."""
    first = build(tmp_path_factory.mktemp("first"), length=77)
    second = build(tmp_path_factory.mktemp("second"), length=77, pad_token="!")
    for tokenizer in (first, second):
        assert tokenizer.add_tokens(ADDED) == 2
    return [first, second]


def encode(tokenizer: Any, caption: str) -> list[int]:
    return tokenizer(caption, padding="max_length", truncation=True).input_ids


def spelled(tokenizer: Any, caption: str, positions: list[int]) -> str:
    """What the tokens at these positions of the encoded caption say, without spaces."""
    ids = encode(tokenizer, caption)
    return "".join(tokenizer.decode([ids[i] for i in positions]).split())


def test_words_of_one_token(short: Any):
    caption = "a red circle left of an orange square"
    assert phrase_token_indices(
        short, caption, ["red circle", "orange square", "left of", "a", "an"]
    ) == [[2, 3], [7, 8], [4, 5], [1], [6]]
    assert phrase_token_indices(short, caption, []) == []


def test_words_of_many_tokens(short: Any, pair: list[Any]):
    # h-e-x-a-g-on, and circle-d, whose merges are those of "circles" as far as they go.
    assert [
        len(p)
        for p in phrase_token_indices(short, "a hexagon and circled", ["hexagon", "circled", "and"])
    ] == [6, 2, 1]
    caption, words = "a zebra on two circles next to an orange hexagon of 42 squares and a", []
    at = 1
    for word in caption.split():
        count = len(short(word, add_special_tokens=False).input_ids)
        words.append(list(range(at, at + count)))
        at += count
    assert phrase_token_indices(pair[0], caption, caption.split()) == words


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        (
            "A Red CIRCLE, left of (an orange square).",
            ["red circle", "ORANGE square", "a", "circle,", "(an", "square).", "."],
        ),
        (
            "the dog's t-shirt: red/blue, don't!",
            ["dog", "dog's", "t-shirt", "red", "blue", "red/blue", "don't", "don't!"],
        ),
        ("red-orange ring, blue_square", ["orange", "red-orange", "blue", "square", "blue_square"]),
        ("photograph of a photo", ["photo", "photograph", "a"]),
        ("  a   red \t\n circle  ", ["red circle", " a red ", "circle"]),
        ("2 dogs and 12 cats", ["2", "12", "2 dogs", "12 cats"]),
        (
            ("b\u00fccher \u65e5\u672c caf\u00e9 \U0001f600 red"),
            ["b\u00fccher", "\u65e5\u672c", "caf\u00e9", "\U0001f600", "red"],
        ),
        (
            unicodedata.normalize("NFD", "un caf\u00e9 \u00c5 red"),
            ["caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"), "\u00e5", "red"],
        ),
        ("un caf\u00e9 \u00c5 red", [unicodedata.normalize("NFD", "caf\u00e9"), "a\u030a", "red"]),
        ("red &amp; \u00abblue\u00bb", ["&amp;", "\u00abblue\u00bb", "blue"]),
        ("wow!! red!", ["wow!!", "wow", "red!"]),
        (
            "a photo of <asset0>, and<asset1>.",
            ["<asset0>", "<asset1>", "photo of <asset0>", "and", "<asset1>."],
        ),
        ("A PHOTO OF <ASSET0>", ["<asset0>", "photo"]),
    ],
)
def test_the_tokens_found_spell_the_phrase_and_nothing_else(
    pair: list[Any], caption: str, phrases: list[str]
):
    for tokenizer in pair:
        for phrase in phrases:  # each for itself: the same one in two forms would mean two places
            (found,) = phrase_token_indices(tokenizer, caption, [phrase])
            wanted = unicodedata.normalize("NFC", phrase).lower()
            assert spelled(tokenizer, caption, found) == "".join(wanted.split()), phrase
            assert found == list(range(found[0], found[-1] + 1)) and found[0] > 0


def test_placeholders_are_one_token_each(pair: list[Any]):
    caption = "a photo of <asset0> and <asset1>"
    assert (
        common_token_indices(pair, caption, ADDED)
        == phrase_token_indices(pair[1], caption, ADDED)
        == [[4], [6]]
    )
    assert [encode(pair[0], caption)[i] for i in (4, 6)] == pair[0].convert_tokens_to_ids(ADDED)


def test_a_phrase_listed_again_means_its_next_place(short: Any):
    caption = "a ring and a Ring and a red ring"
    assert phrase_token_indices(short, caption, ["ring", "ring", "RING", "a", "and"]) == [
        [2],
        [5],
        [9],
        [1],
        [3],
    ]
    assert phrase_token_indices(short, "red red red red", ["red red", "red", "red  red"]) == [
        [1, 2],
        [1],
        [3, 4],
    ]
    assert phrase_token_indices(short, "ba a a", ["a a"]) == [
        [3, 4]
    ]  # its first letters are no word


def test_a_span_means_its_characters(short: Any):
    caption = "a ring and a ring, hexagon"
    spans = [(2, 6), (13, 17), (0, 10), (16, 18), (19, 26), (20, 22), (25, 26)]
    assert phrase_token_indices(short, caption, spans) == [
        [2],
        [5],
        [1, 2, 3],
        [5, 6],
        [7, 8, 9, 10, 11, 12],
        [8, 9],
        [12],
    ]
    assert phrase_token_indices(short, caption, [(13, 17), "ring", [2, 6]]) == [[5], [2], [2]]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("caption", "phrase", "message"),
    [
        (
            "a red ring",
            "blue ring",
            (
                "phrase 'blue ring' is not in the prompt "
                "'a red ring': expected words as they stand there"
            ),
        ),
        ("a red ring", "in", "phrase 'in' is not in the prompt 'a red ring'"),
        ("cafe\u0301", "cafe", "phrase 'cafe' is not in the prompt"),
        ("a12 b", "a", "phrase 'a' is not in the prompt"),
        ("a\nring", "re.", r"phrase 're\.' is not in the prompt 'a\\nring'"),
        ("a red ring", "", "phrase '' for the prompt 'a red ring' is empty: expected words of it"),
        ("a red ring", " \t", r"phrase ' \\t' for the prompt 'a red ring' is empty"),
        (
            "a red ring",
            (3, 3),
            (
                r"span \(3, 3\) is not in the prompt 'a red "
                r"ring': expected 0 <= start < end <= 10"
            ),
        ),
        ("a red ring", (-4, 3), r"span \(-4, 3\) is not in"),
        ("a red ring", (6, 11), r"span \(6, 11\) is not in"),
        (
            "a red ring",
            (1, 2),
            (r"phrase \(1, 2\) of the prompt 'a " r"red ring' has no token: expected words"),
        ),
    ],
)
def test_what_is_not_there_is_said_in_one_line(short: Any, caption: str, phrase: Any, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        phrase_token_indices(short, caption, [phrase], what="prompt")
    assert "\n" not in str(caught.value)


def test_more_listed_than_there_are(short: Any):
    with pytest.raises(
        ValueError,
        match=(
            "phrase 'Ring' is listed 3 times but only 2 times in the caption 'a ring and a ring'"
        ),
    ):
        phrase_token_indices(short, "a ring and a ring", ["ring", "ring", "Ring"])


def test_what_the_encoder_does_not_read_is_refused(short: Any, caplog: pytest.LogCaptureFixture):
    most = CONTEXT - 2  # Words, between BOS and EOS
    full = "red " * (most - 1) + "ring"
    with caplog.at_level(logging.WARNING, logger="transformers"):
        assert (
            phrase_token_indices(short, full, ["ring"]) == [[most]]
            and spelled(short, full, [most]) == "ring"
        )
        over = "red " * most + "ring"
        assert phrase_token_indices(short, over, ["red"] * most)[-1] == [most]
        message = (
            rf"phrase 'ring' of the caption '{over}' is cut off: its last token is number "
            rf"{most + 1}, and the encoder reads {CONTEXT} with EOS"
        )
        with pytest.raises(ValueError, match=message):
            phrase_token_indices(short, over, ["red", "ring"])
        with pytest.raises(
            ValueError,
            match=(f"phrase 'hexagon' .* is cut off: its last token is number {CONTEXT + 2}"),
        ):
            # Its first two letters are read
            phrase_token_indices(short, "red " * (most - 2) + "hexagon", ["hexagon"])
    assert not caplog.records


def test_tokenizers_must_agree(pair: list[Any], tmp_path: Path):
    caption = "a photo of <asset0> and a red ring!"
    assert common_token_indices(pair, caption, ["photo", "red ring", "ring!"]) == [
        [2],
        [7, 8],
        [8, 9],
    ]
    stranger = build(tmp_path, length=77)  # spells the placeholder: < a s s e t 0 >
    assert common_token_indices([pair[0], stranger], caption, ["photo"]) == [[2]]
    message = (
        rf"phrase 'red' of the prompt '{caption}' stands at \[7\] and at \[14\]: expected "
        r"the same tokens in every tokenizer"
    )
    with pytest.raises(ValueError, match=message):
        common_token_indices([pair[0], stranger], caption, ["photo", "red"], what="prompt")
    assert common_token_indices(pair[:1], caption, ["red"]) == [[7]]


def test_kinds_of_tokens_follow_the_length_and_not_the_ids(pair: list[Any]):
    captions = ["a red ring!", "", "ring " * 90, "!", "<asset0> hexagon"]
    counts = [4, 0, 75, 1, 7]
    first, second = ([encode(tokenizer, caption) for caption in captions] for tokenizer in pair)
    assert first[0][5:] == [pair[0].eos_token_id] * 72, "padding that looks like the end"
    assert second[0][4:8] == [0, pair[1].eos_token_id, 0, 0], "padding that looks like a word"
    for tokenizer in pair:
        kinds = list_token_types(tokenizer, captions)
        assert kinds.shape == (5, 77) and kinds.dtype == torch.uint8
        for row, count in zip(kinds.tolist(), counts, strict=True):
            assert row == [BOS] + [WORD] * count + [EOS] + [PADDING] * (75 - count)
        assert torch.equal(list_token_types(tokenizer, captions[1:2]), kinds[1:2])
