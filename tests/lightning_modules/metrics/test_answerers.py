"""Answers of tiny models against what transformers itself computes, the cache, and the judge of the
embedded world as an oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as t
from helpers.answering_models import make_llava, make_qwen
from helpers.vision_language_models import make_blip, make_clip
from PIL import Image
from torch import Tensor

from lightning_modules.embedded.answers import answer_question
from lightning_modules.metrics.answer_cache import CachedAnswerer, digest_image
from lightning_modules.metrics.answerers import pick_tokens, spellings
from lightning_modules.metrics.blip_answers import BlipAnswerer
from lightning_modules.metrics.chat_answers import ChatAnswerer
from lightning_modules.metrics.detection import Detection
from lightning_modules.metrics.vqa import check_answerer, load_answerer

ASKED = [
    [("is it red? Answer in one word.", "Yes"), ("is it red? Answer in one word.", "No")],
    [("how many circles are there? Answer in one word.", "two"), ("what is it?", "a dog")],
]


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 48, 40), dtype=torch.uint8, generator=generator)


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> ChatAnswerer:
    return ChatAnswerer(str(make_qwen(tmp_path_factory.mktemp("qwen"))))


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> ChatAnswerer:
    return ChatAnswerer(str(make_llava(tmp_path_factory.mktemp("llava"))))


# --- chat models ----------------------------------------------------------------------------------


def qwen_inputs(answerer: ChatAnswerer, image: Tensor, question: str) -> dict[str, Tensor]:
    """By hand, as Qwen's processor writes them: a place for each 2x2 patches."""
    folder = answerer.model.name_or_path
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    pixels = t.AutoImageProcessor.from_pretrained(folder)(
        images=[picture(image)], return_tensors="pt"
    )
    count = int(pixels["image_grid_thw"].prod()) // 4
    text = (
        "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
        f"{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    found = tokenizer(text, return_tensors="pt")
    image_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    kinds = (found["input_ids"] == image_id).int()
    return {
        "input_ids": found["input_ids"],
        "attention_mask": found["attention_mask"],
        "mm_token_type_ids": kinds,
        **pixels,
    }


def llava_inputs(answerer: ChatAnswerer, image: Tensor, question: str) -> dict[str, Tensor]:
    processor = t.LlavaProcessor.from_pretrained(answerer.model.name_or_path)
    text = f"<|im_start|>user\n<|image_pad|>{question}<|im_end|>\n<|im_start|>assistant\n"
    return dict(processor(images=picture(image), text=text, return_tensors="pt"))


@pytest.mark.parametrize("family", ["qwen", "llava"])
def test_answers_are_as_likely_as_transformers_says(family: str, images: Tensor, request):
    answerer = request.getfixturevalue(family)
    make = {"qwen": qwen_inputs, "llava": llava_inputs}[family]
    found = answerer.probabilities(images, ASKED)
    tokenizer = t.AutoTokenizer.from_pretrained(answerer.model.name_or_path)
    for image, pairs, values in zip(images, ASKED, found, strict=True):
        for (question, answer), value in zip(pairs, values, strict=True):
            inputs = make(answerer, image, question)
            drawn = answerer.model.generate(
                **inputs,
                max_new_tokens=1,
                do_sample=False,
                output_scores=True,
                return_dict_in_generate=True,
            )
            first = drawn.scores[0].softmax(-1)[0]
            if answer == "a dog":
                # Word by word
                expected = 0.0
                for form in ("a dog", "A dog"):
                    ids, p = tokenizer(form)["input_ids"], 1.0
                    longer = dict(inputs)
                    for token in ids:
                        logits = answerer.model(**longer).logits[0, -1]
                        p *= float(logits.softmax(-1)[token])
                        for key, of in (("input_ids", token), ("attention_mask", 1)):
                            more = torch.tensor([[of]])
                            longer[key] = torch.cat([longer[key], more], 1)
                        if "mm_token_type_ids" in longer:
                            more = torch.zeros(1, 1, dtype=torch.int32)
                            longer["mm_token_type_ids"] = torch.cat(
                                [longer["mm_token_type_ids"], more], 1
                            )
                    expected += p
            else:
                forms = {"Yes": ("yes", "Yes", " yes"), "No": ("no", "No")}
                forms |= {"two": ("two", " two", "2")}
                ids = [tokenizer(form)["input_ids"] for form in forms[answer]]
                assert all(len(row) == 1 for row in ids)
                expected = float(sum(first[row[0]] for row in ids))
            assert value == pytest.approx(expected, abs=1e-5), (question, answer)
    assert min(map(min, found)) > 0 and found[0][0] != found[0][1]


@pytest.mark.parametrize("family", ["qwen", "llava"])
def test_a_batch_says_what_single_questions_say(family: str, images: Tensor, request):
    answerer = request.getfixturevalue(family)
    together = answerer.probabilities(images, ASKED)
    assert together == answerer.probabilities(images, ASKED), "deterministic"
    answerer.batch = 1
    alone = answerer.probabilities(images, ASKED)
    answerer.batch = 16
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    swapped = answerer.probabilities(images.flip(0), ASKED)
    assert swapped[0] != pytest.approx(together[0], abs=1e-4), "it looks at the image"


def test_an_answer_is_spelt_in_many_ways():
    assert spellings("Yes") == ["yes", "Yes", " yes", " Yes"]
    assert spellings("two") == ["two", "Two", "2", " two", " Two", " 2"]
    ids = {"yes": [1], "Yes": [2], " yes": [3, 1], " Yes": [2]}
    assert pick_tokens(lambda form: ids[form], "yes") == [[1], [2]]
    words = {"dog": [7, 8], "Dog": [9, 8], " dog": [3, 7, 8], " Dog": [3, 9, 8]}
    assert pick_tokens(lambda form: words[form], "dog") == [[7, 8], [9, 8]]


def test_what_cannot_answer_is_refused_in_a_line(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="vision-language model 'nobody/none' cannot be"):
        check_answerer("nobody/none")
    clip = make_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="evaluation.vqa=.*clip is a CLIPModel: expected an image"):
        check_answerer(str(clip))
    whole = make_qwen(tmp_path / "qwen")
    check_answerer(str(whole))
    (whole / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="answering model .*qwen' cannot be loaded"):
        load_answerer(str(whole))
    torch.save({}, whole / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="answering model .*qwen' cannot be loaded"):
        load_answerer(str(whole))


