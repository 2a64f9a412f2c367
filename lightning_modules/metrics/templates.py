"""Prompts as sentences and in parts, for the alignment metrics. Pure functions of strings."""

from __future__ import annotations

import re

PLAIN = ("{}",)


def _imagenet_templates() -> tuple[str, ...]:
    things = (
        "bad photo, sculpture, low resolution photo, rendering, cropped photo, tattoo, bright photo, dark photo, drawing, close-up photo, "
        "black and white photo, painting, pixelated photo, jpeg corrupted photo, blurry photo, photo, good photo, doodle, sketch, rendition"
    )
    of = [f"a {thing}" for thing in things.split(", ")] + ["graffiti", "art", "itap"]
    looks = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
    makes = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
    templates = ["a photo of many {}.", "a photo of one {}.", "a photo of my {}.", "itap of my {}."]
    for article in ("a", "the"):
        templates += [f"{thing} of {article} {{}}." for thing in of]
        templates += [f"a photo of {article} {look} {{}}." for look in looks]
        templates += [f"{article} {make} {{}}." for make in makes]
        templates.append(f"{article} {{}} in a video game.")
    return tuple(templates)


# The 80 sentences with which OpenAI's CLIP classifies ImageNet (its notebook
# Prompt_Engineering_for_ImageNet). Only their mean is used, so their order has no effect.
IMAGENET_TEMPLATES = _imagenet_templates()


def fill(template: str, prompt: str) -> str:
    """The prompt in the place of ``{}``, with one article instead of two ("a photo of the a cat" ->
    "a photo of a cat").

    Attend-and-Excite's code replaces "a a" and "the a" by "a" anywhere in the text. This does so to
    whole words only, which is the same for that paper's prompts; the code also makes "a zebrand a
    cat" of "a zebra and a cat". Where the template ends in a full stop, the prompt's own is left
    out. Raises ValueError if the template has not exactly one ``{}``.
    """
    if template.count("{}") != 1:
        raise ValueError(
            f"template {template!r} has {template.count('{}')} places for the prompt: "
            f"expected one {{}}"
        )
    if template == "{}":
        return prompt
    text = template.replace(
        "{}", prompt.strip().rstrip(".") if template.endswith(".") else prompt.strip()
    )
    return re.sub(r"\b(?:a|the) (an?)\b", r"\1", text, flags=re.IGNORECASE)


def split_prompt(prompt: str) -> list[str]:
    """The parts of a prompt between " and "s or, where there is none, between " with "s; empty
    where there is neither.

    Attend-and-Excite's rule for its prompts of two things. Of three its code looks at the first two
    only; here all count.
    """
    for word in ("and", "with"):
        parts = [part.strip() for part in re.split(rf"\s{word}\s", prompt, flags=re.IGNORECASE)]
        if len(parts) > 1 and all(parts):
            return parts
    return []
