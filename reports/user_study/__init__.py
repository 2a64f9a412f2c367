"""Asking people which images they prefer, page and analysis; nothing here generates images."""
