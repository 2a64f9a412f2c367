"""Settings: what there is to set, where values come from, and what methods, data sets and metrics
declare; nothing heavy is imported here."""

from pathlib import Path

from conf.commands import check_command

check_command(__name__, Path(__file__).parent)
