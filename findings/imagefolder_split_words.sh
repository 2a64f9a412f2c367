#!/usr/bin/env bash
# datasets 4.8.5: one file or folder whose name holds a split's word empties an "imagefolder" set.
#
# A folder of images with captions in metadata.jsonl, as text-to-image training scripts read it.
# As soon as one name holds test, val, train, dev, eval, ... as a word ("test_tube.png", a folder
# "val/"), names are taken for splits: every file without such a word is left out, metadata.jsonl
# among them, so the captions are gone too. Nothing is printed and the load succeeds.
#
# Expected beforehand: file names play no part where metadata.jsonl lists the files; an image without
# a row there is an error.
# Seen: of two captioned images, "test_tube.png" and "bottle.png", one image in a split "test" without
# any caption; a folder "train/" added beside 2 images leaves only its own. And an image without a row
# is dropped without a word, while a row without an image is an error.
# Cure: data_files={"train": "**"} (or a folder of neutral names), and a count of what came out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==4.8.5 pillow==13.0.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()
root = Path(sys.argv[1])


def read(name, captioned, *others, **options):
    folder = root / name
    for file in (*captioned, *others):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / file)
    rows = [json.dumps({"file_name": file, "text": file.upper()}) for file in captioned]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    cache = str(root / f"{name}.cache")
    splits = load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache, **options)
    seen = {split: [row.get("text") for row in rows] for split, rows in splits.items()}
    print(f"{name}: {len(captioned)} captioned + {len(others)} other images -> {seen}")
    return seen


assert read("neutral", ["tube.png", "bottle.png"]) == {"train": ["TUBE.PNG", "BOTTLE.PNG"]}
assert read("word", ["test_tube.png", "bottle.png"]) == {"test": [None]}
assert read("folder", ["val/tube.png", "photos/bottle.png"]) == {"validation": [None]}
assert read("later", ["tube.png", "bottle.png"], "train/new.png") == {"train": [None]}
assert read("without_row", ["tube.png"], "bottle.png") == {"train": ["TUBE.PNG"]}
told = read("cure", ["test_tube.png", "bottle.png"], data_files={"train": "**"})
assert sorted(told["train"]) == ["BOTTLE.PNG", "TEST_TUBE.PNG"]
print("as stated")
PYTHON
