"""Attention layers: which there are (`sites`, `select`) and what is put into them (`gate`)."""

from lightning_modules.attention.sites import Site, select, sites

__all__ = ["Site", "select", "sites"]
