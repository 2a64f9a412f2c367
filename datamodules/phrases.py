"""Which words of a caption mean which objects of its image."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from datamodules.batch import Instance, Phrase


def link(caption: str, instances: Sequence[Instance]) -> list[Phrase]:
    """The phrases of a caption that name objects of the image, from left to right.

    An object is named by its colour, where the dataset knows it, and its category, as whole words and whatever their case. When a name
    stands as often as there are objects of it, the first means the first object and so on; else each mention means all of them. Words
    belong to the longest name that they are part of: "hot dog" names no dog.
    """
    named: dict[str, list[Instance]] = {}
    for instance in instances:
        named.setdefault(f"{instance.color} {instance.label}" if instance.color else instance.label, []).append(instance)
    phrases: list[Phrase] = []
    for name, objects in sorted(named.items(), key=lambda one: len(one[0]), reverse=True):
        matches = re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE)
        found = [m for m in matches if not any(m.start() < phrase.end and phrase.start < m.end() for phrase in phrases)]
        for i, match in enumerate(found):
            meant = [objects[i]] if len(found) == len(objects) else objects
            mask = torch.stack([o.mask for o in meant]).any(0)
            phrases.append(Phrase(match.group(), match.start(), match.end(), mask))
    return sorted(phrases, key=lambda phrase: phrase.start)
