"""Settings that do not go together, refused before anything is loaded. What concerns one method or
one data set alone is checked by its declaration in ``conf``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf.custom_backbone import NO_MODEL, is_hub_id, is_listed
from conf.describe import show_count
from conf.guiders import GUIDERS, check_guider, is_own
from conf.places import check_folder
from conf.schema import SHIPPED, Run
from conf.seeds import TRAINING_SEEDS
from conf.spec import data_kind, data_sets, measured_metrics, methods, steering
from datamodules.phrases.pipelines import LIGHT, find_pipeline
from lightning_modules.methods.adapter_file import AdapterError, AdapterFile
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from lightning_modules.backbone.configs import BackboneConfigs

__all__ = ["DRAW_FIRST", "DetectionsMissing", "check", "check_backbone", "check_configs"]

# What ``evaluate_with`` cannot change: it is read before an evaluation, whatever the method
FIXED = ("backbone.", "data.", "method.name", "method.init", "method.latents")
# No scheduler that the project names refuses so few
MANY_STEPS = 200
KINDS = {
    "captions": "images with captions are",
    "scene": "a scene is",
    "prompts": "prompts without images are",
}


# How messages begin the command that cures `DetectionsMissing`
DRAW_FIRST = "to draw the images that it judges first, and learn how it is keyed"


class DetectionsMissing(ValueError):
    """``evaluation.detector`` names a file that is not there, of images that may not be drawn yet;
    a command with ``evaluation.draw_only`` draws and lists them."""


def check(config: Run) -> None:
    """Refuses settings that would fail late. Raises ValueError in one line, DetectionsMissing where
    a command with ``evaluation.draw_only`` is the cure."""
    _check_evaluation(config)
    _check_start(config)
    _check_kind(config)
    _check_data(config)
    data_sets()[config.data.name].check(config)
    methods()[config.method.name].check(config)
    late = conf.with_eval_overrides(config)
    for name in steering(late.method):
        methods()[name].check(late)
    _check_overrides(config)
    _check_batch(config)
    # Models that the project names are known to do: planning with them imports nothing large
    path = Path(config.backbone.path).expanduser()
    shipped = str(path) in SHIPPED
    known = is_listed(config.backbone.name) or shipped
    if not (path.is_dir() or is_hub_id(config.backbone.path) or shipped):
        names = " or ".join(map(repr, SHIPPED))
        raise ValueError(f"backbone.path={config.backbone.path!r}: {NO_MODEL}, and not {names}")
    asks = methods()[config.method.name].asks_backbone(config.method)
    if path.is_dir() or not known or asks or late.evaluation.steps > MANY_STEPS:
        check_configs(config, download=False)
    _check_detections(config)


def check_configs(config: Run, download: bool = True) -> None:
    """Refuses a backbone by its configs (see `check_backbone`), before its weights are opened; with
    ``download`` they are fetched from the hub. Raises ValueError."""
    from lightning_modules.backbone.configs import explain_failure, read_configs
    from lightning_modules.backbone.quiet import quiet_loading
    from lightning_modules.backbone.weights import shipped_folder

    try:
        path = config.backbone.path
        folder = str(shipped_folder(path) or path)
        with quiet_loading():
            configs = read_configs(folder, config.backbone.revision, download)
    except ImportError as error:
        raise ValueError(explain_failure(path, error)) from error
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if configs is not None:
        check_backbone(config, configs)


def check_backbone(config: Run, backbone: BackboneConfigs) -> None:
    """Refuses what only the backbone can tell: an image size that it cannot draw, steps that its
    scheduler does not take, a noise that it cannot train on, a method that cannot act on it.
    Raises ValueError."""
    from lightning_modules.backbone.sampling import check_steps
    from lightning_modules.backbone.weakened import find_weakened

    backbone.latent_size(config.backbone.resolution)
    evaluation = conf.with_eval_overrides(config).evaluation
    if evaluation.measures:
        _check_levels(backbone, evaluation.steps)
        check_steps(backbone, "evaluation.steps", evaluation.steps)
        if is_own(evaluation) and not backbone.family.is_guided(evaluation.guidance):
            raise ValueError(
                f"evaluation.guider={evaluation.guider} with a denoiser that is told the scale of "
                "guidance and has no second half to join: set evaluation.guider=cfg"
            )
        if GUIDERS[evaluation.guider].weakening and hasattr(backbone.denoiser, "attn_processors"):
            find_weakened(backbone.denoiser, evaluation.guider)
    if methods()[config.method.name].learns or evaluation.attention:
        backbone.schedule.check()
    method_class(config.method.name).check_backbone(config, backbone)


def _check_levels(backbone: BackboneConfigs, steps: int) -> None:
    """Raises ValueError for more steps than the scheduler has noise levels; to try them would take
    as long."""
    levels = backbone.scheduler.config.get("num_train_timesteps")
    if levels is not None and steps > levels:
        raise ValueError(
            f"evaluation.steps={steps}: the backbone's {type(backbone.scheduler).__name__} has "
            f"{show_count(levels, 'noise level')}; expected at most as many steps"
        )


def _is_embedded(config: Run) -> bool:
    return data_sets()[config.data.name].embedded(config)


def _check_evaluation(config: Run) -> None:
    evaluation, data = conf.with_eval_overrides(config).evaluation, config.data.name
    if evaluation.draw_only and not evaluation.measures:
        raise ValueError(
            "evaluation.draw_only=true with evaluation.prompts=0: nothing would be drawn; give a "
            "number of prompts"
        )
    if not evaluation.measures:
        return
    check_guider(evaluation)
    models = {key: getattr(evaluation, key) for key in ("detector", "extractor", "vqa")}
    for name, model in models.items():
        if model == "judge" and not _is_embedded(config):
            raise ValueError(
                f"evaluation.{name}=judge with data.name={data!r}: the judge knows only the "
                "embedded world; name a model or none; or evaluation.prompts=0"
            )
    if not evaluation.draw_only and not any(
        metric.scores_images for metric in measured_metrics(evaluation).values()
    ):
        raise ValueError(
            "evaluation.detector, extractor, aligners, vqa and metrics are none: nothing would be "
            "measured; set one, or prompts=0, or draw_only=true"
        )
    if evaluation.follow_masks and not _is_embedded(config):
        raise ValueError(
            f"evaluation.follow_masks with data={data}: only the embedded world is segmented; set "
            "it to false"
        )
    if evaluation.wording != "own" and (
        not _is_embedded(config) or data_kind(config) != "captions" or evaluation.follow_masks
    ):
        what = "follow_masks=true" if _is_embedded(config) else f"data={data}"
        raise ValueError(
            f"evaluation.wording={evaluation.wording} with {what}: only prompts of the embedded "
            "world without masks are put in other words; set it to own, or give files of prompts "
            "in your own wordings, which are a set each"
        )
    _check_splits(evaluation.splits, data_kind(config) == "captions")
    limit, asked = config.data.eval_images, evaluation.prompts
    limited = data_kind(config) != "scene" or _is_embedded(config)
    if limit is not None and asked is not None and asked > limit and limited:
        raise ValueError(
            f"evaluation.prompts={asked} with data.eval_images={limit}, which limits each split: "
            f"set data.eval_images to {asked} or higher"
        )
    if data_kind(config) == "prompts" and evaluation.extractor != "none":
        raise ValueError(
            f"evaluation.extractor={evaluation.extractor} with data={data}: there are no real "
            "images; set it to none"
        )
    if data_kind(config) == "prompts" and evaluation.attention:
        raise ValueError(
            f"evaluation.attention=true with data={data}: attention is measured on real images; "
            "set it to false"
        )
    images, k = (evaluation.prompts or 0) * len(evaluation.splits), evaluation.precision_recall_k
    if evaluation.prompts is not None and images <= k and evaluation.extractor != "none":
        raise ValueError(
            f"{show_count(images, 'prompt')} in all, too few for "
            f"evaluation.precision_recall_k={k}: set "
            "evaluation.prompts higher"
        )


def _check_splits(splits: Sequence[str], needed: bool) -> None:
    if needed and not splits:
        raise ValueError(
            "evaluation.splits=[] names no split to draw for: name one or more; or "
            "evaluation.prompts=0 to measure nothing"
        )
    if twice := [split for i, split in enumerate(splits) if split in splits[:i]]:
        raise ValueError(f"evaluation.splits names {twice[0]!r} twice: name each once")


def _check_detections(config: Run) -> None:
    """Last, so that the command with ``draw_only`` is one that runs."""
    evaluation = conf.with_eval_overrides(config).evaluation
    reads = evaluation.measures and not evaluation.draw_only
    file = evaluation.detector
    if reads and file.endswith(".jsonl") and not Path(file).is_file():
        raise DetectionsMissing(f"evaluation.detector={file}: there is no such file of detections")


def _check_start(config: Run) -> None:
    """Where training starts from."""
    method = config.method
    if method.init and not (Path(method.init) / "adapter.json").is_file():
        raise ValueError(
            f"method.init={method.init!r} is no adapter: expected a folder with adapter.json and "
            "adapter.safetensors"
        )
    if method.init:
        try:
            made_by = AdapterFile.open(method.init).method
        except AdapterError as error:
            raise ValueError(f"method.init={method.init!r}: {error}") from error
        if made_by != method.name:
            raise ValueError(
                f"method.init={method.init!r} is an adapter of {made_by}: expected one of "
                f"method={method.name}"
            )
    if method.init and not methods()[method.name].trains(method):
        raise ValueError(
            f"method.init={method.init!r} with method={method.name}: nothing is trained before "
            "the evaluation; leave it out"
        )


def _check_kind(config: Run) -> None:
    """Whether the method can train on this kind of data."""
    method, kind = config.method.name, data_kind(config)
    allowed = methods()[method].data_kinds
    if config.data.concepts and "prompts" not in allowed:
        raise ValueError(
            f"data.concepts with method={method}: prompts without images are for "
            f"{', '.join(_methods_for('prompts'))}; leave them out"
        )
    if kind not in allowed:
        fitting = [name for name, spec in data_sets().items() if spec.kind in allowed]
        raise ValueError(
            f"method={method} with data={config.data.name}: {KINDS[kind]} for "
            f"{', '.join(_methods_for(kind))}; set data to one of {', '.join(fitting)}"
        )


def _methods_for(kind: str) -> list[str]:
    return [name for name, spec in methods().items() if kind in spec.data_kinds]


def _check_data(config: Run) -> None:
    data, kind, side = config.data, data_kind(config), config.backbone.resolution
    if _is_embedded(config) and side != 64:
        raise ValueError(
            f"backbone.resolution={side} with data={data.name}: the embedded world has 64 pixels"
        )
    if data.root == "auto" and not _is_embedded(config):
        raise ValueError(
            f"data.root=auto with data={data.name}: only the embedded world can be rendered; set "
            "it to the folder of the data"
        )
    if _is_embedded(config) and data.root != "auto" and not Path(data.root).exists():
        check_folder("data.root", data.root)  # It is rendered there
    if data.drop_captions and (data.concepts or kind != "captions"):
        raise ValueError(
            f"data.drop_captions={data.drop_captions:g} with data={data.name}: only captions of "
            "images can be dropped; set it to 0"
        )
    if data.drop_captions >= 1:
        raise ValueError(
            f"data.drop_captions={data.drop_captions:g}: no caption would be left to train on; "
            "expected a share below 1"
        )
    if data.cache == "all" and (kind == "scene" or data.concepts):
        raise ValueError(
            "data.cache=all keeps encoded captions, but here they are made in each step: set "
            "data.cache=latents"
        )
    if data.tagger != LIGHT:
        find_pipeline(data.tagger)


def _check_overrides(config: Run) -> None:
    """Whether ``evaluate_with`` leaves alone what the adapter was trained with."""
    spec = methods()[config.method.name]
    if "seed" in config.evaluate_with:
        raise ValueError(
            f"seed={config.evaluate_with['seed']} cannot change after training: other noise is "
            "sampling_seed, other prompts are prompt_seed"
        )
    trained = ("trainer.",) if spec.trains(config.method) else ()
    seeds = tuple(f"{key}." for key in TRAINING_SEEDS)
    fixed = (*FIXED, *seeds, *trained, *spec.fixed_after_training)
    late = [key for key in config.evaluate_with if key == "method" or f"{key}.".startswith(fixed)]
    if run := [key for key in ("output", "fresh", "evaluate_with") if key in config.evaluate_with]:
        raise ValueError(
            f"evaluate_with has {run[0]}, which holds for a whole run: set it by its own name "
            "instead"
        )
    if "evaluation.draw_only" in config.evaluate_with:
        raise ValueError("evaluate_with has evaluation.draw_only: set it by its own name instead")
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot change after training: it acts in training, or before; "
            "use when=train"
        )
    spec.check_evaluation(config, conf.with_eval_overrides(config))


def _check_batch(config: Run) -> None:
    images, batch, devices = config.data.train_images, config.trainer.batch, config.trainer.devices
    accumulate = config.trainer.accumulate
    method = methods()[config.method.name]
    counts = method.trains(config.method) and not method.draws_data
    # A scene's few images are drawn again and again.
    if images and counts and data_kind(config) != "scene" and images < batch * devices * accumulate:
        each = f" on each of trainer.devices={devices}" if devices > 1 else ""
        if accumulate > 1:
            each += f", trainer.accumulate={accumulate} times"
        raise ValueError(
            f"data.train_images={images} make no batch of trainer.batch={batch}{each}: lower it"
        )
