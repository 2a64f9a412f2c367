from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.vision_language_models import CONTEXT, make_blip, make_clip
from torch import Tensor

from lightning_modules.evaluation.plan import Prompt
from lightning_modules.metrics import Target
from lightning_modules.metrics.alignment import (
    IMAGENET_TEMPLATES,
    AlignmentScorer,
    CaptionSimilarity,
    MatchProbability,
    Similarity,
    WeakestPart,
    attend_and_excite,
    cosine,
    fill_template,
    mean_direction,
    minimum_over_parts,
    scale_cosines,
    split_prompt,
)
from lightning_modules.metrics.vision_language import BlipCaptioner, BlipMatcher, Clip

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = ["a red circle and a blue square", "a green cat with a dog", "a zebra"]


def pictures(n: int = 3) -> Tensor:
    blocks = torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(blocks.float(), (32, 32)).to(torch.uint8)


class Words:
    """Embeds a text by which of three words stand in it, and an image by its mean colours: every
    cosine is known by hand."""

    score, label, facts = "clip_score", "words", {"model": "words"}
    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.float().mean((2, 3)) - 100, dim=1)

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        self.asked += texts
        vectors = torch.tensor(
            [[float(word in text.split()) for word in ("red", "green", "blue")] for text in texts]
        ).reshape(-1, 3)
        return torch.nn.functional.normalize(vectors, dim=1), [
            len(text.split()) > 8 for text in texts
        ]


def flat(*colors: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colors, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)


RED, ANTI_RED, WHITE = (200, 100, 100), (0, 100, 100), (200, 200, 200)


def test_cosine_and_its_scales():
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0]])
    b = torch.tensor([[5.0, 0.0], [4.0, 3.0], [1.0, 0.0]])
    values = cosine(a, b)
    assert values.dtype == torch.float32 and values.tolist() == pytest.approx([1, 24 / 25, -1])
    assert scale_cosines(values, "cosine").tolist() == pytest.approx([1, 0.96, -1])
    assert scale_cosines(values, "torchmetrics").tolist() == pytest.approx([100, 96, -100])
    assert scale_cosines(values, "hessel").tolist() == pytest.approx([2.5, 2.4, 0])
    with pytest.raises(
        ValueError, match=("scale='clip' is unknown: expected one of cosine, torchmetrics, hessel")
    ):
        scale_cosines(values, "clip")
    with pytest.raises(ValueError, match="equal length"):
        cosine(a, b[:, :1])
    with pytest.raises(ValueError, match="not finite"):
        cosine(a, b / 0)


def test_minimum_over_parts_and_mean_direction():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    got = minimum_over_parts(
        images, [torch.tensor([[1.0, 0.0], [1.0, 1.0], [9.0, 1.0]]), torch.zeros(0, 2)]
    )
    assert got[0] == pytest.approx(2**-0.5) and got[1].isnan()
    with pytest.raises(ValueError, match="2 images but 1 list"):
        minimum_over_parts(images, [images])
    assert mean_direction(torch.tensor([[9.0, 0.0], [0.0, 0.1]])).tolist() == pytest.approx(
        [2**-0.5, 2**-0.5]
    )


def test_prompts_are_split_as_attend_and_excite_does():
    assert split_prompt("a cat and a dog") == ["a cat", "a dog"]
    assert split_prompt("a cat and a dog with a hat") == ["a cat", "a dog with a hat"]
    assert split_prompt("A cat with a hat") == ["A cat", "a hat"]
    assert split_prompt("a red cat and a dog and a star") == ["a red cat", "a dog", "a star"]
    assert split_prompt("an android without a band") == [] == split_prompt(" and a dog")


def test_templates():
    # Digest of OpenAI's list, sorted.
    digest = hashlib.sha256("\n".join(sorted(IMAGENET_TEMPLATES)).encode()).hexdigest()
    assert digest == "a8a4822f2921936e2ef07cf2e7a5df69be9532aab2f3f4880156bb03563e2467"
    assert fill_template("a photo of a {}.", "A cat and an owl.") == "a photo of A cat and an owl."
    assert fill_template("a photo of the {}.", "an elephant") == "a photo of an elephant."
    assert fill_template("a photo of a {}", "zebra and a cat") == "a photo of a zebra and a cat"
    assert fill_template("{}", " as it is. ") == " as it is. "
    with pytest.raises(ValueError, match="expected one"):
        fill_template("{} {}", "a")


