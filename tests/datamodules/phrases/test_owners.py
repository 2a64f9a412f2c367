"""Who has what in a caption."""

from __future__ import annotations

import pytest

from datamodules.phrases.owners import find_owners
from datamodules.phrases.tagger import name_objects


@pytest.mark.parametrize(
    ("caption", "owned"),
    [
        ("a man with a bag", {"bag": "man"}),
        ("a frog wearing a red hat", {"red hat": "frog"}),
        ("a woman who is holding her cup", {"cup": "woman"}),
        ("a man with a red hat and a bag", {"red hat": "man", "bag": "man"}),
        ("a cat with a collar next to a dog with a ball", {"collar": "cat", "ball": "dog"}),
        ("a red circle and a blue square", {}),
        ("a dog left of a cat", {}),
        ("a man with nothing near a bag", {}),
    ],
)
def test_owners_are_named_before_what_they_have(caption: str, owned: dict[str, str]) -> None:
    objects = name_objects(caption)
    spans = [(phrase.start, phrase.end) for phrase in objects]
    owners = find_owners(caption, spans)
    found = {objects[i].text: objects[o].text for i, o in enumerate(owners) if o >= 0}
    assert found == owned
    # In whatever order objects are named
    assert find_owners(caption, spans[::-1]) == [
        len(spans) - 1 - o if o >= 0 else -1 for o in owners[::-1]
    ]
