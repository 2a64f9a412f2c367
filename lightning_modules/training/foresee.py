"""What the records, prompts and models of a run rule out before anything is trained: what a trial
would refuse, and the values that no prompt gives. Decodes no image, reads no weights, and writes
nothing but indices.

The embedded world is rendered by a trial. Where something is asked of its prompts, those of the
evaluation are rendered into a folder that goes again.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.contents import Emit
from conf.describe import nearest
from conf.schema import Evaluation, Run
from conf.spec import (
    data_kind,
    data_sets,
    fewest_objects,
    measured_metrics,
    methods,
    reads_trainer,
)
from lightning_modules.methods.registry import method_class

__all__ = ["Findings", "check_concepts", "count_prompts", "foresee", "list_facts"]


@dataclass
class Findings:
    """``undefined``: value -> why no prompt gives it; ``notes``: sentences on what only a share of
    the data has, for the method; ``data_notes``: those on the data, whatever the method."""

    undefined: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    data_notes: list[str] = field(default_factory=list)


def list_facts(config: Run) -> dict[str, Any]:
    """All that `foresee` looks at: runs with the same facts are told the same. Fits into JSON."""
    spec, method, trainer = methods()[config.method.name], config.method, config.trainer
    late = conf.to_dict(conf.with_eval_overrides(config))
    return {
        "data": late["data"],
        "evaluation": late["evaluation"],
        "prompt_seed": late.get("prompt_seed"),
        "resolution": config.backbone.resolution,
        "batch": (trainer.batch, trainer.devices, trainer.accumulate),
        "method": (method.name, spec.trains(method), spec.needs_phrases(method)),
        "words": (spec.needs_masks(method), spec.naming(method), spec.singular(method)),
        "undefined": dict(spec.undefined(method)),
        "steered": fewest_objects(conf.with_eval_overrides(config).method),
        "warmup": _describe_warmup(config),
        "subjects": late["method"].get("subjects"),
    }


def foresee(config: Run, emit: Emit, wanted: Collection[str] = ()) -> Findings:
    """Looks at the records of a user's own data, and at the embedded world where one of the values
    ``wanted`` is not given by all prompts.

    Raises ValueError, FileNotFoundError or ImportError as the trial would: for splits that are not
    there, too few prompts or images, words or masks that the method needs, models that are not
    there, prompts that do not say what a detector looks for.
    """
    from datamodules.build import reads_files

    late = conf.with_eval_overrides(config).evaluation
    if late.measures:
        _check_splits(config)
        if not late.draw_only:  # Which opens none of them
            _check_models(late)
    embedded = data_sets()[config.data.name].embedded(config)
    findings = Findings()
    if reads_files(config):
        findings = _look(config, emit)
    elif not embedded:
        raise FileNotFoundError(
            f"data.root={config.data.root} with data={config.data.name}: there is no such folder "
            "or file; give the one that holds the data"
        )
    elif embedded and _asks_embedded(config, late, wanted):
        with _rendered_aside(config) as aside:
            try:
                findings = _look(aside, lambda text, share: None)
                findings.data_notes.clear()  # Of fewer images than the trial will have
            except ValueError as error:
                raise ValueError(str(error).replace(aside.output, config.output)) from error
    findings.undefined |= _undefined_by_method(config, late)
    findings.notes += _describe_warmup(config)
    return findings


def count_prompts(config: Run) -> int:
    """How many prompts each split of the evaluation has at least. Raises as `foresee` does."""
    from datamodules.build import build_data, reads_files

    evaluation = conf.with_eval_overrides(config).evaluation
    if not reads_files(config):  # Rendered: as many as are asked for
        return config.data.eval_images or evaluation.prompts or 0
    datamodule = build_data(config, lambda text, share: None)
    splits = evaluation.splits or [*datamodule.eval_sets]
    return min(len(datamodule.eval_sets[split]) for split in splits)


def _describe_warmup(config: Run) -> list[str]:
    """A sentence where training ends before its learning rate has risen."""
    trainer = config.trainer
    if trainer.warmup <= trainer.steps or not reads_trainer(config, "trainer.warmup"):
        return []
    return [
        f"trainer.warmup={trainer.warmup} with trainer.steps={trainer.steps}: the learning rate "
        f"still rises where training ends and never is trainer.lr={trainer.lr:g}"
    ]


def _undefined_by_method(config: Run, evaluation: Evaluation) -> dict[str, str]:
    name = config.method.name
    reasons = {
        output.key: f"method={name} has nothing of the kind"
        for metric, spec in measured_metrics(evaluation).items()
        if spec.by_methods and metric not in methods()[name].diagnoses
        for output in spec.outputs
    }
    return reasons | {**methods()[name].undefined(config.method)}


def _check_splits(config: Run) -> None:
    """Whether the embedded world has the splits."""
    evaluation, spec = conf.with_eval_overrides(config).evaluation, data_sets()[config.data.name]
    if not (evaluation.measures and spec.embedded(config) and spec.splits):
        return
    if unknown := [split for split in evaluation.splits if split not in spec.splits]:
        raise ValueError(
            f"evaluation.splits names {unknown[0]!r}: this dataset has "
            f"{', '.join(spec.splits)}{nearest(unknown[0], spec.splits)}"
        )


def check_concepts(config: Run) -> None:
    """Raises ValueError for concepts that the embedded world does not know, or that make longer
    prompts than the backbone reads. Renders nothing, but loads Lightning, which takes seconds."""
    data = config.data
    if not data.concepts or not data_sets()[data.name].embedded(config):
        return
    from datamodules.build import concept_dataset
    from lightning_modules.training.texts import check_texts

    module = importlib.import_module(f"datamodules.{config.data.name}")
    dataset = concept_dataset(module.build(config, lambda text, share: None), config)
    check_texts(config, dataset)


def _look(config: Run, emit: Emit) -> Findings:
    from datamodules.build import build_data
    from lightning_modules.evaluation.plan import plan_evaluation, with_splits
    from lightning_modules.metrics.registry import undefined_by_prompts
    from lightning_modules.training.needs import check_batches, check_needs, undefined_attention
    from lightning_modules.training.texts import check_texts

    datamodule = build_data(config, emit)
    check_batches(config, datamodule)
    notes = check_needs(config, datamodule, emit)
    check_texts(config, datamodule.train_set)
    data_notes = [*datamodule.manifest().get("notes", [])]
    late = conf.with_eval_overrides(config)
    if not late.evaluation.measures:
        return Findings({}, notes, data_notes)
    late = with_splits(method_class(late.method.name).complete(late, datamodule), datamodule)
    prompts = plan_evaluation(datamodule, late)
    undefined = undefined_by_prompts(late.evaluation, prompts)
    undefined |= undefined_attention(late, datamodule)
    return Findings(undefined, notes, data_notes)


def _asks_embedded(config: Run, evaluation: Evaluation, wanted: Collection[str]) -> bool:
    """Whether what is asked depends on the embedded world's prompts: all others it can answer."""
    if config.data.min_phrases:
        return True
    conditional = {
        key
        for metric in measured_metrics(evaluation).values()
        for output in metric.conditional
        for key in (output, *(f"{output}_{split}" for split in evaluation.splits))
    }
    return not conditional.isdisjoint(wanted)


