"""The embedded world's own models: its backbone, its judge and how both are made; scenes and
captions stand in ``datamodules.shapes``."""
