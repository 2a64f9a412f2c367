"""Every setting, each with its help text as the comment above it.

``choice(...)`` lists what a string may be, ``number(...)`` bounds a number; ``conf.load`` checks
both. A value ``MISSING`` ("???" in YAML) has to be given by the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import MISSING

from conf.data.shapes import Careless
from conf.fields import Values, choice, conditional, embedded, folder, number, place, places, unread
from conf.method.break_a_scene import Subjects, Weights
from conf.method.maskattn import Gate
from conf.method.mcgm import Masks
from conf.method.separate_enhance import Separate
from conf.spec import data_sets, methods

__all__ = [
    "MAX_SEED",
    "MISSING",
    "MOST_WORKERS",
    "Backbone",
    "Careless",
    "Data",
    "Evaluation",
    "Gate",
    "Masks",
    "Method",
    "Ray",
    "Run",
    "Separate",
    "Slurm",
    "Subjects",
    "Sweep",
    "Trainer",
    "Weights",
    "choice",
    "embedded",
    "number",
]

T = TypeVar("T")
MAX_SEED = 2**32 - 1  # NumPy and Optuna take no larger one
MOST = 100_000_000  # Steps or images: more than anybody waits for
NEVER = 10**12  # For what is done every so many steps
MOST_WORKERS = 1000
# Backbones that come with the package -> their folder among its assets
SHIPPED = {"embedded": "backbone", "embedded_strong": "backbone_strong"}
LOCAL = (*SHIPPED, "/*", "./*", "../*", "~*")  # Backbones that are no hub ids
WORDS: Values = {"concepts": ([],)}  # No prompts are made of words


@dataclass
class Backbone:
    # Short name for tables and MLflow
    name: str = embedded(
        "backbone",
        field(default="embedded"),
        elsewhere=lambda config: config.backbone.path.rstrip("/").rpartition("/")[2],
    )
    # "embedded" or "embedded_strong", a folder in diffusers' format, or a hub id
    path: str = place("embedded", files=(), **SHIPPED)
    # Hub revision (commit), so that a run can be repeated
    revision: str | None = conditional(field(default=None), unless={"path": LOCAL})
    # Data type of the frozen weights
    dtype: str = choice("float32", "bfloat16", "float16")
    # Image side in pixels
    resolution: int = embedded("backbone", number(64, minimum=8, maximum=16_384))
    # Memory format height, width, channels: faster on GPUs in half precision
    channels_last: bool = False
    # Compile the transformer blocks (torch.compile): minutes at first, then faster steps
    compile: bool = False


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
    init: str | None = place(None, files=("adapter.safetensors",))
    # Training images as the mode of the autoencoder's posterior, or a sample of it each step
    latents: str = choice("mode", "sample", unless={"data.kind": ("prompts",)})

    if TYPE_CHECKING:

        def __init__(
            self, name: str = ..., init: str | None = ..., latents: str = ..., **sections: Any
        ) -> None: ...
        def __getattr__(self, section: str) -> Any: ...


@dataclass
class Data:
    # Which data set
    name: str = choice("shapes", *sorted(data_sets().keys() - {"shapes"}))
    # Folder of the data set; "auto" renders the embedded world below <output>/cache
    root: str = folder("auto")
    # How the files of coco, flickr30k and prompts are laid out; "auto" detects it
    layout: str = "auto"
    # Column of the prompts in tables; empty: prompt, prompt_en, text, caption, … whichever is there
    column: str = conditional(field(default=""), only_if={"data.kind": ("prompts",)})
    # Annotation file below the root by its name, {split} in it for the split; empty: found
    annotations: str = conditional(field(default=""), only_if={"name": ("coco", "imagefolder")})
    # What a box without a mask is
    boxes: str = choice("none", "masks", only_if={"name": ("coco", "imagefolder")})
    # Split that the adapter is trained on
    train_split: str = "train"
    # Whose splits of flickr30k
    split_by: str = choice("karpathy", "entities", "all")
    # Number of training images (or prompts) used, and rendered; null: all
    train_images: int | None = embedded(
        "data", number(2048, minimum=1, maximum=MOST), elsewhere=None
    )
    # Number of images (or prompts) in each evaluation split; null: all
    eval_images: int | None = embedded("data", number(512, minimum=1, maximum=MOST), elsewhere=None)
    # Train only on captions with at least this many noun phrases
    min_phrases: int = number(0, minimum=0, maximum=1000)
    # What finds noun phrases: "light", or the name of a spaCy pipeline that is installed
    tagger: str = "light"
    # Whose mask a singular noun, or a number, has where there are more objects of its category: as
    # many as stand out, of all, or none; "auto" is what suits the method
    singular: str = choice("auto", "one", "all", "none")
    # Turn tokenised captions of flickr30k into plain English ("a dog ." becomes "a dog.")
    detokenise: bool = False
    # A file that cannot be used: skip it, counted and listed, or end the run
    on_error: str = choice("skip", "raise")
    # Check images by header and end of file, or decode each once
    verify: str = choice("header", "full")
    # Share of an attention pixel that a mask must cover to count there; 0: any
    mask_share: float = number(0.5, minimum=0, maximum=1)
    # DataLoader worker processes
    workers: int = number(0, minimum=0, maximum=1000)
    # Train on prompts made of these words, without images; empty: on the captions
    concepts: list[str] = embedded("data", field(default_factory=list), elsewhere=[])
    # Number of concepts in a prompt
    objects: int = number(2, minimum=1, maximum=1000, unless=WORDS)
    # Concepts and join are drawn for each prompt; for a batch, none twice; or stand as listed
    concept_draw: str = choice("prompt", "batch", "in_order", unless=WORDS)
    # Words between the last two concepts, one of them drawn; empty: the data set's own
    joins: list[str] = conditional(field(default_factory=list), unless=WORDS)
    # Before a concept: a or an, always a, or nothing
    article: str = choice("a_an", "a", "none", unless=WORDS)
    # Number of subjects in a rendered scene (data=scene with root=auto)
    subjects: int = number(2, minimum=1, maximum=3)
    # Share of training captions dropped, for classifier-free guidance
    drop_captions: float = number(0.0, minimum=0, maximum=1)
    # What is encoded once before training: images; images and captions; nothing
    cache: str = choice("latents", "all", "none")
    # Mirror half of the samples, except where the caption says left or right
    flip: bool = False
    # How unequally frequent the combinations of rendered training images are: the exponent of
    # Zipf's law; 0: all alike
    zipf: float = number(0.0, minimum=0, maximum=100)
    careless: Careless = field(default_factory=Careless)


@dataclass
class Trainer:
    # Optimiser steps
    steps: int = embedded("backbone", number(40, minimum=1, maximum=MOST))
    # Samples per device and step
    batch: int = embedded("backbone", number(16, minimum=1, maximum=65_536))
    # Devices (and processes) that one trial trains and samples on
    devices: int = number(1, minimum=1, maximum=10_000)
    # Batches per optimiser step
    accumulate: int = number(1, minimum=1, maximum=65_536)
    # Peak learning rate
    lr: float = embedded("backbone", number(2e-3, log=True, above=0, maximum=1000))
    # Weight decay of AdamW
    weight_decay: float = number(0.01, log=True, minimum=0, maximum=1000)
    # Steps of linear warm-up
    warmup: int = embedded("backbone", number(5, minimum=0, maximum=MOST))
    # The first of them is at a rate of zero, as diffusers has it, or of one step's share
    warmup_from: str = choice("step", "zero", unless={"warmup": (0,)})
    # Learning rate after the warm-up: falling to zero, or constant
    schedule: str = choice("cosine", "constant")
    # Which noise levels training sees: each alike, SD3's two densities, or the noisier half alone
    timesteps: str = choice("uniform", "logit_normal", "mode", "high_noise")
    # Largest gradient norm
    clip: float = number(1.0, above=0, maximum=1e30)
    # Lightning's precision
    precision: str = choice("32-true", "bf16-mixed", "16-mixed")
    # Lightning's accelerator
    accelerator: str = choice("auto", "cpu", "gpu")
    # Recompute blocks in the backward pass: less memory, more time
    gradient_checkpointing: bool = False
    # Steps between logged training metrics
    log_every: int = number(10, minimum=1, maximum=NEVER)
    # Steps between checkpoints that an interrupted training resumes from
    checkpoint_every: int = number(500, minimum=1, maximum=NEVER)


FOLLOWED: Values = {"follow_masks": (True,)}
SHOWN: Values = {"masks": ("target", "wrong")}  # To the method, as they are or elsewhere


@dataclass
class Evaluation:
    # Splits whose captions are the prompts; empty: all sets of data=prompts
    splits: list[str] = embedded(
        "data", field(default_factory=lambda: ["three", "heldout", "similar"])
    )
    # Prompts per split; null: all; 0 trains only
    prompts: int | None = embedded("data", number(40, minimum=0, maximum=MOST), elsewhere=None)
    # Prompts of the embedded world in other words: the last object first, synonyms, an opening
    # ("a photo of"), or all of these
    wording: str = choice("own", "order", "synonyms", "opening", "all")
    # Images per prompt, each from different noise; null: as many as its benchmark publishes, or 1
    noise_seeds: int | None = embedded("data", number(1, minimum=1, maximum=10_000), elsewhere=None)
    # Sampler steps
    steps: int = embedded("backbone", number(8, minimum=1, maximum=10_000))
    # Scale of classifier-free guidance
    guidance: float = embedded("backbone", number(3.0, minimum=0, maximum=1000))
    # Joins both halves: cfg, cfg_zero_star, apg, apg_mix, tangential or magnitude_aware (diffusers)
    guider: str = "cfg"
    # Numbers that it takes, e.g. {eta: 0, adaptive_projected_guidance_momentum: -0.5}
    guider_options: dict[str, float] = field(default_factory=dict)
    # While drawing: Lightning's precision; auto: bf16-mixed on a CPU that computes in bfloat16
    precision: str = embedded(
        "backbone", choice("auto", "32-true", "bf16-mixed"), elsewhere="32-true"
    )
    # Images per sampling batch
    batch: int = number(16, minimum=1, maximum=65_536)
    # Measures success: judge, none, a model's hub id or folder, or a .jsonl of detections
    detector: str = embedded("data", place("judge", judge="judge"))
    # Names the colours of a model's detections: mean, a CLIP, or none
    color_classifier: str = conditional(
        place("none"), unless={"detector": ("none", "judge", "*.jsonl")}
    )
    # Features for FID and others: judge, inception, vgg16, a hub id, none
    extractor: str = embedded("data", place("judge", judge="judge"))
    # Their file (inception, vgg16), or the revision of a hub id
    extractor_weights: str = conditional(place(""), unless={"extractor": ("none",)})
    # CLIP, SigLIP and BLIP models that compare images with prompts
    aligners: list[str] = places()
    # Answers questions about images: none, judge, or a vision–language model's hub id or folder
    vqa: str = place("none", judge="judge")
    # JSON of how often what measures success is wrong, by labels: it corrects success
    judge_errors: str = place("")
    # Metrics of your own, by the names of their files in conf/metric
    metrics: list[str] = field(default_factory=list)
    # Precision and recall: which nearest neighbour sets the radius
    precision_recall_k: int = number(3, minimum=1, maximum=10_000, unless={"extractor": ("none",)})
    # Lossless format of all images below <output>/images
    image_format: str = choice("png", "webp")
    # Draw all images, list them in <output>/images and stop: nothing is measured or asked for
    draw_only: bool = False
    # Images per split kept for the report
    keep_images: int = number(8, minimum=0, maximum=MOST)
    # Measure how well objects fill the masks given to them
    follow_masks: bool = False
    # Measure and draw the attention maps of the prompts' objects, and of words over a drawing
    attention: bool = False
    # Measure the cost of training, and how much slower sampling gets
    costs: bool = False
    # Target masks for a method that takes some; wrong: elsewhere
    masks: str = choice("target", "blank", "none", "wrong", only_if=FOLLOWED)
    # Degrees by which each target mask is turned about its centre
    turn: float = conditional(number(0.0, minimum=-360, maximum=360), FOLLOWED, draws_if=SHOWN)
    # Mirror each target mask, left to right
    mirror: bool = conditional(field(default=False), FOLLOWED, draws_if=SHOWN)

    @property
    def measures(self) -> bool:
        """Whether anything is drawn after the training: ``prompts`` is null for all of them."""
        return self.prompts != 0


@dataclass
class Run:
    """One trial: what ``python -m lightning_modules.train run.yaml`` reads."""

    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    data: Data = field(default_factory=Data)
    trainer: Trainer = field(default_factory=Trainer)
    evaluation: Evaluation = field(default_factory=Evaluation)
    # Settings changed after training, e.g. {method.gate.threshold: 0.7}
    evaluate_with: dict[str, Any] = field(default_factory=dict)
    # Seed of what is random, each of the next four unless given (in a sweep: the first seed)
    seed: int = number(0, minimum=0, maximum=MAX_SEED)
    # Seed of the initial weights of what is trained; null: seed
    init_seed: int | None = number(None, minimum=0, maximum=MAX_SEED)
    # Seed of what training shows: order, captions, flips, concepts, rendered scenes; null: seed
    data_seed: int | None = number(None, minimum=0, maximum=MAX_SEED)
    # Seed of timesteps, noise and posterior samples in training; null: seed
    timestep_seed: int | None = number(None, minimum=0, maximum=MAX_SEED)
    # Seed of the noise of evaluation images; null: seed
    sampling_seed: int | None = number(None, minimum=0, maximum=MAX_SEED)
    # Seed that draws a split's prompts; null: its first ones, the same for every seed
    prompt_seed: int | None = number(None, minimum=0, maximum=MAX_SEED)
    # Any text: results made with another text are not reused
    fresh: str = ""
    # Folder for all results
    output: str = folder("runs")


@dataclass
class Slurm:
    # Partition of the jobs; null: the cluster's own
    partition: str | None = None
    # Time limit of a job, in minutes; a training that does not end in it goes on in the next
    minutes: int = number(1440, minimum=1, maximum=100_000)
    # Nodes of a trial, over which trainer.devices are spread evenly
    nodes: int = number(1, minimum=1, maximum=10_000)
    # CPU cores for each device
    cpus: int = number(4, minimum=1, maximum=1024)
    # Memory of each node in GB; null: the cluster's own
    memory: int | None = number(None, minimum=1, maximum=100_000)
    # Trials that are submitted together are one job array
    array: bool = True
    # Seconds before the time limit, or after a preemption, that a training has for a checkpoint
    warning: int = number(120, minimum=1, maximum=100_000)
    # Lines of bash before a trial, e.g. ["module load cuda"]
    setup: list[str] = field(default_factory=list)
    # More options of sbatch, e.g. {account: lab, constraint: a100}
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ray:
    # Address of a cluster, e.g. auto for the one on this machine; null: one is started here
    address: str | None = None
    # CPU cores of a trial
    cpus: int = number(1, minimum=1, maximum=1024)
    # Nodes of a trial, over which trainer.devices are spread evenly
    nodes: int = number(1, minimum=1, maximum=10_000)
    # Whether all nodes see the output folder; else a trial's folder comes back when it has ended
    shared: bool = True


@dataclass
class Sweep(Run):
    """A whole sweep: what ``python -m sweeps.<name> key=value …`` takes."""

    # Number of seeds, counted up from seed=, the same for every cell
    seeds: int = number(3, minimum=1, maximum=10_000)
    # Adds prompts and seeds until every interval is at most so far to each side, e.g. .05, or until
    # every comparison is settled; seeds= and evaluation.prompts= are those of the first look, which
    # until=.05 takes small where the command does not name them
    until: float | str | None = None
    # until=: time that trials may take, one after another, e.g. 90s, 30min, 2h
    budget: str | None = None
    # The cell whose comparison is the question, fixed before any trial has finished
    primary: str | None = None
    # How often a failed trial is tried again
    retries: int = number(1, minimum=0, maximum=1000)
    # Whether the factor acts in training, too, or only when a trained adapter is evaluated
    when: str = choice("train", "evaluate")
    # All combinations; one factor off the control at a time; two levels of each factor, so many
    # combinations as tell effects apart; the cells named; from the control to a cell, one factor at
    # a time; a search
    mode: str = choice("grid", "one_factor", "screen", "list", "path", "search")
    # mode=list: names of cells as --plan prints them; the control is added
    cells: list[str] = field(default_factory=list)
    # mode=screen: levels to compare with the control's, e.g. ["bias=0.0"]; else the furthest off
    against: list[str] = field(default_factory=list)
    # mode=screen: 4 tells main effects from two-way interactions, 5 these from each other, too
    resolution: int = number(4, minimum=4, maximum=5)
    # mode=path: the cell that the path leads to, as --plan prints it
    to: str | None = None
    # Other levels for the sweep's (single) factor
    levels: list[Any] | None = unread()
    # Metric that the answer is about, instead of the sweep's own
    headline: str | None = None
    # Difference in that metric from which on it matters, instead of the metric's own
    delta: float | None = number(None, above=0, maximum=1e12)
    # mode=search: number of settings tried between the lowest and highest level
    candidates: int = number(20, minimum=1, maximum=100_000)
    # mode=search: Optuna's sampler
    sampler: str = choice("tpe", "random", "nsga2")
    # mode=search: seed of the sampler; with one worker it proposes the same settings again
    sampler_seed: int = number(0, minimum=0, maximum=MAX_SEED)
    # mode=search: metrics to optimise, several for a Pareto front; empty: the headline
    objectives: list[str] = field(default_factory=list)
    # mode=search: drop a bad setting after a seed, or while it trains
    prune: str = choice("none", "seeds", "training")
    # Where trials run: processes on this machine, SLURM jobs, or Ray tasks
    executor: str = choice("local", "slurm", "ray")
    # executor=slurm: what a job asks for
    slurm: Slurm = field(default_factory=Slurm)
    # executor=ray: the cluster, and what a trial asks for
    ray: Ray = field(default_factory=Ray)
    # Trials at once: a number, or auto (GPUs // trainer.devices, one on a CPU; 32 jobs of SLURM;
    # as many as the Ray cluster has room for)
    workers: str = "auto"
    # GPUs of this command: auto (all visible ones), or their numbers, e.g. 0,1,3
    devices: str = "auto"
    # Trials in this process, or in others; auto: others on GPUs and with workers
    launcher: str = choice("auto", "inline", "process")
    # Command that starts a trial's processes instead of torchrun, e.g. "srun torchrun …"
    launch: str | None = None
    # MLflow server or database; by default <output>/mlflow.db
    tracking_uri: str | None = folder(None)
