#!/usr/bin/env bash
# datasets 5.2.0: a key "image" in an imagefolder's metadata puts text in the place of the pictures.
#
# Exports of annotation tools often name the picture twice, as file_name (which imagefolder asks for)
# and as "image" (what the tool calls it). Such a metadata.jsonl loads without a word; the column
# "image" is then that text and no column holds the pixels. With the key "picture" all is as expected.
# Such a key "label" or "text" does no harm.
#
# Expected beforehand: an error about the name that is taken, or the key left out.
# Seen: features {"image": string, "text": string}; the same rows with "picture" give an Image feature.
# Cure: rename the key in the file; after loading, check that features["image"] is an Image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pillow==13.0.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()
root = Path(sys.argv[1])


def load(key):
    folder = root / key
    folder.mkdir()
    rows = []
    for name in ("lamp.png", "chair.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)
        rows.append({"file_name": name, key: f"upload/{name}", "text": f"a {name[:-4]}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache = str(root / f"cache_{key}")
    loaded = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
    types = {name: type(kind).__name__ for name, kind in loaded.features.items()}
    print(key, types, loaded[0])
    return types, loaded[0]


types, row = load("picture")
assert types == {"image": "Image", "picture": "Value", "text": "Value"}
types, row = load("image")
assert types == {"image": "Value", "text": "Value"}
assert row == {"image": "upload/lamp.png", "text": "a lamp"}
types, row = load("label")
assert types == {"image": "Image", "label": "Value", "text": "Value"}
print("as stated")
PYTHON
