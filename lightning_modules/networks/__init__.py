"""Modules with trained parameters that methods put beside or into a frozen model; nothing here
knows a loss or a Trainer."""
