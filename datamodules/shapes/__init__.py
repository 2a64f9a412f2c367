"""The embedded world: scenes of coloured shapes, rendered, captioned and read as data sets; its
models stand in ``lightning_modules.embedded``."""
