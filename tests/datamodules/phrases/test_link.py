"""Words of a caption and the objects that they mean."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from datamodules import ShapesDataModule
from datamodules.batch import Instance, collate
from datamodules.coco import CocoDataset
from datamodules.phrases.asides import ABSENT, NAME, WRITTEN
from datamodules.phrases.categories import SAME, WORDS, plural, words
from datamodules.phrases.link import COLORLESS, NUMBER, ORDER, SINGULAR, SOME, link, link_or_say_why


def instance(label: str, column: int, color: str | None = None) -> Instance:
    """An object that is one column of a 4x4 image."""
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, column] = True
    return Instance(label, mask, (column, 0, column + 1, 4), color)


def found(caption: str, *instances: Instance, singular: str = "all") -> list[tuple[str, list[int]]]:
    """(text, columns of the mask) of every phrase, whose characters must be its text."""
    phrases = link(caption, instances, singular)
    assert all(caption[p.start : p.end] == p.text and p.mask.dtype == torch.bool for p in phrases)
    return [(p.text, p.mask[0].nonzero().flatten().tolist()) for p in phrases]


def test_objects_are_named_by_colour_and_category_from_left_to_right():
    ring, square = instance("ring", 0, "red"), instance("square", 1, "blue")
    assert found("a blue square above a red ring", ring, square) == [
        ("blue square", [1]),
        ("red ring", [0]),
    ]
    assert found("a dog and a cat", instance("cat", 2), instance("dog", 3)) == [
        ("dog", [3]),
        ("cat", [2]),
    ]


def test_what_is_not_named_whole_is_left_out():
    ring, dog = instance("ring", 0, "red"), instance("dog", 1)
    assert found("a ring and a blue ring, a red  ring", ring) == []
    assert found("a hotdog, dog_2 and a doghouse", dog) == []
    assert found("a (dog), a dog's bowl and a dog-lead", dog) == [("dog", [1])] * 2
    assert found("nothing", ring, dog) == [] and found("a dog") == []


def test_case_does_not_matter_and_the_caption_keeps_its_own():
    assert found("A Red RING.", instance("ring", 0, "red")) == [("Red RING", [0])]
    assert found("helmets", instance("Helmet", 0), instance("helmet", 2)) == [("helmets", [0, 2])]


def test_names_are_words_and_no_patterns():
    assert found("a t.v. and a tev.", instance("t.v.", 2)) == [("t.v.", [2])]


@pytest.mark.parametrize(
    ("caption", "columns"),
    [
        # As many mentions as objects: each its own, in the order of the dataset
        ("a dog beside a dog", [[0], [2]]),
        ("a dog", [[0, 2]]),
        ("a dog, a dog and a dog", [[0, 2]] * 3),
    ],
)
def test_several_objects_of_a_name(caption: str, columns: list[list[int]]):
    assert [mask for _, mask in found(caption, instance("dog", 0), instance("dog", 2))] == columns


@pytest.mark.parametrize(
    "caption",
    [
        "a small dog beside a big dog",
        "a black dog and a white dog",
        "a dog on the right and a dog on the left",
        "a dog with a bone and a dog",
        "a dog wearing a hat next to a dog",
        "his dog and her dog",
        "a sitting dog and a dog",
    ],
)
def test_mentions_that_are_told_apart_are_not_taken_in_turn(caption: str):
    dogs = [instance("dog", 0), instance("dog", 2)]
    assert link(caption, dogs) == [] and link(caption, dogs, "none") == []
    assert [p.mask[0].nonzero().flatten().tolist() for p in link(caption, dogs, "all")] == [
        [0, 2],
        [0, 2],
    ]
    assert link_or_say_why(caption, dogs).left_out == [("dog", SINGULAR)] * 2


@pytest.mark.parametrize(
    "caption",
    [
        "a big dog and a big dog",
        "a dog and another dog on a couch",
        "a dog chases the other dog",
        "a dog, a dog",
    ],
)
def test_mentions_that_are_alike_are_taken_in_turn(caption: str):
    dogs = [instance("dog", 0), instance("dog", 2)]
    assert [p.mask[0].nonzero().flatten().tolist() for p in link(caption, dogs)] == [[0], [2]]


def blob(label: str, rows: slice, columns: slice) -> Instance:
    """A rectangle on an image of 8x8."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[rows, columns] = True
    return Instance(label, mask, (columns.start, rows.start, columns.stop, rows.stop))