# --- BLIP -----------------------------------------------------------------------------------------


def test_blip_answers_as_its_own_decoder_does(tmp_path: Path, images: Tensor):
    folder = make_blip(tmp_path / "blip", "BlipForQuestionAnswering")
    answerer = load_answerer(str(folder))
    assert isinstance(answerer, BlipAnswerer) and answerer.template == "{}"
    asked = [[("a red circle", "left"), ("a dog", "left")], [("a dog", "red circle")]]
    found = answerer.probabilities(images, asked)
    model = t.BlipForQuestionAnswering.from_pretrained(folder)
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    for image, pairs, values in zip(images, asked, found, strict=True):
        pixels = answerer.preprocessing(image[None])
        for (question, answer), value in zip(pairs, values, strict=True):
            ids = tokenizer(question, return_tensors="pt")
            answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
            begun, expected = [model.decoder_start_token_id], 1.0
            for token in answer_ids:
                with torch.no_grad():
                    seen = model.vision_model(pixels).last_hidden_state
                    read = model.text_encoder(**ids, encoder_hidden_states=seen)
                    logits = model.text_decoder(
                        torch.tensor([begun]), encoder_hidden_states=read.last_hidden_state
                    ).logits
                expected *= float(logits[0, -1].softmax(-1)[token])
                begun.append(token)
            assert value == pytest.approx(expected, rel=1e-4)
    drawn = model.generate(
        tokenizer("a red circle", return_tensors="pt")["input_ids"],
        answerer.preprocessing(images[:1]),
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    left = tokenizer.convert_tokens_to_ids("left")
    assert found[0][0] == pytest.approx(float(drawn.scores[0].softmax(-1)[0, left]), rel=1e-4)


# --- the cache ------------------------------------------------------------------------------------


class Counting:
    label, template, identity = "counting", "{}", "a model"

    def __init__(self) -> None:
        self.facts: dict = {}
        self.calls: list[list[tuple[str, str]]] = []

    def probabilities(self, images, asked):
        self.calls += [list(pairs) for pairs in asked]
        return [
            [float(image.float().mean()) / 256 + len(q + a) / 1e3 for q, a in pairs]
            for image, pairs in zip(images, asked, strict=True)
        ]


def test_what_was_answered_is_not_asked_again(tmp_path: Path, images: Tensor):
    model = Counting()
    first = CachedAnswerer(model, tmp_path)
    found = first.probabilities(images, ASKED)
    assert first.asked == 4 and first.probabilities(images, ASKED) == found and first.asked == 4
    # Another process, after this one was killed while it wrote
    (file,) = first.folder.glob("*.jsonl")
    with open(file, "a") as out:
        out.write('["abc", "is it')
    second = CachedAnswerer(model, tmp_path)
    more = [[*ASKED[0], ("is it blue?", "no")], ASKED[1]]
    again = second.probabilities(images, more)
    assert second.asked == 1 and model.calls[-1] == [("is it blue?", "no")]
    assert [again[0][:2], again[1]] == found
    lines = [json.loads(line) for line in file.read_text().splitlines()[:-1]]
    assert lines[0][0] == digest_image(images[0]) and len(lines) == 3
    model.identity = "another"
    third = CachedAnswerer(model, tmp_path)
    third.probabilities(images, ASKED)
    assert third.asked == 4 and third.folder != second.folder
    assert digest_image(images[0]) != digest_image(images[1])


# --- the judge of the embedded world --------------------------------------------------------------


def thing(color: str, shape: str, x: float, size: str = "medium", pattern: str = "plain"):
    box = (x - 5, 20, x + 5, 30)
    return Detection(shape, box, 0.9, color=color, size=size, pattern=pattern)


SEEN = [
    thing("red", "circle", 10, "small"),
    thing("red", "circle", 50),
    thing("blue", "square", 30, pattern="striped"),
]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is there a red circle?", "yes"),
        ("is there a scarlet disc?", "yes"),
        ("Is there a blue circle?", "no"),
        ("Are there two red circles?", "yes"),
        ("Are there three red circles?", "no"),
        ("How many red circles are there?", "two"),
        ("How many rings are there?", "zero"),
        ("Is there a small red circle?", "yes"),
        ("Are there two small red circles?", "no"),
        ("Is there a striped blue square?", "yes"),
        ("Is there a dotted blue square?", "no"),
        ("Is a blue square right of a red circle?", "yes"),
        ("Is a blue square left of a red circle?", "no"),
        ("Is a blue square left of a green ring?", "no"),
        ('Does this figure show "a red circle and a blue square"? Please answer yes or no.', "yes"),
        ('Does this figure show "a red circle and a blue ring"? Please answer yes or no.', "no"),
    ],
)
def test_the_judge_answers_what_it_sees(question: str, answer: str):
    assert answer_question(question, SEEN) == answer


def test_the_judge_knows_no_other_world():
    with pytest.raises(ValueError, match="cannot answer 'Is there a dog.'.*evaluation.vqa"):
        answer_question("Is there a dog?", SEEN)
