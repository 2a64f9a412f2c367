"""What a run would be trained on, for a person to see: counts, sizes, captions, masks, problems,
and a contact sheet of each split.

    python -m datamodules.inspect data=coco data.root=/data/coco    # and any other setting of a run
    python -m datamodules.inspect data=coco data.root=/data/coco evaluation.splits=[val2017]
    python -m datamodules.inspect --help

Everything is written to <output>/inspect/<data.name>: <split>.png, and inspect.json with all that
was printed and the manifest.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.conditions import check_read, list_changed_data
from conf.help_page import help_text
from conf.pipes import ends_with_reader
from conf.places import check_folder
from conf.schema import Run, number
from conf.spec import data_sets

# Side of the crop of photographs where no backbone is named
PIXELS = 512


@dataclass
class Inspection(Run):
    """The settings of a run, and how much of its data is shown."""

    # Images of each split on its contact sheet; 0 draws none
    images: int = number(12, minimum=0)


@ends_with_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 for settings or data that cannot be used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        title = str(__doc__).partition("\n")[0]
        print(help_text(title, "python -m datamodules.inspect", schema=Inspection))
        return 0
    try:
        config = _with_defaults_of_data(conf.load(argv, schema=Inspection, required=False), argv)
        check_folder("output", config.output)
        # Of trainer and evaluation, a command of a run has settings that nobody reads here
        keys = [word.partition("=")[0] for word in argv]
        keys = [key for key in keys if key.startswith(("data.", "method."))]
        check_read([config], [*keys, *list_changed_data(config)])
        # Here, not above: they take seconds to load, and help needs none of them
        from datamodules.build import build_data
        from datamodules.inspection import report

        folder = Path(config.output) / "inspect" / config.data.name
        with warnings.catch_warnings():
            # What a DataModule warns of is in its notes, which are printed
            warnings.simplefilter("ignore", UserWarning)
            progress = _ProgressLine()
            report(build_data(config, progress), folder, config.images, progress=progress)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _with_defaults_of_data(config: Inspection, argv: Sequence[str]) -> Inspection:
    """The defaults are those of the embedded world: other data have other splits, and photographs
    are not seen at 64 pixels."""
    spec = data_sets()[config.data.name]
    given = {word.partition("=")[0] for word in argv}
    changes: dict[str, Any] = {}
    if spec.embedded(config):
        return config
    if spec.kind == "captions" and not {"evaluation", "evaluation.splits"} & given:
        changes["evaluation.prompts"] = 0
        print("evaluation splits: none was named; to see them, too: evaluation.splits=[…]")
    if not {"backbone", "backbone.resolution"} & given:
        changes["backbone.resolution"] = PIXELS
    return conf.replace(config, changes)


class _ProgressLine:
    """Says on one line of a terminal, and a few times elsewhere, how a long reading goes on."""

    def __init__(self) -> None:
        self.last, self.wait = time.monotonic(), 0.5

    def __call__(self, text: str, share: float = 0.0) -> None:
        terminal = sys.stderr.isatty()
        if time.monotonic() - self.last <= self.wait:
            return
        # What takes longer than a moment is said at once
        self.wait = 0.5 if terminal else 10
        self.last = time.monotonic()
        end = "\n" if not terminal or share >= 1 else ""
        text = f"\r\x1b[2K{text}" if terminal else text
        print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