def test_a_singular_among_several_means_the_one_that_stands_out():
    player = blob("person", slice(2, 7), slice(3, 6))
    crowd = [blob("person", slice(0, 1), slice(i, i + 1)) for i in range(4)]
    (phrase,) = link("a tennis player serves", [*crowd, player])
    assert torch.equal(phrase.mask, player.mask)
    (phrase,) = link("a tennis player serves", [*crowd, player], "all")
    assert int(phrase.mask.sum()) == 15 + 4
    assert link("a tennis player serves", [*crowd, player], "none") == []
    other = blob("person", slice(2, 7), slice(0, 3))
    assert link("a tennis player serves", [other, player]) == [], "more than half as prominent"
    assert link("a man and a woman", [*crowd, player]) == [], "nothing says who is who"
    (phrase,) = link("the players serve", [*crowd, player])
    assert int(phrase.mask.sum()) == 15 + 4, "a plural means all"


def reasons(caption: str, *instances: Instance, singular: str = "one") -> list[tuple[str, str]]:
    return link_or_say_why(caption, instances, singular).left_out


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("two dogs", NUMBER),
        ("2 brown dogs", NUMBER),
        ("both dogs", NUMBER),
        ("a pair of dogs", NUMBER),
        ("two of the dogs", NUMBER),
        ("two of the three dogs", NUMBER),
        ("one of the dogs", SINGULAR),
        ("one of the three dogs", SINGULAR),
        ("one dog", SINGULAR),
        ("a slice of dog", SINGULAR),
        ("some of the dogs", SOME),
        ("several of these dogs", SOME),
        ("every other dog", SOME),
        ("every second dog", SOME),
        ("either of the dogs", SOME),
        ("either dog", SOME),
        ("half the dogs", SOME),
        ("most dogs", SOME),
        ("the other dogs", SOME),
        ("the third dog", ORDER),
        ("the last brown dog", ORDER),
        ("another dog", ORDER),
        ("the smallest dog", ORDER),
        ("the left dog", ORDER),
        ("the dog on the far right", ORDER),
        ("a half eaten dog", SINGULAR),
        ("one of the other dogs", SINGULAR),
        ("two other dogs", NUMBER),
        *[
            (words, None)
            for words in (
                "three dogs",
                "four dogs",
                "two or three dogs",
                "dogs",
                "the dogs",
                "some dogs",
                "a couple of dogs",
                "lots of dogs",
                "all of the dogs",
                "each of the dogs",
                "none of the dogs sleeps",
                "each dog",
                "every brown dog",
                "many dog",
                "three dog",
                "a herd of dog",
                "slices of dog",
                "a group of three dogs",
            )
        ],
    ],
)
def test_a_number_that_is_not_that_of_the_objects_is_left_to_the_setting(
    caption: str, reason: str | None
):
    dogs = [instance("dog", column) for column in range(3)]
    (every,) = found(caption, *dogs, singular="all")
    assert every[1] == [0, 1, 2]
    if reason:
        assert found(caption, *dogs, singular="none") == []
        assert [why for _, why in reasons(caption, *dogs)] == [reason], "of one size"
    else:
        assert found(caption, *dogs, singular="one") == [every]
        assert reasons(caption, *dogs) == []


@pytest.mark.parametrize(
    ("caption", "there", "linked"),
    [
        ("one hundred dogs", 5, True),
        ("a hundred dogs", 5, True),
        ("two thousand dogs", 5, True),
        ("half a dozen dogs", 6, True),
        ("half a dozen dogs", 7, False),
        ("a half-dozen dogs", 7, False),
        ("a dozen dogs", 13, False),
        ("two dozen dogs", 13, True),
        ("a couple sits on a bench", 2, True),
        ("a couple sits on a bench", 3, False),
        ("every couple", 3, True),
    ],
)
def test_numbers_of_several_words_and_couples(caption: str, there: int, linked: bool):
    mask = torch.ones(4, 4, dtype=torch.bool)
    label = "person" if "couple" in caption else "dog"
    things = [Instance(label, mask.clone(), (0, 0, 4, 4), None) for _ in range(there)]
    assert len(link(caption, things)) == linked


def test_a_couple_among_others_is_the_two_who_stand_out():
    large = [blob("person", slice(2, 7), slice(1, 4)), blob("person", slice(2, 7), slice(4, 7))]
    small = [blob("person", slice(0, 1), slice(i, i + 1)) for i in range(2)]
    (phrase,) = link("an old couple sits on a bench", [small[0], *large, small[1]])
    assert torch.equal(phrase.mask, large[0].mask | large[1].mask)