def test_similarity_by_hand():
    images, prompts = flat(RED, ANTI_RED, WHITE), ["a red cat"] * 3
    expected = torch.tensor([1, -1, 3**-0.5])
    for scale, wanted in (
        ("cosine", expected),
        ("torchmetrics", 100 * expected),
        ("hessel", 2.5 * expected.clamp(min=0)),
    ):
        assert torch.allclose(Similarity(Words(), scale)(images, prompts), wanted, atol=1e-5)


def test_names_and_facts_say_what_the_number_is():
    model = Words()
    assert Similarity(model).name == "clip_score[words, 100·cos]"
    assert Similarity(model, "hessel").name == "clip_score[words, 2.5·max(cos, 0)]"
    assert Similarity(model, "hessel", ["{}"]).name == "clip_score[words, 2.5·max(cos, 0), '{}']"
    assert (
        Similarity(model, "cosine", IMAGENET_TEMPLATES).name
        == "clip_score[words, cos, 80 templates]"
    )
    assert WeakestPart(model).name == "clip_score_weakest_part[words, cos]"
    facts = Similarity(model).facts
    assert facts == {
        "model": "words",
        "scale": "100·cos",
        "floor": "mean",
        "templates": ["{}"],
        "truncated": 0,
    }
    assert Similarity(model, "hessel").facts["templates"] == ["A photo depicts {}"]
    assert Similarity(model, "cosine", IMAGENET_TEMPLATES).facts["templates"] == "ImageNet (80)"
    with pytest.raises(ValueError, match="leaves no text"):
        Similarity(model, templates=[])
    with pytest.raises(ValueError, match="expected one"):
        Similarity(model, templates=["a photo"])


def test_templates_are_averaged_and_each_prompt_is_read_once():
    model = Words()
    scorer = Similarity(model, "cosine", ["a red {}", "a green {}."])
    # Directions of red + blue and green + blue; their mean is (1, 1, 2).
    assert scorer(flat(RED), ["blue star."]).tolist() == pytest.approx([6**-0.5])
    assert model.asked == ["a red blue star.", "a green blue star."]
    scorer(flat(RED, RED), ["blue star."] * 2)
    assert len(model.asked) == 2


def test_weakest_part_by_hand():
    images = flat(RED, WHITE, RED, RED)
    long = "a red cat and a long blue dog left of one big star"
    prompts = ["a red cat and a blue dog", "a red cat with a red and blue hat", "a red cat", long]
    scorer = WeakestPart(Words())
    scores = scorer(images, prompts)
    assert scores[[0, 1, 3]].tolist() == pytest.approx([0, 3**-0.5, 0]) and scores[2].isnan()
    # The whole prompt of the last is longer, too, but only parts are read
    assert scorer.truncated == 1
    phrases = {"a red cat": ["red", "a red green cat"]}
    assert WeakestPart(Words(), parts=phrases.get)(
        images[2:3], prompts[2:3]
    ).tolist() == pytest.approx([2**-0.5])
    assert scorer(images[:0], []).shape == (0,)


def test_bad_requests():
    scorer = Similarity(Words())
    with pytest.raises(ValueError, match=r"expected uint8 images .* rescaled twice"):
        scorer(flat(RED).float() / 255, ["a red cat"])
    with pytest.raises(ValueError, match="2 images but 1 as prompts"):
        scorer(flat(RED, RED), ["a red cat"])
    with pytest.raises(ValueError, match="1 image but one string"):
        scorer(flat(RED), "a red cat")


def prompts_of(*texts: str) -> list[Prompt]:
    return [Prompt("mine", i, i, text, Target([]), i) for i, text in enumerate(texts)]


def mean_of(score: Any, images: Tensor, *texts: str) -> float:
    scorer = AlignmentScorer(score, "key")
    for i, prompt in enumerate(prompts_of(*texts)):
        scorer.add([prompt], images[i : i + 1], ["name"])
    return scorer.finish()["key"]


