#!/usr/bin/env bash
# diffusers 0.42.1: perturbed-attention and skip-layer guidance perturb nothing without
# classifier-free guidance.
#
# Both guiders find the pass to perturb by counting: the third of three. With guidance_scale=1 there
# are two passes, conditional and perturbed, so that the second runs the unchanged model. The guidance
# term is then zero: the image is that of the plain conditional model, for twice the time.
#
# Expected beforehand: as in the papers, which guide without classifier-free guidance too (perturbed
# attention was shown on unconditional generation), the last pass skips the named layers in both cases.
# Seen: at scale 3 the pass pred_cond_skip differs from the plain one, at scale 1 it is bit for bit the
# same. AutoGuidance, which does not count so, is right.
# Cure: a guidance_scale such as 1.0001, at the price of an unconditional pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q diffusers==0.42.1 torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import UNet2DConditionModel, guiders
from diffusers.hooks import LayerSkipConfig

torch.manual_seed(0)
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(32, 32),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=32,
    attention_head_dim=8,
    norm_num_groups=8,
).eval()
latents, time, text = torch.randn(2, 4, 8, 8), torch.tensor(800), torch.randn(2, 7, 32)
BLOCKS = "mid_block.attentions.0.transformer_blocks"


@torch.no_grad()
def run():
    return unet(latents, time, text).sample


plain = run()


def changes(guider):
    """How far each pass of the guider is from the plain one, all with the same text."""
    guider.set_state(1, 10, time)
    found = {}
    for batch in guider.prepare_inputs({"text": (text, text)}):
        guider.prepare_models(unet)
        found[getattr(batch, guider._identifier_key)] = float((run() - plain).abs().max())
        guider.cleanup_models(unet)
    assert run().equal(plain)
    print(type(guider).__name__, found)
    return found


for name, settings in {
    "PerturbedAttentionGuidance": {
        "perturbed_guidance_config": LayerSkipConfig(
            indices=[0], fqn=BLOCKS, skip_attention=False, skip_attention_scores=True, skip_ff=False
        )
    },
    "SkipLayerGuidance": {"skip_layer_config": LayerSkipConfig(indices=[0], fqn=BLOCKS)},
}.items():
    make = getattr(guiders, name)
    three, two = (changes(make(guidance_scale=scale, **settings)) for scale in (3.0, 1.0))
    assert list(three) == ["pred_cond", "pred_uncond", "pred_cond_skip"]
    assert list(two) == ["pred_cond", "pred_cond_skip"]
    assert three["pred_cond_skip"] > 1e-3 and two["pred_cond_skip"] == 0
auto = guiders.AutoGuidance(
    guidance_scale=3.0, auto_guidance_config=LayerSkipConfig(indices=[0], fqn=BLOCKS)
)
assert changes(auto)["pred_uncond"] > 1e-3
print("as stated")
PYTHON
