"""Attention layers: which there are (`sites`), what is put into them together (`wiring`): gates,
captures of maps, extra tokens."""

from lightning_modules.attention.sites import Site, nearest, select, sites

__all__ = ["Site", "nearest", "select", "sites"]
