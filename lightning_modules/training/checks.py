"""What would fail late is said early: settings that do not go together, before anything is
loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conf import load as conf
from conf.schema import Run
from conf.spec import data_sets, methods

if TYPE_CHECKING:
    from lightning_modules.backbone.backbone import Backbone

ON_SUBJECTS = ("break_a_scene", "mcgm")
# Likewise, or what they mean
SHAPE_OF_ADAPTER = (
    "method.weights.",
    "method.subjects.",
    "method.masks.encoder",
    "method.masks.text_binding",
)
# What their weights fit to
SHAPE_OF_GATES = ("head", "width", "depth", "sharing", "stage", "placement", "attention")


def check(config: Run) -> None:
    """What would fail late is said early. Raises ValueError."""
    spec = data_sets()[config.data.name]
    embedded = spec.embedded(config)
    _check_evaluation(config, embedded)
    if config.method.init and not (Path(config.method.init) / "adapter.json").is_file():
        raise ValueError(
            f"method.init={config.method.init!r} is no adapter: expected a folder with "
            "adapter.json and adapter.safetensors"
        )
    if config.method.init and config.method.name == "untouched":
        raise ValueError(
            f"method.init={config.method.init!r} with method=untouched: the untouched "
            "backbone is not trained; leave it out"
        )
    if embedded and config.backbone.resolution != 64:
        said = f"backbone.resolution={config.backbone.resolution} with data={config.data.name}"
        raise ValueError(f"{said}: the embedded world has 64 pixels")
    _check_kind(config)
    if config.method.name in ON_SUBJECTS:
        _check_subjects(config)
    _check_data(config)
    spec.check(config)
    if config.data.concepts and config.method.name not in ("separate_enhance", "untouched"):
        raise ValueError(
            f"data.concepts with method={config.method.name}: prompts without images are "
            "for separate_enhance; leave them out"
        )
    if config.method.name == "separate_enhance":
        _check_separate(config)
    batch, devices = config.trainer.batch, config.trainer.devices
    if (
        config.method.name != "untouched"
        and spec.kind != "scene"
        and config.data.train_images < batch * devices
    ):
        on = f" on each of trainer.devices={devices}" if devices > 1 else ""
        raise ValueError(
            f"data.train_images={config.data.train_images} make no batch of "
            f"trainer.batch={batch}{on}: lower it"
        )
    if config.method.name == "maskattn":
        _check_gates(config)


def check_backbone(config: Run, backbone: Backbone) -> None:
    """What only the backbone can tell: an image size that it cannot draw, and what needs CLIP where
    it has T5. Raises ValueError."""
    backbone.latent_size(config.backbone.resolution)
    if backbone.family.clip:
        return
    name, method = config.backbone.name, config.method
    if method.name in ON_SUBJECTS and _kind(config) == "scene":
        raise ValueError(
            f"method={method.name} with data={config.data.name} and backbone={name}: placeholders "
            "are words of CLIP, which PixArt does not have; set data to images with captions, or "
            "another backbone"
        )
    if method.name in ON_SUBJECTS and method.weights.text_encoder:
        raise ValueError(
            f"method.weights.text_encoder=true with backbone={name}: T5 is not trained "
            "here; set it to false"
        )
    if method.name == "separate_enhance" and method.separate.tokens == "released":
        raise ValueError(
            f"method.separate.tokens=released with backbone={name}: the positions are those "
            "of CLIP; set phrase or last"
        )


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
    if set(ways.values()) == {"none"} and not evaluation.aligners:
        raise ValueError(
            "evaluation.detector, extractor and aligners are none: nothing would be "
            "measured; set one, or prompts=0"
        )
    if _kind(config) == "prompts" and evaluation.extractor != "none":
        raise ValueError(
            f"evaluation.extractor={evaluation.extractor} with data={config.data.name}: there are "
            "no real images; set it to none"
        )
    if evaluation.follow_masks and not embedded:
        raise ValueError(
            "evaluation.follow_masks with data of one's own: only the embedded world is "
            "segmented; set it to false"
        )
    if evaluation.attention and _kind(config) == "prompts":
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


def _kind(config: Run) -> str:
    return data_sets()[config.data.name].kind


def _check_kind(config: Run) -> None:
    """Refuses data of a kind that the method cannot train on."""
    kind, method, name = _kind(config), config.method.name, config.data.name
    if kind in methods()[method].data_kinds:
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
    data, method, kind = config.data, config.method, _kind(config)
    if data.root == "auto" and not data_sets()[data.name].embedded(config):
        raise ValueError(
            f"data.root=auto with data={data.name}: only the embedded world can be "
            "rendered; say where the data are"
        )
    if (
        kind == "prompts"
        and method.name == "separate_enhance"
        and (method.separate.control == "denoising" or method.separate.inputs == "images")
    ):
        raise ValueError(
            f"data={data.name} has no images: leave method.separate.inputs=noise and "
            "method.separate.control=none"
        )
    if data.drop_captions and (data.concepts or kind != "captions"):
        raise ValueError(
            f"data.drop_captions={data.drop_captions:g} with data={data.name}: only "
            "captions of images are; set it to 0"
        )
    if data.cache == "all" and (kind == "scene" or data.concepts or method.weights.text_encoder):
        raise ValueError(
            "data.cache=all keeps encoded captions, but here the text encoders or the "
            "captions change: set data.cache=latents"
        )


def _check_subjects(config: Run) -> None:
    method, scene = config.method, _kind(config) == "scene"
    if method.subjects.tokens and not scene:
        said = f"method.subjects.tokens={method.subjects.tokens} with data={config.data.name}"
        raise ValueError(
            f"{said}: placeholders are learnt from a scene; set data=scene, or leave the tokens out"
        )
    if (
        method.subjects.classes
        and method.subjects.tokens
        and len(method.subjects.classes) != len(method.subjects.tokens)
    ):
        counts = f"{len(method.subjects.classes)} classes for {len(method.subjects.tokens)} tokens"
        raise ValueError(
            f"method.subjects.classes={method.subjects.classes}: {counts}; give one word "
            "for each of method.subjects.tokens"
        )
    if not scene and method.subjects.schedule == "tokens_only":
        raise ValueError(
            f"method.subjects.schedule=tokens_only with data={config.data.name}: there are "
            "no tokens; set data=scene"
        )
    if (
        not scene
        and method.weights.trainable == "none"
        and not (method.name == "mcgm" and method.masks.trained)
    ):
        cure = "train weights, or MCGM's mask encoder"
        raise ValueError(
            f"method.weights.trainable=none with data={config.data.name}: nothing would be "
            f"trained; {cure}"
        )
    late = [key for key in config.evaluate_with if key.startswith(SHAPE_OF_ADAPTER)]
    if late:
        raise ValueError(
            f"{', '.join(late)} cannot change after training: it "
            "is what was trained; use when=train"
        )


def _check_separate(config: Run) -> None:
    chosen, data = config.method.separate, config.data
    if chosen.control != "denoising" and not any(
        (chosen.separate_weight, chosen.enhance_weight, chosen.distillation_weight)
    ):
        raise ValueError(
            "method.separate has no loss of a weight above 0: nothing would be trained; "
            "set one of its weights"
        )
    if data.concepts and (chosen.control == "denoising" or chosen.inputs == "images"):
        told = f"method.separate.inputs={chosen.inputs}, control={chosen.control}"
        raise ValueError(
            f"{told} with data.concepts: these prompts have no images; leave data.concepts out"
        )
    if data.concepts and len(data.concepts) < data.objects:
        raise ValueError(
            f"data.concepts={data.concepts} make no prompt of data.objects={data.objects}: "
            "name more concepts"
        )
    if (
        data.concepts
        and data.objects == 1
        and not chosen.enhance_weight
        and chosen.control != "denoising"
    ):
        raise ValueError(
            "data.objects=1 with method.separate.enhance_weight=0: a single object has "
            "nothing to be separated from; name two"
        )
    if data.concepts and chosen.objects == "nouns":
        raise ValueError(
            "method.separate.objects=nouns with data.concepts: the objects are the "
            "concepts; leave it at linked"
        )
    if chosen.kernel % 2 == 0:
        raise ValueError(
            f"method.separate.kernel={chosen.kernel} has no middle: expected an odd number, "
            "1 for no smoothing"
        )
    if config.method.weights.trainable == "none":
        raise ValueError(
            "method.weights.trainable=none with method=separate_enhance: nothing would be "
            "trained; the paper trains k"
        )
    late = conf.with_eval_overrides(config).method.separate
    if config.method.weights.rank and (late.control == "permuted" or late.scale != 1):
        said = (
            f"method.separate.control={late.control}, scale={late.scale:g} with "
            f"method.weights.rank={config.method.weights.rank}"
        )
        raise ValueError(f"{said}: only whole weights are permuted or scaled; set the rank to 0")
    if chosen.test_time and (chosen.control != "none" or chosen.inputs == "images"):
        raise ValueError(
            "method.separate.test_time has a prompt and no image: leave control=none and "
            "inputs=noise"
        )


def _check_gates(config: Run) -> None:
    gate = config.method.gate
    if gate.supervision == "oracle" and not (
        _kind(config) == "captions" and data_sets()[config.data.name].embedded(config)
    ):
        raise ValueError(
            "method.gate.supervision=oracle needs data=shapes: only the embedded world has "
            "a judge that says where objects are"
        )
    if gate.denoising_weight == 0 and (gate.supervision == "none" or gate.supervision_weight == 0):
        told = f"method.gate.supervision={gate.supervision} of weight {gate.supervision_weight:g}"
        raise ValueError(
            f"method.gate.denoising_weight=0 with {told}: nothing would be trained; set one of them"
        )
    if gate.gradient == "released" and gate.mode == "soft" and gate.apply_at == "logit":
        raise ValueError(
            "method.gate.gradient=released with method.gate.mode=soft: it is a gradient of "
            "binary gates; use exact"
        )
    shape = [
        key
        for key in config.evaluate_with
        if key.startswith("method.gate.") and key.rpartition(".")[2] in SHAPE_OF_GATES
    ]
    if shape or conf.with_eval_overrides(config).method.gate.mode == "learned" != gate.mode:
        changed = ", ".join(shape or ["method.gate.mode=learned"])
        raise ValueError(
            f"{changed} cannot change after training: it makes other gate heads than those "
            "trained; use when=train"
        )
