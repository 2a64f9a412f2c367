"""What the configs of a pipeline say of it, without its weights: what cannot be used here is
refused before they are opened."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conf.schema import SHIPPED
from lightning_modules.backbone.families import find_family
from lightning_modules.backbone.sampling import StepOptions, check_scheduler
from lightning_modules.backbone.schedules import NoiseSchedule, open_schedule

INDEX = "model_index.json"
CONFIG = "config.json"
# Where tokenizers have their words
VOCABULARIES = ("tokenizer.json", "vocab.json", "*.model")
NO_LIMIT = int(1e30)  # What transformers takes where nothing says it


class BackboneConfigs:
    """The parts of a diffusers pipeline by what their configs say; `Backbone` is one with weights.

    Raises ValueError on a pipeline of no known family, and on parts that would not do here what
    they do in the stock pipeline.
    """

    def __init__(self, pipeline: Any, source: str, revision: str | None = None) -> None:
        self.pipeline, self.source, self.revision = pipeline, source, revision
        self.family = find_family(pipeline, source)
        # Of a model that torch.compile wraps the model itself: it has the layers' names
        given = getattr(pipeline, self.family.denoiser_name)
        self.denoiser = getattr(given, "_orig_mod", given)
        self.vae = pipeline.vae
        self.family.check(source)
        self._schedule = self._open_schedule()

    @property
    def schedule(self) -> NoiseSchedule:
        """How the pipeline's scheduler adds noise; of another that was put in its place since, that
        one's. Raises ValueError as `check_scheduler` then."""
        if self._schedule.scheduler is not self.pipeline.scheduler:
            self._schedule = self._open_schedule()
        return self._schedule

    @property
    def scheduler(self) -> Any:
        return self.schedule.scheduler

    def _open_schedule(self) -> NoiseSchedule:
        scheduler, family = self.pipeline.scheduler, self.family
        check_scheduler(
            scheduler, family.starts_at_first_sigma, family.is_flow, self.step_options()
        )
        return open_schedule(scheduler)

    def step_options(self, resolution: int | None = None) -> StepOptions:
        """What the stock pipeline gives ``set_timesteps`` beside so many steps, for images of
        ``resolution`` pixels a side; the model's own size without."""
        scheduler, size = self.pipeline.scheduler, self.latent_size(resolution)
        return lambda steps: self.family.step_options(scheduler, steps, size)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def latent_size(self, resolution: int | None = None) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of a square image of ``resolution`` pixels a
        side; of the model's own size without.

        Raises ValueError where latents, or a transformer's patches, would not cover the image.
        """
        channels, side = self.family.own_size
        if resolution is None:
            return channels, side, side
        step = self.vae_scale_factor * self.family.patch_size
        if resolution % step:
            raise ValueError(
                f"backbone.resolution={resolution}: {self.family.label} expects a multiple of "
                f"{step} pixels"
            )
        side = resolution // self.vae_scale_factor
        return channels, side, side


def read_configs(
    path: str, revision: str | None = None, download: bool = True
) -> BackboneConfigs | None:
    """What the configs of a diffusers folder or a hub id say; of a hub id they are looked for in
    its cache, and downloaded (a few kilobytes) with ``download``.

    None where one that is needed is not here, or says nothing to this code: loading says why.
    Raises ValueError as `BackboneConfigs`, FileNotFoundError where a file of a folder is missing or
    damaged, ImportError where the scheduler needs a package that is not installed.
    """
    stored = _StoredConfigs(path, revision, download)
    try:
        index = stored.require(INDEX)
    except _Unreadable:
        return None
    if not index.get("_class_name"):
        stored.refuse(f"{INDEX} names no _class_name")
        return None
    pipeline = _class_of(index)()
    family = find_family(pipeline, path)
    parts = ["scheduler", family.denoiser_name, "vae"]
    parts += [f"{name}{end}" for end in family.text_parts for name in ("text_encoder", "tokenizer")]
    try:
        for name in parts:
            setattr(pipeline, name, stored.read_part(name, index.get(name)))
    except _Unreadable:
        return None
    return BackboneConfigs(pipeline, path, revision)


class _Unreadable(Exception):
    """A config that is not there, or that says nothing to this code."""


class _StoredConfigs:
    """The JSON files of a diffusers folder or a hub id."""

    def __init__(self, path: str, revision: str | None, download: bool) -> None:
        self.path, self.revision, self.download = os.path.expanduser(path), revision, download

    def read(self, name: str) -> Any:
        """The content of a file; None where it is not there or no JSON."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            file = self._find(name)
            return None if file is None else json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, HfHubHTTPError):
            return None

    def require(self, name: str) -> dict[str, Any]:
        """The settings in a file. Raises FileNotFoundError where the folder does not have them,
        _Unreadable where a hub id may have them."""
        content = self.read(name)
        if isinstance(content, dict):
            return content
        there = os.path.isfile(os.path.join(self.path, name))
        self.refuse(f"{name} is {'damaged: it holds no settings' if there else 'missing'}")
        raise _Unreadable

    def refuse(self, reason: str) -> None:
        """Raises FileNotFoundError for what is wrong in a folder; nothing is known of a hub id."""
        if self.is_folder:
            raise FileNotFoundError(
                f"backbone.path={self.path!r} cannot be loaded: its {reason}; get the model again"
            )

    @property
    def is_folder(self) -> bool:
        return os.path.isdir(self.path)

    def _find(self, name: str) -> Path | None:
        if self.is_folder:
            return Path(self.path, name)
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        if self.download:  # What is cached is looked at again: a branch moves on
            return Path(hf_hub_download(self.path, name, revision=self.revision))
        found = try_to_load_from_cache(self.path, name, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def read_part(self, name: str, entry: Any) -> Any:
        """A part as the pipeline would have it, by its library and class; None for one that it has
        not."""
        library, kind = entry if isinstance(entry, list) and len(entry) == 2 else ("", None)
        if kind is None:
            return None
        if name == "scheduler":
            return self._read_scheduler(library, kind)
        if name.startswith("tokenizer"):
            return self._read_tokenizer(name)
        content = self.require(f"{name}/{CONFIG}")
        if not name.startswith("text_encoder"):
            return _derive([kind])(config=_complete(kind, content))
        import transformers

        known = getattr(getattr(transformers, kind, None), "config_class", None)
        if known is None:
            raise _Unreadable
        return _derive([kind])(config=known.from_dict(content))

    def _read_scheduler(self, library: Any, kind: str) -> Any:
        import diffusers

        known = getattr(diffusers, kind, None)
        if known is None and library == "diffusers":
            raise ValueError(
                f"{self.path!r} has the scheduler {kind}: expected one of diffusers "
                f"{diffusers.__version__}, such as DDIMScheduler"
            )
        content = self.require("scheduler/scheduler_config.json")
        if known is None:
            raise _Unreadable
        try:
            return known.from_config(content)
        except ImportError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{self.path!r} has a scheduler/scheduler_config.json that makes no {kind} "
                f"({reason}): expected the settings of one, such as those of DDIMScheduler"
            ) from error

    def _read_tokenizer(self, name: str) -> Any:
        files = (file for kind in VOCABULARIES for file in Path(self.path, name).glob(kind))
        if self.is_folder and next(files, None) is None:
            self.refuse(f"{name} has no vocabulary ({', '.join(VOCABULARIES)})")
        content = self.read(f"{name}/tokenizer_config.json")
        length = content.get("model_max_length") if isinstance(content, dict) else None
        if length is None and self.is_folder:
            length = NO_LIMIT
        elif length is None:  # Nothing may be known of it yet
            encoder = self.read(f"{name.replace('tokenizer', 'text_encoder')}/{CONFIG}")
            length = encoder.get("max_position_embeddings") if isinstance(encoder, dict) else None
        return SimpleNamespace(model_max_length=length)


