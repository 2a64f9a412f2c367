"""Images with captions as people have them: lines, tables, shards, folders and hub data sets."""

from conf.spec import DataSpec

DATA = DataSpec(
    "captions",
    phrases_from="add phrases with masks to the lines",
    unread=lambda config: ("split_by", "detokenise", "subjects", "zipf", "careless"),
)