@pytest.mark.parametrize("words", ["the third man", "every other man", "the man on the left"])
def test_one_that_words_point_out_is_not_whichever_stands_out(words: str):
    large = blob("person", slice(2, 7), slice(3, 6))
    small = [blob("person", slice(0, 1), slice(i, i + 1)) for i in range(2)]
    assert len(link("a man", [*small, large])) == 1
    assert link(words, [*small, large]) == []
    assert len(link("the third man", [large])) == 1, "there is no other"


def test_the_number_that_stands_out_is_taken():
    large = [blob("person", slice(2, 7), slice(1, 4)), blob("person", slice(2, 7), slice(4, 7))]
    small = [blob("person", slice(0, 1), slice(i, i + 1)) for i in range(2)]
    (phrase,) = link("two men", [small[0], *large, small[1]])
    assert torch.equal(phrase.mask, large[0].mask | large[1].mask)
    assert link("three men", [small[0], *large, small[1]]) == [], "two small ones are alike"
    assert link("two men and a woman", [*small, *large]) == [], "nothing says who is who"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("no dogs", ABSENT),
        ("a man without a dog", ABSENT),
        ("not a dog", ABSENT),
        ("there aren't any cats or dogs", ABSENT),
        ("a cat instead of a dog", ABSENT),
        ("a cat --no dogs", ABSENT),
        ('a sign that says "dogs"', WRITTEN),
        ("a cat named Dog", NAME),
    ],
)
def test_what_is_not_there_or_only_written_is_not_linked(caption: str, reason: str):
    dog = instance("dog", 0)
    assert found(caption, dog) == []
    assert [why for _, why in reasons(caption, dog)] == [reason]
    assert found(f"{caption}. A dog", dog) == ([] if "--" in caption else [("dog", [0])])


def test_size_and_place_decide_what_stands_out():
    middle, corner = blob("dog", slice(3, 5), slice(3, 5)), blob("dog", slice(0, 2), slice(0, 2))
    (phrase,) = link("a dog", [corner, middle])
    assert torch.equal(phrase.mask, middle.mask), "4 x 1 beside 4 x .25"
    large = blob("dog", slice(0, 4), slice(0, 3))
    assert link("a dog", [large, middle]) == [], "12 x .43 = 5.2 is less than twice 4"


def test_a_word_before_another_noun_names_nothing():
    boat, tv = instance("boat", 0), instance("tv", 1)
    assert found("a ship dock at a tv stand", boat, tv) == []
    assert found("a boat at a dock and a tv on a stand", boat, tv) == [("boat", [0]), ("tv", [1])]


def test_words_belong_to_the_longest_name():
    dog, sausage = instance("dog", 0), instance("hot dog", 1)
    expected = [("dog", [0]), ("hot dog", [1])]
    assert (
        found("a dog eats a hot dog", dog, sausage)
        == found("a dog eats a hot dog", sausage, dog)
        == expected
    )
    assert found("a hot dog", dog, sausage) == [("hot dog", [1])]


def kinds(caption: str, *labels: str) -> list[str]:
    """What of the caption is linked, where each label has one object: "words: label"."""
    phrases = found(caption, *(instance(label, column) for column, label in enumerate(labels)))
    return [
        (f"{text}: {' '.join(labels[column] for column in columns)}") for text, columns in phrases
    ]


@pytest.mark.parametrize(
    ("caption", "labels", "linked"),
    [
        ("A skier and two kids", ["person"], ["skier: person", "kids: person"]),
        (
            "Men on a motorbike near some geese",
            ["person", "motorcycle", "bird"],
            ["Men: person", "motorbike: motorcycle", "geese: bird"],
        ),
        (
            "a television, a sofa and knives",
            ["couch", "tv", "knife"],
            ["television: tv", "sofa: couch", "knives: knife"],
        ),
        (
            "a plane, a cellphone and a table",
            ["airplane", "cell phone", "dining table"],
            ["plane: airplane", "cellphone: cell phone", "table: dining table"],
        ),
        (
            "a plant and a ball",
            ["potted plant", "sports ball"],
            ["plant: potted plant", "ball: sports ball"],
        ),
        (
            "a pair of scissors and a cell-phone",
            ["scissors", "cell phone"],
            ["pair of scissors: scissors", "cell-phone: cell phone"],
        ),
        ("a sofa and a motorbike", ["Sofa", "motorbike"], ["sofa: Sofa", "motorbike: motorbike"]),
        (
            "traffic lights and a t-shirt",
            ["traffic_light", "T-shirt"],
            ["traffic lights: traffic_light", "t-shirt: T-shirt"],
        ),
        (
            "two foxes and a berry beside berries",
            ["fox", "berry"],
            ["foxes: fox", "berry: berry", "berries: berry"],
        ),
    ],
)
def test_usual_words_and_plurals_name_a_category(
    caption: str, labels: list[str], linked: list[str]
):
    assert kinds(caption, *labels) == linked


