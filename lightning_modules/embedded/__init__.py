"""The embedded world's own models: its backbones, its judges and how they are made; scenes and
captions belong in ``datamodules.shapes``, metrics that ask the judge in ``metrics``."""
