"""What it costs to know the content of files, at a first start and at later ones.

    python -m benchmarks.contents [FOLDER]    # From tests/; makes 3 GB below FOLDER, and removes it

A data set of 20,000 pictures in COCO's form and a backbone with one file of 2 GB: CPU seconds of
all that keys and studies ask at the start of a trial, each in a process of its own; then the same
with one picture, and with the weights, changed in place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, WEIGHTS = 20_000, 2 * 10**9

START = """
import sys, time, json
from conf import load
from conf.schema import Run
from datamodules import coco
from datamodules.build import build_data
from lightning_modules.training import contents, keys
config = load.load(sys.argv[1:], schema=Run, required=False)
keys.training_code(config)
begun = time.process_time(), time.monotonic()
data = build_data(config)
indexed = time.process_time(), time.monotonic()
contents.contents_of(config, data)
keys.training_key(config, data)
ended = time.process_time(), time.monotonic()
print(json.dumps([indexed[0] - begun[0], ended[0] - indexed[0], ended[1] - begun[1]]))
"""


def make(root: Path) -> list[str]:
    """Pictures of 40 to 50 KB and weights below ``root``; the words of a run that reads them."""
    rng, images, captions = np.random.default_rng(0), [], []
    folder = root / "coco" / "train"
    folder.mkdir(parents=True)
    for number in range(IMAGES):
        pixels = np.kron(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), np.ones((8, 8, 1)))
        pixels = (pixels + rng.integers(0, 40, pixels.shape)).clip(0, 255).astype(np.uint8)
        name = f"{number:012d}.jpg"
        Image.fromarray(pixels).save(folder / name, quality=90)
        images.append({"id": number, "file_name": name, "width": 320, "height": 320})
        captions.append({"id": number, "image_id": number, "caption": f"a picture, {number}"})
    (root / "coco" / "annotations").mkdir()
    content = json.dumps({"images": images, "annotations": captions})
    (root / "coco" / "annotations" / "captions_train.json").write_text(content)
    (root / "model" / "unet").mkdir(parents=True)
    with (root / "model" / "unet" / "model.safetensors").open("wb") as file:
        for _ in range(WEIGHTS // 10**7):
            file.write(rng.bytes(10**7))
    return [
        *("data=coco", f"data.root={root / 'coco'}", "data.train_split=train"),
        *("data.min_phrases=0", "evaluation.prompts=0", f"backbone.path={root / 'model'}"),
        f"output={root / 'out'}",
    ]


def start(words: list[str]) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", START, *words], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def flip(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def main(folder: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as root:
        words = make(Path(root))
        print(f"{'':32}{'index':>9}{'contents':>10}{'of first':>10}   CPU s; wall s")
        first = start(words)
        steps = {"again": [], "one picture changed": ["coco/train/000000000007.jpg"]}
        steps["weights changed"] = ["model/unet/model.safetensors"]
        show("first", first, first)
        for name, changed in steps.items():
            for path in changed:
                flip(Path(root) / path)
            show(name, start(words), first)


def show(name: str, seconds: list[float], first: list[float]) -> None:
    index, contents, wall = seconds
    share = (index + contents) / (first[0] + first[1])
    print(f"{name:32}{index:9.3f}{contents:10.3f}{share:10.3f}   {wall:.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
