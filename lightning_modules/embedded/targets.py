"""What a prompt of the embedded world asks of an image, as the judge is asked for it."""

from __future__ import annotations

from datamodules.shapes.reading import Reading, read_prompt
from lightning_modules.metrics.detection import Target, Wanted


def read_target(prompt: str) -> Target:
    """Every object that a prompt names in its colour and shape, equal ones as often as it counts
    them, and what else it states. Raises ValueError for an object without a colour or a plural
    without a number: no image can be right or wrong then."""
    return as_target(read_prompt(prompt), prompt)


def as_target(reading: Reading, prompt: str) -> Target:
    """As `read_target`, of a prompt that was read."""
    objects: list[Wanted] = []
    sizes: list[str | None] = []
    patterns: list[str | None] = []
    counted: list[Wanted] = []
    for mention in reading.mentions:
        if mention.color is None or mention.number is None:
            missing = "colour" if mention.color is None else "number"
            words = prompt[mention.start : mention.end]
            raise ValueError(
                f"{words!r} in the prompt {prompt!r} has no {missing}: expected one, so that an "
                "image of it can be judged"
            )
        thing = (mention.color, mention.shape)
        objects += [thing] * mention.number
        sizes += [mention.size] * mention.number
        patterns += [mention.pattern] * mention.number
        counted += [thing] if mention.number > 1 else []
    return Target(
        objects,
        reading.relation,
        sizes if any(sizes) else (),
        patterns if any(patterns) else (),
        counted,
    )
