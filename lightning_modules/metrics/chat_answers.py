"""Answers of the image-text-to-text models of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from conf.describe import show_count
from lightning_modules.metrics.answerers import (
    EXPECTED,
    WHAT,
    Ask,
    Asked,
    list_questions,
    pick_tokens,
)
from lightning_modules.metrics.loading import one_line_errors
from lightning_modules.metrics.registry import check_images

__all__ = ["ChatAnswerer"]

# Families whose own processor needs torchvision for videos; of images tokenizer and image processor
# say all
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


class ChatAnswerer:
    """An image-text-to-text model of transformers: the probability that its answer begins with the
    words, summed over their spellings (`pick_tokens`).

    ``name``: hub id or local folder. It computes in float32 on a CPU and in the checkpoint's own
    dtype elsewhere. ``batch``: questions that go through it at once.

    Raises FileNotFoundError when nothing can be loaded from there, ImportError where its processor
    needs a package, ValueError when it is another kind of model.
    """

    template = "{} Answer in one word."  # As GenEval 2 asks

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        batch: int = 16,
        identity: str = "",
    ) -> None:
        import transformers

        self.device, self.batch = torch.device(device), batch
        with one_line_errors(WHAT, name, EXPECTED):
            config = transformers.AutoConfig.from_pretrained(name, revision=revision)
            if config.get_text_config().is_encoder_decoder or config.is_encoder_decoder:
                raise ValueError("it is an encoder–decoder, whose answers are not read")
            parts = config.model_type in QWEN
            self.inputs = (_QwenInputs if parts else _ProcessorInputs)(name, revision)
            self.model, info = transformers.AutoModelForImageTextToText.from_pretrained(
                name,
                revision=revision,
                use_safetensors=True,
                dtype=torch.float32 if self.device.type == "cpu" else "auto",
                output_loading_info=True,
            )
        if missing := sorted(info["missing_keys"]):
            some = ", ".join(missing[:3])
            raise ValueError(
                f"{WHAT} {name!r} lacks {show_count(len(missing), 'weight')} ({some}, …), which "
                "would stay random: expected a complete checkpoint"
            )
        self.model.requires_grad_(False).eval().to(self.device)
        # Whether it can leave out the scores of all other places
        self.keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        folder = Path(name)
        self.label = (folder.resolve().name if folder.is_dir() else name) + (
            f"@{revision}" if revision else ""
        )
        dtype = str(self.model.dtype).removeprefix("torch.")
        self.facts: dict[str, Any] = {
            "model": self.label,
            "template": self.template,
            "dtype": dtype,
            "answer": "single tokens of its spellings, else its words",
        }
        version = transformers.__version__
        self.identity = f"{identity or self.label} {dtype} (transformers {version})"

    @torch.no_grad()
    def probabilities(self, images: Tensor, asked: Sequence[Sequence[Ask]]) -> list[list[float]]:
        """As `Answerer`."""
        check_images(images)
        result = [[0.0] * len(pairs) for pairs in asked]
        pictures = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
        long: list[tuple[Asked, int, list[int]]] = []  # Answers of several tokens
        places = list_questions(asked)
        for start in range(0, len(places), self.batch):
            some = places[start : start + self.batch]
            inputs = self._encode(pictures, some)
            first = self._log_probabilities(inputs, 1)[:, -1].exp().cpu()
            for row, place in enumerate(some):
                for i, answer in place.answers:
                    for tokens in pick_tokens(self.inputs.encode, answer):
                        if len(tokens) == 1:
                            result[place.image][i] += float(first[row, tokens[0]])
                        else:
                            long.append((place, i, tokens))
        for start in range(0, len(long), self.batch):
            self._add_long(pictures, long[start : start + self.batch], result)
        return [[min(value, 1.0) for value in row] for row in result]

    def _encode(self, pictures: Sequence[Image.Image], places: Sequence[Asked]) -> dict[str, Any]:
        shown = [pictures[place.image] for place in places]
        inputs = self.inputs(shown, [place.question for place in places])
        return {key: value.to(self.device) for key, value in inputs.items()}

    def _add_long(
        self,
        pictures: Sequence[Image.Image],
        some: Sequence[tuple[Asked, int, list[int]]],
        result: list[list[float]],
    ) -> None:
        """Adds the probability of each answer's tokens, one after another."""
        inputs = self._encode(pictures, [place for place, _, _ in some])
        most = max(len(tokens) for _, _, tokens in some)
        ids, size = inputs["input_ids"], inputs["input_ids"].shape
        added = torch.zeros(len(some), most, dtype=ids.dtype, device=ids.device)
        for row, (_, _, tokens) in enumerate(some):
            added[row, : len(tokens)] = torch.tensor(tokens)
        for key, value in inputs.items():
            if value.shape == size:  # One value a token
                more = torch.zeros_like(added, dtype=value.dtype)
                more = more + (key == "attention_mask")
                inputs[key] = torch.cat([value, added if key == "input_ids" else more], 1)
        scores = self._log_probabilities(inputs, most + 1)[:, -most - 1 : -1]
        chosen = scores.gather(2, added[..., None])[..., 0].cpu()
        for row, (place, i, tokens) in enumerate(some):
            result[place.image][i] += float(chosen[row, : len(tokens)].sum().exp())

    def _log_probabilities(self, inputs: dict[str, Any], keep: int) -> Tensor:
        """Of the next token after each of the last ``keep``, float32 [B, keep or more, tokens]."""
        more = {"logits_to_keep": keep} if self.keeps else {}
        with torch.autocast(self.device.type, enabled=False):
            logits = self.model(**inputs, **more).logits
        return logits[:, -keep:].float().log_softmax(-1)


