"""Which place an object gets when the untouched image shows it, shows it wrongly, or not at all."""

from __future__ import annotations

from lightning_modules.methods.oracle_layout import find_layout
from lightning_modules.metrics.detection import Detection

LEFT, RIGHT, BELOW = (2.0, 4.0, 20.0, 22.0), (40.0, 4.0, 60.0, 22.0), (20.0, 40.0, 40.0, 63.6)


def seen(color: str, shape: str, box: tuple[float, float, float, float]) -> Detection:
    return Detection(shape, box, 1.0, color=color)


def places(prompt: str, *found: Detection) -> dict[str, tuple[int, int]]:
    """phrase -> first row and column of its mask"""
    return {p.text: tuple(p.mask.nonzero()[0].tolist()) for p in find_layout(prompt, found, 64)}  # type: ignore[misc]


def test_each_object_gets_the_place_of_its_own_image():
    prompt = "a red circle left of a blue square"
    assert places(prompt, seen("blue", "square", RIGHT), seen("red", "circle", LEFT)) == {
        "red circle": (4, 2),
        "blue square": (4, 40),
    }


def test_a_missing_object_gets_the_place_of_what_was_drawn_instead():
    # The second square stands where the cross should be; the right square keeps its own place.
    prompt = "a yellow cross left of an orange square"
    found = seen("orange", "square", RIGHT), seen("orange", "square", LEFT)
    assert places(prompt, *found) == {"orange square": (4, 40), "yellow cross": (4, 2)}
    # What shares the colour is taken before what shares nothing.
    found = (
        seen("white", "ring", LEFT),
        seen("yellow", "ring", BELOW),
        seen("orange", "square", RIGHT),
    )
    assert places(prompt, *found)["yellow cross"] == (40, 20)


def test_an_object_without_any_place_is_left_out_and_words_keep_their_characters():
    prompt = "a yellow cross, a red ring and a red ring"
    found = find_layout(prompt, [seen("red", "ring", BELOW)], 64)
    assert [(p.text, prompt[p.start : p.end]) for p in found] == [("red ring", "red ring")]
    assert found[0].mask.shape == (64, 64) and found[0].mask.nonzero()[-1].tolist() == [63, 40], (
        "a box is cut at the border"
    )
    assert find_layout(prompt, [], 64) == []


def test_several_equal_objects_get_the_places_of_as_many():
    prompt = "two red rings and a blue square"
    found = [seen("red", "ring", BELOW), seen("blue", "square", LEFT), seen("red", "ring", RIGHT)]
    rings, square = find_layout(prompt, found, 64)
    assert (rings.text, square.text) == ("red rings", "blue square")
    assert rings.mask[41, 21] and rings.mask[5, 41] and not rings.mask[5, 3]
    assert square.mask[5, 3] and not square.mask[41, 21]
