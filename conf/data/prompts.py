"""Prompts without images: benchmarks, lists of words and own files."""

from conf.spec import DataSpec

# Of images, of their splits, and of scenes
UNREAD = (
    *("train_split", "split_by", "detokenise", "singular", "verify", "mask_share", "flip"),
    *("subjects", "zipf", "careless"),
)
DATA = DataSpec("prompts", defaults={"evaluation.splits": []}, unread=lambda config: UNREAD)
