#!/usr/bin/env bash
# diffusers 0.42.1: UniPCMultistepScheduler(solver_type="bh1") ends in NaN, without a word.
#
# With its default final_sigmas_type="zero" the last step goes to sigma 0, where bh1 multiplies an
# infinite step by zero; bh2, the default, does not. A pipeline turns the latents into a black image.
#
# Expected beforehand: finite latents, or an error in set_timesteps, as DPMSolverMultistepScheduler
# has for algorithm_type="dpmsolver" with final_sigmas_type="zero".
# Seen: NaN in all latents for bh1, finite ones for bh2.
# Cure: final_sigmas_type="sigma_min" with bh1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q diffusers==0.42.1 torch==2.13.0 numpy scipy
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import UniPCMultistepScheduler


def draw(**settings: str) -> torch.Tensor:
    scheduler = UniPCMultistepScheduler(beta_schedule="scaled_linear", **settings)
    scheduler.set_timesteps(10)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        latents = scheduler.step(latents / 2, t, latents).prev_sample
    return latents


assert draw(solver_type="bh1").isnan().all()
assert draw(solver_type="bh2").isfinite().all()
assert draw(solver_type="bh1", final_sigmas_type="sigma_min").isfinite().all()
print("as stated")
PYTHON
