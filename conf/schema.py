"""Every setting a person may change: one commented line per field. `conf.load` merges files and the command line into this shape.

The comment behind a field is its help text; `choice(...)` lists what a string may be, `number(...)` how far a number may go.
`conf.load` checks both. A value `MISSING` ("???" in YAML) must be given by the person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

__all__ = ["MISSING", "Backbone", "Data", "Evaluation", "Gate", "Method", "Run", "Sweep", "Trainer", "choice", "number"]


def choice(default: str, *others: str) -> Any:
    """A string field that must be one of the values given; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


def number(default: float, **limits: float) -> Any:
    """A number field with limits: `minimum` and `maximum` are allowed values themselves, `above` and `below` are not."""
    return field(default=default, metadata={"limits": limits})


@dataclass
class Backbone:
    name: str = "embedded"                                 # short name for tables and MLflow
    path: str = "embedded"                                 # "embedded", a diffusers folder, or a hub id
    revision: str | None = None                            # hub revision (commit), so that a run can be repeated
    dtype: str = choice("float32", "bfloat16", "float16")  # dtype of the frozen weights
    resolution: int = number(64, minimum=8)                # image side in pixels


@dataclass
class Gate:
    threshold: float = number(0.5, above=0, below=1)       # gate is open where sigmoid(logit) > threshold
    stage: str = choice("all", "high", "mid", "low")       # which cross-attention levels are gated
    placement: str = choice("both", "encoder", "decoder")  # which side of the UNet is gated
    width: int = number(128, minimum=1)                    # width of the two projections in the gate head
    bias: float = 2.0                                      # logit at the start; positive starts open
    protect: str = choice("bos", "none")                   # tokens that are never gated


@dataclass
class Method:
    name: str = choice("maskattn", "baseline")  # which LightningModule
    gate: Gate = field(default_factory=Gate)    # MaskAttn's gates


@dataclass
class Data:
    name: str = choice("shapes", "coco")         # which DataModule
    root: str = "auto"                           # folder of the dataset; "auto" renders the embedded world below <output>/cache
    train_split: str = "train"                   # split the adapter is trained on
    train_images: int = number(2048, minimum=1)  # how many training images are used (and rendered)
    eval_images: int = number(512, minimum=1)    # how many images each evaluation split holds
    workers: int = number(0, minimum=0)          # DataLoader worker processes


@dataclass
class Trainer:
    steps: int = number(40, minimum=1)                            # optimiser steps
    batch: int = number(16, minimum=1)                            # samples per device and step
    accumulate: int = number(1, minimum=1)                        # batches per optimiser step
    lr: float = number(2e-3, above=0)                             # peak learning rate
    weight_decay: float = number(0.01, minimum=0)                 # AdamW
    warmup: int = number(5, minimum=0)                            # steps of linear warm-up, then cosine to zero
    clip: float = number(1.0, above=0)                            # largest gradient norm
    precision: str = choice("32-true", "bf16-mixed", "16-mixed")  # Lightning's precision
    accelerator: str = choice("auto", "cpu", "gpu")               # Lightning's accelerator
    log_every: int = number(10, minimum=1)                        # steps between logged training metrics
    checkpoint_every: int = number(500, minimum=1)                # steps between checkpoints that an interrupted training goes on from


@dataclass
class Evaluation:
    splits: list[str] = field(default_factory=lambda: ["val", "heldout"])  # whose captions are the prompts
    prompts: int = number(56, minimum=0)                                   # prompts per split; 0 trains only
    steps: int = number(8, minimum=1)                                      # sampler steps
    guidance: float = number(3.0, minimum=0)                               # classifier-free guidance
    batch: int = number(16, minimum=1)                                     # images per sampling batch
    precision_recall_k: int = number(3, minimum=1)                         # neighbour that sets the radius
    keep_images: int = number(8, minimum=0)                                # images per split kept for the report


@dataclass
class Run:
    """One trial: what `python -m lightning_modules.train run.yaml` reads."""

    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    data: Data = field(default_factory=Data)
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    evaluate_with: dict[str, Any] = field(default_factory=dict)  # settings changed after training, e.g. {method.gate.threshold: 0.7}
    seed: int = number(0, minimum=0)                             # training seed and noise seed
    output: str = "runs"                                         # everything lands below this folder


@dataclass
class Sweep(Run):
    """A whole sweep: what `python -m sweeps.<name> key=value …` takes."""

    seeds: int = number(3, minimum=1)        # seeds 0 … seeds-1, the same for every cell
    retries: int = number(1, minimum=0)      # how often a failed trial is tried again
    when: str = choice("train", "evaluate")  # does the factor act in training too, or only when one trained adapter is evaluated
    tracking_uri: str | None = None          # MLflow server; default is <output>/mlflow.db
    levels: list[Any] | None = None          # other levels for the sweep's (single) factor
