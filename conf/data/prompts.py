"""Prompts without images: benchmarks, lists of words and own files."""

from conf.spec import DataSpec

DATA = DataSpec("prompts", defaults={"evaluation.splits": []})
