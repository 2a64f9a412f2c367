"""Vision-language models as plain objects: CLIP, SigLIP and BLIP put images and texts into one
space, BLIP also matches them and writes captions.

They are loaded by hub id or local folder (safetensors only), are frozen, compute in float32
under any autocast, and are no modules: a metric or a method that holds one has none of its
weights. Pixels go through Pillow as each model's own image processor says, so that a score does not
depend on whether torchvision is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from conf.describe import show_count
from lightning_modules.metrics.loading import one_line_errors
from lightning_modules.metrics.registry import check_images

WHAT = "vision-language model"
EXPECTED = (
    "a local folder, or a hub id, of CLIP, SigLIP or BLIP with safetensors weights, tokenizer and "
    "preprocessor_config.json"
)


class Embedder(Protocol):
    """A model with one space for images and texts."""

    score: str  # What the cosine of the two is called: "clip_score", "siglip_score" or "blip_itc"
    label: str
    facts: dict[str, Any]

    def images(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 unit vectors [N, d] on the CPU."""
        ...

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """N texts -> float32 unit vectors [N, d] on the CPU, and which texts were longer than the
        model reads and lost their end."""
        ...


class Preprocessing(NamedTuple):
    """uint8 images of any size -> what a vision tower reads: resized by Pillow, cropped at the
    centre, scaled to [0, 1], normalised."""

    size: int | tuple[int, int]  # Pixels: the shorter side, or height and width
    crop: tuple[int, int] | None  # Height and width
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    filter: int  # One of Pillow's

    @classmethod
    def of(cls, processor: Any) -> Preprocessing:
        """Reads an image processor of transformers. Raises ValueError if it asks for something
        else."""
        size, crop = (dict(getattr(processor, name, None) or {}) for name in ("size", "crop_size"))
        if "shortest_edge" not in size and not {"height", "width"} <= size.keys():
            raise ValueError(
                f"its image processor resizes to {size}: expected a shortest_edge, or a "
                "height and a width"
            )
        target = (
            int(size["shortest_edge"])
            if "shortest_edge" in size
            else (int(size["height"]), int(size["width"]))
        )
        cropped = (
            (int(crop["height"]), int(crop["width"]))
            if getattr(processor, "do_center_crop", False)
            else None
        )
        if cropped and min((target,) if isinstance(target, int) else target) < max(cropped):
            raise ValueError(
                f"its image processor crops {cropped} out of images resized to {target}: "
                "expected a crop that fits"
            )
        return cls(
            target,
            cropped,
            tuple(processor.image_mean),
            tuple(processor.image_std),
            int(processor.resample),
        )

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 [N, 3, h, w] on the CPU."""
        check_images(images)
        height, width = images.shape[2:]
        if isinstance(self.size, int):
            short = min(height, width)
            tall, wide = (int(self.size * side / short) for side in (height, width))
        else:
            tall, wide = self.size
        resized = [
            np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling(self.filter)))
            for image in images.permute(0, 2, 3, 1).cpu().numpy()
        ]
        pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
        if self.crop:
            top, left = (tall - self.crop[0]) // 2, (wide - self.crop[1]) // 2
            pixels = pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        mean, sd = (torch.tensor(v)[:, None, None] for v in (self.mean, self.sd))
        return (pixels.float() / 255 - mean) / sd

    @property
    def facts(self) -> dict[str, Any]:
        size = (
            f"shorter side {self.size}"
            if isinstance(self.size, int)
            else f"{self.size[0]}x{self.size[1]}"
        )
        filter = Image.Resampling(self.filter).name.lower()
        return {
            "resize": f"{size}, {filter} (Pillow)",
            "crop": f"{self.crop[0]}x{self.crop[1]}" if self.crop else None,
        }


class Tokens(NamedTuple):
    ids: Tensor  # long [N, T]
    mask: Tensor  # long [N, T], 0 on padding
    cut: list[bool]


def tokenize(tokenizer: Any, texts: Sequence[str], limit: int) -> Tokens:
    """Token ids with the special tokens at both ends. Of a text above ``limit`` tokens the last
    words go, never the closing token.

    CLIP reads its features at that token: cut off with the words, another position would be read.
    """
    rows = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    cut = [len(row) > limit for row in rows]
    rows = [
        [*row[: limit - 1], row[-1]] if long else row for row, long in zip(rows, cut, strict=True)
    ]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return Tokens(ids, mask, cut)


class Loaded:
    """What the three kinds of model share: one frozen model of transformers, its tokenizer and its
    preprocessing.

    ``name``: hub id or local folder. ``batch``: images, or texts, that go through the model at
    once.
    """

    architecture = ""  # The class of transformers, as config.json names it

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        batch: int = 32,
    ) -> None:
        """Raises FileNotFoundError when nothing can be loaded from there, ValueError when it is
        another kind of model."""
        import transformers

        found = architecture_of(name, revision)
        if found != self.architecture:
            raise ValueError(
                f"vision-language model {name!r} is a {found}: expected a {self.architecture}"
            )
        with one_line_errors(WHAT, name, EXPECTED):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                name, revision=revision
            )
            self.preprocessing = Preprocessing.of(
                transformers.AutoImageProcessor.from_pretrained(name, revision=revision)
            )
            # Without a dtype the weights would keep that of the checkpoint, which may be float16.
            self.model, info = getattr(transformers, self.architecture).from_pretrained(
                name,
                revision=revision,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        if missing := sorted(info["missing_keys"]):
            some = ", ".join(missing[:3])
            raise ValueError(
                f"vision-language model {name!r} lacks {show_count(len(missing), 'weight')} of a "
                f"{self.architecture} ({some}, …), which would stay random: expected a complete "
                "checkpoint"
            )
        known, wanted = len(self.tokenizer), self.model.config.text_config.vocab_size
        # Without its files transformers makes an empty tokenizer, and every text would be the same.
        # BLIP's lacks two tokens of the model's.
        if not 0.9 * wanted <= known <= wanted:
            raise ValueError(
                f"vision-language model {name!r} has {show_count(wanted, 'token')}, its tokenizer "
                f"{known}: expected the tokenizer's own files beside it"
            )
        self.model.requires_grad_(False).eval().to(device)
        self.device, self.batch = torch.device(device), batch
        self.context = min(
            int(self.tokenizer.model_max_length),
            self.model.config.text_config.max_position_embeddings,
        )
        self.label = (Path(name).resolve().name if Path(name).is_dir() else name) + (
            f"@{revision}" if revision else ""
        )
        self.facts: dict[str, Any] = {
            "model": self.label,
            **self.preprocessing.facts,
            "context": self.context,
        }

    def __deepcopy__(self, memo: Any) -> Loaded:
        """The same object: nothing in it ever changes, and a copied metric needs no second
        model."""
        return self

    def _text_parts(self, texts: Sequence[str]) -> list[Tokens]:
        return [
            tokenize(self.tokenizer, texts[i : i + self.batch], self.context)
            for i in range(0, len(texts), self.batch)
        ]

    def _vision(self, images: Tensor) -> list[Tensor]:
        """Pixel values, a batch at a time."""
        return (
            [self.preprocessing(chunk).to(self.device) for chunk in images.split(self.batch)]
            if len(images)
            else []
        )


class Clip(Loaded):
    """CLIP: the vectors after both projections, as the papers compare them."""

    architecture = "CLIPModel"
    score = "clip_score"

    @property
    def width(self) -> int:
        """The length of the vectors."""
        return self.model.config.projection_dim

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """As `Embedder`."""
        check_images(images)
        with torch.autocast(self.device.type, enabled=False):
            parts = [
                self.model.get_image_features(pixel_values=pixels).pooler_output
                for pixels in self._vision(images)
            ]
            return _unit(parts, self.width)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """As `Embedder`."""
        tokens = self._text_parts(texts)
        with torch.autocast(self.device.type, enabled=False):
            parts = [
                self.model.get_text_features(
                    input_ids=t.ids.to(self.device), attention_mask=t.mask.to(self.device)
                ).pooler_output
                for t in tokens
            ]
            return _unit(parts, self.width), [cut for t in tokens for cut in t.cut]


class Siglip(Clip):
    """SigLIP and SigLIP 2 of fixed size: every text is padded to the model's length, as in its
    training, and read at the last place."""

    architecture = "SiglipModel"
    score = "siglip_score"

    @property
    def width(self) -> int:
        return self.model.config.vision_config.hidden_size

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """As `Embedder`."""
        tokens = self._text_parts(texts)
        pad = self.tokenizer.pad_token_id
        with torch.autocast(self.device.type, enabled=False):
            parts = []
            for some in tokens:
                ids = F.pad(some.ids, (0, self.context - some.ids.shape[1]), value=pad)
                found = self.model.get_text_features(input_ids=ids.to(self.device))
                parts.append(found.pooler_output)
            return _unit(parts, self.width), [cut for some in tokens for cut in some.cut]


class BlipMatcher(Loaded):
    """BLIP fine-tuned for retrieval, such as Salesforce/blip-itm-base-coco: one space for both
    (ITC), and a head that sees both (ITM).

    Runs the parts of the model one by one: its own ``forward`` compares every image with every text
    and puts a mask on the wrong device.
    """

    architecture = "BlipForImageTextRetrieval"
    score = "blip_itc"

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """As `Embedder`."""
        check_images(images)
        with torch.autocast(self.device.type, enabled=False):
            states = [
                self.model.vision_model(pixel_values=pixels).last_hidden_state
                for pixels in self._vision(images)
            ]
            return _unit(
                [self.model.vision_proj(s[:, 0]) for s in states],
                self.model.config.image_text_hidden_size,
            )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """As `Embedder`."""
        tokens = self._text_parts(texts)
        with torch.autocast(self.device.type, enabled=False):
            parts = [self.model.text_proj(self._read(t)) for t in tokens]
            return _unit(parts, self.model.config.image_text_hidden_size), [
                cut for t in tokens for cut in t.cut
            ]

    @torch.no_grad()
    def match(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """The head's probability that a text belongs to an image, pair by pair: float32 [N] on the
        CPU; and which texts were cut.

        The text opens with [CLS], as in transformers; LAVIS puts [ENC] there.
        """
        check_images(images)
        result, tokens = [], self._text_parts(texts)
        with torch.autocast(self.device.type, enabled=False):
            for pixels, part in zip(self._vision(images), tokens, strict=True):
                states = self.model.vision_model(pixel_values=pixels).last_hidden_state
                result.append(self.model.itm_head(self._read(part, states)).softmax(-1)[:, 1].cpu())
        return torch.cat([torch.zeros(0), *result]), [cut for t in tokens for cut in t.cut]

    def _read(self, tokens: Tokens, image_states: Tensor | None = None) -> Tensor:
        """The state of each text's first token, with a look at the image if one is given, [N,
        width]."""
        ids, mask = tokens.ids.to(self.device), tokens.mask.to(self.device)
        return self.model.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=image_states
        ).last_hidden_state[:, 0]


class BlipCaptioner(Loaded):
    """BLIP fine-tuned for captions, such as Salesforce/blip-image-captioning-base.

    The defaults below are LAVIS's, which Attend-and-Excite used; transformers' own (greedy, no
    prompt) give other captions.
    """

    architecture = "BlipForConditionalGeneration"

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        batch: int = 32,
        prompt: str = "a picture of",
        beams: int = 3,
        shortest: int = 10,
        longest: int = 30,
    ) -> None:
        """``prompt``: what captions continue. ``shortest``, ``longest``: tokens, the prompt's
        included. Raises as `Loaded`."""
        super().__init__(name, revision, device, batch)
        self.prompt = prompt
        self.options: dict[str, Any] = {
            "num_beams": beams,
            "min_length": shortest,
            "max_length": longest,
            "do_sample": False,
        }
        self.facts |= {
            "caption_prompt": prompt,
            "beams": beams,
            "caption_tokens": [shortest, longest],
        }

    @torch.no_grad()
    def captions(self, images: Tensor) -> list[str]:
        """One caption for each image (uint8 [N, 3, H, W]), without the prompt."""
        check_images(images)
        start = self.tokenizer(self.prompt)["input_ids"]
        captions: list[str] = []
        with torch.autocast(self.device.type, enabled=False):
            for pixels in self._vision(images):
                ids = torch.tensor([start] * len(pixels), device=self.device)
                # Its generate() puts the decoder's opening token first and takes the closing one
                # away.
                written = self.model.generate(pixel_values=pixels, input_ids=ids, **self.options)[
                    :, len(start) - 1 :
                ]
                captions += [
                    text.strip()
                    for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)
                ]
        return captions


KINDS: dict[str, type[Loaded]] = {
    kind.architecture: kind for kind in (Clip, Siglip, BlipMatcher, BlipCaptioner)
}


Aligner = Clip | Siglip | BlipMatcher | BlipCaptioner


def load_aligner(
    name: str, revision: str | None = None, device: torch.device | str = "cpu", batch: int = 32
) -> Aligner:
    """The model at a hub id or in a local folder, as the kind that its config.json names.

    Raises FileNotFoundError when nothing can be loaded from there, ValueError when it is neither a
    CLIP nor a BLIP that can score.
    """
    return kind_of(name, revision)(name, revision, device, batch)  # type: ignore[return-value]


def kind_of(name: str, revision: str | None = None) -> type[Loaded]:
    """The class for the model; raises as `load_aligner`, and loads none."""
    found = architecture_of(name, revision)
    if found not in KINDS:
        raise ValueError(
            f"vision-language model {name!r} is a {found}: expected one of {', '.join(KINDS)}"
        )
    return KINDS[found]


def architecture_of(name: str, revision: str | None = None) -> str:
    """The class of transformers that config.json names. Raises FileNotFoundError when there is
    none."""
    from transformers import AutoConfig

    with one_line_errors(WHAT, name, EXPECTED):
        config = AutoConfig.from_pretrained(name, revision=revision)
    return (config.architectures or [config.model_type])[0]


def _unit(parts: list[Tensor], width: int) -> Tensor:
    return torch.cat(
        [torch.zeros(0, width), *(F.normalize(part.float(), dim=-1).cpu() for part in parts)]
    )
