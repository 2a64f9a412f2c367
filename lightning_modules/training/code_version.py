"""What code trained an adapter or drew an image: results of other code are never taken for those of
this one.

The digest is of the syntax tree, so that a comment, a docstring or a line break changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

__all__ = ["code_version"]

ROOT = Path(__file__).parents[2]
LIBRARIES = ("diffusers", "lightning", "peft", "torch", "transformers")
PACKAGES = ("losses", "datamodules", "lightning_modules")
# what only looks at images or tells of a run; a trained weight or a drawn pixel never depends on it
LOOKS_ON = (
    "datamodules/contact_sheet.py",
    "datamodules/inspect.py",
    "lightning_modules/attention_probe.py",
    "lightning_modules/code_version.py",
    "lightning_modules/costs.py",
    "lightning_modules/duration.py",
    "lightning_modules/evaluate.py",
    "lightning_modules/following.py",
    "lightning_modules/grade.py",
    "lightning_modules/images.py",
    "lightning_modules/metrics",
    "lightning_modules/pictures.py",
    "lightning_modules/pretrain.py",
    "lightning_modules/progress.py",
    "lightning_modules/provenance.py",
    "lightning_modules/scoring.py",
    "lightning_modules/steps.py",
    "lightning_modules/store.py",
    "lightning_modules/system_metrics.py",
    "lightning_modules/tracking.py",
    "lightning_modules/worker.py",
)


@cache
def code_version(root: Path = ROOT) -> str:
    """Twelve hexadecimal digits of the code that trains and samples, the libraries' versions
    included."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            name = file.relative_to(root).as_posix()
            if not name.startswith(LOOKS_ON):
                digest.update(f"{name}\n{_tree(file.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()[:12]


def _tree(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node, clean=False):
            del node.body[0]
    return ast.dump(tree)
