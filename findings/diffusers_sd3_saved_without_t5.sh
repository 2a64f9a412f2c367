#!/usr/bin/env bash
# diffusers 0.42.1: a StableDiffusion3Pipeline without T5 cannot be opened from the folder that it
# saved itself.
#
# text_encoder_3=None is how SD3 is run without its largest part, and the pipeline is made, draws and
# is saved so: model_index.json says [null, null] for text_encoder_3 and tokenizer_3. Opening that
# folder ends in an error that these two are expected, since the class lists only image_encoder and
# feature_extractor as optional.
#
# Expected beforehand: from_pretrained reads the two nulls and leaves the parts out, as it does for a
# safety checker of null.
# Seen: ValueError "... expected [...], but only {...} were passed"; with text_encoder_3=None and
# tokenizer_3=None given again it opens.
# Cure: give None again for each part whose entry in model_index.json is [null, null].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q diffusers==0.42.1 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/saved" <<'PYTHON'
import json
import pathlib
import sys

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

saved = pathlib.Path(sys.argv[1])
words = saved.with_name("words")
words.mkdir()
(words / "vocab.json").write_text(json.dumps({"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}))
(words / "merges.txt").write_text("#version: 0.2\n")
tokenizer = CLIPTokenizer.from_pretrained(words, model_max_length=8)
config = CLIPTextConfig(
    vocab_size=3, hidden_size=8, intermediate_size=8, projection_dim=8, num_hidden_layers=2,
    num_attention_heads=2, max_position_embeddings=8, bos_token_id=1, eos_token_id=2,
)
pipeline = StableDiffusion3Pipeline(
    transformer=SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=16,
        pooled_projection_dim=16, pos_embed_max_size=8,
    ),
    scheduler=FlowMatchEulerDiscreteScheduler(),
    vae=AutoencoderKL(latent_channels=4, norm_num_groups=32, block_out_channels=(32,), shift_factor=0.0),
    text_encoder=CLIPTextModelWithProjection(config), tokenizer=tokenizer,
    text_encoder_2=CLIPTextModelWithProjection(config), tokenizer_2=tokenizer,
    text_encoder_3=None, tokenizer_3=None,
)
pipeline.set_progress_bar_config(disable=True)
image = pipeline("a", num_inference_steps=1, height=8, width=8, output_type="pt").images
assert image.shape == (1, 3, 8, 8)
pipeline.save_pretrained(saved)
index = json.loads((saved / "model_index.json").read_text())
assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]
try:
    StableDiffusion3Pipeline.from_pretrained(saved)
except ValueError as error:
    assert "text_encoder_3" in str(error) and "were passed" in str(error), error
    print("opening what was saved:", str(error)[:80], "...")
else:
    sys.exit("it opens now")
StableDiffusion3Pipeline.from_pretrained(saved, text_encoder_3=None, tokenizer_3=None)
print("given None again for both, it opens")
PYTHON