def test_the_scorer_gives_columns_the_mean_and_facts():
    scorer = AlignmentScorer(Similarity(Words()), "clip_score")
    images = flat(RED, WHITE)
    columns = scorer.add(prompts_of("a red cat", "a green cat"), images, ["a", "b"])
    assert columns == {"clip_score": pytest.approx([100, 100 / 3**0.5])}
    long = "a very long text of nine words that is red"
    scorer.add(prompts_of(long), flat(ANTI_RED), ["c"])
    assert scorer.finish() == {"clip_score": pytest.approx(100 / 3**1.5)}
    facts = scorer.facts["clip_score"]
    assert facts["score"] == "clip_score[words, 100·cos]"
    assert (facts["images"], facts["truncated"]) == (3, 1)


@pytest.mark.parametrize(
    ("scale", "mean"), [("torchmetrics", 0.0), ("cosine", -1 / 3), ("hessel", 2.5 / 3)]
)
def test_where_the_scales_stop_at_zero(scale: str, mean: float):
    """torchmetrics takes the mean and then the maximum with 0, Hessel et al. the other way
    round."""
    images = flat(RED, ANTI_RED, ANTI_RED)
    assert mean_of(Similarity(Words(), scale), images, *["a red cat"] * 3) == pytest.approx(mean)


def test_undefined_scores_are_left_out():
    scorer = AlignmentScorer(WeakestPart(Words()), "key")
    columns = scorer.add(prompts_of("a cat", "a red cat and a red dog"), flat(RED, RED), ["a", "b"])
    assert columns["key"][0] != columns["key"][0] and columns["key"][1] == pytest.approx(1)
    assert scorer.finish() == {"key": pytest.approx(1)} and scorer.facts["key"]["images"] == 1
    assert math.isnan(mean_of(WeakestPart(Words()), flat(RED), "a cat"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "clip": make_clip(base / "clip"),
        "itm": make_blip(base / "itm", "BlipForImageTextRetrieval"),
        "caption": make_blip(base / "caption", "BlipForConditionalGeneration"),
    }


@pytest.fixture(scope="module")
def scorers(folders: dict[str, Path]) -> list[Any]:
    clip, blip = Clip(str(folders["clip"])), BlipMatcher(str(folders["itm"]))
    captioner = BlipCaptioner(str(folders["caption"]), beams=2, shortest=6, longest=9)
    return [
        *attend_and_excite(clip, captioner),
        Similarity(clip),
        Similarity(blip, "cosine"),
        MatchProbability(blip),
    ]


def test_all_scorers_on_models(scorers: list[Any]):
    images = pictures()
    scores = {scorer.name: scorer(images, PROMPTS) for scorer in scorers}
    assert list(scores) == [
        "clip_score[clip, cos, 80 templates]",
        "clip_score_weakest_part[clip, cos, 80 templates]",
        "caption_similarity[caption, clip, cos, 80 templates]",
        "clip_score[clip, 100·cos]",
        "blip_itc[itm, cos]",
        "blip_itm[itm, probability]",
    ]
    for scorer, values in zip(scorers, scores.values(), strict=True):
        assert values.shape == (3,) and values.dtype == torch.float32 and not values.requires_grad
        assert json.loads(json.dumps(scorer.facts)) == scorer.facts and str(ROOT) not in json.dumps(
            scorer.facts
        )
        # Each image goes with its own prompt, whatever its neighbours are.
        alone = torch.cat([scorer(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
        assert torch.allclose(values, alone, atol=1e-4, equal_nan=True)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(scorer(images, PROMPTS).nan_to_num(9), values.nan_to_num(9))
    weakest = scores["clip_score_weakest_part[clip, cos, 80 templates]"]
    assert weakest[:2].isfinite().all() and weakest[2].isnan()


def test_captions_are_compared_as_texts(scorers: list[Any]):
    scorer = scorers[2]
    assert isinstance(scorer, CaptionSimilarity)
    images = pictures()
    captions = scorer.captioner.captions(images)
    assert torch.allclose(scorer.compare(captions, PROMPTS), scorer(images, PROMPTS), atol=1e-5)
    plain = CaptionSimilarity(scorer.captioner, scorer.model)
    assert plain.compare(PROMPTS, PROMPTS).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    with pytest.raises(ValueError, match="1 caption but 3 prompts"):
        plain.compare(["a cat"], PROMPTS)


def test_cut_prompts_are_counted(folders: dict[str, Path]):
    score = Similarity(Clip(str(folders["clip"])))
    score(pictures(3), ["a cat", "a cat " * CONTEXT, "a cat " * CONTEXT])
    assert score.facts["truncated"] == 2
