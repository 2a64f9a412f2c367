"""Losses as pure functions of tensors; nothing here knows a model, a data set or a Trainer."""

from pathlib import Path

from conf.commands import check_command

check_command(__name__, Path(__file__).parent)
