"""What adapters and images are stored under: everything that their computation depends on, the code
included, and nothing of where the code lies.

The code is the set of the project's modules that training or sampling reaches through imports. Of
each module the syntax tree counts, without docstrings, comments and the project's own imports;
paths and names of files do not. So moving a file (with its imports rewritten) keeps every key, and
changing a formula changes the keys of those that compute with it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple

from conf import load as conf
from conf import spec
from conf.schema import Run
from conf.seeds import SEEDS, training_seeds

__all__ = [
    "LIBRARIES",
    "OBSERVERS",
    "SAMPLING",
    "TRAINING",
    "adapter_folder",
    "backbone_facts",
    "code_version",
    "method_facts",
    "sampling_code",
    "training_facts",
    "training_key",
]

PROJECT = Path(__file__).parents[2]
# Those that reach an adapter or a pixel
LIBRARIES = (
    "diffusers",
    "lightning",
    "numpy",
    "peft",
    "pillow",
    "tokenizers",
    "torch",
    "transformers",
)
PACKAGES = ("losses", "datamodules", "lightning_modules")
# Packages that only look at a trained weight or a drawn pixel, never make one, and these keys. (Of
# ``conf`` the values count, as facts.)
OBSERVERS = tuple(
    f"lightning_modules.{name}." for name in ("evaluation", "metrics", "tracking", "training.keys")
)
# A package as a root stands for all its modules; methods and data sets are added by file name.
TRAINING = ("datamodules.build", "lightning_modules.training.fit")
SAMPLING = ("lightning_modules.backbone",)
METHODS = "lightning_modules.methods"
DATA_FILES = (".csv", ".json", ".txt")
# Of a module without statements
EMPTY = hashlib.sha256("\n".join(["Module", "[", "]", "[", "]"]).encode()).hexdigest()


def training_facts(config: Run) -> dict[str, Any]:
    """The settings that training depends on: all except those of evaluation, output, logging,
    loading, of other methods, and those that the method declares to act in sampling alone. Of batch
    and devices the product counts, of seeds what they are, whichever setting says it."""
    facts = conf.to_dict(conf.as_run(config))
    for group, key in (
        # Of these what is read counts, by its content
        ("data", "annotations"),
        ("data", "boxes"),
        ("data", "column"),
        ("data", "eval_images"),
        ("data", "workers"),
        ("trainer", "log_every"),
        ("trainer", "checkpoint_every"),
    ):
        del facts[group][key]
    facts["trainer"]["batch"] *= facts["trainer"].pop("devices")
    steers = spec.sampling_sections()
    facts["method"] = {k: v for k, v in method_facts(config).items() if k not in steers}
    for key in spec.methods()[config.method.name].unread_in_training(config.method):
        _, section, name = key.split(".")
        del facts["method"][section][name]
    facts["seed"] = training_seeds(config)
    return {
        key: value
        for key, value in facts.items()
        if key not in ("evaluation", "evaluate_with", "output", *SEEDS)
    }


def method_facts(config: Run) -> dict[str, Any]:
    """The settings of the method without the sections that only other methods read."""
    unread = spec.unread_sections(config.method.name)
    settings = conf.to_dict(config)["method"]
    return {key: value for key, value in settings.items() if key not in unread}


def training_key(config: Run, datamodule: Any = None) -> str:
    """Digest of ``training_facts``, the content of the backbone's weights and of the user's own
    data (not where they lie), and the code. ``datamodule``: that of these settings, where it is
    built already."""
    from datamodules.build import data_digest, singular
    from datamodules.phrases.pipelines import tagger_identity
    from lightning_modules.training.contents import place_digest, shipped_digests

    method = spec.methods()[config.method.name]
    facts = training_facts(config)
    if shipped := shipped_digests(config):
        facts["shipped"] = shipped
    # What lies in files counts by its content, wherever that is: it may be changed in place.
    facts["method"].pop("init")
    facts["data"]["root"] = data_digest(config, datamodule) or config.data.root
    facts["data"]["tagger"] = tagger_identity(config.data.tagger, Path(config.output) / "cache")
    # "auto" is what it stands for
    facts["data"]["singular"] = singular(config)
    return conf.digest(
        {
            **facts,
            "backbone": backbone_facts(config),
            "start": place_digest(config, "method.init"),
            "phrases": method.needs_phrases(config.method),
            "naming": method.naming(config.method),
            "code": training_code(config),
        }
    )


def backbone_facts(config: Run) -> dict[str, Any]:
    """The settings of the backbone, its files by their content."""
    from lightning_modules.training.contents import place_digest

    facts = conf.to_dict(config)["backbone"]
    if (weights := place_digest(config, "backbone.path")) and Path(config.backbone.path).is_dir():
        # The same folder in another place, with its name
        del facts["path"], facts["name"]
    return facts | {"weights": weights}


def adapter_folder(config: Run, datamodule: Any = None) -> Path:
    """Where the adapter of these settings is, or will be (see ``training_key``)."""
    return Path(config.output) / "adapters" / training_key(config, datamodule)


def training_code(config: Run, project: Path = PROJECT) -> str:
    """Digest of the code that trains the adapter of these settings."""
    return code_version(*TRAINING, *SAMPLING, *_own_modules(config), project=project)


def sampling_code(config: Run, project: Path = PROJECT) -> str:
    """Digest of the code that draws images with these settings."""
    steering = (f"{METHODS}.{name}" for name in spec.steering(config.method))
    return code_version(*SAMPLING, _own_modules(config)[0], *steering, project=project)


def _own_modules(config: Run) -> tuple[str, str]:
    return f"{METHODS}.{config.method.name}", f"datamodules.{config.data.name}"


# --- the code that a module reaches ---------------------------------------------------------------


def _find_elsewhere(module: str) -> Path | None:
    """The file of a module that its package finds outside of the tree."""
    found = find_spec(module)
    outside = found and found.origin and not Path(found.origin).is_relative_to(PROJECT)
    return Path(str(found.origin)) if found and outside else None


@cache
def code_version(
    *roots: str,
    project: Path = PROJECT,
    skip: tuple[str, ...] = OBSERVERS,
    libraries: tuple[str, ...] = LIBRARIES,
) -> str:
    """Twelve hexadecimal digits of the code that the modules ``roots`` reach, without what ``skip``
    begins (names that end in a dot), and of the versions of the ``libraries``.

    Raises ValueError for a root that is neither a module nor a package of the project, and without
    roots.
    """
    if not roots:
        raise ValueError("the code of no module: expected names of modules or packages")
    versions = [f"{name} {version(name)}" for name in libraries]
    text = " ".join([*versions, *sorted(_code(project).contents(roots, skip))])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Module(NamedTuple):
    """What counts of a source file."""

    words: list[str]  # Its syntax tree
    names: list[int]  # Which of the words are names that own imports bind
    imports: list[tuple[str, str]]  # (module, name), or (module, "") of ``import module``
    bindings: dict[str, tuple[str, str]]  # Name -> what it is imported from, for types alone or not
    texts: list[str]  # Strings that may name a data file beside it
    defines: bool  # Whether it defines anything; a package that does not only hands names on


class _Code:
    """The project's modules and how they import each other."""

    def __init__(self, project: Path) -> None:
        self.files: dict[str, Path] = {}
        for package in PACKAGES:
            for path in (project / package).rglob("*.py"):
                name = ".".join(path.relative_to(project).with_suffix("").parts)
                self.files[name.removesuffix(".__init__")] = path

    def contents(self, roots: Iterable[str], skip: tuple[str, ...] = OBSERVERS) -> set[str]:
        """Digests of all modules that ``roots`` reach, without what ``skip`` begins, and of the
        data files that they name."""
        waiting = [name for root in roots for name in self._members(root)]
        reached: set[str] = set()
        contents: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in reached or f"{name}.".startswith(skip):
                continue
            reached.add(name)
            module = self._read(name)
            if not self._is_package(name) or module.defines:
                contents.add(self._digest(name, skip, deep=True))
            for text in module.texts:
                file = self.files[name].parent / text
                if file.is_file():
                    contents.add(hashlib.sha256(file.read_bytes()).hexdigest())
            for imported in module.imports:
                waiting += self._targets(*imported)
        return contents - {EMPTY}

    @cache  # noqa: B019 (there is one instance for each project)
    def _read(self, name: str) -> _Module:
        package = name if self._is_package(name) else name.rpartition(".")[0]
        return _parse(self.files[name].read_text(encoding="utf-8"), package)

    @cache  # noqa: B019
    def _digest(self, name: str, skip: tuple[str, ...], deep: bool) -> str:
        """Of a module's tree. The name of an imported module in it counts, if ``deep``, by that
        module's content: it may be renamed."""
        module = self._read(name)
        words = [*module.words]
        for index in module.names:
            target = ".".join(module.bindings[words[index]])
            if target in self.files and not f"{target}.".startswith(skip):
                words[index] = self._digest(target, skip, deep=False) if deep else "a module"
        return hashlib.sha256("\n".join(words).encode()).hexdigest()

    def _is_package(self, name: str) -> bool:
        return self.files[name].name == "__init__.py"

    def _members(self, root: str) -> list[str]:
        """The module itself, or a package and the modules right in it."""
        if root in self.files and not self._is_package(root):
            return [root]
        members = [name for name in self.files if root in (name, name.rpartition(".")[0])]
        if not members and (elsewhere := _find_elsewhere(root)):
            self.files[root], members = elsewhere, [root]
        if not members:
            raise ValueError(f"{root}: expected a module or a package of {', '.join(PACKAGES)}")
        return members

    def _targets(self, module: str, member: str) -> list[str]:
        """The modules that ``from module import member`` reaches; for a name that a package hands
        on, the module that defines it."""
        if f"{module}.{member}" in self.files:
            return [f"{module}.{member}"]
        if module not in self.files:
            return []
        if not member or not self._is_package(module):
            return [module]
        bindings = self._read(module).bindings
        return self._targets(*bindings[member]) if member in bindings else self._members(module)


