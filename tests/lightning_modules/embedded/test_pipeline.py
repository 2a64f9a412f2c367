"""The wiring of the embedded backbone: a tokenizer of whole words, and folders that stock diffusers
opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conf.data.shapes import CLEAN, SPLITS
from datamodules.shapes.captions import draw_captions
from datamodules.shapes.scenes import sample_scene
from datamodules.shapes.vocabulary import words
from lightning_modules.embedded.pipeline import CONTEXT, build_pipeline, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_word_is_one_token_of_its_own(tokenizer: Any):
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words()}
    assert {len(tokens) for tokens in ids.values()} == {1}
    assert len({tokens[0] for tokens in ids.values()}) == len(ids)


def test_captions_fit_and_come_back(tokenizer: Any):
    for split in SPLITS:
        for i in range(40):
            for text, *_ in draw_captions(split, i, sample_scene(split, i), careless=CLEAN):
                ids = tokenizer(text).input_ids
                assert len(ids) == len(text.replace(",", " ,").split()) + 2 <= CONTEXT
                assert (
                    tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",").strip()
                    == text
                )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (
        len(tokenizer) - 2,
        len(tokenizer) - 1,
    )


def test_unknown_words_are_spelled_not_dropped(tokenizer: Any):
    pieces = tokenizer("a magenta hexagon", add_special_tokens=False).input_ids
    assert len(pieces) > 3 and tokenizer.decode(pieces).strip() == "a magenta hexagon"


def test_a_saved_pipeline_opens_again_with_the_same_weights_and_tokens(tiny_folder: Path):
    from diffusers import StableDiffusionXLPipeline

    opened = StableDiffusionXLPipeline.from_pretrained(tiny_folder, add_watermarker=False)
    built = build_pipeline(tiny_folder.parent / "again")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        mine, theirs = getattr(built, part).state_dict(), getattr(opened, part).state_dict()
        assert mine.keys() == theirs.keys() and all(
            torch.equal(mine[k], theirs[k]) for k in mine
        ), part
    text = "a red circle left of an orange square"
    assert opened.tokenizer(text).input_ids == built.tokenizer(text).input_ids
    assert opened.tokenizer.model_max_length == opened.tokenizer_2.model_max_length == CONTEXT
    assert (
        opened.config.force_zeros_for_empty_prompt
        and opened.scheduler.config.prediction_type == "v_prediction"
    )


def test_its_size_and_its_seed(tiny_folder: Path, tmp_path: Path):
    one, other = build_pipeline(tmp_path / "1", seed=1), build_pipeline(tmp_path / "2", seed=2)
    assert not torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)
    half_precision = 2 * sum(
        p.numel()
        for part in (one.unet, one.vae, one.text_encoder, one.text_encoder_2)
        for p in part.parameters()
    )
    assert half_precision < 18e6, "all assets together have to stay below 20 MB"
