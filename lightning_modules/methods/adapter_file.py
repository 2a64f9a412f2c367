"""What an adapter folder holds, read and checked before anything is done with it.

    adapter.json           the card: method, settings, resolution, backbone, digest of the tensors
    adapter.safetensors    what was trained

Nothing on the card is believed: settings are checked as those of a run are, and what says how large
tensors are is held against the file that has them. Every error is one line that names the file.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf import load as conf
from conf.places import as_path
from conf.renamed import current
from conf.schema import SHIPPED, Run
from conf.schema import Method as MethodConfig
from conf.spec import methods
from lightning_modules.backbone.weights import weights_digest

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.backbone.backbone import Backbone

__all__ = ["CARD", "TENSORS", "AdapterError", "AdapterFile", "backbone_facts", "file_digest"]

CARD, TENSORS = "adapter.json", "adapter.safetensors"
FLOATS = ("F64", "F32", "F16", "BF16")
# Times the side of the images that a backbone is made for, at most
LARGEST = 16


class AdapterError(ValueError):
    """An adapter folder that cannot be used; the message names the file."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter folder whose card has been checked, and of whose tensors the names, types and
    shapes are known."""

    folder: Path
    config: MethodConfig
    resolution: int
    backbone: Mapping[str, Any]
    sha256: str | None  # Older cards have none
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]  # As safetensors names them

    @property
    def method(self) -> str:
        return self.config.name

    @classmethod
    def open(cls, folder: Path | str) -> AdapterFile:
        """Reads the card and the head of the tensor file. Raises AdapterError."""
        folder = as_path(folder)
        path = folder / CARD
        card = _read_json(path)
        name = current("method.name", card.get("method"))[1]
        if not isinstance(name, str) or name not in methods():
            raise AdapterError(
                f"{path}: method={name!r} is unknown: expected one of {', '.join(methods())}"
            )
        backbone, sha256 = card.get("backbone", {}), card.get("sha256")
        if not isinstance(backbone, dict):
            raise AdapterError(f"{path}: backbone={backbone!r}: expected its source and revision")
        for fact in ("source", "revision", "weights"):
            if not isinstance(value := backbone.get(fact), str | None):
                raise AdapterError(f"{path}: backbone.{fact}={value!r}: expected a text or null")
        if not isinstance(sha256, str | None):
            raise AdapterError(f"{path}: sha256={sha256!r}: expected 64 hexadecimal digits")
        run = _read_settings(path, name, card)
        shapes, types = _read_head(folder / TENSORS)
        size = run.backbone.resolution
        return cls(folder, run.method, size, backbone, sha256, shapes, types)

    def check_size(self, setting: str, largest: int) -> None:
        """Refuses a value of ``method.<setting>`` above what the tensors of the file can have.
        Raises AdapterError."""
        value = operator.attrgetter(setting)(self.config)
        if value > largest:
            raise AdapterError(
                f"{self.folder / CARD}: method.{setting}={value}: the tensors of {TENSORS} allow "
                f"at most {largest}; expected the settings that the adapter was trained with"
            )

    @property
    def largest_side(self) -> int:
        """The largest dimension of any tensor."""
        return max((side for shape in self.shapes.values() for side in shape), default=0)

    def check_rank(self, layers: Iterable[str]) -> None:
        """Refuses low-rank weights of ``layers``, as the file names them, that it does not hold in
        the rank of the settings. Raises AdapterError."""
        rank = self.config.weights.rank
        for layer in layers:
            shape = self.shapes.get(f"{layer}.lora_A.weight", ())
            if shape[:1] != (rank,):
                raise AdapterError(
                    f"{self.folder / CARD}: method.weights.rank={rank}: {TENSORS} holds "
                    f"{layer}.lora_A.weight {list(shape) or 'nowhere'}; expected the settings that "
                    "the adapter was trained with"
                )

    def check_backbone(self, backbone: Backbone) -> str | None:
        """Refuses a backbone of another family or with layers of other widths than the adapter was
        made for, weights of a shipped one that have changed since, and a resolution that it cannot
        draw. Gives a line where it may be another model of that kind. Raises AdapterError."""
        path, here = self.folder / CARD, backbone_facts(backbone)
        self._check_shipped(backbone)
        for fact in ("family", "widths"):
            made_for = self.backbone.get(fact, here[fact])
            if made_for != here[fact]:
                raise AdapterError(
                    f"{path}: the adapter was made for a backbone with {fact} {made_for}: this "
                    f"one, {backbone.source!r}, has {here[fact]}; load it into a backbone as that"
                )
        try:
            _, side, _ = backbone.latent_size(self.resolution)
        except ValueError as error:
            raise AdapterError(f"{path}: {error}") from error
        own = backbone.latent_size()[1] or side
        if side > LARGEST * own:
            raise AdapterError(
                f"{path}: resolution={self.resolution}: this backbone draws images of "
                f"{own * backbone.vae_scale_factor} pixels a side; expected at most {LARGEST} times"
                " as many"
            )
        names = ("source", "revision")
        made = [self.backbone.get(name) for name in names]
        own_names = [here[name] for name in names]
        if made == own_names or made[0] is None:
            return None
        told = [
            f"{source!r}" + (f" at revision {revision!r}" if revision else "")
            for source, revision in (made, own_names)
        ]
        return f"{path}: the adapter was trained with the backbone {told[0]}, this one is {told[1]}"

    def _check_shipped(self, backbone: Backbone) -> None:
        """Refuses an adapter of a shipped backbone whose weights are others now: under its name,
        and in another shipped one. Raises AdapterError."""
        source, made_for = str(self.backbone.get("source")), self.backbone.get("weights")
        if source not in SHIPPED or backbone.source not in SHIPPED:
            return
        if made_for != (here := weights_digest(source)):
            raise AdapterError(
                f"{self.folder / CARD}: the adapter was trained with weights of the backbone "
                f"{source!r} of {f'digest {made_for}' if made_for else 'an earlier version'}; "
                f"expected those of this version, digest {here}: train it again, or load it into "
                "a folder of the weights that it was trained with"
            )

    def check_tensors(self, own: Mapping[str, Tensor], may_lack: tuple[str, ...] = ()) -> None:
        """Refuses tensors of other names, shapes or kinds of numbers than ``own``; those whose
        names begin as ``may_lack`` says may be missing. Raises AdapterError."""
        path = self.folder / TENSORS
        wrong = [
            f"{n} is missing" for n in own if n not in self.shapes and not n.startswith(may_lack)
        ]
        wrong += [f"{name} is not of these settings" for name in self.shapes if name not in own]
        for name in (name for name in self.shapes if name in own):
            shape, kind, expected = self.shapes[name], self.types[name], tuple(own[name].shape)
            if shape != expected:
                wrong.append(f"{name} is {list(shape)}, expected {list(expected)}")
            elif own[name].is_floating_point() and kind not in FLOATS:
                wrong.append(f"{name} is {kind}, expected {', '.join(FLOATS)}")
        if wrong:
            others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise AdapterError(
                f"{path} does not fit: {wrong[0]}{others}; give the settings that the adapter was "
                f"made with (its {CARD})"
            )

    def read_tensors(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, on the CPU, as the types of ``own``. Raises AdapterError where they are not
        those that the card was written with, or some number is not finite or not in that type."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / TENSORS
        try:
            if self.sha256 is not None and (digest := file_digest(path)) != self.sha256:
                raise AdapterError(
                    f"{path} is not the file that {CARD} was written with (its SHA-256 is "
                    f"{digest[:12]}…, expected {self.sha256[:12]}…): copy both again, or train "
                    "again"
                )
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise AdapterError(f"{path} cannot be read: {_one_line(error)}") from error
        for name, tensor in tensors.items():
            if self.types[name] in FLOATS and not tensor.isfinite().all():
                raise AdapterError(f"{path}: {name} holds numbers that are not finite; train again")
            tensors[name] = cast = tensor.to(own[name].dtype)
            if cast.is_floating_point() and not cast.isfinite().all():
                kind = str(cast.dtype).removeprefix("torch.")
                raise AdapterError(
                    f"{path}: {name} holds numbers that are not finite as {kind}, which it is "
                    "used in; train again"
                )
        return tensors


def backbone_facts(backbone: Backbone) -> dict[str, Any]:
    """What a card says of the backbone: where it came from, the digest of its weights where they
    are shipped (else null), its family, and the widths of its attention layers (queries x keys)."""
    widths = sorted({(site.width, site.context) for site in backbone.sites()})
    source = backbone.source
    return {
        "source": source,
        "revision": backbone.revision,
        "weights": weights_digest(source) if source in SHIPPED else None,
        "family": backbone.family.label,
        "widths": [f"{width}x{context}" for width, context in widths],
    }


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    expected = f"expected the {CARD} that save_adapter writes"
    if not path.is_file():
        raise AdapterError(
            f"{path.parent} is no adapter: it has no {CARD}; expected a folder with {CARD} and "
            f"{TENSORS}"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path} cannot be read ({_one_line(error)}): {expected}") from error
    if not isinstance(card, dict):
        raise AdapterError(f"{path} holds no mapping: {expected}")
    return card


def _read_settings(path: Path, name: str, card: Mapping[str, Any]) -> Run:
    """The settings on a card, former names as those of today, checked as those of a run; what an
    older card does not have is the default."""
    sections = card.get("config")
    if not isinstance(sections, dict) or not all(isinstance(s, dict) for s in sections.values()):
        raise AdapterError(f"{path}: config={sections!r}: expected sections of settings")
    known = methods()[name].sections
    if unknown := [section for section in sections if section not in known]:
        raise AdapterError(
            f"{path}: config has {unknown[0]!r}: expected the sections of {name}, "
            f"{', '.join(known) or 'none'}"
        )
    values: dict[str, Any] = {
        "method.name": name,
        "backbone.resolution": card.get("resolution"),
    }
    for section, settings in sections.items():
        pairs = (current(f"method.{section}.{key}", value) for key, value in settings.items())
        # What is a setting of the trainer today ended with the training
        values |= {key: value for key, value in pairs if key.startswith("method.")}
    try:
        run = conf.replace(Run(), conf.literal(values), str(path))
    except conf.ConfigError as error:
        raise AdapterError(_one_line(error)) from error
    try:  # Settings that do not go together when images are drawn
        methods()[name].check_evaluation(run, run)
    except ValueError as error:
        raise AdapterError(f"{path}: {_one_line(error)}") from error
    return run


def _read_head(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes and types of the tensors in a file, by name: no tensor is read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise AdapterError(f"{path} is missing: the folder was written in part; train again")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            return shapes, {name: part.get_dtype() for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{path} cannot be read ({_one_line(error)}): it was written in part, or is no "
            "safetensors file; copy it again, or train again"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