@pytest.mark.parametrize(
    ("caption", "labels", "linked"),
    [
        ("a teddy bear, a hot-dog and a Hot Dogs stand", ["bear", "dog"], []),
        (
            "a teddy bear and a bear",
            ["bear", "teddy bear"],
            ["teddy bear: teddy bear", "bear: bear"],
        ),
        (
            ("he plays table tennis with a tennis racket"),
            ["dining table", "tennis racket"],
            ["tennis racket: tennis racket"],
        ),
        (
            "a tennis ball beside a racquet",
            ["sports ball", "tennis racket"],
            ["tennis ball: sports ball", "racquet: tennis racket"],
        ),
        (
            ("a fire truck at a bus stop by the train tracks"),
            ["truck", "bus", "train"],
            ["fire truck: truck"],
        ),
        (
            "a snowboarder with a snow board",
            ["person", "snowboard"],
            ["snowboarder: person", "snow board: snowboard"],
        ),
        (
            "a carrot cake and a dog bowl",
            ["carrot", "dog", "cake", "bowl"],
            ["carrot cake: cake", "dog bowl: bowl"],
        ),
        (
            "a couple of zebras beside a couple",
            ["zebra", "person"],
            ["zebras: zebra", "couple: person"],
        ),
        ("a mouse pad and a mouse", ["mouse"], ["mouse: mouse"]),
    ],
)
def test_words_in_longer_expressions_mean_nothing_else(
    caption: str, labels: list[str], linked: list[str]
):
    assert kinds(caption, *labels) == linked


@pytest.mark.parametrize(
    ("caption", "linked"),
    [
        ("an orange", ["orange"]),
        ("A peeled orange on a plate", ["orange"]),
        ("the man's orange, cut in half", ["orange"]),
        ("oranges and an orange slice", ["oranges", "orange slice"]),
        ("an orange cat", []),
        ("an orange and white cat", []),
        ("an orange, black and white cat", []),
        ("the cat is orange", []),
        ("a black and orange", []),
        ("a man dressed in orange", []),
        ("an orange-colored bus", []),
        ("a glass of orange juice", []),
    ],
)
def test_orange_is_a_fruit_only_as_a_noun(caption: str, linked: list[str]):
    assert [text for text, _ in found(caption, instance("orange", 0))] == linked


def test_words_before_nouns_and_verbs_are_no_things():
    person = instance("person", 0)
    assert found("a baby elephant, an adult elephant, a mother and baby elephant", person) == []
    assert [text for text, _ in found("a baby sleeping beside a baby boy", person)] == [
        "baby",
        "baby boy",
    ]
    assert (
        found(
            ("a man skis down a hill, she boards a bus to cook"),
            instance("skis", 1),
            instance("snowboard", 2),
        )
        == []
    )
    assert found("a man on skis", instance("skis", 1)) == [("skis", [1])]
    assert found("a remote road", instance("remote", 1)) == [] and found(
        "a remote on a bed", instance("remote", 1)
    ) == [("remote", [1])]


def test_a_word_of_several_categories_counts_where_one_of_them_is_there():
    assert kinds("a man with a board", "surfboard") == ["board: surfboard"]
    assert kinds("a man with a board", "surfboard", "skateboard") == []
    assert kinds("a man with a surfboard", "surfboard", "skateboard") == ["surfboard: surfboard"]


def test_a_plural_means_all_and_different_words_are_not_told_apart():
    first, second = instance("person", 0), instance("person", 3)
    assert found("two women", first, second) == [("women", [0, 3])]
    assert found("men and people", first, second) == [("men", [0, 3]), ("people", [0, 3])]
    assert found("a man and a man", first, second) == [("man", [0]), ("man", [3])]
    # Nothing says which of the two is the man.
    assert found("a man and a woman", first, second) == [("man", [0, 3]), ("woman", [0, 3])]
    assert found("some dogs", instance("dog", 2)) == [("dogs", [2])]


def test_a_colour_belongs_to_usual_words_and_plurals_too():
    car, other = instance("car", 0, "red"), instance("car", 1, "blue")
    assert found("a red taxi, blue cars and a car", car, other) == [
        ("red taxi", [0]),
        ("blue cars", [1]),
    ]


