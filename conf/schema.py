"""Every setting a person may change: one commented line per field. `conf.load` merges files and the
command line into this shape.

The comment behind a field is its help text; `choice(...)` lists what a string may be, `number(...)`
how far a number may go. `conf.load` checks both. A value `MISSING` ("???" in YAML) must be given by
the person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import MISSING

from conf.fields import choice, number
from conf.method.break_a_scene import Subjects, Weights
from conf.method.maskattn import Gate
from conf.method.mcgm import Masks
from conf.method.separate_enhance import Separate
from conf.spec import methods

__all__ = [
    "MISSING",
    "Backbone",
    "Data",
    "Evaluation",
    "Gate",
    "Masks",
    "Method",
    "Run",
    "Separate",
    "Subjects",
    "Sweep",
    "Trainer",
    "Weights",
    "choice",
    "number",
]

T = TypeVar("T")


@dataclass
class Backbone:
    name: str = "embedded"  # short name for tables and MLflow
    path: str = "embedded"  # "embedded", a diffusers folder, or a hub id
    revision: str | None = None  # hub revision (commit), so that a run can be repeated
    dtype: str = choice("float32", "bfloat16", "float16")  # dtype of the frozen weights
    resolution: int = number(64, minimum=8)  # image side in pixels
    channels_last: bool = (
        False  # planes in the order height, width, channels: faster on GPUs in half precision
    )
    compile: bool = (
        False  # torch.compile of the transformer blocks: minutes at first, then faster steps
    )


def _with_sections_of_methods(schema: type[T]) -> type[T]:
    """Adds a field for each section of settings that the methods declare."""
    for method in methods().values():
        for section, settings in method.settings.items():
            if section in schema.__annotations__:
                raise TypeError(f"method.{section} is declared twice: rename one of the sections")
            schema.__annotations__[section] = settings
            setattr(schema, section, field(default_factory=settings))
    return schema


@dataclass
@_with_sections_of_methods
class Method:
    """``method``: which one it is, and a section of settings for each one that declares some."""

    # Which method
    name: str = choice("maskattn", *sorted(methods().keys() - {"maskattn"}))
    # Adapter folder that training starts from, e.g. of the 512-pixel phase
    init: str | None = None

    if TYPE_CHECKING:

        def __init__(self, name: str = ..., init: str | None = ..., **sections: Any) -> None: ...
        def __getattr__(self, section: str) -> Any: ...


@dataclass
class Data:
    name: str = choice("shapes", "coco", "flickr30k", "scene", "prompts")  # which DataModule
    root: str = (
        "auto"  # folder of the dataset; "auto" renders the embedded world below <output>/cache
    )
    layout: str = "auto"  # coco, flickr30k, prompts: how its files are laid out; auto finds out
    train_split: str = "train"  # split the adapter is trained on
    split_by: str = choice("karpathy", "entities", "all")  # flickr30k: whose splits
    train_images: int = number(2048, minimum=1)  # how many training images are used (and rendered)
    eval_images: int = number(512, minimum=1)  # how many images each evaluation split holds
    min_phrases: int = number(0, minimum=0)  # train on captions of at least so many noun phrases
    detokenise: bool = (
        False  # flickr30k: write captions as English is written ("a dog ." becomes "a dog.")
    )
    on_error: str = choice(
        "skip", "raise"
    )  # a file that cannot be used: left out, counted and listed, or the end of the run
    verify: str = choice("header", "full")  # images are checked by header and end, or decoded once
    mask_share: float = number(
        0.5, minimum=0, maximum=1
    )  # share of a location that a mask must cover to be there; 0: any
    workers: int = number(0, minimum=0)  # DataLoader worker processes
    concepts: list[str] = field(
        default_factory=list
    )  # train on prompts made of these words, without images; empty: on the captions
    objects: int = number(2, minimum=1)  # how many concepts a prompt names
    subjects: int = number(
        2, minimum=1, maximum=3
    )  # scene, root=auto: how many subjects the rendered scene has
    drop_captions: float = number(
        0.0, minimum=0, maximum=1
    )  # share of training captions left out, for classifier-free guidance
    cache: str = choice(
        "latents", "all", "none"
    )  # encode before training: images; captions, too; or each anew in every step
    flip: bool = False  # mirror half of the samples, but where the caption says left or right


@dataclass
class Trainer:
    steps: int = number(40, minimum=1)  # optimiser steps
    batch: int = number(16, minimum=1)  # samples per device and step
    devices: int = number(
        1, minimum=1
    )  # devices (and processes) that one trial trains and samples on
    accumulate: int = number(1, minimum=1)  # batches per optimiser step
    lr: float = number(2e-3, above=0)  # peak learning rate
    weight_decay: float = number(0.01, minimum=0)  # AdamW
    warmup: int = number(5, minimum=0)  # steps of linear warm-up
    schedule: str = choice(
        "cosine", "constant"
    )  # learning rate after the warm-up: falling to zero, or as it is
    clip: float = number(1.0, above=0)  # largest gradient norm
    precision: str = choice("32-true", "bf16-mixed", "16-mixed")  # Lightning's precision
    accelerator: str = choice("auto", "cpu", "gpu")  # Lightning's accelerator
    gradient_checkpointing: bool = (
        False  # blocks run a second time in the backward pass: less memory, more time
    )
    log_every: int = number(10, minimum=1)  # steps between logged training metrics
    checkpoint_every: int = number(
        500, minimum=1
    )  # steps between checkpoints that an interrupted training goes on from


@dataclass
class Evaluation:
    splits: list[str] = field(
        default_factory=lambda: ["val", "heldout"]
    )  # whose captions are the prompts
    prompts: int = number(56, minimum=0)  # prompts per split; 0 trains only
    noise_seeds: int = number(1, minimum=1)  # images per prompt, each of another noise
    steps: int = number(8, minimum=1)  # sampler steps
    guidance: float = number(3.0, minimum=0)  # classifier-free guidance
    batch: int = number(16, minimum=1)  # images per sampling batch
    detector: str = "judge"  # success: judge, none, a model's hub id or folder, or a .jsonl
    colorist: str = "none"  # names a model's detections' colours: mean, a CLIP, or none
    extractor: str = "judge"  # features of FID …: judge, inception, vgg16, a hub id, none
    extractor_weights: str = ""  # their file (inception, vgg16); a revision of a hub id
    aligners: list[str] = field(
        default_factory=list
    )  # CLIP and BLIP models that compare images with prompts
    precision_recall_k: int = number(3, minimum=1)  # neighbour that sets the radius
    image_format: str = choice(
        "png", "webp"
    )  # how all images are kept, below <output>/images; both lossless
    keep_images: int = number(8, minimum=0)  # images per split kept for the report
    follow_masks: bool = False  # measure how well objects fill the masks that they should
    attention: bool = False  # measure and draw the attention maps of the prompts' objects
    costs: bool = False  # measure how much slower a method samples, and what it took
    masks: str = choice(
        "target", "blank", "none", "wrong"
    )  # what a method steered by masks is given; wrong: elsewhere
    turn: float = number(
        0.0, minimum=-360, maximum=360
    )  # degrees that each target mask is turned about its centre
    mirror: bool = False  # mirror each target mask, left to right


@dataclass
class Run:
    """One trial: what `python -m lightning_modules.train run.yaml` reads."""

    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    data: Data = field(default_factory=Data)
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    evaluate_with: dict[str, Any] = field(
        default_factory=dict
    )  # settings changed after training, e.g. {method.gate.threshold: 0.7}
    seed: int = number(0, minimum=0)  # training seed and noise seed (of a sweep: the first)
    fresh: str = ""  # a mark of your own: nothing made under another mark is used
    output: str = "runs"  # everything lands below this folder


@dataclass
class Sweep(Run):
    """A whole sweep: what `python -m sweeps.<name> key=value …` takes."""

    seeds: int = number(3, minimum=1)  # so many seeds from `seed` on, the same for every cell
    retries: int = number(1, minimum=0)  # how often a failed trial is tried again
    when: str = choice(
        "train", "evaluate"
    )  # does the factor act in training too, or only when one trained adapter is evaluated
    mode: str = choice(
        "grid", "one_factor", "list", "search"
    )  # all combinations; one factor off the baseline at a time; `cells`; search
    cells: list[str] = field(
        default_factory=list
    )  # mode=list: names of cells as --plan prints them; the baseline cell comes along
    levels: list[Any] | None = None  # other levels for the sweep's (single) factor
    headline: str | None = None  # metric that the answer is about, in the place of the sweep's own
    candidates: int = number(
        20, minimum=1
    )  # mode=search: how many settings are tried between the lowest and highest level
    sampler: str = choice(
        "tpe", "random", "nsga2"
    )  # mode=search: Optuna's sampler that proposes them
    sampler_seed: int = number(
        0, minimum=0
    )  # mode=search: of the sampler; with one worker the same settings are proposed again
    objectives: list[str] = field(
        default_factory=list
    )  # mode=search: metrics to be good at, several for a Pareto front; or the headline
    prune: str = choice(
        "none", "seeds", "training"
    )  # mode=search: drop a setting after a seed that is no match, or while it trains
    workers: str = (
        "auto"  # trials at once: a number, or auto (GPUs // trainer.devices; one on a CPU)
    )
    devices: str = (
        "auto"  # GPUs for this command: auto (all that are visible), or their numbers, 0,1,3
    )
    launcher: str = choice(
        "auto", "inline", "process"
    )  # trials in this process, or in others; auto: others on GPUs and with workers
    launch: str | None = (
        None  # command that starts a trial's processes instead of torchrun, e.g. "srun torchrun …"
    )
    storage: str | None = (
        None  # queue: the journal below output, or postgresql://…, for machines without a shared folder
    )
    tracking_uri: str | None = None  # MLflow server; default is <output>/mlflow.db
