"""``python -m lightning_modules.train``: see ``lightning_modules.training.run``."""

import sys

from lightning_modules.training.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