@contextmanager
def _rendered_aside(config: Run) -> Iterator[Run]:
    """The run with its data below a temporary folder: one batch of them to train on."""
    evaluation, data = conf.with_eval_overrides(config).evaluation, config.data
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        train = data.train_images
        if not data.min_phrases and data_kind(config) == "captions":
            trainer = config.trainer
            step = trainer.batch * trainer.devices * trainer.accumulate
            train = train if train is None else min(train, step)
        images = data.eval_images if evaluation.measures else 1
        few = dataclasses.replace(data, train_images=train, eval_images=images)
        yield dataclasses.replace(config, output=str(Path(folder)), data=few)


def _check_models(evaluation: Evaluation) -> None:
    """Raises FileNotFoundError, ImportError or ValueError for models that cannot be had, as far as
    their settings and configs tell."""
    weights = evaluation.extractor_weights
    if evaluation.extractor == "vgg16" and not weights:
        raise FileNotFoundError(
            "evaluation.extractor=vgg16 has no weights: set evaluation.extractor_weights to "
            "torchvision's state dict of VGG-16"
        )
    is_file = evaluation.extractor in ("vgg16", "inception")
    if weights and is_file and not Path(weights).is_file():
        raise FileNotFoundError(
            f"evaluation.extractor_weights={weights}: no such file, which "
            f"evaluation.extractor={evaluation.extractor} needs"
        )
    for setting in ("extractor", "detector", "vqa"):
        name = getattr(evaluation, setting)
        if Path(name).is_absolute() and not name.endswith(".jsonl") and not Path(name).exists():
            raise FileNotFoundError(
                f"evaluation.{setting}={name}: no such folder; expected one of a model of "
                "transformers, or a hub id"
            )
    if evaluation.extractor == "inception" and not importlib.util.find_spec("torch_fidelity"):
        raise ImportError(
            "evaluation.extractor=inception needs torch-fidelity: pip install -e .[real-metrics]"
        )
    if evaluation.detector.endswith(".jsonl"):
        from lightning_modules.metrics.detectors import DetectionsFile

        DetectionsFile(evaluation.detector)
    if evaluation.aligners:
        from lightning_modules.metrics.alignment import check_aligners

        check_aligners(evaluation.aligners)
    if evaluation.vqa not in ("none", "judge"):
        from lightning_modules.metrics.vqa import check_answerer

        check_answerer(evaluation.vqa)
    if evaluation.judge_errors:
        from lightning_modules.metrics.correction import CORRECTED, read_rates

        measured = {
            output.key for one in measured_metrics(evaluation).values() for output in one.outputs
        }
        if not measured.intersection(CORRECTED):
            raise ValueError(
                f"evaluation.judge_errors={evaluation.judge_errors}: nothing measures success; "
                "set evaluation.detector or evaluation.vqa"
            )
        read_rates(Path(evaluation.judge_errors), [*measured])
