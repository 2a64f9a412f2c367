"""One file per method: its settings and what it declares (``METHOD``), found by file name, with its
presets ``NAME*.yaml`` beside it; no heavy import and no computation belongs here."""
