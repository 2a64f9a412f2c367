"""CPU seconds of `python -m datamodules.inspect` after its imports, on a made set of 160 images of
640 x 480 pixels with 1,350 masks, polygons and run lengths in turn; also in another tree.

    python tests/benchmarks/inspect_masks.py [--tree <worktree of another commit>] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, MASKS, SIZE = 160, 1350, (640, 480)
NAMES = ("person", "dog", "chair", "cup", "car")
# A first call on one image, that imports what is imported late
MEASURED = """
import contextlib, io, sys, time
from datamodules.inspect import main
with contextlib.redirect_stdout(io.StringIO()):
    main([*sys.argv[1:-1], "data.train_images=1", "images=1", sys.argv[-1] + "-warm"])
began = time.process_time()
code = main(sys.argv[1:])
print("CPU seconds", time.process_time() - began)
sys.exit(code)
"""


def polygon(rng: np.random.Generator) -> list[float]:
    """A star-shaped outline of 12 to 40 corners, as large as COCO's objects are."""
    corners = int(rng.integers(12, 40))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.lognormal(3.6, 0.8) * rng.uniform(0.6, 1, corners)
    x = (rng.uniform(0, SIZE[0]) + radii * np.cos(angles)).clip(0, SIZE[0])
    y = (rng.uniform(0, SIZE[1]) + radii * np.sin(angles)).clip(0, SIZE[1])
    return np.stack([x, y], 1).round(2).flatten().tolist()


def run_lengths(outline: list[float]) -> dict[str, object]:
    from pycocotools import mask as coco_mask

    width, height = SIZE
    flat = coco_mask.decode(coco_mask.frPyObjects([outline], height, width))[..., 0].T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": [height, width], "counts": ([0] if flat[0] else []) + counts}


def write(root: Path) -> None:
    rng = np.random.default_rng(0)
    width, height = SIZE
    images, captions, things = [], [], []
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for i in range(IMAGES):
        noise = rng.integers(0, 255, (height // 20, width // 20, 3), np.uint8)
        picture = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(root / "val2017" / f"{i:012d}.jpg", quality=90)
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": width, "height": height})
        for k in range(5):
            text = f"A {NAMES[k]} beside a {NAMES[(i + k) % 5]}."
            captions.append({"id": 5 * i + k, "image_id": i, "caption": text})
    for k in range(MASKS):
        outline = polygon(rng)
        thing = {"id": k, "image_id": k % IMAGES, "category_id": k % 5 + 1, "iscrowd": 0}
        things.append(thing | {"segmentation": run_lengths(outline) if k % 2 else [outline]})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    for name, content in (("captions", captions), ("instances", things)):
        content = {"images": images, "annotations": content, "categories": categories}
        (root / "annotations" / f"{name}_val2017.json").write_text(json.dumps(content))


def measure(tree: Path, root: Path, output: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    words = ["data=coco", f"data.root={root}", "data.train_split=val2017", f"output={output}"]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout.rsplit("CPU seconds", 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    trees = [here] + ([options.tree.resolve()] if options.tree else [])
    seconds: dict[Path, list[float]] = {tree: [] for tree in trees}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "coco")
        for i in range(options.repeats):
            for k, tree in enumerate(trees):
                output = Path(folder) / f"out-{k}-{i}"
                seconds[tree].append(measure(tree, Path(folder) / "coco", output))
    for tree, values in seconds.items():
        print(f"{tree}: {statistics.median(values):.2f} s of {sorted(values)}")
    if options.tree:
        ratio = statistics.median(seconds[here]) / statistics.median(seconds[trees[1]])
        print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
