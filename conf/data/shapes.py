"""The embedded world: scenes of one to four coloured shapes, rendered with captions and masks."""

from conf.spec import DataSpec

DATA = DataSpec("captions", embedded=lambda config: True)
