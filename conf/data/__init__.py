"""One file per data set: what it declares (``DATA``), found by file name, with its preset
``NAME.yaml`` beside it; no heavy import and nothing that reads data belongs here."""
