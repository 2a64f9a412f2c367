#!/usr/bin/env bash
# supervision 0.31.2 beside pycocotools 2.0.11: the same polygon gives masks a pixel apart.
#
# Both read one COCO annotation file. pycocotools fills the pixels whose centres lie inside, so a
# square from 10 to 20 has 10 x 10 pixels. supervision draws the polygon's edge as well: 11 x 11. The
# area it reports stays the one written in the file, so the mask and its own area disagree.
#
# Expected beforehand: equal up to single pixels at slanted edges.
# Seen (side of a square in pixels: IoU of the two masks): 5: .69, 10: .83, 20: .91, 100: .98.
# A perfect mask predicted on a 640-pixel image and judged by the other reader loses a sixth of its
# IoU where objects are 10 pixels wide; on masks brought down to a latent's grid the edge is more yet.
# Cure: one reader for what is trained on and what judges.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q supervision==0.31.2 pycocotools==2.0.11 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import supervision
from PIL import Image
from pycocotools.coco import COCO

root = Path(sys.argv[1])
sides = (5, 10, 20, 100)
square = [[[10, 10, 10 + n, 10, 10 + n, 10 + n, 10, 10 + n]] for n in sides]
(root / "images").mkdir()
Image.new("RGB", (160, 160)).save(root / "images" / "a.png")
content = {
    "images": [{"id": 1, "file_name": "a.png", "width": 160, "height": 160}],
    "categories": [{"id": 1, "name": "square"}],
    "annotations": [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [10, 10, n, n],
            "area": n * n,
            "segmentation": square[i],
        }
        for i, n in enumerate(sides)
    ],
}
(root / "coco.json").write_text(json.dumps(content))
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(str(root / "coco.json"))
one = [coco.annToMask(coco.anns[i + 1]).astype(bool) for i in range(len(sides))]
dataset = supervision.DetectionDataset.from_coco(
    str(root / "images"), str(root / "coco.json"), force_masks=True
)
((_, _, found),) = list(dataset)
other = [np.asarray(mask, dtype=bool) for mask in found.mask]
for n, a, b, area in zip(sides, one, other, found.data["area"], strict=True):
    iou = (a & b).sum() / (a | b).sum()
    print(f"side {n}: pycocotools {a.sum()}, supervision {b.sum()}, its area {area:g}, IoU {iou:.2f}")
    assert (a.sum(), b.sum(), area) == (n * n, (n + 1) ** 2, n * n)
print("as stated")
PYTHON
