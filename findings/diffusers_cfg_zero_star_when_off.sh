#!/usr/bin/env bash
# diffusers 0.42.1: the guider CFG-Zero* blanks the first step also where its guidance is off.
#
# ClassifierFreeZeroStarGuidance sets the prediction of the first steps (zero_init_steps, by default
# one) to zero. It does so whether or not guidance is on at that step: with guidance_scale=1, where it
# asks for the conditional pass alone, and with start=.5, where guidance begins at the sixth step of
# ten. Every other guider that can be made without naming layers returns the conditional prediction
# untouched there.
#
# Expected beforehand: at scale 1, or before `start`, the conditional prediction comes back as it is.
# Seen: zeros at step 0, the conditional prediction after; only disable() or zero_init_steps=0 give it
# at every step. A comparison of guiders at one scale therefore finds a difference at scale 1, where
# none of them guides.
# Cure: leave the guider out, or disable() it, where the scale is 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q diffusers==0.42.1 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import guiders

torch.manual_seed(0)
cond, uncond = torch.randn(2, 1, 4, 8, 8)


def steps(name, off=False, **settings):
    guider = getattr(guiders, name)(**settings)
    if off:
        guider.disable()
    words = []
    for step in range(10):
        guider.set_state(step, 10, torch.tensor(900 - 90 * step))
        both = guider.num_conditions == 2
        out = guider.forward(cond, uncond if both else None).pred
        words.append("zero" if not out.any() else "cond" if out.equal(cond) else "guided")
    print(name, settings, "disabled" if off else "", words)
    return words


STAR = "ClassifierFreeZeroStarGuidance"
assert steps(STAR, guidance_scale=1.0) == ["zero"] + ["cond"] * 9
assert steps(STAR, guidance_scale=3.0, start=0.5) == ["zero"] + ["cond"] * 4 + ["guided"] * 5
assert steps(STAR, guidance_scale=1.0, zero_init_steps=0) == ["cond"] * 10
assert steps(STAR, guidance_scale=3.0, off=True) == ["cond"] * 10
for kind in ("ClassifierFree", "AdaptiveProjected", "TangentialClassifierFree"):
    other = f"{kind}Guidance"
    assert steps(other, guidance_scale=1.0) == ["cond"] * 10
    assert steps(other, guidance_scale=3.0, start=0.5)[:5] == ["cond"] * 5
print("as stated")
PYTHON
