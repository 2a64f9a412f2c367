"""COCO, and what people annotate in its form: images with captions and instance masks."""

from conf.spec import DataSpec

DATA = DataSpec(
    "captions", unread=lambda config: ("split_by", "detokenise", "subjects", "zipf", "careless")
)