_code = cache(_Code)


@cache
def _parse(source: str, package: str) -> _Module:
    reader = _Reader(package)
    tree = ast.parse(source)
    reader.visit(tree)
    names = [index for index in reader.names if reader.words[index] in reader.bindings]
    defines = any(
        isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name != "__getattr__"
        for node in tree.body
    )
    return _Module(reader.words, names, reader.imports, reader.bindings, reader.texts, defines)


class _Reader:
    """Writes a syntax tree as words, without docstrings, the project's own imports, and what stands
    below ``if TYPE_CHECKING``."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.words: list[str] = []
        self.names: list[int] = []
        self.imports: list[tuple[str, str]] = []
        self.bindings: dict[str, tuple[str, str]] = {}
        self.texts: list[str] = []

    def visit(self, node: Any) -> None:
        kind = type(node)
        if kind in (ast.Import, ast.ImportFrom) and self._collect(node, self.imports):
            return
        if kind is ast.If and getattr(node.test, "id", "") == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    self._collect(statement, [])
            for statement in node.orelse:
                self.visit(statement)
            return
        self.words.append(kind.__name__)
        if kind is ast.Name:
            self.names.append(len(self.words))
            self.words.append(node.id)
            return
        for name in kind._fields:
            value = getattr(node, name, None)
            if name == "ctx":  # The place of a name says already whether it is read or written
                continue
            if isinstance(value, list):
                self.words.append("[")
                skip = name == "body" and bool(value) and _is_text(value[0])
                for item in value[skip:]:
                    self._write(item)
                self.words.append("]")
            else:
                self._write(value)

    def _write(self, value: Any) -> None:
        if isinstance(value, ast.AST):
            self.visit(value)
            return
        self.words.append(repr(value))
        if isinstance(value, str) and value.endswith(DATA_FILES):
            self.texts.append(value)

    def _collect(self, node: Any, into: list[tuple[str, str]]) -> bool:
        """Whether the statement imports from the project; what it imports goes to ``into``."""
        if isinstance(node, ast.Import):
            names = [(alias.name, "", alias.asname or alias.name) for alias in node.names]
        else:
            module = resolve_name("." * node.level + (node.module or ""), self.package)
            names = [(module, alias.name, alias.asname or alias.name) for alias in node.names]
        names = [each for each in names if each[0].partition(".")[0] in (*PACKAGES, "conf")]
        into += [(module, member) for module, member, _ in names]
        self.bindings |= {name: (module, member) for module, member, name in names}
        return bool(names)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
