"""What a method needs of its data and only the data can tell: words that name objects, and their
masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from conf import load as conf
from conf.describe import show_count
from conf.schema import Run
from conf.spec import DataSpec, data_kind, data_sets, fewest_objects, methods
from datamodules.phrases.link import SINGULAR

__all__ = ["check_batches", "check_needs", "has_needs", "undefined_attention"]

SAMPLES = 200  # Captions that are looked at, evenly from first to last

Emit = Callable[[str, float], None]


def check_batches(config: Run, datamodule: Any) -> None:
    """Raises ValueError where the training set has too few samples for one optimiser step."""
    from datamodules.loading import count_batches

    trainer, size = config.trainer, len(datamodule.train_set)
    method = methods()[config.method.name]
    if not method.trains(config.method) or method.draws_data:  # Who draws knows how many
        return
    if count_batches(size, trainer.batch * trainer.devices, trainer.accumulate):
        return
    each = "".join(
        f", trainer.{key}={value}"
        for key, value in (("devices", trainer.devices), ("accumulate", trainer.accumulate))
        if value > 1
    )
    raise ValueError(
        f"data={config.data.name}: {show_count(size, 'training sample')}, which make no batch of "
        f"trainer.batch={trainer.batch}{each}: lower it"
    )


def has_needs(config: Run) -> bool:
    """Whether training or evaluation looks at words that name objects, in data that may have none:
    the embedded world and scenes always have them."""
    if data_kind(config) == "scene" or data_sets()[config.data.name].embedded(config):
        return False
    evaluation = conf.with_eval_overrides(config).evaluation
    needs_phrases = methods()[config.method.name].needs_phrases(config.method)
    steered = fewest_objects(conf.with_eval_overrides(config).method) > 0
    return needs_phrases or (evaluation.measures and (evaluation.attention or steered))


def check_needs(config: Run, datamodule: Any, emit: Emit = lambda text, share: None) -> list[str]:
    """Refuses data that have nothing of what the method trains on, or what the evaluation looks at,
    before weights are loaded. Returns sentences on what only a share of the data has.

    ``emit`` gets lines where all captions have to be looked at. Raises ValueError in one line with
    what is missing and the cure.
    """
    spec, late = methods()[config.method.name], conf.with_eval_overrides(config)
    shares: list[str] = []
    if not has_needs(config):
        return shares
    if spec.trains(config.method) and spec.needs_phrases(config.method):
        shares += _check_training(config, datamodule.train_set, emit)
    elif spec.needs_phrases(config.method) and late.evaluation.measures:
        _check_prompts(late, datamodule)
    if late.evaluation.measures and (fewest := fewest_objects(late.method)):
        _check_steered(late, datamodule, fewest)
    if late.evaluation.measures and late.evaluation.attention:
        _check_attention(late, datamodule)
    return shares


def _check_training(config: Run, dataset: Any, emit: Emit) -> list[str]:
    spec, data = methods()[config.method.name], config.data
    if data.concepts:
        return []
    rows, total = _evenly(len(dataset)), len(dataset)
    counts = [len(dataset.phrases(row)) for row in rows]
    manifest = getattr(dataset, "manifest", {})
    masks, images = manifest.get("with_masks"), data_kind(config) == "captions"
    linked = images and spec.naming(config.method) == "linked"
    if not any(counts) and not (linked and masks == 0):
        emit("data: no word of the first captions names an object; looking at all", 0.0)
        counts += [1] if any(len(dataset.phrases(row)) for row in range(total)) else []
    where = f"{getattr(dataset, 'split', 'train')!r} below {data.root}"
    if not any(counts):
        looks = "the masks of the objects that captions name"
        if not spec.needs_masks(config.method):
            looks = "the words of captions that name objects"
        lack, cures = f"no caption of {where} names one", ["give captions that name objects"]
        if linked:
            lack, cure = _explain_no_links(dataset, where, rows, data_sets()[data.name])
            cures = [cure, spec.without_phrases]
        raise ValueError(
            f"method={config.method.name} with data={data.name}: training looks at {looks}, but "
            f"{lack}; {', or '.join(filter(None, cures))}"
        )
    fewest = spec.objects_needed(config.method)
    if max(counts) < fewest:
        many = show_count(fewest, "object")
        emit(f"data: none of the first captions names {many}; looking at all", 0.0)
        if not any(len(dataset.phrases(row)) >= fewest for row in range(total)):
            raise ValueError(
                f"method={config.method.name} with data={data.name}: a loss of the training "
                f"compares objects, {fewest} of a caption or more, but no caption of {where} names "
                "so many; leave out the losses that do, or give captions that name more"
            )
    shares = []
    if linked and masks is not None and masks < total:
        of = show_count(total, "image")
        shares.append(f"{masks} of {of} of {where} with masks or boxes of objects")
    some = sum(map(bool, counts))
    if some < len(counts):
        captions = show_count(len(rows), "caption") + (" looked at" if len(rows) < total else "")
        what = "linked to an object of its image" if linked else "that names an object"
        shares.append(
            f"{some} of {captions} of {where} have a word {what}: on the others "
            f"method={config.method.name} trains without"
        )
    return shares


def _explain_no_links(dataset: Any, where: str, rows: list[int], spec: DataSpec) -> tuple[str, str]:
    """Why no caption names an object of its image, and the cure."""
    lack = f"no caption of {where} names an object of its image"
    masks = getattr(dataset, "manifest", {}).get("with_masks")
    if masks is None:
        return lack, spec.phrases_from
    lack += f" ({masks} of {show_count(len(dataset), 'image')} with masks or boxes"
    if not masks:
        known = dataset.manifest.get("lack") or {"fact": "", "cure": spec.phrases_from}
        return f"{lack}{': ' * bool(known['fact'])}{known['fact']})", known["cure"]
    first = "" if len(rows) == len(dataset) else f" that were looked at, {len(rows)} of them"
    objects = [instance for row in rows for instance in dataset.instances(row)]
    given = sum(dataset.objects(row) for row in rows)
    if given and not objects:
        lack += f"; of the images{first}, none of whose {show_count(given, 'mask')} has a pixel in "
        return (
            f"{lack}the square that is cut from the middle)",
            "cut the images around their objects",
        )
    if not objects:
        lack += ", none of a phrase in the square that is cut from the middle)"
        return lack, "cut the images around their objects"
    names = [name for name, _ in Counter(instance.label for instance in objects).most_common(4)]
    lack += f", of {', '.join(names)}{' and others' * (len(names) == 4)})"
    left_out = Counter(reason for row in rows for _, reason in dataset.links(row).left_out)
    if left_out:
        reason, count = left_out.most_common(1)[0]
        lack += f"; {show_count(count, 'word')} that could name one: {reason}"
        if reason == SINGULAR:
            return lack, "set data.singular=all, which takes all of them"
    return lack, "give captions that name these objects"


def _check_prompts(late: Run, datamodule: Any) -> None:
    """Refuses prompts that name nothing where weights are trained on each."""
    from lightning_modules.evaluation.plan import find_objects, plan_evaluation

    prompts = plan_evaluation(datamodule, late)
    for prompt, objects in zip(prompts, find_objects(datamodule, prompts), strict=True):
        if not objects:
            raise ValueError(
                f"method={late.method.name} trains on the objects that each prompt names, but "
                f"{prompt.text!r} of {prompt.split!r} names none: leave it out, or name its "
                "phrases in a file of your own (JSON lines with prompt and phrases)"
            )


def _check_steered(late: Run, datamodule: Any, fewest: int) -> None:
    """Refuses prompts that name too few objects to steer their images by."""
    from lightning_modules.evaluation.plan import check_count, find_objects, plan_evaluation

    prompts = plan_evaluation(datamodule, late)
    for prompt, objects in zip(prompts, find_objects(datamodule, prompts), strict=True):
        check_count(prompt, len(objects), fewest)


def _check_attention(late: Run, datamodule: Any) -> None:
    """Refuses to measure the maps of objects that no caption names."""
    from lightning_modules.evaluation.diagnostics import IMAGES

    split = (late.evaluation.splits or list(datamodule.eval_sets))[0]
    dataset = datamodule.eval_sets.get(split)
    if dataset is None:
        return
    count = min(IMAGES, len(dataset))
    if not any(len(dataset.phrases(row)) for row in range(count)):
        first = show_count(count, "caption")
        raise ValueError(
            f"evaluation.attention=true with data={late.data.name}: none of the first {first} "
            f"of {split!r} names an object of its image (masks or boxes are needed): set "
            "it to false"
        )


def undefined_attention(late: Run, datamodule: Any) -> dict[str, str]:
    """Value of the attention maps -> why no caption that they are measured on gives it."""
    if not (late.evaluation.measures and late.evaluation.attention):
        return {}
    from lightning_modules.evaluation.diagnostics import IMAGES

    split = late.evaluation.splits[0]
    dataset = datamodule.eval_sets[split]
    rows = range(min(IMAGES, len(dataset)))
    most = max((len(dataset.phrases(row)) for row in rows), default=0)
    first = f"of the first {show_count(len(rows), 'caption')} of {split!r} none names"
    reasons = {} if most > 1 else {"map_overlap": f"{first} more than one object"}
    return reasons if most else reasons | {"map_activation": f"{first} any"}


def _evenly(count: int) -> list[int]:
    samples = min(count, SAMPLES)
    return [i * count // samples for i in range(samples)]
