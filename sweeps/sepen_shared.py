"""What the sweeps of Separate-and-Enhance have in common: the settings that they start from, and
what they measure."""

from __future__ import annotations

from sweeps.sweep import Factor, Metric

__all__ = ["CHANGE", "METRICS", "PUBLISHED", "PUBLISHED_LARGE", "SEPEN"]

# trained on the captions of the embedded world's training images, without the images
SEPEN = {
    "method": "separate_enhance",
    "trainer.steps": 60,
    "trainer.lr": 1.5e-3,
    "evaluation.splits": ["val", "heldout", "one"],
    "evaluation.prompts": 32,
    "evaluation.noise_seeds": 2,
    "evaluation.attention": True,
}

# the untouched backbone, or with what was trained
CHANGE = Factor(
    "change",
    ["none", "trained"],
    label="Trained change",
    settings={"none": {"method": "untouched"}, "trained": {}},
)

METRICS = (
    Metric("success_heldout", "Success, held-out", "higher", "share"),
    Metric("success_val", "Success, seen", "higher", "share"),
    Metric("success_one", "Success, single objects", "higher", "share"),
    Metric("score", "Judge's score", "higher"),
    Metric("map_overlap", "Overlap of maps", "lower"),
    Metric("map_activation", "Weakest activation", "higher"),
    Metric("fid", "FID", "lower"),
    Metric("object_rate", "Objects right", "higher", "share"),
    Metric("color_rate", "Colours right", "higher", "share"),
    Metric("extra_objects", "Extra objects", "lower", "per image"),
)

_PROMPTS = {
    "data": "276 prompts of Attend-and-Excite",
    "backbone": "SD 1.4",
    "n": "64 images a prompt",
    "source": "arXiv 2312.06712",
}


def _published(what: str, fid: str, similarity: str, success: str) -> list[dict[str, str]]:
    values = {
        "FID": fid,
        "text similarity of BLIP captions": similarity,
        "success (Detic)": success,
    }
    return [
        {"what": what, "metric": metric, "value": value, **_PROMPTS}
        for metric, value in values.items()
        if value
    ]


PUBLISHED = (
    *_published("Stable Diffusion", "32.96", "0.742", "0.209"),
    *_published("Separate-and-Enhance, k", "36.85", "0.809", "0.410"),
    *_published("enhance alone", "", "", "0.374"),
    *_published("separate alone", "36.33", "", ""),
    *_published("v in place of k", "445.01", "", ""),
    *_published("adapted at test time", "41.74", "0.834", "0.441"),
)

_LARGE = {
    "data": "200 prompts of 220 concepts",
    "backbone": "SD 1.4",
    "n": "64 images a prompt",
    "source": "arXiv 2312.06712",
}
PUBLISHED_LARGE = (
    {
        "what": "Stable Diffusion",
        "metric": "success (Detic)",
        "value": "about 0.21 in all three",
        **_LARGE,
    },
    {
        "what": ("trained on 200 concepts, prompts seen–seen"),
        "metric": "success (Detic)",
        "value": "0.299",
        **_LARGE,
    },
    {"what": "prompts seen–unseen", "metric": "success (Detic)", "value": "0.305", **_LARGE},
    {"what": "prompts unseen–unseen", "metric": "success (Detic)", "value": "0.294", **_LARGE},
)
