"""The embedded world's own models: its backbone, its judge and how both are made; scenes and
captions belong in ``datamodules.shapes``, metrics that ask the judge in ``metrics``."""
