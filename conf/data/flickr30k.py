"""Flickr30k: images with captions, and the boxes of Flickr30k Entities where these are there."""

from conf.spec import DataSpec

DATA = DataSpec(
    "captions",
    phrases_from="put Annotations and Sentences of Flickr30k Entities below data.root",
    unread=lambda config: ("subjects", "zipf", "careless"),
)
