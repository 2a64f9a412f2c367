"""``python -m lightning_modules.train run.yaml``: see ``lightning_modules.training.run``."""

import sys

from lightning_modules.training.run import check, main, run

__all__ = ["check", "main", "run"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
