"""CPU seconds and peak memory of opening an annotation set of the size of COCO's train2017 (118,287
images, 591,435 captions, 860,001 instances; the set is made), the first time and again, beside
pycocotools' `COCO()` on the same two files; also in another tree. "Asked" is the second time as a
run does it, which asks each image for its state (181580d: always). Each way is a process of its
own, and its imports do not count.

    python tests/benchmarks/coco_index.py [--tree <worktree of another commit>] [--repeats 3]
        [--images 118287] [--folder <where the set is made and stays>]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, CAPTIONS, INSTANCES, SIZE, CROWDS = 118_287, 5, 860_001, (640, 480), 86
POOL = 4000  # Different outlines
CATEGORIES = [{"id": i + i // 9, "name": f"thing {i}", "supercategory": "x"} for i in range(1, 81)]
# Seconds and memory are those after the imports; for the memory, of the process
MEASURED = """
import resource, sys, time
tree, root, kept, turn = sys.argv[1:]
if kept == "pycocotools":
    import contextlib, io
    from pycocotools.coco import COCO
    def work():
        with contextlib.redirect_stdout(io.StringIO()):
            return [COCO(f"{root}/annotations/{kind}_train2017.json")
                    for kind in ("captions", "instances")]
else:
    from datamodules.coco import CocoDataset
    def work():
        said = []
        started = time.monotonic()
        def emit(text, *more):
            said.append(time.monotonic() - started)
        found = CocoDataset(root, "train2017", 512, index_root=kept, emit=emit)
        if turn == "asked":
            assert not found.records.images_changed()
        first = f"{said[0]:.2f}" if said else "none"
        print(len(found), "images, first line of progress after", first, "s", file=sys.stderr)
        return found
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
began = time.process_time()
kept_alive = work()
print(time.process_time() - began, peak(), before)
"""


def write(root: Path, images: int) -> None:
    """A set in COCO's form with as many annotations an image as COCO has, and small pictures."""
    rng = np.random.default_rng(0)
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    content = io.BytesIO()
    noise = rng.integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize(SIZE).save(content, "JPEG", quality=20)
    ids = np.sort(rng.choice(581_930, images, replace=False)).tolist()
    listed = []
    for i in ids:
        name = f"{i:012d}.jpg"
        (root / "train2017" / name).write_bytes(content.getvalue())
        listed.append(
            {
                "license": 3,
                "file_name": name,
                "coco_url": f"http://images.cocodataset.org/train2017/{name}",
                "height": SIZE[1],
                "width": SIZE[0],
                "date_captured": "2013-11-14 11:18:45",
                "id": i,
            }
        )
    head = json.dumps({"info": {"year": 2017}, "licenses": [], "images": listed})[:-1]
    words = ["person", "beside", "a", "large", "dog", "in", "the", "field", "of", "grass", "with"]
    with open(root / "annotations" / "captions_train2017.json", "w") as out:
        out.write(head + ', "annotations": [')
        for k in range(images * CAPTIONS):
            text = " ".join(words[j] for j in rng.integers(0, len(words), 10))
            one = {"image_id": ids[k * 7 % images], "id": k, "caption": text}
            out.write((", " if k else "") + json.dumps(one))
        out.write("]}")
    pool = []
    for _ in range(POOL):
        corners = int(rng.integers(6, 36))
        points = rng.uniform(0, 1, (corners, 2)) * rng.uniform(20, 300) + rng.uniform(0, 180, 2)
        pool.append(json.dumps([points.round(2).flatten().tolist()]))
    runs = [*[200, 120] * 900, SIZE[0] * SIZE[1] - 320 * 900]
    crowd = json.dumps({"counts": runs, "size": SIZE[::-1]})
    with open(root / "annotations" / "instances_train2017.json", "w") as out:
        out.write(head + ', "annotations": [')
        for k in range(INSTANCES * images // IMAGES):
            group = k % CROWDS == 0
            segmentation = crowd if group else pool[k % POOL]
            category = CATEGORIES[k % 80]["id"]
            out.write(
                f'{", " if k else ""}{{"segmentation": {segmentation}, "area": {k % 9999}.5, '
                f'"iscrowd": {int(group)}, "image_id": {ids[k * 11 % images]}, "bbox": '
                f'[199.84, 190.46, 77.71, 70.88], "category_id": {category}, "id": {k}}}'
            )
        out.write(f'], "categories": {json.dumps(CATEGORIES)}}}')


def measure(tree: Path, root: Path, kept: str, turn: str = "") -> tuple[float, float]:
    """(CPU seconds, MiB at most)."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tree), str(root), kept, turn],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, peak, _ = map(float, ran.stdout.split())
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    trees = {"here": here} | ({"other tree": options.tree.resolve()} if options.tree else {})
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = options.folder or Path(folder) / "coco"
        if not root.exists():
            write(root, options.images)
        for i in range(options.repeats):
            way = results.setdefault("pycocotools", [])
            way.append(measure(here, root, "pycocotools"))
            for name, tree in trees.items():
                for turn in ("first", "again") + (("asked",) if name == "here" else ()):
                    kept = f"{folder}/{name}-{i}"
                    way = results.setdefault(f"{name}, {turn}", [])
                    way.append(measure(tree, root, kept, turn))
    seconds, memory = map(statistics.median, zip(*results["pycocotools"], strict=True))
    for name, way in results.items():
        second, peak = map(statistics.median, zip(*way, strict=True))
        print(
            f"{name:20} {second:7.2f} CPU s ({second / seconds:.3f})  {peak:6.0f} MiB "
            f"({peak / memory:.3f})"
        )


if __name__ == "__main__":
    main()
