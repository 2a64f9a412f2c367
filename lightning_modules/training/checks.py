"""What would fail late is said early: settings that do not go together, before anything is
loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf.schema import Run
from conf.spec import data_kind, data_sets, measured_metrics, methods
from lightning_modules.methods.registry import method_class

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone


def check(config: Run) -> None:
    """What would fail late is said early. Raises ValueError."""
    spec, method = data_sets()[config.data.name], methods()[config.method.name]
    embedded = spec.embedded(config)
    _check_evaluation(config, embedded)
    if config.method.init and not (Path(config.method.init) / "adapter.json").is_file():
        raise ValueError(
            f"method.init={config.method.init!r} is no adapter: expected a folder with "
            "adapter.json and adapter.safetensors"
        )
    if config.method.init and not method.trains(config.method):
        raise ValueError(
            f"method.init={config.method.init!r} with method={config.method.name}: nothing is "
            "trained before the evaluation; leave it out"
        )
    if embedded and config.backbone.resolution != 64:
        said = f"backbone.resolution={config.backbone.resolution} with data={config.data.name}"
        raise ValueError(f"{said}: the embedded world has 64 pixels")
    _check_kind(config)
    _check_data(config)
    spec.check(config)
    method.check(config)
    _check_late(config)
    batch, devices = config.trainer.batch, config.trainer.devices
    if (
        method.trains(config.method)
        and spec.kind != "scene"
        and config.data.train_images < batch * devices
    ):
        on = f" on each of trainer.devices={devices}" if devices > 1 else ""
        raise ValueError(
            f"data.train_images={config.data.train_images} make no batch of "
            f"trainer.batch={batch}{on}: lower it"
        )


def check_backbone(config: Run, backbone: Backbone) -> None:
    """What only the backbone can tell: an image size that it cannot draw, and what needs CLIP where
    it has T5. Raises ValueError."""
    backbone.latent_size(config.backbone.resolution)
    method_class(config.method.name).check_backbone(config, backbone)


def _check_evaluation(config: Run, embedded: bool) -> None:
    evaluation = conf.with_eval_overrides(config).evaluation
    if not evaluation.prompts:
        return
    ways = {"detector": evaluation.detector, "extractor": evaluation.extractor}
    if judged := [name for name, way in ways.items() if way == "judge" and not embedded]:
        said = f"evaluation.{judged[0]}=judge with data.name={config.data.name!r}"
        raise ValueError(
            f"{said}: the judge knows only the embedded world; name a model or none; or "
            "evaluation.prompts=0"
        )
    if not any(metric.scores_images for metric in measured_metrics(evaluation).values()):
        raise ValueError(
            "evaluation.detector, extractor, aligners and metrics are none: nothing would be "
            "measured; set one, or prompts=0"
        )
    if data_kind(config) == "prompts" and evaluation.extractor != "none":
        raise ValueError(
            f"evaluation.extractor={evaluation.extractor} with data={config.data.name}: there are "
            "no real images; set it to none"
        )
    if evaluation.follow_masks and not embedded:
        raise ValueError(
            "evaluation.follow_masks with data of one's own: only the embedded world is "
            "segmented; set it to false"
        )
    if evaluation.attention and data_kind(config) == "prompts":
        raise ValueError(
            f"evaluation.attention=true with data={config.data.name}: attention is measured on "
            "real images; set it to false"
        )
    images, k = evaluation.prompts * len(evaluation.splits), evaluation.precision_recall_k
    if images <= k and evaluation.extractor != "none":
        raise ValueError(
            f"{images} prompts in all are too few for evaluation.precision_recall_k={k}: "
            "set evaluation.prompts higher"
        )


def _check_kind(config: Run) -> None:
    """Refuses data of a kind that the method cannot train on."""
    method, name = config.method.name, config.data.name
    allowed = methods()[method].data_kinds
    if config.data.concepts and "prompts" not in allowed:
        fitting = [other for other, spec in methods().items() if "prompts" in spec.data_kinds]
        raise ValueError(
            f"data.concepts with method={method}: prompts without images are for "
            f"{', '.join(fitting)}; leave them out"
        )
    kind = data_kind(config)
    if kind in allowed:
        return
    description = {
        "captions": "images with captions are",
        "scene": "a scene is",
        "prompts": "prompts without images are",
    }[kind]
    trained = [other for other, spec in methods().items() if kind in spec.data_kinds]
    fitting = [
        other for other, spec in data_sets().items() if spec.kind in methods()[method].data_kinds
    ]
    raise ValueError(
        f"method={method} with data={name}: {description} for {', '.join(trained)}; set data to "
        f"one of {', '.join(fitting)}"
    )


def _check_data(config: Run) -> None:
    data, kind = config.data, data_kind(config)
    if data.root == "auto" and not data_sets()[data.name].embedded(config):
        raise ValueError(
            f"data.root=auto with data={data.name}: only the embedded world can be "
            "rendered; say where the data are"
        )
    if data.drop_captions and (data.concepts or kind != "captions"):
        raise ValueError(
            f"data.drop_captions={data.drop_captions:g} with data={data.name}: only "
            "captions of images are; set it to 0"
        )
    if data.cache == "all" and (kind == "scene" or data.concepts):
        raise ValueError(
            "data.cache=all keeps encoded captions, but here they are made in each step: set "
            "data.cache=latents"
        )


def _check_late(config: Run) -> None:
    """Refuses changes after training of what the adapter was trained with."""
    spec = methods()[config.method.name]
    late = [key for key in config.evaluate_with if key.startswith(spec.fixed_after_training)]
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot change after training: the adapter was trained with it; "
            "use when=train"
        )
    spec.check_evaluation(config, conf.with_eval_overrides(config))