class _ProcessorInputs:
    """What a model reads, by the processor of transformers; questions are padded on the left."""

    def __init__(self, name: str, revision: str | None) -> None:
        import transformers

        try:
            self.processor: Any = transformers.AutoProcessor.from_pretrained(
                name, revision=revision
            )
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"{WHAT} {name!r}: its processor needs a package "
                f"({str(error).strip().splitlines()[0]}): pip install -e .[vqa]"
            ) from error
        self.tokenizer = self.processor.tokenizer
        _pad_left(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def __call__(
        self, pictures: Sequence[Image.Image], questions: Sequence[str]
    ) -> dict[str, Tensor]:
        if getattr(self.processor, "chat_template", None):
            found = self.processor.apply_chat_template(
                [_message(q, picture) for picture, q in zip(pictures, questions, strict=True)],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                padding=True,
            )
        else:
            found = self.processor(
                images=list(pictures), text=list(questions), padding=True, return_tensors="pt"
            )
        return {key: value for key, value in found.items() if isinstance(value, Tensor)}


class _QwenInputs:
    """The same of Qwen's families, by tokenizer and image processor: pixels go through Pillow,
    whether or not torchvision is installed."""

    def __init__(self, name: str, revision: str | None) -> None:
        import transformers

        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name, revision=revision)
        self.pixels: Any = transformers.AutoImageProcessor.from_pretrained(
            name, revision=revision, backend="pil"
        )
        config = transformers.AutoConfig.from_pretrained(name, revision=revision)
        self.image_id = config.image_token_id
        self.image = self.tokenizer.convert_ids_to_tokens(self.image_id)
        _pad_left(self.tokenizer)
        if not self.tokenizer.chat_template:
            raise ValueError("its tokenizer has no chat template")

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def __call__(
        self, pictures: Sequence[Image.Image], questions: Sequence[str]
    ) -> dict[str, Tensor]:
        pixels = self.pixels(images=list(pictures), return_tensors="pt")
        counts = pixels["image_grid_thw"].prod(1) // self.pixels.merge_size**2
        texts = []
        for question, count in zip(questions, counts.tolist(), strict=True):
            text = self.tokenizer.apply_chat_template(
                _message(question), add_generation_prompt=True, tokenize=False
            )
            if text.count(self.image) != 1:
                raise ValueError(f"its chat template has no place for an image ({self.image})")
            texts.append(text.replace(self.image, self.image * count))
        found = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        kinds = (found["input_ids"] == self.image_id).to(torch.int32)
        return {
            "input_ids": found["input_ids"],
            "attention_mask": found["attention_mask"],
            "mm_token_type_ids": kinds,
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }


def _message(question: str, picture: Image.Image | None = None) -> list[dict[str, Any]]:
    image = {"type": "image"} if picture is None else {"type": "image", "image": picture}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


def _pad_left(tokenizer: Any) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
