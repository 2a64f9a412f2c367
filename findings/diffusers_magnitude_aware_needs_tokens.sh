#!/usr/bin/env bash
# diffusers 0.42.1: MagnitudeAwareGuidance cannot guide latents of images [B, C, H, W] at all.
#
# The guider takes a norm over every dimension but the first with torch.norm, which takes one or two
# dimensions. Predictions of packed tokens [B, N, C] (FLUX, Qwen-Image) pass; the four dimensions of
# SD 1.x, SDXL, SD3 and PixArt, and the five of video models, raise.
#
# Expected beforehand: a guider is arithmetic on two tensors of one shape, whatever the shape.
# Seen: "linalg.matrix_norm: dim must be a 2-tuple. Got 1 2 3" at the first guided step.
# Cure: flatten what follows the batch (pred.flatten(2)) before the guider and give it its shape after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q diffusers==0.42.1 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers.guiders import ClassifierFreeGuidance, MagnitudeAwareGuidance

torch.manual_seed(0)


def outcome(make, *shape):
    cond, uncond = torch.randn(2, *shape)
    guider = make(guidance_scale=3.0)
    guider.set_state(1, 10, torch.tensor(800))
    try:
        word = tuple(guider.forward(cond, uncond).pred.shape)
    except RuntimeError as error:
        word = str(error)
    print(make.__name__, shape, "->", word)
    return word


assert outcome(MagnitudeAwareGuidance, 2, 64, 4) == (2, 64, 4)
assert "dim must be a 2-tuple. Got 1 2 3" in outcome(MagnitudeAwareGuidance, 2, 4, 8, 8)
assert "dim must be a 2-tuple. Got 1 2 3 4" in outcome(MagnitudeAwareGuidance, 2, 4, 3, 8, 8)
assert outcome(ClassifierFreeGuidance, 2, 4, 8, 8) == (2, 4, 8, 8)
print("as stated")
PYTHON
