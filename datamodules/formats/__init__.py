"""Readers of files as people have them, one per layout; what is done with what they read stands in
``datamodules``."""
