"""Reports of sweeps, made from MLflow alone; nothing here runs a trial or imports the project."""

import sys

from reports.mistyped import check_command

check_command(sys.argv, sys.orig_argv)
