"""Prompts of words that mean two things."""

from __future__ import annotations

from datamodules import PromptDataModule
from datamodules.formats.made_prompts import AMBIGUOUS, PARTNERS, make_polysemous


def test_both_sets_want_the_same_and_one_says_which_meaning():
    plain, clear = make_polysemous().values()
    assert (
        len(plain)
        == len(clear)
        == len(AMBIGUOUS) * len(PARTNERS)
        == len({record.text for record in plain})
    )
    for one, other in zip(plain, clear, strict=True):
        assert one.wanted == other.wanted and one.text != other.text
        word, partner = (one.text[start:end] for start, end in one.phrases)
        assert word in AMBIGUOUS and partner in PARTNERS and f" {partner}" in other.text
        assert [other.text[start:end] for start, end in other.phrases] == [
            AMBIGUOUS[word][0],
            partner,
        ]
        assert one.wanted and [thing["class"] for thing in one.wanted["include"]] == [
            AMBIGUOUS[word][1],
            partner,
        ]


def test_they_are_evaluation_sets_of_their_own():
    module = PromptDataModule("polysemy")
    module.setup()
    assert {name: len(of) for name, of in module.eval_sets.items()} == {
        "plain": 48,
        "disambiguated": 48,
    }
    assert module.eval_sets["plain"].caption(0).text == "a photo of a mouse and a dog"
    assert len(module.train_set) == 96