def explain_failure(path: str, error: Exception) -> str:
    """One line on what loading from ``path`` raised."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    failed = f"backbone.path={path!r} cannot be loaded"
    # What transformers falls back to where it cannot read sentencepiece's file
    if "tiktoken" in reason:
        return f"{failed}: T5's tokenizer needs sentencepiece: pip install -e .[pixart]"
    if "torchsde" in str(error):
        return f"{failed}: its scheduler needs torchsde: pip install -e .[sde]"
    return f"{failed} ({reason}): expected {' or '.join(SHIPPED)}, a diffusers folder or a hub id"


class _Parts(SimpleNamespace):
    """A pipeline's parts; those that it has not are None."""

    def __getattr__(self, name: str) -> None:
        return None


def _class_of(index: dict[str, Any]) -> type:
    """A class of the name of the pipeline's, derived from what that is derived from."""
    import diffusers

    given = index["_class_name"]
    # A list is a file of own code and the class in it
    name = str(given[-1] if isinstance(given, list) else given).removeprefix("Flax")
    try:
        names = [kind.__name__ for kind in getattr(diffusers, name).__mro__[:-1]]
    except (AttributeError, ImportError, RuntimeError):
        names = [name]
    return _derive(names, _Parts)


def _derive(names: list[str], kind: type = SimpleNamespace) -> type:
    for name in reversed(names):
        kind = type(name, (kind,), {})
    return kind


def _complete(kind: str, content: dict[str, Any]) -> Any:
    """A model's config with the defaults of its class where the file is silent."""
    import diffusers
    from diffusers.configuration_utils import FrozenDict

    known = getattr(diffusers, kind, None)
    defaults = {}
    if known is not None:
        parameters = inspect.signature(known.__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    settings = defaults | content
    # A tiny autoencoder's, which registers it when it is made
    settings.setdefault("block_out_channels", settings.get("decoder_block_out_channels"))
    return FrozenDict(settings)
