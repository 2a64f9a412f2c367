"""What acts on the attention layers of a frozen model: gates, captured maps, extra tokens.

Layers and what is put into them belong here; networks with weights of their own belong in
``networks``, what a method does with gates and maps in ``methods``.
"""

from lightning_modules.attention.sites import Site, nearest, select, sites

__all__ = ["Site", "nearest", "select", "sites"]
