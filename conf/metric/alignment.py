"""How well images agree with prompts, by CLIP, SigLIP and BLIP models: ``evaluation.aligners``."""

from conf.spec import Metric, MetricSpec

METRIC = MetricSpec(
    outputs=(
        Metric("clip_score", "CLIP score", "higher"),
        Metric("clip_score_weakest_part", "CLIP score, weakest part", "higher"),
        Metric("siglip_score", "SigLIP score", "higher"),
        Metric("siglip_score_weakest_part", "SigLIP score, weakest part", "higher"),
        Metric("caption_similarity", "Caption similarity", "higher"),
        Metric("blip_itc", "BLIP image–text", "higher"),
        Metric("blip_itc_weakest_part", "BLIP image–text, weakest part", "higher"),
        Metric("blip_itm", "BLIP match", "higher"),
    ),
    conditional=(
        *("clip_score_weakest_part", "siglip_score_weakest_part", "blip_itc_weakest_part"),
    ),
    measured=lambda evaluation: bool(evaluation.aligners),
)
