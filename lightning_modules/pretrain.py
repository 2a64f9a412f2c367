"""``python -m lightning_modules.pretrain``: see ``lightning_modules.embedded.pretrain``."""

import sys

from lightning_modules.embedded.pretrain import main

if __name__ == "__main__":
    main(sys.argv[1:])
