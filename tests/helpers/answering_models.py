"""Tiny models that answer questions about images, with random weights, complete enough to be loaded
as if from the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISION = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
# Of one token each; everything else is spelt out
KNOWN = ("yes", "Yes", " yes", "no", "No", "one", "two", " two", "2")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def make_tokenizer(chat: str) -> t.PreTrainedTokenizerFast:
    """Bytes, and the words that are `KNOWN`."""
    vocabulary = {sign: i for i, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in KNOWN:
        blank, rest = ("Ġ", word[1:]) if word[0] == " " else ("", word)
        # A word that is known already joins as it is
        signs = [blank, rest] if blank else [*rest]
        while len(signs) > 1:
            pair, joined = (signs[0], signs[1]), signs[0] + signs[1]
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault(joined, len(vocabulary))
            signs[:2] = [joined]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", *VISION],
    )
    fast.chat_template = chat
    return fast


def _save(model: Any, folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)


def make_qwen(folder: Path, seed: int = 0) -> Path:
    """A Qwen2.5-VL."""
    chat = CHAT.replace("IMAGE", "".join(VISION[:3]))
    tokenizer = make_tokenizer(chat)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in (*SPECIAL, *VISION)}
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 16,
    }
    config = t.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    _save(t.Qwen2_5_VLForConditionalGeneration(config), folder, seed)
    tokenizer.save_pretrained(folder)
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pixels

    pixels.Qwen2VLImageProcessorPil(
        patch_size=4, temporal_patch_size=2, merge_size=2, min_pixels=256, max_pixels=1024
    ).save_pretrained(folder)
    return folder


def make_llava(folder: Path, seed: int = 0) -> Path:
    """A LLaVA of a CLIP and a Llama, with transformers' own processor."""
    tokenizer = make_tokenizer(CHAT.replace("IMAGE", "<|image_pad|>"))
    pixels = t.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = t.LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        image_token="<|image_pad|>",
        num_additional_image_tokens=1,
    )
    vision = t.CLIPVisionConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=8,
    )
    text = t.LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **TEXT)
    config = t.LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    _save(t.LlavaForConditionalGeneration(config), folder, seed)
    processor.save_pretrained(folder)
    return folder