def test_the_table_of_words():
    assert len(WORDS) == 80 and set(SAME.values()) <= set(WORDS)
    assert (
        words("person")["people"]
        and not words("person")["woman"]
        and words("Person") == words("person") | {"Person".lower(): False}
    )
    assert (
        words("knife")["knives"]
        and words("toothbrush")["toothbrushes"]
        and "broccolis" not in words("broccoli")
    )
    # A category is named by its own name: the table lists it, in one number or the other.
    assert all({name, plural(name)} & set(words(name)) for name in WORDS)
    owners = Counter(word for name in WORDS for word in words(name))
    shared = {word for word, count in owners.items() if count > 1}
    assert shared == {
        word
        for one in ("bag", "bike", "board", "calf", "computer", "futon", "trolley")
        for word in (one, plural(one))
    } - {"calfs"} | {"calves"}
    assert plural("berry") == "berries" and plural("bus") == "buses" and plural("toy") == "toys"


def test_captions_of_the_embedded_world_name_every_object(tmp_path_factory: pytest.TempPathFactory):
    world = ShapesDataModule(
        tmp_path_factory.mktemp("world"), 12, 4, 4, eval_splits=("val", "three")
    )
    world.prepare_data()
    world.setup()
    world.train_set.with_phrases = True
    # By their words alone, as in any data set
    plain = CocoDataset(world.root, "three", 64)
    for index in range(len(plain)):
        phrases, objects = plain.phrases(index), plain.instances(index)
        assert sorted(p.text for p in phrases) == sorted(f"{o.color} {o.label}" for o in objects)
        assert torch.equal(
            torch.stack([p.mask for p in phrases]).any(0),
            torch.stack([o.mask for o in objects]).any(0),
        )
    batch = next(iter(world.train_dataloader()))
    assert batch.phrases is not None and len(batch.phrases) == 4
    for caption, phrases in zip(batch.captions, batch.phrases, strict=True):
        assert phrases and all(
            caption[p.start : p.end].lower() == p.text.lower() and p.mask.shape == (64, 64)
            for p in phrases
        )
    # Evaluation, and training that does not ask for them, have none.
    assert "phrases" not in world.eval_sets["val"][0]
    plain = CocoDataset(world.root, "train", 64, 2)
    assert collate([plain[0], plain[1]]).phrases is None


@pytest.mark.parametrize(
    ("caption", "columns"),
    [
        ("Three sheep in a field", [0, 1, 2]),
        ("Two sheep in a field", None),
        ("a flock of sheep", [0, 1, 2]),
        ("Sheep graze on a hill", [0, 1, 2]),
        ("some white sheep", [0, 1, 2]),
        ("a white sheep", None),
        ("this sheep", None),
    ],
)
def test_words_of_both_numbers_mean_all_but_after_a_singular(
    caption: str, columns: list[int] | None
):
    sheep = [instance("sheep", column) for column in range(3)]
    expected = [("sheep", columns)] if columns else []
    phrases = found(caption, *sheep, singular="none")
    assert [(text.lower(), where) for text, where in phrases] == expected


def test_broccoli_is_all_of_it():
    heads = [instance("broccoli", 0), instance("broccoli", 2)]
    assert found("a plate of broccoli", *heads, singular="one") == [("broccoli", [0, 2])]


@pytest.mark.parametrize(
    ("label", "caption"),
    [
        (" Dog ", "a person and a dog"),
        ("dogs", "a dog"),
        ("Dogs", "two dogs"),
        ("persons", "a woman on a bench"),
        ("people", "a person"),
        ("01_dog", "a dog"),
        ("dog-2", "a puppy"),
        ("lamps", "a lamp"),
        ("boxes", "a box"),
        ("berries", "a berry"),
        ("leaves", "a leaf"),
        ("tomatoes", "a tomato"),
        ("men", "a man"),
        ("traffic_lights", "a traffic light"),
        ("sofas", "a couch"),
    ],
)
def test_blanks_plurals_and_numbers_of_labels_hide_no_object(label: str, caption: str):
    assert len(link(caption, [instance(label, 0)])) == 1


@pytest.mark.parametrize(
    ("label", "caption"), [("glasses", "a glass"), ("bus", "a bu"), ("3", "a")]
)
def test_what_is_no_plural_stays(label: str, caption: str):
    assert link(caption, [instance(label, 0)]) == []


def test_words_without_the_colour_of_their_object_are_left_out_with_the_reason():
    dog = instance("dog", 0, "red")
    assert reasons("a dog on grass", dog) == [("dog", COLORLESS)]
    assert reasons("a red dog on grass", dog) == reasons("a hotdog", dog) == []
    assert reasons("a dog", dog, instance("dog", 1)) == [], "the other one is meant"
