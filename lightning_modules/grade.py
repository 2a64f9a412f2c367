"""``python -m lightning_modules.grade``: see ``lightning_modules.embedded.grade``."""

import sys

from lightning_modules.embedded.grade import main

if __name__ == "__main__":
    main(sys.argv[1:])
