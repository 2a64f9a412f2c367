"""``python -m lightning_modules.metrics.train_judge``: see
``lightning_modules.embedded.judge_training``."""

import sys

from lightning_modules.embedded.judge_training import main

if __name__ == "__main__":
    main(sys.argv[1:])
