"""Where the tagger that ``data.tagger`` names lies, and what stands for it in keys; nothing of it
is loaded."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from conf.contents import digest_contents, list_files
from conf.describe import nearest

LIGHT = "light"
# Files that decide what the light tagger finds
PARTS = ("lexicon.py", "runs.py", "asides.py", "nouns.py", "nouns.json", "categories.json")


def find_pipeline(name: str) -> Path:
    """The folder of an installed spaCy pipeline, spaCy itself not loaded. Raises ValueError in one
    line with the command that installs what is missing."""
    hint = nearest(name, [LIGHT])
    if find_spec("spacy") is None:
        raise ValueError(
            f"data.tagger={name!r}: spaCy is not installed; pip install spacy && "
            f"python -m spacy download {name}, or data.tagger={LIGHT}{hint}"
        )
    folder = Path(name)
    if not folder.is_dir():
        found = find_spec(name) if name.isidentifier() else None
        if found is None or not found.origin:
            raise ValueError(
                f"data.tagger={name!r}: expected {LIGHT}, or a spaCy pipeline that is installed; "
                f"python -m spacy download {name}{hint}"
            )
        folder = Path(found.origin).parent
    if not any(folder.rglob("config.cfg")):
        raise ValueError(
            f"data.tagger={name!r}: {folder} is no spaCy pipeline: expected its meta.json and "
            "config.cfg"
        )
    return folder


def tagger_identity(name: str, cache: Path | None = None) -> str:
    """What stands for a tagger in keys: changes with its code, lists and weights. ``cache`` keeps
    the digests of files. Raises ValueError as `find_pipeline`."""
    if name == LIGHT:
        here = Path(__file__).parent
        content = b"".join((here / file).read_bytes() for file in PARTS)
        return f"{LIGHT} {hashlib.sha256(content).hexdigest()[:12]}"
    folder = find_pipeline(name)
    files = {file: path for file, path in list_files(folder).items() if not file.endswith(".pyc")}
    try:
        spacy = version("spacy")
    except PackageNotFoundError:
        spacy = "of unknown version"
    meta = next(folder.rglob("meta.json"), None)
    facts = json.loads(meta.read_text(encoding="utf-8")) if meta else {}
    words = [f"{facts.get(key, '?')}" for key in ("lang", "name", "version")]
    return f"spaCy {spacy} {' '.join(words)} {digest_contents(files, cache, f'files of {name}')}"
