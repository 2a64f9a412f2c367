"""The untouched backbone as a method: every comparison needs it."""

from lightning_modules.methods.base import Method


class Untouched(Method):
    """Changes and trains nothing."""

    name = "untouched"
